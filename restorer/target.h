/* SPDX-License-Identifier: Apache-2.0 */
/*
 * target: the place a restore writes to: refused when something is there, locked from the first look
 * to the rename, a temporary file beside it, and the last step that makes it a database.
 *
 * <target>-harvey/leader.lock is the lock that a live server holds. Under it:
 *   - what killed restores left (<target>.restoring-<pid>) is removed: nobody else can be writing it;
 *   - the marker <target>-harvey/restored.json is durable before the database has its name: a crash
 *     between the two leaves a marker that fits no file, never a database without a marker;
 *   - rename never replaces: a file that appeared meanwhile stays.
 * With `replace` the old database goes aside first, then -wal, -shm, -journal, -harvey: a crash in
 * between leaves a -wal without a database, which a start refuses, never a database without its
 * -wal. The new -harvey folder is made, locked and marked under a name of its own and then changes
 * places with the old one, so the lock is held without a gap.
 *
 * Errors: RC_EXISTS, RC_BUSY; RC_IO and RC_LIMIT for everything that fails locally, permissions too.
 * Thread: the owner's.
 */
#ifndef HARVEY_RESTORER_TARGET_H
#define HARVEY_RESTORER_TARGET_H

#include "archive/history_format.h"
#include "archive/sidecar.h"
#include "base/err.h"
#include "base/fsio.h"
#include "base/lockfile.h"

#include <stdbool.h>
#include <stdint.h>

struct target {
    struct sidecar sidecar;
    char dir[FSIO_PATH_BYTES];         /* of the database */
    char temp[FSIO_PATH_BYTES];        /* <target>.restoring-<pid> */
    char new_sidecar[FSIO_PATH_BYTES]; /* <target>-harvey.restoring-<pid>, with replace */
    struct lockfile lock;
    struct lockfile new_lock;
    bool replace;
    bool made_sidecar; /* the -harvey folder was not there before */
    bool is_done;      /* the database has its name */
    int fd;            /* of the temporary file; -1 = none */
};

/*
 * Looks, locks, removes leftovers, makes the temporary file. `path` = the database to be.
 * RC_INVALID: not a usable path. On an error nothing of ours stays.
 */
RC_MUST_CHECK enum rc target_open(struct target *target, const char *path, bool replace,
                                  struct err *err);

/* Empties the temporary file. RC_LIMIT when the filesystem has not that much room. */
RC_MUST_CHECK enum rc target_check_space(const struct target *target, uint64_t bytes,
                                         struct err *err);

/*
 * The last step; the temporary file is whole and fsynced. Fills inode, size and mtime of `marker` and
 * writes it. `moved_aside` (FSIO_PATH_BYTES) gets the new name of what was there, or "".
 */
RC_MUST_CHECK enum rc target_commit(struct target *target, struct restored_marker *marker,
                                    char *moved_aside, struct err *err);

/* Removes what is not finished, frees the locks. Legal on a target that target_open refused. */
void target_close(struct target *target);

#endif
