/* SPDX-License-Identifier: Apache-2.0 */
/* sidecar: see sidecar.h. */
#include "archive/sidecar.h"

#include <stdio.h>
#include <string.h>

#define SIDECAR_ROOM_BYTES 64 /* for what is appended to the database's path */

/* The length was checked: none of these is cut. */
static void sidecar_name(char path[FSIO_PATH_BYTES], const char *front, const char *back)
{
    int n = snprintf(path, FSIO_PATH_BYTES, "%s%s", front, back);
    ASSERT(n > 0);
    ASSERT(n < FSIO_PATH_BYTES);
}

enum rc sidecar_init(struct sidecar *sidecar, const char *database_path, struct err *err)
{
    size_t count = strlen(database_path);
    if (count == 0) {
        return err_set(err, RC_INVALID, "the database's path is empty");
    }
    if (count > FSIO_PATH_BYTES - SIDECAR_ROOM_BYTES) {
        return err_set(err, RC_LIMIT, "the database's path has %zu bytes, at most %d are possible",
                       count, FSIO_PATH_BYTES - SIDECAR_ROOM_BYTES);
    }
    sidecar_name(sidecar->database, database_path, "");
    sidecar_name(sidecar->wal, database_path, "-wal");
    sidecar_name(sidecar->shm, database_path, "-shm");
    sidecar_name(sidecar->journal, database_path, "-journal");
    sidecar_name(sidecar->dir, database_path, "-harvey");
    sidecar_name(sidecar->leader_lock, sidecar->dir, "/leader.lock");
    sidecar_name(sidecar->serving_lock, sidecar->dir, "/serving.lock");
    sidecar_name(sidecar->open_lock, sidecar->dir, "/open.lock");
    sidecar_name(sidecar->state, sidecar->dir, "/state");
    sidecar_name(sidecar->spool, sidecar->dir, "/spool");
    sidecar_name(sidecar->snapshot, sidecar->dir, "/snapshot");
    sidecar_name(sidecar->restored, sidecar->dir, "/restored.json");
    sidecar_name(sidecar->health_socket, sidecar->dir, "/health.sock");
    return RC_OK;
}
