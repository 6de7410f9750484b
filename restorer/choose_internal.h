/* SPDX-License-Identifier: Apache-2.0 */
/* choose_internal: what choose.c and choose_time.c share. See choose.h. */
#ifndef HARVEY_RESTORER_CHOOSE_INTERNAL_H
#define HARVEY_RESTORER_CHOOSE_INTERNAL_H

#include "restorer/choose.h"

/* The snapshot list of a generation, repeated when the store does not answer. Errors of the store. */
RC_MUST_CHECK enum rc choose_load(const struct choose_source *source,
                                  struct catalog_generation *generation, struct err *err);

/* The generation that was live at the request's time: choose_time.c. Errors as in choose.h. */
RC_MUST_CHECK enum rc choose_by_time(const struct choose_source *source,
                                     struct choose_result *result, struct err *err);

#endif
