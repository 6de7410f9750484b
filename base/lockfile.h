/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockfile: a lock on a file, exclusive or shared, held by an open file description (fcntl F_OFD_SETLK,
 * fcntl(2)): freed by the kernel on any death of the holder, seen by every process and container of
 * the same kernel. The file's contents mean nothing.
 *
 * Thread: any; a handle belongs to one thread at a time.
 */
#ifndef HARVEY_BASE_LOCKFILE_H
#define HARVEY_BASE_LOCKFILE_H

#include "base/err.h"

#include <stdint.h>

struct lockfile {
    int fd; /* -1 while not held */
};

#define LOCKFILE_INIT                                                                              \
    {                                                                                              \
        -1                                                                                         \
    }

/* Creates the file if need be and takes the lock: RC_BUSY at once when somebody holds it. RC_IO. */
RC_MUST_CHECK enum rc lockfile_try(struct lockfile *lock, const char *path, struct err *err);

/* The same, shared: others may share it too, nobody has it alone. */
RC_MUST_CHECK enum rc lockfile_share(struct lockfile *lock, const char *path, struct err *err);

/* RC_OK when nobody holds it, RC_BUSY when somebody does, RC_NOT_FOUND without the file. Takes nothing. */
RC_MUST_CHECK enum rc lockfile_probe(const char *path, struct err *err);

/* The same of one byte, which others lock for their own ends (POSIX locks too, of this process as well). */
RC_MUST_CHECK enum rc lockfile_probe_byte(const char *path, int64_t offset, struct err *err);

/* Frees it; legal when not held. */
void lockfile_release(struct lockfile *lock);

#endif
