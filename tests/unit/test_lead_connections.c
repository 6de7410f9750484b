/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lead_connections: the five connections on a real database, and what a stranger's connection can and
 * cannot do while they hold a transaction or a lock.
 */
#include "replicator/lead_connections.h"

#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <stdio.h>
#include <unistd.h>

static struct scratch scratch;
static struct err err;
static char path[SCRATCH_PATH_BYTES];
static struct lead_connections lead;
static sqlite3 *other;
static bool switched;

static int setup(void **state)
{
    (void)state;
    scratch_init(&scratch);
    err = (struct err)ERR_INIT;
    lead = (struct lead_connections){0};
    switched = false;
    (void)snprintf(path, sizeof path, "%s", scratch_path(&scratch, "state.db"));
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lead_connections_close(&lead);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    scratch_deinit(&scratch);
    return 0;
}

static int try_sql(const char *sql)
{
    return sqlite3_exec(other, sql, NULL, NULL, NULL);
}

static int number(sqlite3 *handle, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_prepare_v2(handle, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int value = sqlite3_column_int(statement, 0);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    return value;
}

static void open_all(void)
{
    assert_int_equal(try_sql("PRAGMA wal_autocheckpoint=0; PRAGMA journal_mode=WAL;"
                             "CREATE TABLE test (value); INSERT INTO test VALUES (1)"),
                     SQLITE_OK);
    check_ok(lead_connections_open(&lead, path, false, false, &switched, &err));
}

static void test_lead_connections__switches_to_wal_mode(void **state)
{
    (void)state;
    assert_int_equal(try_sql("CREATE TABLE test (value)"), SQLITE_OK);
    check_ok(lead_connections_open(&lead, path, false, false, &switched, &err));
    assert_true(switched);
    lead_connections_close(&lead);
    check_ok(lead_connections_open(&lead, path, false, false, &switched, &err));
    assert_false(switched);
}

static void test_lead_connections__creates_only_when_told(void **state)
{
    (void)state;
    const char *none = scratch_path(&scratch, "none.db");
    assert_int_not_equal(lead_connections_open(&lead, none, false, false, &switched, &err), RC_OK);
    check_text(none);
    assert_int_equal(access(none, F_OK), -1);
    check_ok(lead_connections_open(&lead, none, true, false, &switched, &err));
    assert_int_equal(access(none, F_OK), 0);
}

static void test_lead_connections__what_is_no_database(void **state)
{
    (void)state;
    const char *bad = scratch_path(&scratch, "bad.db");
    FILE *file = fopen(bad, "w");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++) {
        (void)fputs("no database at all\n", file);
    }
    assert_int_equal(fclose(file), 0);
    check_fails(RC_CORRUPT, lead_connections_open(&lead, bad, false, false, &switched, &err));
}

/* As every connection of the server must be: no checkpoint of its own, not at its end either. */
static void test_lead_connections__settings(void **state)
{
    (void)state;
    sqlite3 *one = NULL;
    char wal[SCRATCH_PATH_BYTES + 8];
    int on = 0;
    open_all();
    check_ok(lead_connections_open_one(path, false, &one, &err));
    assert_int_equal(number(one, "PRAGMA wal_autocheckpoint"), 0);
    assert_int_equal(number(one, "PRAGMA synchronous"), 2);
    assert_int_equal(number(one, "PRAGMA journal_size_limit"), 64 << 20);
    assert_int_equal(sqlite3_db_config(one, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, -1, &on), SQLITE_OK);
    assert_int_equal(on, 1);
    assert_int_equal(sqlite3_db_config(one, SQLITE_DBCONFIG_DEFENSIVE, -1, &on), SQLITE_OK);
    assert_int_equal(on, 1);
    assert_int_equal(number(one, "PRAGMA cache_spill"), 0);
    assert_int_equal(number(lead.write_db, "PRAGMA synchronous"), 2);
    lead_connections_close(&lead);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    assert_int_equal(sqlite3_close(one), SQLITE_OK); /* the last one */
    (void)snprintf(wal, sizeof wal, "%s-wal", path);
    assert_int_equal(access(wal, F_OK), 0);
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    check_ok(lead_connections_open(&lead, path, false, true, &switched, &err));
    assert_int_equal(number(lead.write_db, "PRAGMA synchronous"), 1);
    assert_int_equal(number(lead.checkpoint_db, "PRAGMA synchronous"), 2);
}

/* A read transaction keeps the WAL from being reset; its end lets it go. */
static void test_lead_connections__a_reader_keeps_the_wal(void **state)
{
    (void)state;
    struct wal_index_header before;
    struct wal_index_header after;
    open_all();
    check_ok(lead_reader_begin(&lead.readers[0], &err));
    check_ok(wal_index_read(&lead.index, &before, &err));
    assert_int_equal(number(other, "PRAGMA wal_checkpoint(RESTART)"), 1);
    assert_int_equal(try_sql("INSERT INTO test VALUES (2)"), SQLITE_OK);
    check_ok(wal_index_read(&lead.index, &after, &err));
    assert_true(wal_salts_equal(after.salts, before.salts));
    lead_reader_end(&lead.readers[0]);
    lead_reader_end(&lead.readers[0]); /* legal */
    assert_int_equal(number(other, "PRAGMA wal_checkpoint(RESTART)"), 0);
    assert_int_equal(try_sql("INSERT INTO test VALUES (3)"), SQLITE_OK);
    check_ok(wal_index_read(&lead.index, &after, &err));
    assert_false(wal_salts_equal(after.salts, before.salts));
}

static void test_lead_connections__write_lock(void **state)
{
    (void)state;
    open_all();
    check_ok(lead_take_write(&lead, 0, &err));
    assert_int_equal(try_sql("INSERT INTO test VALUES (2)"), SQLITE_BUSY);
    lead_release_write(&lead);
    lead_release_write(&lead); /* legal */
    assert_int_equal(try_sql("BEGIN IMMEDIATE"), SQLITE_OK);
    check_fails(RC_BUSY, lead_take_write(&lead, 0, &err));
    assert_false(lead.holds_write);
    assert_int_equal(try_sql("ROLLBACK"), SQLITE_OK);
}

/* K's lock keeps everybody from a checkpoint, C among them; the close of all frees it. */
static void test_lead_connections__checkpoint_lock(void **state)
{
    (void)state;
    open_all();
    check_ok(lead_take_checkpoint(&lead, 0, &err));
    assert_int_equal(number(other, "PRAGMA wal_checkpoint(PASSIVE)"), 1);
    assert_int_equal(sqlite3_busy_timeout(lead.checkpoint_db, 0), SQLITE_OK);
    assert_int_equal(number(lead.checkpoint_db, "PRAGMA wal_checkpoint(PASSIVE)"), 1);
    check_ok(lead_take_write(&lead, 0, &err));
    lead_connections_close(&lead);
    assert_int_equal(try_sql("INSERT INTO test VALUES (2)"), SQLITE_OK);
    assert_int_equal(number(other, "PRAGMA wal_checkpoint(PASSIVE)"), 0);
}

static void test_lead_connections__codes(void **state)
{
    (void)state;
    assert_int_equal(lead_sqlite_fail(&err, NULL, SQLITE_BUSY_SNAPSHOT, "x"), RC_BUSY);
    assert_int_equal(lead_sqlite_fail(&err, NULL, SQLITE_LOCKED, "x"), RC_BUSY);
    assert_int_equal(lead_sqlite_fail(&err, NULL, SQLITE_NOTADB, "x"), RC_CORRUPT);
    assert_int_equal(lead_sqlite_fail(&err, NULL, SQLITE_READONLY_DBMOVED, "x"), RC_DENIED);
    assert_int_equal(lead_sqlite_fail(&err, NULL, SQLITE_NOMEM, "x"), RC_NOMEM);
    assert_int_equal(lead_sqlite_fail(&err, NULL, SQLITE_IOERR_WRITE, "first read"), RC_IO);
    check_text("first read: disk I/O error");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_lead_connections__switches_to_wal_mode),
        CASE(test_lead_connections__creates_only_when_told),
        CASE(test_lead_connections__what_is_no_database),
        CASE(test_lead_connections__settings),
        CASE(test_lead_connections__a_reader_keeps_the_wal),
        CASE(test_lead_connections__write_lock),
        CASE(test_lead_connections__checkpoint_lock),
        CASE(test_lead_connections__codes),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
