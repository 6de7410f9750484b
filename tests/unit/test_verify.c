/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify: SQLite's verdict on a file whose header says WAL: sound, damaged in an index, damaged in a
 * page, no database; nothing is left beside it, whatever its path looks like.
 */
#include "restorer/verify.h"

#include "base/fsio.h"
#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

static struct err err;
static struct scratch scratch;

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    scratch_init(&scratch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_deinit(&scratch);
    return 0;
}

static void make_database(const char *path)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db,
                     "PRAGMA page_size=4096; PRAGMA journal_mode=WAL; CREATE TABLE t(a, b); "
                     "CREATE INDEX i ON t(a); "
                     "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<2000) "
                     "INSERT INTO t SELECT x, hex(randomblob(30)) FROM n;",
                     NULL, NULL, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static enum rc check(const char *path, enum restore_integrity integrity)
{
    struct verify *verify = NULL;
    err = (struct err)ERR_INIT;
    enum rc rc = verify_start(path, integrity, &verify, &err);
    return rc == RC_OK ? verify_finish(verify, NULL, NULL, NULL, &err) : rc;
}

static void check_alone(const char *path)
{
    static const char *const tails[] = {"-wal", "-shm", "-journal"};
    for (size_t i = 0; i < 3; i++) {
        char beside[FSIO_PATH_BYTES];
        (void)snprintf(beside, sizeof beside, "%s%s", path, tails[i]);
        assert_int_not_equal(access(beside, F_OK), 0);
    }
}

static void test_verify__sound(void **state)
{
    (void)state;
    static const char *const names[] = {"a.db", "with space?and=query#hash%41", "uml\xc3\xa4ut",
                                        "x.restoring-12"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *path = scratch_path(&scratch, names[i]);
        make_database(path);
        check_ok(check(path, RESTORE_INTEGRITY_FULL));
        check_ok(check(path, RESTORE_INTEGRITY_QUICK));
        check_alone(path);
    }
    check_ok(check("/nonexistent", RESTORE_INTEGRITY_NONE));
}

static void test_verify__relative_path(void **state)
{
    (void)state;
    char here[FSIO_PATH_BYTES];
    assert_non_null(getcwd(here, sizeof here));
    make_database(scratch_path(&scratch, "r.db"));
    assert_int_equal(chdir(scratch.dir), 0);
    enum rc rc = check("r.db", RESTORE_INTEGRITY_FULL);
    assert_int_equal(chdir(here), 0);
    check_ok(rc);
}

static void overwrite(const char *path, uint64_t offset, const char *bytes)
{
    int fd = -1;
    check_ok(fsio_open(path, O_WRONLY, 0, &fd, &err));
    check_ok(fsio_write_at(fd, bytes, strlen(bytes), offset, &err));
    close(fd);
}

/* Each b-tree is sound, and the index does not say what the table says: only the full check compares. */
static void test_verify__index_and_table_differ(void **state)
{
    (void)state;
    sqlite3 *db = NULL;
    const char *path = scratch_path(&scratch, "i.db");
    make_database(path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET "
                                  "sql = 'CREATE INDEX i ON t(b)' WHERE name = 'i';",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    check_ok(check(path, RESTORE_INTEGRITY_QUICK));
    check_fails(RC_CORRUPT, check(path, RESTORE_INTEGRITY_FULL));
}

static void test_verify__damage(void **state)
{
    (void)state;
    const char *path = scratch_path(&scratch, "a.db");
    make_database(path);
    overwrite(path, (uint64_t)4096 * 4, "rubbish rubbish");
    check_fails(RC_CORRUPT, check(path, RESTORE_INTEGRITY_FULL));
    assert_null(strchr(err.text, '\n'));
    check_text("--integrity none");
    check_ok(check(path, RESTORE_INTEGRITY_NONE));
    overwrite(path, 0, "no database at all");
    check_fails(RC_CORRUPT, check(path, RESTORE_INTEGRITY_FULL));
    check_fails(RC_IO, check("/nonexistent", RESTORE_INTEGRITY_FULL));
}

static void test_verify__stop(void **state)
{
    (void)state;
    const char *path = scratch_path(&scratch, "a.db");
    struct stop stop;
    struct verify *verify = NULL;
    make_database(path);
    stop_init(&stop);
    stop_raise(&stop, STOP_NOW);
    check_ok(verify_start(path, RESTORE_INTEGRITY_FULL, &verify, &err));
    enum rc rc = verify_finish(verify, &stop, NULL, NULL, &err);
    assert_true(rc == RC_STOPPED || rc == RC_OK); /* it may have been faster */
    stop_deinit(&stop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_verify__sound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify__relative_path, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify__index_and_table_differ, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify__damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify__stop, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
