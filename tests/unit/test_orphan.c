/* SPDX-License-Identifier: Apache-2.0 */
/*
 * orphan: a real directory archive with the objects of some generations and no birth; which of them is
 * found behind which newest one. What a restore makes of it: tests/integration/test_restore.py.
 */
#include "restorer/orphan.h"

#include "archive/object_key.h"
#include "base/stop.h"
#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <stdio.h>

static struct scratch scratch;
static struct err err;
static struct stop stop;
static struct store *store;

static int setup(void **state)
{
    (void)state;
    struct store_config config = {.is_s3 = false};
    scratch_init(&scratch);
    err = (struct err)ERR_INIT;
    stop_init(&stop);
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
    stop_deinit(&stop);
    scratch_deinit(&scratch);
    return 0;
}

static struct generation_id id_no(uint32_t number)
{
    return generation_id_make(number, (const uint8_t[8]){1, 2, 3, 4, 5, 6, 7, 8});
}

static void put_claim(uint32_t number)
{
    struct object_key claim = {.kind = OBJECT_LEAD, .generation = id_no(number), .term = 1};
    char key[OBJECT_KEY_BYTES];
    object_key_format(&claim, key);
    check_ok(store_put_bytes(store, key, "{}", 2, STORE_PUT_PLAIN, &err));
}

/* 0 = none, of the newest as of what is found. */
static void check_found(uint32_t newest_number, uint32_t number)
{
    struct generation_id newest =
        newest_number > 0 ? id_no(newest_number) : (struct generation_id){""};
    struct generation_id found;
    uint64_t requests = store->request_count;
    check_ok(orphan_find(store, &stop, &newest, &found, &err));
    assert_int_equal(generation_id_number(&found), number);
    assert_int_equal(store->request_count, requests + 1);
}

static void test_orphan__the_first_one_behind_the_newest(void **state)
{
    (void)state;
    check_found(0, 0);
    put_claim(3);
    put_claim(5);
    check_found(0, 3);
    check_found(2, 3);
    check_found(3, 5);
    check_found(4, 5);
    check_found(5, 0);
}

/* What shares few digits, or none, with the newest one's id. */
static void test_orphan__where_the_number_gains_a_digit(void **state)
{
    (void)state;
    static const uint32_t numbers[] = {10, 1000, 99999, 100000, 1000000, GENERATION_NUMBER_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        put_claim(numbers[i]);
        check_found(numbers[i] - 1, numbers[i]);
    }
    check_found(GENERATION_NUMBER_MAX, 0);
}

/* Other things have names too. */
static void test_orphan__foreign_objects(void **state)
{
    (void)state;
    static const char *const keys[] = {"0000", "00000009/x", "0000-notes/a",
                                       "generations/00000007.json", "2024/07/a"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        check_ok(store_put_bytes(store, keys[i], "x", 1, STORE_PUT_PLAIN, &err));
    }
    check_found(0, 0);
    check_found(1, 0);
    put_claim(8);
    check_found(1, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_orphan__the_first_one_behind_the_newest),
        CASE(test_orphan__where_the_number_gains_a_digit),
        CASE(test_orphan__foreign_objects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
