/* SPDX-License-Identifier: Apache-2.0 */
/*
 * db: the server's SQLite connections (one that writes, one that reads): how they are opened, how
 * SQLite's codes become ours, and which file a connection was opened on.
 *
 * A database may be replaced, renamed or deleted under a running server; SQLite would go on writing
 * into the file that lost its name. So a connection notes device, inode and link count of the path
 * when it opens, and the writer compares after each COMMIT. The path is only ever looked at with
 * stat(2): opening and closing it would drop SQLite's locks.
 *
 * Thread: a connection belongs to the thread that opened it.
 */
#ifndef HARVEY_SERVER_DB_H
#define HARVEY_SERVER_DB_H

#include "base/err.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

enum db_purpose {
    DB_WRITES, /* creates the file where it is missing, switches WAL mode on */
    DB_READS,  /* the file must be there; query_only */
};

struct db_identity {
    uint64_t device;
    uint64_t inode;
    uint64_t links;
};

struct db {
    sqlite3 *handle; /* NULL while closed */
    struct db_identity identity;
};

/* Process-wide settings of SQLite, before anything opens a database. RC_INTERNAL. */
RC_MUST_CHECK enum rc db_initialize(struct err *err);

/*
 * Opens `path` with the settings of replicator_configure_connection and DEFENSIVE. RC_BUSY, RC_IO,
 * RC_DENIED, RC_LIMIT (disk full), RC_NOMEM, RC_CORRUPT (no database), RC_NOT_FOUND,
 * RC_INVALID (the file has several hard links).
 */
RC_MUST_CHECK enum rc db_open(struct db *db, const char *path, enum db_purpose purpose,
                              bool synchronous_normal, struct err *err);

/* All statements must be finalized before. Legal while closed. */
void db_close(struct db *db);

/* True when `path` still names the file that was opened; else RC text says what happened. */
bool db_is_in_place(const struct db *db, const char *path, struct err *err);

/* SQLite's last error on `handle` as ours, with "what: " before its text. */
enum rc db_fail(struct err *err, sqlite3 *handle, const char *what);

/* Runs SQL without results. */
RC_MUST_CHECK enum rc db_run(sqlite3 *handle, const char *sql, struct err *err);

/* Prepares a statement for the connection's life. */
RC_MUST_CHECK enum rc db_prepare(sqlite3 *handle, const char *sql, sqlite3_stmt **statement,
                                 struct err *err);

/* Runs a prepared statement without results and resets it. */
RC_MUST_CHECK enum rc db_step(sqlite3_stmt *statement, struct err *err);

#endif
