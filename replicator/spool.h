/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spool: `<database>-harvey/spool/`: cut segments that the archive has not confirmed, each a file
 * under its own key. A segment gets its name by a rename, so a name is always a whole object. Files
 * are not synced as they are made (the frames are still in the -wal); they are before a WAL reset.
 *
 * Thread: any function from any thread; the caller keeps two writers off one key.
 */
#ifndef HARVEY_REPLICATOR_SPOOL_H
#define HARVEY_REPLICATOR_SPOOL_H

#include "base/err.h"
#include "base/fsio.h"

#include <stddef.h>
#include <stdint.h>

struct spool {
    char dir[FSIO_PATH_BYTES];
};

/* Makes the folder. RC_IO, RC_DENIED. */
RC_MUST_CHECK enum rc spool_open(struct spool *spool, const char *dir, struct err *err);

/* Path of a key's file. RC_LIMIT. */
RC_MUST_CHECK enum rc spool_path(const struct spool *spool, const char *key,
                                 char path[FSIO_PATH_BYTES], struct err *err);

/* Writes the object under its key. RC_IO (a full disk among others), RC_DENIED. */
RC_MUST_CHECK enum rc spool_write(struct spool *spool, const char *key, const void *object,
                                  size_t count, struct err *err);

/* Makes the file and its name durable. RC_IO, RC_NOT_FOUND. */
RC_MUST_CHECK enum rc spool_sync(const struct spool *spool, const char *key, struct err *err);

/* Removes it; a missing file is fine. */
RC_MUST_CHECK enum rc spool_remove(const struct spool *spool, const char *key, struct err *err);

#endif
