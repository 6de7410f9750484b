/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lead_connections: the leader's five connections to the database (protocol in docs/concurrency.md):
 *   A, B   alternate in holding the read transaction that keeps the WAL from being reset
 *   C      runs checkpoints
 *   K      holds the WAL's checkpoint lock by xShmLock, nothing else
 *   W      holds the WAL's write lock by xShmLock, and runs the one write that begins a WAL anew
 *
 * Thread: the leader's.
 */
#ifndef HARVEY_REPLICATOR_LEAD_CONNECTIONS_H
#define HARVEY_REPLICATOR_LEAD_CONNECTIONS_H

#include "base/err.h"
#include "replicator/wal_index.h"

#include <sqlite3.h>
#include <stdbool.h>

struct lead_reader {
    sqlite3 *db;
    sqlite3_stmt *begin;
    sqlite3_stmt *read;
    sqlite3_stmt *commit;
    bool open; /* inside its read transaction */
};

struct lead_connections {
    struct lead_reader readers[2];
    int current; /* the reader that holds the transaction */
    sqlite3 *checkpoint_db;
    sqlite3 *lock_db;            /* K */
    sqlite3 *write_db;           /* W */
    struct wal_index index;      /* of W: header and WRITE */
    struct wal_index lock_index; /* of K: CKPT */
    bool holds_write;
    bool holds_checkpoint;
};

/*
 * Opens all five and runs one read on each (that recovers the wal-index where need be). With
 * `create` a missing database is made; one in rollback-journal mode is switched to WAL mode, and
 * *switched says so. RC_BUSY: somebody holds the database. RC_CORRUPT: not a database. RC_IO, RC_DENIED.
 */
RC_MUST_CHECK enum rc lead_connections_open(struct lead_connections *connections,
                                            const char *database_path, bool create, bool normal,
                                            bool *switched, struct err *err);

/* Frees all locks and transactions, closes. Legal after a failed open. */
void lead_connections_close(struct lead_connections *connections);

/* One more connection like these: for a snapshot. RC_IO, RC_BUSY. */
RC_MUST_CHECK enum rc lead_connections_open_one(const char *database_path, bool create,
                                                sqlite3 **db, struct err *err);

/* Opens the read transaction of a reader (0 = A, 1 = B) / of any connection, with a real read. RC_BUSY, RC_IO. */
RC_MUST_CHECK enum rc lead_reader_begin(struct lead_reader *reader, struct err *err);
void lead_reader_end(struct lead_reader *reader);
RC_MUST_CHECK enum rc lead_begin_read(sqlite3 *db, struct err *err);

/* One read on each connection that is in no transaction: recovery needs the checkpoint lock free. */
RC_MUST_CHECK enum rc lead_connections_read_all(struct lead_connections *connections,
                                                struct err *err);

/* WRITE and CKPT, at once or within budget_ms; RC_BUSY. */
RC_MUST_CHECK enum rc lead_take_write(struct lead_connections *connections, int64_t budget_ms,
                                      struct err *err);
void lead_release_write(struct lead_connections *connections);
RC_MUST_CHECK enum rc lead_take_checkpoint(struct lead_connections *connections, int64_t budget_ms,
                                           struct err *err);
void lead_release_checkpoint(struct lead_connections *connections);

/* Translates a SQLite result code. */
enum rc lead_sqlite_fail(struct err *err, sqlite3 *db, int code, const char *what);

#endif
