/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_dir: what only a directory can do to its store: lose a folder under it, and keep what a killed put
 * had begun. The contract itself: test_store_contract.c; what lasts: test_durability.c.
 */
#include "archive/store.h"
#include "base/fsio.h"
#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

static struct scratch scratch;
static struct err err;
static struct store_config config;
static struct store *store;

static int setup(void **state)
{
    (void)state;
    scratch_init(&scratch);
    err = (struct err)ERR_INIT;
    config = (struct store_config){.is_s3 = false};
    (void)snprintf(config.dir, sizeof config.dir, "%s", scratch_path(&scratch, "archive"));
    (void)snprintf(config.url, sizeof config.url, "dir:%.500s", config.dir);
    check_ok(store_open(&config, NULL, &store, &err));
    check_ok(store_prepare(store, true, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_close(store);
    scratch_deinit(&scratch);
    return 0;
}

static enum rc put(const char *key)
{
    return store_put_bytes(store, key, "x", 1, STORE_PUT_PLAIN, &err);
}

/* The handle remembers folders that it has made; one that went away is made again by the next try. */
static void test_store_dir__a_folder_that_vanishes(void **state)
{
    (void)state;
    check_ok(put("folder/one"));
    check_ok(fsio_remove_tree(scratch_path(&scratch, "archive/folder"), &err));
    check_fails(RC_IO, put("folder/two"));
    check_ok(put("folder/two"));
}

static enum rc count_object(void *arg, const char *key, uint64_t bytes, struct err *at)
{
    (void)key;
    (void)bytes;
    (void)at;
    (*(int *)arg)++;
    return RC_OK;
}

/* A put that was killed leaves a file where unfinished ones lie: no listing may show it as an object. */
static void test_store_dir__an_unfinished_put_is_no_object(void **state)
{
    (void)state;
    int count = 0;
    int folders = 0;
    char path[1024];
    DIR *root = opendir(config.dir);
    assert_non_null(root);
    for (struct dirent *entry = readdir(root); entry != NULL; entry = readdir(root)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            (void)snprintf(path, sizeof path, "%s/%s/0123456789abcdef", config.dir, entry->d_name);
            folders++;
        }
    }
    closedir(root);
    assert_int_equal(folders, 1); /* prepare has made the one for unfinished puts */
    check_ok(fsio_replace_file(path, "half", 4, false, &err));
    check_ok(store_list(store, "", "", count_object, &count, &err));
    assert_int_equal(count, 0);
    check_ok(put("whole"));
    check_ok(store_list(store, "", "", count_object, &count, &err));
    assert_int_equal(count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_store_dir__a_folder_that_vanishes),
        CASE(test_store_dir__an_unfinished_put_is_no_object),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
