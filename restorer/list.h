/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list: what `restore --list` shows: generations, their snapshots, the ranges of WAL that are there,
 * holes, forks, and which generation is the latest.
 *
 * Thread: main's.
 */
#ifndef HARVEY_RESTORER_LIST_H
#define HARVEY_RESTORER_LIST_H

#include "archive/store.h"
#include "base/err.h"
#include "restorer/options.h"

/*
 * Prints to stdout, as text or as JSON. An archive that shows damage is RC_OK: it is shown.
 * RC_NOT_FOUND: empty, or not that generation. Errors of the store.
 */
RC_MUST_CHECK enum rc list_run(const struct options *options, struct stop *stop, struct err *err);

#endif
