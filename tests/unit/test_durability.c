/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What survives a power cut hangs on the order of system calls: a file's bytes are on the disk before it
 * gets its name, and a folder's entry before anybody counts on it. No kill -9 shows that (the page cache
 * survives), so this program puts itself between the code and the kernel: every sync and every rename is
 * noted, and the notes must come in the right order.
 */
#include "archive/store.h"
#include "base/fsio.h"
#include "replicator/spool.h"
#include "replicator/state.h"
#include "restorer/apply.h"
#include "restorer/target.h"
#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOTES_MAX 256
#define KEY "00000003-9f2c41d7a6b0e355/wal/0000000001/one.wal.zst"
#define FOLDER "00000003-9f2c41d7a6b0e355/wal/0000000001"

struct note {
    bool is_sync; /* else `path` got this name */
    char path[FSIO_PATH_BYTES];
    char from[FSIO_PATH_BYTES];
};

static struct note notes[NOTES_MAX];
static int note_count;
static bool notes_on;
static bool syncs_fail; /* as on a disk that is dying */
static struct scratch scratch;
static struct err err;

/* ---- in between ---- */

static void note(bool is_sync, const char *from, const char *path)
{
    if (notes_on) {
        assert_true(note_count < NOTES_MAX);
        struct note *made = &notes[note_count++];
        made->is_sync = is_sync;
        (void)snprintf(made->from, sizeof made->from, "%s", from);
        (void)snprintf(made->path, sizeof made->path, "%s", path);
    }
}

static int note_sync(int fd, long call)
{
    char link[64];
    char path[FSIO_PATH_BYTES];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t count = readlink(link, path, sizeof path - 1);
    if (syncs_fail) {
        errno = EIO;
        return -1;
    }
    int result = (int)syscall(call, fd);
    if (count > 0 && result == 0) {
        path[count] = '\0';
        note(true, "", path);
    }
    return result;
}

int fsync(int fd)
{
    return note_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return note_sync(fd, SYS_fdatasync);
}

int rename(const char *from, const char *to)
{
    int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (result == 0) {
        note(false, from, to);
    }
    return result;
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    int result = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (result == 0) {
        note(false, from, to);
    }
    return result;
}

/* ---- what the notes say ---- */

static int setup(void **state)
{
    (void)state;
    scratch_init(&scratch);
    err = (struct err)ERR_INIT;
    note_count = 0;
    notes_on = true;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    notes_on = false;
    syncs_fail = false;
    scratch_deinit(&scratch);
    return 0;
}

static const char *at(const char *name)
{
    return scratch_path(&scratch, name);
}

/* The first sync of this path behind note `after`, or -1. */
static int find_sync(const char *path, int after)
{
    for (int i = after + 1; i < note_count; i++) {
        if (notes[i].is_sync && strcmp(notes[i].path, path) == 0) {
            return i;
        }
    }
    return -1;
}

static int find_rename(const char *path)
{
    for (int i = 0; i < note_count; i++) {
        if (!notes[i].is_sync && strcmp(notes[i].path, path) == 0) {
            return i;
        }
    }
    fail_msg("nothing was renamed to %s", path);
    return -1;
}

static void check_synced(const char *path)
{
    if (find_sync(path, -1) < 0) {
        fail_msg("%s was not synced", path);
    }
}

/* The file's bytes were synced before it was renamed to `name`, and the folder afterwards. */
static void check_named_safely(const char *name, const char *folder)
{
    int named = find_rename(name);
    int synced = find_sync(notes[named].from, -1);
    if (synced < 0 || synced > named) {
        fail_msg("%s had no sync before it was named %s", notes[named].from, name);
    }
    if (find_sync(folder, named) < 0) {
        fail_msg("%s was not synced after it had got %s", folder, name);
    }
}

/* ---- the cases ---- */

static void test_durability__a_file_that_is_replaced(void **state)
{
    (void)state;
    char name[FSIO_PATH_BYTES];
    (void)snprintf(name, sizeof name, "%s", at("file"));
    check_ok(fsio_replace_file(name, "x", 1, true, &err));
    check_named_safely(name, scratch.dir);
}

static struct store *open_store(struct store_config *config, const char *dir)
{
    struct store *store = NULL;
    *config = (struct store_config){.is_s3 = false};
    (void)snprintf(config->dir, sizeof config->dir, "%s", dir);
    (void)snprintf(config->url, sizeof config->url, "dir:%.500s", dir);
    check_ok(store_open(config, NULL, &store, &err));
    return store;
}

/* The archive's directory, and every folder above it that had to be made. */
static void test_durability__an_archive_that_is_made(void **state)
{
    (void)state;
    struct store_config config;
    struct store *store = open_store(&config, at("a/b/archive"));
    check_ok(store_prepare(store, true, &err));
    check_synced(scratch.dir);
    check_synced(at("a"));
    check_synced(at("a/b"));
    store_close(store);
}

static void test_durability__a_put_into_a_directory(void **state)
{
    (void)state;
    struct store_config config;
    char name[FSIO_PATH_BYTES];
    char folder[FSIO_PATH_BYTES];
    struct store *store = open_store(&config, at("archive"));
    check_ok(store_prepare(store, true, &err));
    note_count = 0;
    check_ok(store_put_bytes(store, KEY, "x", 1, STORE_PUT_PLAIN, &err));
    (void)snprintf(name, sizeof name, "%s", at("archive/" KEY));
    (void)snprintf(folder, sizeof folder, "%s", at("archive/" FOLDER));
    check_named_safely(name, folder);
    check_synced(at("archive"));
    check_synced(at("archive/00000003-9f2c41d7a6b0e355"));
    check_synced(at("archive/00000003-9f2c41d7a6b0e355/wal"));
    store_close(store);
}

/* A put that finds its own bytes: the earlier try may have died before its folder was synced. */
static void test_durability__a_put_that_was_there(void **state)
{
    (void)state;
    struct store_config config;
    struct store *store = open_store(&config, at("archive"));
    check_ok(store_prepare(store, true, &err));
    check_ok(store_put_bytes(store, KEY, "x", 1, STORE_PUT_PLAIN, &err));
    note_count = 0;
    check_ok(store_put_bytes(store, KEY, "x", 1, STORE_PUT_PLAIN, &err));
    check_synced(at("archive/" FOLDER));
    store_close(store);
}

static void test_durability__a_spooled_segment(void **state)
{
    (void)state;
    struct spool spool;
    check_ok(spool_open(&spool, at("spool"), &err));
    check_ok(spool_write(&spool, KEY, "x", 1, &err));
    assert_int_equal(find_sync(at("spool/" KEY), -1),
                     -1); /* the freeze pays for it, no commit does */
    check_ok(spool_sync(&spool, KEY, &err));
    check_synced(at("spool/" KEY));
    check_synced(at("spool/" FOLDER));
    check_synced(at("spool/00000003-9f2c41d7a6b0e355/wal"));
    check_synced(at("spool/00000003-9f2c41d7a6b0e355"));
    check_synced(at("spool"));
}

static void test_durability__a_state_record(void **state)
{
    (void)state;
    struct state shared;
    struct state_record record;
    check_ok(state_open(&shared, at("state"), &err));
    note_count = 0;
    state_edit_begin(&shared, &record);
    check_ok(state_edit_end(&shared, &record, &err));
    check_synced(at("state"));
    state_close(&shared);
}

/* The restored file, its marker, and what --replace moves: all of it lasts, in this order. */
static void test_durability__a_restore(void **state)
{
    (void)state;
    struct restored_marker marker = {.archive = "dir:/a", .point = {{3, 164}, {1, 2}}};
    char moved[FSIO_PATH_BYTES];
    char name[FSIO_PATH_BYTES];
    char restored[FSIO_PATH_BYTES];
    char sidecar[FSIO_PATH_BYTES];
    struct target target;
    struct apply apply;
    assert_true(generation_id_parse("00000003-9f2c41d7a6b0e355", &marker.generation, NULL));
    marker.newest_generation = marker.generation;
    (void)snprintf(name, sizeof name, "%s", at("s.db"));
    (void)snprintf(sidecar, sizeof sidecar, "%s", at("s.db-harvey"));
    (void)snprintf(restored, sizeof restored, "%s", at("s.db-harvey/restored.json"));
    check_ok(target_open(&target, name, false, &err));
    check_ok(apply_init(&apply, target.fd, target.temp, 512, 1, &err));
    check_ok(apply_sync(&apply, &err));
    apply_deinit(&apply);
    check_ok(target_commit(&target, &marker, moved, &err));
    target_close(&target);
    check_named_safely(name, scratch.dir);
    check_named_safely(restored, sidecar);
    assert_true(find_rename(restored) < find_rename(name));

    check_ok(target_open(&target, name, true, &err));
    note_count = 0;
    check_ok(target_commit(&target, &marker, moved, &err));
    target_close(&target);
    int aside = find_rename(moved);
    int named = find_rename(name);
    int synced = find_sync(scratch.dir, aside);
    assert_true(aside < named);
    assert_true(synced > aside && synced < named); /* the old file's new name before the new file */
    assert_true(find_sync(scratch.dir, named) > named);
}

/* Whoever asked for it to last must hear that it does not. */
static void test_durability__a_sync_that_fails_is_told(void **state)
{
    (void)state;
    struct store_config config;
    struct spool spool;
    struct state shared;
    struct state_record record;
    struct apply apply;
    char name[FSIO_PATH_BYTES];
    uint64_t bytes;
    struct store *store = open_store(&config, at("archive"));
    check_ok(store_prepare(store, true, &err));
    check_ok(spool_open(&spool, at("spool"), &err));
    check_ok(spool_write(&spool, KEY, "x", 1, &err));
    check_ok(state_open(&shared, at("state"), &err));
    (void)snprintf(name, sizeof name, "%s", at("file"));
    int fd = open(at("database"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    check_ok(apply_init(&apply, fd, "database", 512, 1, &err));

    syncs_fail = true;
    check_fails(RC_IO, fsio_replace_file(name, "x", 1, true, &err));
    assert_int_equal(access(name, F_OK), -1);
    check_fails(RC_IO, fsio_sync_dir(scratch.dir, &err));
    check_fails(RC_IO, fsio_sync_file(at("database"), &err));
    check_fails(RC_IO, store_put_bytes(store, KEY, "x", 1, STORE_PUT_PLAIN, &err));
    check_fails(RC_IO, spool_sync(&spool, KEY, &err));
    state_edit_begin(&shared, &record);
    check_fails(RC_IO, state_edit_end(&shared, &record, &err));
    check_fails(RC_IO, apply_sync(&apply, &err));

    syncs_fail = false;
    check_fails(RC_NOT_FOUND, store_head(store, KEY, &bytes, &err)); /* it never got its name */
    apply_deinit(&apply);
    assert_int_equal(close(fd), 0);
    state_close(&shared);
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_durability__a_file_that_is_replaced),
        CASE(test_durability__an_archive_that_is_made),
        CASE(test_durability__a_put_into_a_directory),
        CASE(test_durability__a_put_that_was_there),
        CASE(test_durability__a_spooled_segment),
        CASE(test_durability__a_state_record),
        CASE(test_durability__a_restore),
        CASE(test_durability__a_sync_that_fails_is_told),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
