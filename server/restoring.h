/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restoring: what the replicator calls for HARVEY_ON_EMPTY=restore and HARVEY_ON_STALE=restore: waits
 * until this process has the database closed, then runs the restorer to the latest state.
 *
 * Thread: create: main. restoring_run: the replicator's.
 */
#ifndef HARVEY_SERVER_RESTORING_H
#define HARVEY_SERVER_RESTORING_H

#include "archive/store.h"
#include "base/err.h"
#include "base/stop.h"
#include "server/backend.h"
#include "server/writer.h"

#include <stdbool.h>

struct restoring { /* all borrowed */
    const struct store_config *store;
    const char *database_path;
    struct stop *stop;
    struct writer *writer;   /* set before the replicator starts */
    struct backend *backend; /* likewise */
};

/* `arg` is a struct restoring. restorer_run's codes; RC_BUSY: the database does not get closed. */
RC_MUST_CHECK enum rc restoring_run(void *arg, bool replace, struct err *err);

#endif
