/* SPDX-License-Identifier: Apache-2.0 */
/*
 * orphan: a generation's objects without its birth. A birth is put before anything else of its
 * generation, so one that is missing was lost; without this look a restore would silently give what
 * the generation before it held.
 *
 * Thread: the owner's.
 */
#ifndef HARVEY_RESTORER_ORPHAN_H
#define HARVEY_RESTORER_ORPHAN_H

#include "archive/catalog.h"
#include "archive/position.h"
#include "archive/store.h"
#include "base/err.h"
#include "base/stop.h"

/* catalog_find_orphan, asked again while the store does not answer. */
RC_MUST_CHECK enum rc orphan_find(struct store *store, struct stop *stop,
                                  const struct generation_id *newest, struct generation_id *orphan,
                                  struct err *err);

/* Adds a generation of which only the id is known to the catalog, in its place. RC_NOMEM. */
RC_MUST_CHECK enum rc orphan_adopt(struct catalog *catalog, const struct generation_id *id,
                                   struct err *err);

#endif
