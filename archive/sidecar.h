/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sidecar: names in `<database>-harvey/`, the folder beside a database that holds what is ours:
 *   leader.lock   serving.lock   open.lock   state   spool/   snapshot/   restored.json   health.sock
 *
 * Thread: any (pure functions).
 */
#ifndef HARVEY_ARCHIVE_SIDECAR_H
#define HARVEY_ARCHIVE_SIDECAR_H

#include "base/err.h"
#include "base/fsio.h"

struct sidecar {
    char database[FSIO_PATH_BYTES];
    char wal[FSIO_PATH_BYTES];
    char shm[FSIO_PATH_BYTES];
    char journal[FSIO_PATH_BYTES]; /* <database>-journal */
    char dir[FSIO_PATH_BYTES];     /* <database>-harvey */
    char leader_lock[FSIO_PATH_BYTES];
    char serving_lock[FSIO_PATH_BYTES]; /* held by a leader whose start was passed */
    char open_lock[FSIO_PATH_BYTES];    /* shared by servers behind a door that let clients in */
    char state[FSIO_PATH_BYTES];
    char spool[FSIO_PATH_BYTES];
    char snapshot[FSIO_PATH_BYTES];
    char restored[FSIO_PATH_BYTES];
    char health_socket[FSIO_PATH_BYTES];
};

/* RC_LIMIT when the database's path is too long (FSIO_PATH_BYTES - 64), RC_INVALID when empty. */
RC_MUST_CHECK enum rc sidecar_init(struct sidecar *sidecar, const char *database_path,
                                   struct err *err);

#endif
