/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_format: complete.json written and read; then texts with one thing wrong each, made by
 * replacing a piece of a good one.
 */
#include "archive/snapshot_format.h"

#include "tests/unit/checks.h"
#include "tests/unit/guarded.h"

#include <stdio.h>
#include <stdlib.h>

static const char good[] =
    "{\"format\": 1, \"generation\": \"00000003-9f2c41d7a6b0e355\","
    " \"point\": {\"wal_no\": 3, \"frame_no\": 164, \"checksum\": \"8a38e73d5f0c21b4\"},"
    " \"tag\": \"0badcafe\", \"page_size\": 4096, \"pages\": 3, \"unix_ms\": 1795543200123,"
    " \"completed_unix_ms\": 1795543200456, \"parts\": ["
    "{\"content_bytes\": 8192, \"object_bytes\": 900,"
    " \"sha256\": \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"},"
    "{\"content_bytes\": 4096, \"object_bytes\": 17,"
    " \"sha256\": \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}]}";

static struct err err;
static struct snapshot_manifest manifest;
static struct buf json;

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    snapshot_manifest_init(&manifest);
    buf_init(&json, 64u << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    snapshot_manifest_deinit(&manifest);
    buf_deinit(&json);
    return 0;
}

static enum rc decode(const char *text)
{
    return snapshot_manifest_decode((const uint8_t *)text, strlen(text), &manifest, &err);
}

/* The good text with the first `from` replaced by `to`. */
static const char *changed(const char *from, const char *to)
{
    static char text[4096];
    const char *at = strstr(good, from);
    assert_non_null(at);
    (void)snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
    return text;
}

static void check_good(void)
{
    assert_string_equal(manifest.generation.text, "00000003-9f2c41d7a6b0e355");
    assert_int_equal(manifest.point.position.wal_no, 3);
    assert_int_equal(manifest.point.position.frame_no, 164);
    assert_int_equal(manifest.point.checksum.sum1, 0x8a38e73d);
    assert_int_equal(manifest.point.checksum.sum2, 0x5f0c21b4);
    assert_string_equal(manifest.tag, "0badcafe");
    assert_int_equal(manifest.page_size_bytes, 4096);
    assert_int_equal(manifest.database_pages, 3);
    assert_int_equal(manifest.unix_ms, 1795543200123);
    assert_int_equal(manifest.completed_unix_ms, 1795543200456);
    assert_int_equal(manifest.part_count, 2);
    assert_int_equal(manifest.parts[0].content_bytes, 8192);
    assert_int_equal(manifest.parts[1].object_bytes, 17);
    assert_int_equal(manifest.parts[1].object_sha256[31], 0x55);
}

static void test_snapshot_format__reads_the_documented_form(void **state)
{
    (void)state;
    check_ok(decode(good));
    check_good();
}

static void test_snapshot_format__reads_what_it_writes(void **state)
{
    (void)state;
    check_ok(decode(good));
    check_ok(buf_append(&json, "head", 4, &err));
    check_ok(snapshot_manifest_encode(&manifest, &json, &err));
    assert_int_equal(json.data[json.size - 1], '\n');
    check_ok(snapshot_manifest_decode(json.data + 4, json.size - 4, &manifest, &err));
    check_good();
    size_t first = json.size - 4;
    check_ok(snapshot_manifest_encode(&manifest, &json, &err)); /* the same bytes */
    assert_int_equal(json.size, 4 + 2 * first);
    assert_memory_equal(json.data + 4, json.data + 4 + first, first);
}

static void test_snapshot_format__failure_leaves_the_manifest(void **state)
{
    (void)state;
    check_ok(decode(good));
    check_fails(RC_CORRUPT, decode(changed("\"pages\": 3", "\"pages\": 4")));
    check_good();
}

static void test_snapshot_format__refuses_wrong_fields(void **state)
{
    (void)state;
    static const struct {
        const char *from;
        const char *to;
        const char *text;
    } rows[] = {
        {"\"format\": 1", "\"format\": 2", "newer"},
        {"\"format\": 1", "\"format\": 0", "format"},
        {"\"format\": 1", "\"format\": \"1\"", "format"},
        {"\"format\": 1,", "", "format: is missing"},
        {"\"format\": 1", "\"format\": 1, \"format\": 1", "duplicate"},
        {"00000003-", "00000000-", "generation id"},
        {"\"generation\"", "\"generatio\"", "generation: is missing"},
        {"\"wal_no\": 3", "\"wal_no\": 0", "wal_no"},
        {"\"wal_no\": 3", "\"wal_no\": 4294967296", "wal_no"},
        {"\"wal_no\": 3", "\"wal_no\": 3.0", "wal_no"},
        {"\"wal_no\": 3", "\"wal_no\": true", "wal_no"},
        {"\"frame_no\": 164", "\"frame_no\": -1", "frame_no"},
        {"\"frame_no\": 164", "\"frame_no\": 0", "frame 0"},
        {"8a38e73d5f0c21b4", "8a38e73d5f0c21b", "checksum"},
        {"8a38e73d5f0c21b4", "8A38e73d5f0c21b4", "checksum"},
        {"{\"wal_no\": 3, \"frame_no\": 164, \"checksum\": \"8a38e73d5f0c21b4\"}", "null", "point"},
        {"0badcafe", "0badcaf", "tag"},
        {"\"page_size\": 4096", "\"page_size\": 4095", "power of two"},
        {"\"page_size\": 4096", "\"page_size\": 256", "page_size"},
        {"\"pages\": 3", "\"pages\": 2", "add up"},
        {"\"pages\": 3", "\"pages\": 4294967299", "pages"},
        {"\"pages\": 3", "\"pages\": 0", "pages"},
        {"1795543200123", "-1", "unix_ms"},
        {"1795543200456", "10000000000000", "completed_unix_ms"},
        {"1795543200456", "99999999999999999999", "integer"},
        {"\"content_bytes\": 8192", "\"content_bytes\": 16777217", "part 1"},
        {"\"content_bytes\": 4096", "\"content_bytes\": 0", "part 2"},
        {"\"content_bytes\": 4096", "\"content_bytes\": -4096", "part 2"},
        {"\"object_bytes\": 17", "\"object_bytes\": 0", "part 2"},
        {"\"object_bytes\": 17", "\"object_bytes\": 17825793", "part 2"},
        {"e3b0c442", "e3b0c44", "sha256"},
        {"\"parts\": [{", "\"parts\": [1, {", "part 1"},
        {"\"parts\": [{", "\"part\": [{", "parts: is missing"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_fails(RC_CORRUPT, decode(changed(rows[i].from, rows[i].to)));
        check_text(rows[i].text);
        assert_int_equal(manifest.part_count, 0);
    }
}

static void test_snapshot_format__refuses_other_texts(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "null",
                                        "[]",
                                        "1",
                                        "{}",
                                        "{",
                                        "{\"format\": 1}",
                                        "\xff\xfe",
                                        "{\"format\": 1, \"a\": \"\\u0000\"}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        check_fails(RC_CORRUPT, decode(texts[i]));
    }
    char trailing[2048];
    (void)snprintf(trailing, sizeof trailing, "%s x", good);
    check_fails(RC_CORRUPT, decode(trailing));
    check_fails(RC_CORRUPT, decode(changed("\"parts\": [", "\"parts\": [], \"x\": [")));
}

static void test_snapshot_format__passes_over_unknown_keys(void **state)
{
    (void)state;
    check_ok(decode(changed("{\"format\": 1", "{\"colour\": {\"a\": [1]}, \"format\": 1")));
    check_good();
    check_ok(decode(changed("{\"wal_no\"", "{\"x\": null, \"wal_no\"")));
    check_good();
    check_ok(decode(changed("{\"content_bytes\"", "{\"x\": 1.5, \"content_bytes\"")));
    check_good();
}

static void test_snapshot_format__every_prefix_and_flip_is_safe(void **state)
{
    (void)state;
    struct guarded guarded;
    guarded_init(&guarded, sizeof good);
    for (size_t count = 0; count < sizeof good - 1; count++) {
        const uint8_t *bytes = guarded_place(&guarded, good, count);
        check_fails(RC_CORRUPT, snapshot_manifest_decode(bytes, count, &manifest, &err));
    }
    for (size_t at = 0; at < sizeof good - 1; at++) {
        uint8_t *bytes = guarded_place(&guarded, good, sizeof good - 1);
        bytes[at] ^= 0x10; /* a digit may become another: no hash covers this text */
        enum rc rc = snapshot_manifest_decode(bytes, sizeof good - 1, &manifest, &err);
        assert_true(rc == RC_OK || rc == RC_CORRUPT);
    }
    guarded_deinit(&guarded);
}

static void test_snapshot_format__writer_is_held_to_the_rules(void **state)
{
    (void)state;
    check_fails(RC_INVALID, snapshot_manifest_encode(&manifest, &json, &err)); /* empty */
    assert_int_equal(json.size, 0);
    check_ok(decode(good));
    manifest.database_pages = 4;
    check_fails(RC_INVALID, snapshot_manifest_encode(&manifest, &json, &err));
    check_text("add up");
    manifest.database_pages = 3;
    manifest.parts[0].object_bytes = UINT64_MAX;
    check_fails(RC_INVALID, snapshot_manifest_encode(&manifest, &json, &err));
    manifest.parts[0].object_bytes = 1;
    struct buf small;
    buf_init(&small, 100);
    check_fails(RC_LIMIT, snapshot_manifest_encode(&manifest, &small, &err));
    assert_int_equal(small.size, 0);
    buf_deinit(&small);
}

static void test_snapshot_format__many_parts_round_trip(void **state)
{
    (void)state;
    const uint32_t count = 1000;
    check_ok(decode(good));
    struct snapshot_part part = manifest.parts[1];
    for (uint32_t i = 2; i < count; i++) {
        part.object_bytes = i;
        check_ok(snapshot_manifest_add(&manifest, &part, &err));
    }
    manifest.database_pages = count + 1;
    check_ok(snapshot_manifest_encode(&manifest, &json, &err));
    assert_true(json.size < snapshot_json_bytes_max(count));
    check_ok(snapshot_manifest_decode(json.data, json.size, &manifest, &err));
    assert_int_equal(manifest.part_count, count);
    for (uint32_t i = 2; i < count; i++) {
        assert_int_equal(manifest.parts[i].object_bytes, i);
    }
}

static void test_snapshot_format__a_limit_for_the_parts_there_are(void **state)
{
    (void)state;
    const uint32_t counts[] = {0, 1, 1000, 262080, 262081, SNAPSHOT_PARTS_MAX, UINT32_MAX};
    size_t before = 0;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        size_t limit = snapshot_json_bytes_max(counts[i]);
        assert_in_range(limit, before, SNAPSHOT_JSON_BYTES_MAX);
        before = limit;
    }
    assert_int_equal(snapshot_json_bytes_max(1), 65 << 10);
    assert_int_equal(before, SNAPSHOT_JSON_BYTES_MAX);
}

static void test_snapshot_format__names_its_objects(void **state)
{
    (void)state;
    char key[OBJECT_KEY_BYTES];
    check_ok(decode(good));
    snapshot_complete_key(&manifest, key);
    assert_string_equal(key, "00000003-9f2c41d7a6b0e355/snapshots/"
                             "0000000003-0000000164-0badcafe/complete.json");
    snapshot_part_key(&manifest, 2, key);
    assert_string_equal(key, "00000003-9f2c41d7a6b0e355/snapshots/"
                             "0000000003-0000000164-0badcafe/part-0000000002.db.zst");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_snapshot_format__reads_the_documented_form),
        TEST(test_snapshot_format__reads_what_it_writes),
        TEST(test_snapshot_format__failure_leaves_the_manifest),
        TEST(test_snapshot_format__refuses_wrong_fields),
        TEST(test_snapshot_format__refuses_other_texts),
        TEST(test_snapshot_format__passes_over_unknown_keys),
        TEST(test_snapshot_format__every_prefix_and_flip_is_safe),
        TEST(test_snapshot_format__writer_is_held_to_the_rules),
        TEST(test_snapshot_format__many_parts_round_trip),
        TEST(test_snapshot_format__a_limit_for_the_parts_there_are),
        TEST(test_snapshot_format__names_its_objects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
