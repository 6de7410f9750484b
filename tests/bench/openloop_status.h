/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The number of rows, asked from GET /status before and after a run. A control request, not a
 * measured one: it blocks, and it is repeated for a while when the server is between two releases.
 */
#ifndef OPENLOOP_STATUS_H
#define OPENLOOP_STATUS_H

#include "base/err.h"
#include "tests/bench/openloop_options.h"

#include <stdint.h>

/*
 * Reads "Total rows: N" from the first line of /status. RC_UNAVAILABLE when no such answer came
 * within ten seconds.
 */
RC_MUST_CHECK enum rc openloop_status_get_rows(const struct openloop_options *options,
                                               int64_t *rows, struct err *err);

/* The same line out of a body; RC_INVALID when it is not there. */
RC_MUST_CHECK enum rc openloop_status_parse_rows(const char *body, int64_t *rows, struct err *err);

#endif
