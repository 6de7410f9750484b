/* SPDX-License-Identifier: Apache-2.0 */
/*
 * target: what is refused, what is left behind, and where everything lies after the last step: data
 * is at stake in each.
 */
#include "restorer/target.h"

#include "base/buf.h"
#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct err err;
static struct scratch scratch;
static struct target target;
static char moved[FSIO_PATH_BYTES];

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

static const char *at(const char *name)
{
    return scratch_path(&scratch, name);
}

static void put(const char *name, const char *text)
{
    check_ok(fsio_replace_file(at(name), text, strlen(text), false, &err));
}

static void check_holds(const char *path, const char *text)
{
    struct buf buf;
    buf_init(&buf, 1000);
    check_ok(fsio_read_file(path, &buf, &err));
    assert_int_equal(buf.size, strlen(text));
    assert_memory_equal(buf.data, text, buf.size);
    buf_deinit(&buf);
}

static int count_entries(const char *dir)
{
    int count = 0;
    DIR *open = opendir(dir);
    assert_non_null(open);
    for (struct dirent *entry = readdir(open); entry != NULL; entry = readdir(open)) {
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    }
    closedir(open);
    return count;
}

static struct restored_marker new_marker(void)
{
    struct restored_marker marker = {.archive = "dir:/a", .point = {{3, 164}, {1, 2}}};
    assert_true(generation_id_parse("00000003-9f2c41d7a6b0e355", &marker.generation, NULL));
    marker.newest_generation = marker.generation;
    return marker;
}

/* Opens, writes a database of its kind, commits. */
static enum rc restore(bool replace, const char *text)
{
    struct restored_marker marker = new_marker();
    err = (struct err)ERR_INIT;
    enum rc rc = target_open(&target, at("s.db"), replace, &err);
    if (rc != RC_OK) {
        return rc;
    }
    check_ok(fsio_write_at(target.fd, text, strlen(text), 0, &err));
    rc = target_commit(&target, &marker, moved, &err);
    target_close(&target);
    return rc;
}

static void check_marker(const char *path, const char *database)
{
    struct restored_marker marker;
    struct fsio_stat stat;
    struct buf buf;
    buf_init(&buf, HISTORY_JSON_BYTES_MAX);
    check_ok(fsio_read_file(path, &buf, &err));
    check_ok(restored_marker_decode(buf.data, buf.size, &marker, &err));
    check_ok(fsio_stat(database, &stat, &err));
    assert_true(marker.inode == stat.inode && marker.size_bytes == stat.size_bytes);
    assert_true(marker.mtime_ns == stat.mtime_ns);
    assert_int_equal(marker.point.position.frame_no, 164);
    buf_deinit(&buf);
}

static void test_target__into_an_empty_directory(void **state)
{
    (void)state;
    check_ok(restore(false, "new"));
    check_holds(at("s.db"), "new");
    check_marker(at("s.db-harvey/restored.json"), at("s.db"));
    assert_string_equal(moved, "");
    assert_int_equal(count_entries(scratch.dir), 2);
    check_fails(RC_EXISTS, restore(false, "newer"));
    check_holds(at("s.db"), "new");
}

static void test_target__refuses_what_is_there(void **state)
{
    (void)state;
    static const char *const names[] = {"s.db", "s.db-wal", "s.db-shm", "s.db-journal"};
    for (size_t i = 0; i < 4; i++) {
        put(names[i], "precious");
        check_fails(RC_EXISTS, restore(false, "new"));
        check_text("--replace");
        check_text(names[i]);
        check_holds(at(names[i]), "precious");
        assert_int_equal(count_entries(scratch.dir), 1);
        assert_int_equal(unlink(at(names[i])), 0);
    }
    assert_int_equal(symlink("nowhere", at("s.db")), 0);
    check_fails(RC_EXISTS, restore(false, "new"));
}

static void test_target__refuses_a_live_server(void **state)
{
    (void)state;
    struct lockfile lock = LOCKFILE_INIT;
    check_ok(fsio_make_dirs(at("s.db-harvey"), &err));
    check_ok(lockfile_try(&lock, at("s.db-harvey/leader.lock"), &err));
    check_fails(RC_BUSY, restore(false, "new"));
    put("s.db", "live");
    check_fails(RC_BUSY, restore(true, "new"));
    check_holds(at("s.db"), "live");
    assert_int_equal(count_entries(scratch.dir), 2);
    lockfile_release(&lock);
}

static void test_target__holds_the_lock(void **state)
{
    (void)state;
    struct target other;
    struct restored_marker marker = new_marker();
    put("s.db", "old");
    check_ok(fsio_make_dirs(at("s.db-harvey"), &err));
    check_ok(target_open(&target, at("s.db"), true, &err));
    check_fails(RC_BUSY, target_open(&other, at("s.db"), true, &err));
    check_ok(fsio_write_at(target.fd, "new", 3, 0, &err));
    check_ok(target_commit(&target, &marker, moved, &err));
    /* the folder is another one now, and its lock is held too, until the end */
    err = (struct err)ERR_INIT;
    check_fails(RC_BUSY, lockfile_probe(at("s.db-harvey/leader.lock"), &err));
    target_close(&target);
    check_ok(lockfile_probe(at("s.db-harvey/leader.lock"), &err));
}

static void test_target__missing_directory_is_local(void **state)
{
    (void)state;
    check_fails(RC_IO, target_open(&target, at("no/such/s.db"), false, &err));
    check_text("no/such");
    check_fails(RC_INVALID, target_open(&target, "", false, &err));
}

static void test_target__failure_leaves_nothing(void **state)
{
    (void)state;
    check_ok(target_open(&target, at("s.db"), false, &err));
    check_ok(fsio_write_at(target.fd, "half", 4, 0, &err));
    target_close(&target);
    assert_int_equal(count_entries(scratch.dir), 0);
    /* a folder that was there stays, with what is in it */
    check_ok(fsio_make_dirs(at("s.db-harvey"), &err));
    put("s.db-harvey/state", "mine");
    check_ok(target_open(&target, at("s.db"), false, &err));
    target_close(&target);
    check_holds(at("s.db-harvey/state"), "mine");
}

static void test_target__sweeps_leftovers_only(void **state)
{
    (void)state;
    static const char *const kept[] = {"s.db.restoring-", "s.db.restoring-12x", "s.db.restoring-x",
                                       "other.db.restoring-12", "s.db.before-restore-1"};
    put("s.db.restoring-12", "left by a killed one");
    put("s.db.restoring-999999", "another");
    check_ok(fsio_make_dirs(at("s.db-harvey.restoring-12/spool"), &err));
    for (size_t i = 0; i < 5; i++) {
        put(kept[i], "not ours");
    }
    check_ok(restore(false, "new"));
    for (size_t i = 0; i < 5; i++) {
        check_holds(at(kept[i]), "not ours");
    }
    assert_int_equal(count_entries(scratch.dir), 5 + 2);
}

static void test_target__replace_moves_all_aside(void **state)
{
    (void)state;
    put("s.db", "old db");
    put("s.db-wal", "old wal");
    put("s.db-shm", "old shm");
    put("s.db-journal", "old journal");
    check_ok(fsio_make_dirs(at("s.db-harvey"), &err));
    put("s.db-harvey/state", "old state");
    check_ok(restore(true, "new"));
    check_holds(at("s.db"), "new");
    check_marker(at("s.db-harvey/restored.json"), at("s.db"));
    assert_int_equal(access(at("s.db-harvey/state"), F_OK), -1);
    static const char *const tails[] = {"", "-wal", "-shm", "-journal", "-harvey/state"};
    static const char *const texts[] = {"old db", "old wal", "old shm", "old journal", "old state"};
    for (size_t i = 0; i < 5; i++) {
        char path[FSIO_PATH_BYTES + 32];
        (void)snprintf(path, sizeof path, "%s%s", moved, tails[i]);
        check_holds(path, texts[i]);
    }
    assert_int_equal(count_entries(scratch.dir), 5 + 2);
    /* twice in the same second: another name */
    check_ok(restore(true, "newest"));
    check_holds(at("s.db"), "newest");
    check_holds(moved, "new");
}

static void test_target__replace_with_nothing_there(void **state)
{
    (void)state;
    check_ok(restore(true, "new"));
    check_holds(at("s.db"), "new");
    assert_string_equal(moved, "");
    assert_int_equal(count_entries(scratch.dir), 2);
}

static void test_target__replace_of_a_lone_wal(void **state)
{
    (void)state;
    put("s.db-wal", "old wal");
    check_ok(restore(true, "new"));
    check_holds(moved, "old wal");
    assert_int_equal(count_entries(scratch.dir), 3);
}

/* A database that appears at the last moment stays, and with replace everything comes back. */
static void test_target__appeared_meanwhile(void **state)
{
    (void)state;
    struct restored_marker marker = new_marker();
    check_ok(target_open(&target, at("s.db"), false, &err));
    put("s.db", "suddenly");
    check_fails(RC_EXISTS, target_commit(&target, &marker, moved, &err));
    target_close(&target);
    check_holds(at("s.db"), "suddenly");
    assert_int_equal(count_entries(scratch.dir), 1);
}

static void test_target__replace_that_fails_is_undone(void **state)
{
    (void)state;
    struct restored_marker marker = new_marker();
    put("s.db", "old db");
    put("s.db-wal", "old wal");
    check_ok(fsio_make_dirs(at("s.db-harvey"), &err));
    put("s.db-harvey/state", "old state");
    check_ok(target_open(&target, at("s.db"), true, &err));
    assert_int_equal(unlink(target.temp), 0); /* so the last rename cannot work */
    check_fails(RC_IO, target_commit(&target, &marker, moved, &err));
    target_close(&target);
    check_holds(at("s.db"), "old db");
    check_holds(at("s.db-wal"), "old wal");
    check_holds(at("s.db-harvey/state"), "old state");
    assert_string_equal(moved, "");
    assert_int_equal(count_entries(scratch.dir), 3);
}

static void test_target__space(void **state)
{
    (void)state;
    check_ok(target_open(&target, at("s.db"), false, &err));
    check_ok(target_check_space(&target, 1, &err));
    check_fails(RC_LIMIT, target_check_space(&target, UINT64_MAX / 2, &err));
    check_text("space");
    target_close(&target);
}

/* Root restores for the one whose folder it is. */
static void test_target__belongs_to_the_folders_owner(void **state)
{
    (void)state;
    static const char *const names[] = {"s.db", "s.db-harvey", "s.db-harvey/leader.lock",
                                        "s.db-harvey/restored.json"};
    if (geteuid() != 0) {
        skip();
    }
    assert_int_equal(chown(scratch.dir, 12345, 12346), 0);
    for (int round = 0; round < 2; round++) {
        check_ok(restore(round == 1, "new"));
        for (size_t i = 0; i < 4; i++) {
            struct stat file;
            assert_int_equal(stat(at(names[i]), &file), 0);
            assert_true(file.st_uid == 12345 && file.st_gid == 12346);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_target__into_an_empty_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target__refuses_what_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target__refuses_a_live_server, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target__holds_the_lock, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target__missing_directory_is_local, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target__failure_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target__sweeps_leftovers_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target__replace_moves_all_aside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target__replace_with_nothing_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target__replace_of_a_lone_wal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target__appeared_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target__replace_that_fails_is_undone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target__space, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target__belongs_to_the_folders_owner, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
