/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spool: files under their keys in a directory of the test's own: a name is always a whole object,
 * whatever an earlier writer left behind or refuses.
 */
#include "replicator/spool.h"

#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include "base/buf.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_1 "00000003-9f2c41d7a6b0e355/wal/0000000001/one.wal.zst"
#define KEY_2 "00000003-9f2c41d7a6b0e355/wal/0000000001/two.wal.zst"
#define KEY_3 "00000003-9f2c41d7a6b0e355/wal/0000000002/three.wal.zst"
#define WAL_1 "spool/00000003-9f2c41d7a6b0e355/wal/0000000001"

static struct scratch scratch;
static struct err err;
static struct spool spool;

static int setup(void **state)
{
    (void)state;
    scratch_init(&scratch);
    err = (struct err)ERR_INIT;
    check_ok(spool_open(&spool, scratch_path(&scratch, "spool"), &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_deinit(&scratch);
    return 0;
}

static bool exists(const char *name)
{
    return access(scratch_path(&scratch, name), F_OK) == 0;
}

static void check_holds(const char *key, const char *text)
{
    char path[FSIO_PATH_BYTES];
    struct buf bytes;
    buf_init(&bytes, 1u << 20);
    check_ok(spool_path(&spool, key, path, &err));
    check_ok(fsio_read_file(path, &bytes, &err));
    assert_int_equal(bytes.size, strlen(text));
    assert_memory_equal(bytes.data, text, bytes.size);
    buf_deinit(&bytes);
}

static enum rc count_file(void *arg, const char *name, bool is_dir, struct err *at)
{
    (void)name;
    (void)is_dir;
    (void)at;
    (*(int *)arg)++;
    return RC_OK;
}

static int files_in(const char *name)
{
    int count = 0;
    check_ok(fsio_list_dir(scratch_path(&scratch, name), count_file, &count, &err));
    return count;
}

static void test_spool__names(void **state)
{
    (void)state;
    char path[FSIO_PATH_BYTES];
    char wanted[FSIO_PATH_BYTES];
    check_ok(spool_path(&spool, KEY_1, path, &err));
    (void)snprintf(wanted, sizeof wanted, "%s/spool/%s", scratch.dir, KEY_1);
    assert_string_equal(path, wanted);
    check_ok(spool_open(&spool, scratch_path(&scratch, "spool"), &err)); /* it is there: fine */
}

static void test_spool__a_name_too_long(void **state)
{
    (void)state;
    char path[FSIO_PATH_BYTES];
    char key[FSIO_PATH_BYTES];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    check_fails(RC_LIMIT, spool_path(&spool, key, path, &err));
    check_fails(RC_LIMIT, spool_write(&spool, key, "x", 1, &err));
}

static void test_spool__write_and_write_again(void **state)
{
    (void)state;
    check_ok(spool_write(&spool, KEY_1, "the first, longer one", 21, &err));
    check_holds(KEY_1, "the first, longer one");
    check_ok(spool_write(&spool, KEY_1, "second", 6, &err));
    check_holds(KEY_1, "second");
    check_ok(spool_write(&spool, KEY_2, "", 0, &err));
    check_holds(KEY_2, "");
    assert_int_equal(files_in("spool/.tmp"), 0);
    check_ok(spool_sync(&spool, KEY_1, &err));
}

/* A crash left half an object without a name: the next one is written over it, and is whole. */
static void test_spool__a_torn_file_has_no_name(void **state)
{
    (void)state;
    char name[64];
    (void)snprintf(name, sizeof name, "spool/.tmp/%d-%d", getpid(), gettid());
    FILE *file = fopen(scratch_path(&scratch, name), "w");
    assert_non_null(file);
    (void)fputs("half of an object that is longer than the next", file);
    assert_int_equal(fclose(file), 0);
    assert_false(exists(WAL_1));
    check_ok(spool_write(&spool, KEY_1, "whole", 5, &err));
    check_holds(KEY_1, "whole");
    assert_false(exists(name));
}

/* What cannot get its name leaves nothing behind, and what is there stays. */
static void test_spool__a_name_that_is_taken(void **state)
{
    (void)state;
    check_ok(spool_write(&spool, KEY_1 "/below", "other", 5, &err));
    check_fails(RC_IO, spool_write(&spool, KEY_1, "mine", 4, &err));
    check_text("spooling " KEY_1);
    assert_int_equal(files_in("spool/.tmp"), 0);
    check_holds(KEY_1 "/below", "other");
    check_ok(spool_write(&spool, KEY_2, "mine", 4, &err));
}

static void test_spool__the_folder_for_halves_is_gone(void **state)
{
    (void)state;
    assert_int_equal(rmdir(scratch_path(&scratch, "spool/.tmp")), 0);
    check_fails(RC_NOT_FOUND, spool_write(&spool, KEY_1, "mine", 4, &err));
    assert_false(exists(WAL_1));
    check_ok(spool_open(&spool, scratch_path(&scratch, "spool"), &err));
    check_ok(spool_write(&spool, KEY_1, "mine", 4, &err));
}

static void test_spool__sync_of_what_is_not_there(void **state)
{
    (void)state;
    check_fails(RC_NOT_FOUND, spool_sync(&spool, KEY_1, &err));
    check_ok(spool_write(&spool, KEY_2, "beside it", 9, &err));
    check_fails(RC_NOT_FOUND, spool_sync(&spool, KEY_1, &err));
    check_ok(spool_sync(&spool, KEY_2, &err));
}

/* The folder of a WAL goes with its last file, in whatever order they leave. */
static void test_spool__remove(void **state)
{
    (void)state;
    check_ok(spool_write(&spool, KEY_1, "1", 1, &err));
    check_ok(spool_write(&spool, KEY_2, "2", 1, &err));
    check_ok(spool_write(&spool, KEY_3, "3", 1, &err));
    check_ok(spool_remove(&spool, KEY_2, &err));
    check_holds(KEY_1, "1");
    check_ok(spool_remove(&spool, KEY_2, &err)); /* gone already: fine */
    check_ok(spool_remove(&spool, KEY_1, &err));
    assert_false(exists(WAL_1));
    check_holds(KEY_3, "3");
    check_ok(spool_remove(&spool, KEY_1, &err)); /* not even its folder is there */
    check_ok(spool_write(&spool, KEY_1, "again", 5, &err));
    check_holds(KEY_1, "again");
}

#define RACE_ROUNDS 300

/* The uploader deletes the last file of a WAL while the leader names the next one in its folder. */
static void *race_thread_main(void *arg)
{
    (void)arg;
    struct err own = ERR_INIT;
    for (int i = 0; i < RACE_ROUNDS; i++) {
        if (spool_write(&spool, KEY_2, "2", 1, &own) != RC_OK ||
            spool_remove(&spool, KEY_2, &own) != RC_OK) {
            return (void *)1;
        }
    }
    return NULL;
}

static void test_spool__a_folder_that_goes_as_it_is_needed(void **state)
{
    (void)state;
    pthread_t thread;
    void *failed = NULL;
    assert_int_equal(pthread_create(&thread, NULL, race_thread_main, NULL), 0);
    enum rc rc = RC_OK;
    for (int i = 0; i < RACE_ROUNDS && rc == RC_OK; i++) {
        rc = spool_write(&spool, KEY_1, "1", 1, &err);
        if (rc == RC_OK) {
            rc = spool_remove(&spool, KEY_1, &err);
        }
    }
    assert_int_equal(pthread_join(thread, &failed), 0);
    check_ok(rc);
    assert_null(failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_spool__names),
        CASE(test_spool__a_name_too_long),
        CASE(test_spool__write_and_write_again),
        CASE(test_spool__a_torn_file_has_no_name),
        CASE(test_spool__a_name_that_is_taken),
        CASE(test_spool__the_folder_for_halves_is_gone),
        CASE(test_spool__sync_of_what_is_not_there),
        CASE(test_spool__remove),
        CASE(test_spool__a_folder_that_goes_as_it_is_needed),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
