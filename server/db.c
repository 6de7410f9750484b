/* SPDX-License-Identifier: Apache-2.0 */
/* db: see db.h. */
#include "server/db.h"

#include "base/fsio.h"
#include "base/log.h"
#include "replicator/replicator.h"

#include <stdio.h>
#include <string.h>

#define DB_READER_BUSY_MS 50

static void log_sqlite(void *arg, int code, const char *text)
{
    (void)arg;
    int primary = code & 0xff;
    if (primary == SQLITE_NOTICE || primary == SQLITE_SCHEMA) {
        log_debug("sqlite", "%s  code=%d", text, code);
    } else {
        log_warn("sqlite", "%s  code=%d", text, code);
    }
}

enum rc db_initialize(struct err *err)
{
    /* The statistics' mutex is hot in Debian's build, which has no lookaside. */
    if (sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) != SQLITE_OK ||
        sqlite3_config(SQLITE_CONFIG_LOG, log_sqlite, NULL) != SQLITE_OK ||
        sqlite3_initialize() != SQLITE_OK) {
        return err_set(err, RC_INTERNAL, "SQLite refuses its settings");
    }
    if (sqlite3_threadsafe() == 0) {
        return err_set(err, RC_INTERNAL, "this SQLite was built without threads");
    }
    return RC_OK;
}

static enum rc rc_of_sqlite(int code)
{
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        return RC_BUSY;
    case SQLITE_FULL:
    case SQLITE_TOOBIG:
        return RC_LIMIT;
    case SQLITE_NOMEM:
        return RC_NOMEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
        return RC_CORRUPT;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
        return RC_DENIED;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_NOLFS:
        return RC_IO;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_RANGE:
        return RC_INVALID;
    default:
        return RC_INTERNAL;
    }
}

enum rc db_fail(struct err *err, sqlite3 *handle, const char *what)
{
    int code = handle == NULL ? SQLITE_NOMEM : sqlite3_extended_errcode(handle);
    return err_set(err, rc_of_sqlite(code), "%s: %s (SQLite code %d)", what,
                   handle == NULL ? "out of memory" : sqlite3_errmsg(handle), code);
}

enum rc db_run(sqlite3 *handle, const char *sql, struct err *err)
{
    return sqlite3_exec(handle, sql, NULL, NULL, NULL) == SQLITE_OK ? RC_OK
                                                                    : db_fail(err, handle, sql);
}

enum rc db_prepare(sqlite3 *handle, const char *sql, sqlite3_stmt **statement, struct err *err)
{
    return sqlite3_prepare_v3(handle, sql, -1, SQLITE_PREPARE_PERSISTENT, statement, NULL) ==
                   SQLITE_OK
               ? RC_OK
               : db_fail(err, handle, sql);
}

enum rc db_step(sqlite3_stmt *statement, struct err *err)
{
    enum rc rc = RC_OK;
    if (sqlite3_step(statement) != SQLITE_DONE) {
        rc = db_fail(err, sqlite3_db_handle(statement), sqlite3_sql(statement));
    }
    (void)sqlite3_reset(statement);
    return rc;
}

/* PRAGMA journal_mode=WAL answers the mode that holds afterwards instead of failing. */
static enum rc switch_to_wal(sqlite3 *handle, struct err *err)
{
    sqlite3_stmt *statement = NULL;
    enum rc rc = db_prepare(handle, "PRAGMA journal_mode=WAL", &statement, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (sqlite3_step(statement) != SQLITE_ROW) {
        rc = db_fail(err, handle, "PRAGMA journal_mode=WAL");
    } else if (sqlite3_stricmp((const char *)sqlite3_column_text(statement, 0), "wal") != 0) {
        rc = err_set(err, RC_IO, "the database cannot be switched to WAL mode here");
    }
    (void)sqlite3_finalize(statement);
    return rc;
}

static enum rc read_identity(const char *path, struct db_identity *identity, struct err *err)
{
    struct fsio_stat stat;
    enum rc rc = fsio_stat(path, &stat, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (!stat.exists) {
        return err_set(err, RC_NOT_FOUND, "%s was deleted or renamed", path);
    }
    *identity = (struct db_identity){stat.device, stat.inode, stat.links};
    return RC_OK;
}

bool db_is_in_place(const struct db *db, const char *path, struct err *err)
{
    struct db_identity now = {0};
    if (read_identity(path, &now, err) != RC_OK) {
        return false;
    }
    if (now.device != db->identity.device || now.inode != db->identity.inode) {
        (void)err_set(err, RC_IO, "%s was replaced by another file", path);
        return false;
    }
    if (now.links != db->identity.links) {
        (void)err_set(err, RC_IO, "%s has %llu hard links now, %llu when it was opened", path,
                      (unsigned long long)now.links, (unsigned long long)db->identity.links);
        return false;
    }
    return true;
}

/* The identity of the file that `handle` has open, by way of its path. */
static enum rc note_identity(struct db *db, const char *path, struct err *err)
{
    int has_moved = 0;
    enum rc rc = read_identity(path, &db->identity, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (db->identity.links != 1) {
        return err_set(err, RC_INVALID,
                       "%s has %llu hard links: its -wal goes by one name only; remove the others",
                       path, (unsigned long long)db->identity.links);
    }
    if (sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_HAS_MOVED, &has_moved) != SQLITE_OK ||
        has_moved != 0) {
        return err_set(err, RC_IO, "%s was replaced while it was being opened", path);
    }
    return RC_OK;
}

static enum rc configure(struct db *db, const char *path, enum db_purpose purpose,
                         bool synchronous_normal, struct err *err)
{
    enum rc rc = note_identity(db, path, err);
    if (rc == RC_OK) {
        rc = replicator_configure_connection(db->handle, synchronous_normal, err);
    }
    if (rc == RC_OK) {
        rc = purpose == DB_WRITES ? switch_to_wal(db->handle, err)
                                  : db_run(db->handle, "PRAGMA query_only=ON", err);
    }
    if (rc == RC_OK && purpose == DB_READS) {
        /* Its thread may not wait: a reader meets a lock only while a WAL is recovered. */
        (void)sqlite3_busy_timeout(db->handle, DB_READER_BUSY_MS);
    }
    return rc;
}

enum rc db_open(struct db *db, const char *path, enum db_purpose purpose, bool synchronous_normal,
                struct err *err)
{
    /* No reader needs SQLITE_OPEN_READONLY: in WAL mode it writes the -shm too. */
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                (purpose == DB_WRITES ? SQLITE_OPEN_CREATE : 0);
    enum rc rc = RC_OK;
    ASSERT(db->handle == NULL);
    if (sqlite3_open_v2(path, &db->handle, flags, NULL) != SQLITE_OK) {
        rc = db_fail(err, db->handle, "open");
    } else {
        rc = configure(db, path, purpose, synchronous_normal, err);
    }
    if (rc != RC_OK) {
        (void)err_prefix(err, "opening %s", path);
        db_close(db);
    }
    return rc;
}

void db_close(struct db *db)
{
    if (db->handle != NULL) {
        int code = sqlite3_close(db->handle);
        ASSERT(code == SQLITE_OK); /* a statement was left behind */
        db->handle = NULL;
    }
}
