/* SPDX-License-Identifier: Apache-2.0 */
/* lead_connections: see lead_connections.h. */
#include "replicator/lead_connections.h"

#include "base/clk.h"
#include "base/failpoint.h"
#include "replicator/replicator.h"

#include <stdio.h>
#include <string.h>

#define LEAD_JOURNAL_SIZE_LIMIT                                                                    \
    "67108864" /* the -wal shrinks to 64 MiB at the first commit after a reset */

/*
 * How a connection waits for a lock, 5 s at most. A freeze holds WRITE for some milliseconds: the steps of
 * sqlite3_busy_timeout (1, 2, 5, 10, 15 ms ...) would double what a writer waits for it.
 */
#define LEAD_BUSY_FINE_TRIES 100
#define LEAD_BUSY_FINE_US 500
#define LEAD_BUSY_MIDDLE_TRIES 90
#define LEAD_BUSY_MIDDLE_US 5000
#define LEAD_BUSY_COARSE_TRIES 180
#define LEAD_BUSY_COARSE_US 25000
_Static_assert(LEAD_BUSY_FINE_TRIES *LEAD_BUSY_FINE_US +
                       LEAD_BUSY_MIDDLE_TRIES * LEAD_BUSY_MIDDLE_US +
                       LEAD_BUSY_COARSE_TRIES * LEAD_BUSY_COARSE_US ==
                   5000000,
               "5 s in all");

enum rc lead_sqlite_fail(struct err *err, sqlite3 *db, int code, const char *what)
{
    const char *text = db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(code);
    enum rc rc = RC_IO;
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        rc = RC_BUSY;
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        rc = RC_CORRUPT;
        break;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
        rc = RC_DENIED;
        break;
    case SQLITE_NOMEM:
        rc = RC_NOMEM;
        break;
    default:
        break;
    }
    return err_set(err, rc, "%s: %s (SQLite code %d)", what, text, code);
}

static enum rc lead_exec(sqlite3 *db, const char *sql, const char *what, struct err *err)
{
    int code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? RC_OK : lead_sqlite_fail(err, db, code, what);
}

/* sqlite3_busy_handler's: 0 gives up. */
static int lead_wait_busy(void *arg, int tries)
{
    (void)arg;
    if (tries >= LEAD_BUSY_FINE_TRIES + LEAD_BUSY_MIDDLE_TRIES + LEAD_BUSY_COARSE_TRIES) {
        return 0;
    }
    clk_pause_us(tries < LEAD_BUSY_FINE_TRIES                            ? LEAD_BUSY_FINE_US
                 : tries < LEAD_BUSY_FINE_TRIES + LEAD_BUSY_MIDDLE_TRIES ? LEAD_BUSY_MIDDLE_US
                                                                         : LEAD_BUSY_COARSE_US);
    return 1;
}

enum rc replicator_configure_connection(sqlite3 *db, bool synchronous_normal, struct err *err)
{
    (void)sqlite3_busy_handler(db, lead_wait_busy, NULL);
    int on = 0;
    int code = sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, &on);
    if (code != SQLITE_OK || on != 1) {
        return err_set(err, RC_INTERNAL, "SQLite refuses NO_CKPT_ON_CLOSE (code %d)", code);
    }
    code = sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, &on);
    if (code != SQLITE_OK || on != 1) {
        return err_set(err, RC_INTERNAL, "SQLite refuses DEFENSIVE (code %d)", code);
    }
    code = sqlite3_wal_autocheckpoint(db, 0);
    if (code != SQLITE_OK) {
        return lead_sqlite_fail(err, db, code, "wal_autocheckpoint");
    }
    enum rc rc = lead_exec(db,
                           "PRAGMA cache_spill=OFF; PRAGMA mmap_size=0; PRAGMA secure_delete=OFF;"
                           "PRAGMA journal_size_limit=" LEAD_JOURNAL_SIZE_LIMIT ";",
                           "configuring a connection", err);
    if (rc == RC_OK) {
        rc = lead_exec(db,
                       synchronous_normal ? "PRAGMA synchronous=NORMAL" : "PRAGMA synchronous=FULL",
                       "configuring a connection", err);
    }
    return rc;
}

enum rc lead_connections_open_one(const char *database_path, bool create, sqlite3 **db,
                                  struct err *err)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (create ? SQLITE_OPEN_CREATE : 0);
    int code = sqlite3_open_v2(database_path, db, flags, NULL);
    if (code != SQLITE_OK) {
        enum rc rc = lead_sqlite_fail(err, *db, code, database_path);
        (void)sqlite3_close_v2(*db);
        *db = NULL;
        return rc;
    }
    enum rc rc = replicator_configure_connection(*db, false, err);
    if (rc != RC_OK) {
        (void)sqlite3_close_v2(*db);
        *db = NULL;
    }
    return rc;
}

static int lead_first_column(void *arg, int count, char **values, char **names)
{
    (void)names;
    if (count > 0 && values[0] != NULL) {
        (void)snprintf(arg, 16, "%s", values[0]);
    }
    return 0;
}

/* Switches to WAL mode where it is not yet on. */
static enum rc lead_enter_wal_mode(sqlite3 *db, bool *switched, struct err *err)
{
    char before[16] = "";
    char after[16] = "";
    int code = sqlite3_exec(db, "PRAGMA journal_mode", lead_first_column, before, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_exec(db, "PRAGMA journal_mode=WAL", lead_first_column, after, NULL);
    }
    if (code != SQLITE_OK) {
        return lead_sqlite_fail(err, db, code, "switching to WAL mode");
    }
    if (strcmp(after, "wal") != 0) {
        return err_set(err, RC_BUSY, "the database stays in journal mode \"%s\"", after);
    }
    *switched = strcmp(before, "wal") != 0;
    return RC_OK;
}

static enum rc lead_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **statement, struct err *err)
{
    int code = sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, statement, NULL);
    return code == SQLITE_OK ? RC_OK : lead_sqlite_fail(err, db, code, sql);
}

static enum rc lead_reader_prepare(struct lead_reader *reader, struct err *err)
{
    enum rc rc = lead_prepare(reader->db, "BEGIN", &reader->begin, err);
    if (rc == RC_OK) {
        rc = lead_prepare(reader->db, "SELECT rootpage FROM sqlite_schema LIMIT 1", &reader->read,
                          err);
    }
    return rc != RC_OK ? rc : lead_prepare(reader->db, "COMMIT", &reader->commit, err);
}

static enum rc lead_step(sqlite3 *db, sqlite3_stmt *statement, const char *what, struct err *err)
{
    int code = sqlite3_step(statement);
    enum rc rc =
        code == SQLITE_ROW || code == SQLITE_DONE ? RC_OK : lead_sqlite_fail(err, db, code, what);
    (void)sqlite3_reset(statement);
    return rc;
}

enum rc lead_reader_begin(struct lead_reader *reader, struct err *err)
{
    ASSERT(!reader->open);
    enum rc rc = lead_step(reader->db, reader->begin, "BEGIN", err);
    if (rc != RC_OK) {
        return rc;
    }
    reader->open = true;
    rc = lead_step(reader->db, reader->read, "opening a read transaction", err);
    if (rc != RC_OK) {
        lead_reader_end(reader);
    }
    return rc;
}

void lead_reader_end(struct lead_reader *reader)
{
    if (reader->open) {
        struct err err;
        if (lead_step(reader->db, reader->commit, "COMMIT", &err) != RC_OK) {
            (void)sqlite3_exec(reader->db, "ROLLBACK", NULL, NULL, NULL);
        }
        reader->open = false;
        ASSERT(sqlite3_get_autocommit(reader->db) != 0);
    }
}

enum rc lead_begin_read(sqlite3 *db, struct err *err)
{
    return lead_exec(db, "BEGIN; SELECT rootpage FROM sqlite_schema LIMIT 1;",
                     "opening a read transaction", err);
}

enum rc lead_connections_read_all(struct lead_connections *c, struct err *err)
{
    sqlite3 *all[] = {c->readers[0].db, c->readers[1].db, c->checkpoint_db, c->lock_db,
                      c->write_db};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        enum rc rc =
            lead_exec(all[i], "SELECT rootpage FROM sqlite_schema LIMIT 1", "first read", err);
        if (rc != RC_OK) {
            return rc;
        }
    }
    return RC_OK;
}

enum rc lead_connections_open(struct lead_connections *c, const char *database_path, bool create,
                              bool normal, bool *switched, struct err *err)
{
    *c = (struct lead_connections){0};
    sqlite3 **all[] = {&c->write_db, &c->readers[0].db, &c->readers[1].db, &c->checkpoint_db,
                       &c->lock_db};
    enum rc rc = RC_OK;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && rc == RC_OK; i++) {
        rc = lead_connections_open_one(database_path, create && i == 0, all[i], err);
        if (rc == RC_OK && i == 0) {
            rc = lead_enter_wal_mode(c->write_db, switched, err);
        }
    }
    if (rc == RC_OK && normal) {
        rc = replicator_configure_connection(c->write_db, true, err);
    }
    if (rc == RC_OK) {
        rc = lead_connections_read_all(c, err);
    }
    for (int i = 0; i < 2 && rc == RC_OK; i++) {
        rc = lead_reader_prepare(&c->readers[i], err);
    }
    if (rc == RC_OK) {
        rc = wal_index_open(&c->index, c->write_db, err);
    }
    if (rc == RC_OK) {
        rc = wal_index_open(&c->lock_index, c->lock_db, err);
    }
    if (rc != RC_OK) {
        lead_connections_close(c);
        return err_prefix(err, "opening %s", database_path);
    }
    return RC_OK;
}

void lead_connections_close(struct lead_connections *c)
{
    for (int i = 0; i < 2; i++) {
        struct lead_reader *reader = &c->readers[i];
        if (reader->db != NULL) {
            lead_reader_end(reader);
            (void)sqlite3_finalize(reader->begin);
            (void)sqlite3_finalize(reader->read);
            (void)sqlite3_finalize(reader->commit);
        }
    }
    lead_release_write(c);
    lead_release_checkpoint(c); /* before K is closed: else the lock stays stuck in this process */
    (void)sqlite3_close_v2(c->readers[0].db);
    (void)sqlite3_close_v2(c->readers[1].db);
    (void)sqlite3_close_v2(c->checkpoint_db);
    (void)sqlite3_close_v2(c->lock_db);
    (void)sqlite3_close_v2(c->write_db);
    *c = (struct lead_connections){0};
}

static enum rc lead_take(const struct wal_index *index, enum wal_lock lock, int64_t budget_ms,
                         struct err *err)
{
    int64_t deadline_us = clk_monotonic_us() + budget_ms * 1000;
    enum rc rc;
    while ((rc = wal_index_lock(index, lock, err)) == RC_BUSY && clk_monotonic_us() < deadline_us) {
        struct timespec pause = {.tv_sec = 0, .tv_nsec = 100000};
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
    return rc;
}

enum rc lead_take_write(struct lead_connections *c, int64_t budget_ms, struct err *err)
{
    ASSERT(!c->holds_write);
    enum rc rc = lead_take(&c->index, WAL_LOCK_WRITE, budget_ms, err);
    c->holds_write = rc == RC_OK;
    return rc;
}

void lead_release_write(struct lead_connections *c)
{
    if (c->holds_write) {
        wal_index_unlock(&c->index, WAL_LOCK_WRITE);
        c->holds_write = false;
    }
}

enum rc lead_take_checkpoint(struct lead_connections *c, int64_t budget_ms, struct err *err)
{
    ASSERT(!c->holds_checkpoint);
    if (FAILPOINT_SWITCH("NO_CKPT_LOCK")) {
        return RC_OK; /* a test looks at what this lock is for */
    }
    enum rc rc = lead_take(&c->lock_index, WAL_LOCK_CHECKPOINT, budget_ms, err);
    c->holds_checkpoint = rc == RC_OK;
    return rc;
}

void lead_release_checkpoint(struct lead_connections *c)
{
    if (c->holds_checkpoint) {
        wal_index_unlock(&c->lock_index, WAL_LOCK_CHECKPOINT);
        c->holds_checkpoint = false;
    }
}
