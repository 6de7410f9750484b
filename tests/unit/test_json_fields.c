/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_fields: what happens when memory ends. Allocation n of jansson fails, for n = 1, 2, 3 … until
 * a run sees no failure: once (that one alone) and for good (that one and all after it). Every run
 * ends with RC_NOMEM (or the right answer, where it could do without) and nothing leaked. What texts are accepted is in test_history_format.c and
 * test_snapshot_format.c.
 */
#include "archive/json_fields.h"

#include "archive/history_format.h"
#include "archive/snapshot_format.h"
#include "tests/unit/checks.h"

#include <stdlib.h>

#define RUNS_MAX 10000

static struct err err;
static struct {
    bool armed;
    long left; /* allocations until one fails */
    bool for_good;
    bool failed;
    long live; /* allocations not freed */
} memory;

static void *failing_malloc(size_t count)
{
    if (!memory.armed) {
        return malloc(count);
    }
    memory.left--;
    if (memory.left == 0 || (memory.for_good && memory.left < 0)) {
        memory.failed = true;
        return NULL;
    }
    memory.live++;
    return malloc(count);
}

static void failing_free(void *bytes)
{
    if (memory.armed) {
        memory.live -= bytes != NULL;
    }
    free(bytes);
}

/* Before the constructor of json_fields.c, which wraps what it finds. */
__attribute__((constructor(101))) static void install(void)
{
    json_set_alloc_funcs(failing_malloc, failing_free);
}

static struct generation_birth birth;
static struct buf good_birth;
static struct snapshot_manifest manifest;
static struct buf good_manifest;

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    buf_init(&good_birth, HISTORY_JSON_BYTES_MAX);
    buf_init(&good_manifest, HISTORY_JSON_BYTES_MAX);
    birth = (struct generation_birth){
        .id = {"00000003-9f2c41d7a6b0e355"},
        .has_parent = true,
        .parent = {"00000002-0123456789abcdef"},
        .parent_point = {{4, 17}, {1, 2}},
        .supersedes_count = 2,
        .supersedes = {{"00000001-0000000000000001"}, {"00000001-0000000000000002"}},
        .cause_detail = "some words",
        .page_size_bytes = 4096,
        .window = 8,
        .host = "not UTF-8: \xff",
    };
    snapshot_manifest_init(&manifest);
    manifest.generation = birth.id;
    manifest.point = birth.parent_point;
    memcpy(manifest.tag, "0badcafe", OBJECT_TAG_BYTES);
    manifest.page_size_bytes = 512;
    manifest.database_pages = 2;
    struct snapshot_part part = {512, 100, {1}};
    for (int i = 0; i < 2; i++) {
        check_ok(snapshot_manifest_add(&manifest, &part, &err));
    }
    return generation_birth_encode(&birth, &good_birth, &err) != RC_OK ||
           snapshot_manifest_encode(&manifest, &good_manifest, &err) != RC_OK;
}

static int teardown(void **state)
{
    (void)state;
    buf_deinit(&good_birth);
    buf_deinit(&good_manifest);
    snapshot_manifest_deinit(&manifest);
    return 0;
}

static void check_written(enum rc rc, const struct buf *json, const struct buf *good)
{
    assert_int_equal(json->size, rc == RC_OK ? good->size : 0);
    assert_true(rc != RC_OK || memcmp(json->data, good->data, good->size) == 0);
}

static enum rc encode_birth(void)
{
    struct buf json;
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    enum rc rc = generation_birth_encode(&birth, &json, &err);
    check_written(rc, &json, &good_birth);
    buf_deinit(&json);
    return rc;
}

static enum rc encode_manifest(void)
{
    struct buf json;
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    enum rc rc = snapshot_manifest_encode(&manifest, &json, &err);
    check_written(rc, &json, &good_manifest);
    buf_deinit(&json);
    return rc;
}

static enum rc decode_birth(void)
{
    struct generation_birth read;
    return generation_birth_decode(good_birth.data, good_birth.size, &read, &err);
}

static enum rc decode_manifest(void)
{
    struct snapshot_manifest read;
    snapshot_manifest_init(&read);
    enum rc rc = snapshot_manifest_decode(good_manifest.data, good_manifest.size, &read, &err);
    snapshot_manifest_deinit(&read);
    return rc;
}

static void exhaust(enum rc (*call)(void), bool for_good)
{
    for (long n = 1; n < RUNS_MAX; n++) {
        memory.left = n;
        memory.for_good = for_good;
        memory.failed = false;
        memory.live = 0;
        memory.armed = true;
        enum rc rc = call();
        memory.armed = false;
        if (memory.live != 0) {
            fail_msg("allocation %ld failed and %ld leaked", n, memory.live);
        }
        if (!memory.failed) {
            assert_int_equal(rc, RC_OK);
            assert_true(n > 10);
            return;
        }
        if (rc != RC_NOMEM && (rc != RC_OK || call == decode_birth || call == decode_manifest)) {
            fail_msg("allocation %ld failed: %s (%s)", n, rc_name(rc), err.text);
        }
    }
    fail_msg("no run without a failure");
}

static void test_json_fields__no_memory_while_writing(void **state)
{
    (void)state;
    exhaust(encode_birth, false);
    exhaust(encode_birth, true);
    exhaust(encode_manifest, false);
    exhaust(encode_manifest, true);
}

static void test_json_fields__no_memory_while_reading(void **state)
{
    (void)state;
    exhaust(decode_birth, false);
    exhaust(decode_birth, true);
    exhaust(decode_manifest, false);
    exhaust(decode_manifest, true);
}

static void test_json_fields__nothing_is_no_object(void **state)
{
    (void)state;
    struct generation_birth read;
    check_fails(RC_CORRUPT, generation_birth_decode(NULL, 0, &read, &err)); /* an empty buffer */
    check_fails(RC_CORRUPT, generation_birth_decode((const uint8_t *)"", 0, &read, &err));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_json_fields__no_memory_while_writing),
        TEST(test_json_fields__no_memory_while_reading),
        TEST(test_json_fields__nothing_is_no_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
