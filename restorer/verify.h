/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify: SQLite's own check of the finished file, before it gets its name: PRAGMA integrity_check or
 * quick_check. The hashes prove that the bytes are those that were archived; this proves that they
 * are a database.
 *
 * The file is opened immutable: no lock, no -wal, no -shm beside it, although its header says WAL.
 * The one file of this room that calls SQLite.
 *
 * Thread: the calling thread waits; SQLite runs on one of its own, so the wait sees `stop` and can
 * sync the file meanwhile.
 */
#ifndef HARVEY_RESTORER_VERIFY_H
#define HARVEY_RESTORER_VERIFY_H

#include "base/err.h"
#include "base/stop.h"
#include "restorer/restorer.h"

struct verify;

/* Starts the check of `path` (borrowed until verify_finish); RESTORE_INTEGRITY_NONE checks nothing. */
RC_MUST_CHECK enum rc verify_start(const char *path, enum restore_integrity integrity,
                                   struct verify **verify, struct err *err);

/*
 * Waits for its verdict and frees it (NULL: RC_OK). `tick` (may be NULL) is called every 100 ms.
 * RC_CORRUPT with SQLite's first complaint; RC_STOPPED when `stop` (may be NULL) reaches STOP_NOW;
 * RC_IO, RC_NOMEM, RC_INTERNAL (the check itself cannot run, e.g. an unknown collation).
 */
RC_MUST_CHECK enum rc verify_finish(struct verify *verify, struct stop *stop,
                                    void (*tick)(void *arg), void *tick_arg, struct err *err);

#endif
