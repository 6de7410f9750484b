/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report: what bin/restore says at its end: a summary for a person or one JSON object on stdout;
 * an error is one line on stderr (what, where, cure) and, with --json, an object on stdout too.
 *
 * Thread: main's.
 */
#ifndef HARVEY_RESTORER_REPORT_H
#define HARVEY_RESTORER_REPORT_H

#include "base/err.h"
#include "restorer/options.h"
#include "restorer/restorer.h"

/* Of a restore or a dry run that succeeded. Returns the exit status: 0, or 1 when stdout fails. */
int report_result(const struct options *options, const struct restore_result *result);

/* Of anything that failed; `result` may be NULL (usage, --list). Returns the exit status. */
int report_error(const struct options *options, const struct restore_result *result,
                 const struct err *err);

#endif
