/* SPDX-License-Identifier: Apache-2.0 */
/*
 * app, db and uuid: rows and their number, on real databases in a directory of the test's; which file
 * a connection was opened on; what is refused at opening.
 */
#include "server/app.h"
#include "server/db.h"
#include "server/uuid.h"

#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct scratch scratch;
static struct err err;
static struct db db;
static struct app_writer *writer;
static char path[SCRATCH_PATH_BYTES];

static int setup(void **state)
{
    (void)state;
    scratch_init(&scratch);
    (void)snprintf(path, sizeof path, "%s", scratch_path(&scratch, "state.db"));
    err = (struct err)ERR_INIT;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    app_writer_close(writer);
    writer = NULL;
    db_close(&db);
    scratch_deinit(&scratch);
    return 0;
}

static void open_writer(void)
{
    check_ok(db_open(&db, path, DB_WRITES, true, &err));
    check_ok(app_writer_open(db.handle, &writer, &err));
}

static int64_t insert(const char *text)
{
    int64_t row = 0;
    check_ok(app_insert(writer, text, text == NULL ? 0 : strlen(text), &row, &err));
    return row;
}

static int64_t rows_seen_by(sqlite3 *handle)
{
    struct app_reader *reader = NULL;
    int64_t rows = -1;
    check_ok(app_reader_open(handle, &reader, &err));
    check_ok(app_count_rows(reader, &rows, &err));
    app_reader_close(reader);
    return rows;
}

/* One text column of one row. */
static void query(const char *sql, char *text, size_t text_bytes)
{
    sqlite3_stmt *statement = NULL;
    check_ok(db_prepare(db.handle, sql, &statement, &err));
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    (void)snprintf(text, text_bytes, "%s", (const char *)sqlite3_column_text(statement, 0));
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
}

static void test_app__rows_and_their_number(void **state)
{
    (void)state;
    char text[64];
    open_writer();
    assert_int_equal(rows_seen_by(db.handle), 0);
    assert_int_equal(insert("one"), 1);
    assert_int_equal(insert(NULL), 2);
    assert_int_equal(insert(""), 3);
    assert_int_equal(rows_seen_by(db.handle), 3);
    query("SELECT value FROM test WHERE id = 1", text, sizeof text);
    assert_string_equal(text, "one");
    query("SELECT value FROM test WHERE id = 2", text, sizeof text);
    assert_int_equal(strlen(text), UUID_TEXT_BYTES - 1);
    query("SELECT typeof(value) FROM test WHERE id = 3", text, sizeof text);
    assert_string_equal(text, "text");
}

/* The number stays right when others write too, and after rolled back inserts. */
static void test_app__number_with_a_second_writer(void **state)
{
    (void)state;
    struct db other = {0};
    struct app_writer *other_writer = NULL;
    int64_t row = 0;
    open_writer();
    assert_int_equal(insert("a"), 1);
    check_ok(db_open(&other, path, DB_WRITES, true, &err));
    check_ok(app_writer_open(other.handle, &other_writer, &err));
    check_ok(app_insert(other_writer, "b", 1, &row, &err));
    assert_int_equal(row, 2);
    check_ok(db_run(db.handle, "BEGIN IMMEDIATE", &err));
    assert_int_equal(insert("undone"), 3);
    check_ok(db_run(db.handle, "ROLLBACK", &err));
    assert_int_equal(insert("c"), 3);
    assert_int_equal(rows_seen_by(other.handle), 3);
    app_writer_close(other_writer);
    db_close(&other);
}

static void test_app__counting_takes_no_scan(void **state)
{
    (void)state;
    struct app_reader *reader = NULL;
    sqlite3_stmt *statement;
    int64_t rows = 0;
    open_writer();
    check_ok(db_run(db.handle, "BEGIN", &err));
    for (int i = 0; i < 20000; i++) {
        (void)insert("x");
    }
    check_ok(db_run(db.handle, "COMMIT", &err));
    check_ok(app_reader_open(db.handle, &reader, &err));
    statement = sqlite3_next_stmt(db.handle, NULL);
    while (statement != NULL && strstr(sqlite3_sql(statement), "SELECT") == NULL) {
        statement = sqlite3_next_stmt(db.handle, statement);
    }
    assert_non_null(statement);
    check_ok(app_count_rows(reader, &rows, &err));
    assert_int_equal(rows, 20000);
    assert_in_range(sqlite3_stmt_status(statement, SQLITE_STMTSTATUS_VM_STEP, 0), 1, 50);
    app_reader_close(reader);
}

static void test_app__a_reader_cannot_write(void **state)
{
    (void)state;
    struct db reader = {0};
    open_writer();
    check_ok(db_open(&reader, path, DB_READS, true, &err));
    check_fails(RC_DENIED, db_run(reader.handle, "INSERT INTO test(value) VALUES (1)", &err));
    check_fails(RC_INTERNAL,
                db_run(reader.handle, "PRAGMA writable_schema=ON; DELETE FROM nothing", &err));
    db_close(&reader);
}

static void test_app__a_reader_creates_nothing(void **state)
{
    (void)state;
    check_fails(RC_IO, db_open(&db, path, DB_READS, true, &err));
    assert_null(db.handle);
    assert_int_equal(access(path, F_OK), -1);
}

static void test_app__identity_of_the_file(void **state)
{
    (void)state;
    char moved[SCRATCH_PATH_BYTES];
    (void)snprintf(moved, sizeof moved, "%s", scratch_path(&scratch, "moved.db"));
    open_writer();
    assert_true(db_is_in_place(&db, path, &err));
    assert_int_equal(rename(path, moved), 0);
    assert_false(db_is_in_place(&db, path, &err));
    check_text("deleted or renamed");
    check_text("state.db");
    assert_int_equal(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
    assert_false(db_is_in_place(&db, path, &err));
    check_text("replaced");
    assert_int_equal(rename(moved, path), 0);
    assert_true(db_is_in_place(&db, path, &err));
    assert_int_equal(link(path, moved), 0);
    assert_false(db_is_in_place(&db, path, &err));
    check_text("2 hard links");
    assert_int_equal(unlink(moved), 0);
    assert_true(db_is_in_place(&db, path, &err));
}

static void test_app__what_cannot_be_opened(void **state)
{
    (void)state;
    const char *other = scratch_path(&scratch, "other.db");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++) {
        (void)fputs("no database at all\n", file);
    }
    assert_int_equal(fclose(file), 0);
    check_fails(RC_CORRUPT, db_open(&db, path, DB_WRITES, true, &err));
    check_text("state.db");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    check_fails(RC_IO, db_open(&db, path, DB_WRITES, true, &err));
    assert_int_equal(rmdir(path), 0);
    open_writer();
    app_writer_close(writer);
    writer = NULL;
    db_close(&db);
    assert_int_equal(link(path, other), 0);
    check_fails(RC_INVALID, db_open(&db, path, DB_WRITES, true, &err));
    check_text("hard links");
}

static void test_app__every_connection_is_configured(void **state)
{
    (void)state;
    char text[32];
    int on = 0;
    open_writer();
    query("PRAGMA journal_mode", text, sizeof text);
    assert_string_equal(text, "wal");
    query("PRAGMA wal_autocheckpoint", text, sizeof text);
    assert_string_equal(text, "0");
    query("PRAGMA cache_spill", text, sizeof text);
    assert_string_equal(text, "0");
    query("PRAGMA synchronous", text, sizeof text);
    assert_string_equal(text, "1");
    assert_int_equal(sqlite3_db_config(db.handle, SQLITE_DBCONFIG_DEFENSIVE, -1, &on), SQLITE_OK);
    assert_int_equal(on, 1);
    assert_int_equal(sqlite3_db_config(db.handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, -1, &on),
                     SQLITE_OK);
    assert_int_equal(on, 1);
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* More of them than one stock holds: all of the right form, all different. */
static void test_app__uuids(void **state)
{
    (void)state;
    enum { COUNT = 2000 };
    static char texts[COUNT][UUID_TEXT_BYTES];
    struct uuid_source source;
    uuid_source_init(&source);
    for (size_t i = 0; i < COUNT; i++) {
        uuid_next(&source, texts[i]);
        assert_int_equal(strlen(texts[i]), 36);
        assert_int_equal(strspn(texts[i], "0123456789abcdef-"), 36);
        assert_true(texts[i][8] == '-' && texts[i][13] == '-' && texts[i][18] == '-' &&
                    texts[i][23] == '-');
        assert_int_equal(texts[i][14], '4');
        assert_non_null(strchr("89ab", texts[i][19]));
    }
    qsort(texts, COUNT, sizeof texts[0], compare_texts);
    for (size_t i = 1; i < COUNT; i++) {
        assert_string_not_equal(texts[i - 1], texts[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_app__rows_and_their_number, setup, teardown),
        cmocka_unit_test_setup_teardown(test_app__number_with_a_second_writer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_app__counting_takes_no_scan, setup, teardown),
        cmocka_unit_test_setup_teardown(test_app__a_reader_cannot_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_app__a_reader_creates_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_app__identity_of_the_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_app__what_cannot_be_opened, setup, teardown),
        cmocka_unit_test_setup_teardown(test_app__every_connection_is_configured, setup, teardown),
        cmocka_unit_test(test_app__uuids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
