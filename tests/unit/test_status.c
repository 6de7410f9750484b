/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status: the two forms of /status against facts that are made up: every key of the contract
 * (product.md), nulls where nothing is known, and texts that are no UTF-8.
 */
#include "server/status.h"

#include "tests/unit/checks.h"

#include <jansson.h>
#include <stdio.h>

static struct err err;
static struct status_facts facts;
static struct buf out;

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    buf_init(&out, STATUS_BYTES_MAX);
    facts = (struct status_facts){
        .has_rows = true,
        .rows = 1234,
        .ready = true,
        .uptime_s = 12.5,
        .version = "0.1.0",
        .sqlite_version = "3.40.1",
        .synchronous = "FULL",
        .filesystem = "ext4",
        .connections = 7,
        .replicator = {.role = ROLE_LEADER,
                       .may_serve = true,
                       .generation = {"00000003-9f2c41d7a6b0e355"},
                       .local = {3, 164},
                       .has_local = true,
                       .archived = {3, 160},
                       .has_archived = true,
                       .archived_unix_ms = INT64_C(1795493580123),
                       .lag_frames = 4,
                       .lag_bytes = 16480,
                       .lag_ms = 12,
                       .lag_recent = {60, 9, 31, 55},
                       .spool_segments = 1,
                       .spool_bytes = 16480,
                       .spool_bytes_max = 1073741824,
                       .store_url = "s3://harvey/demo",
                       .store_state = STORE_OK,
                       .put_p50_ms = 3.1,
                       .put_p99_ms = 9.0,
                       .has_snapshot = true,
                       .snapshot = {1, 0},
                       .snapshot_age_ms = 300000},
    };
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_deinit(&out);
    return 0;
}

static const char *text(void)
{
    check_ok(status_render_text(&facts, &out, &err));
    check_ok(buf_append(&out, "", 1, &err));
    return (const char *)out.data;
}

static json_t *json(void)
{
    json_error_t error;
    check_ok(status_render_json(&facts, &out, &err));
    json_t *root = json_loadb((const char *)out.data, out.size, JSON_REJECT_DUPLICATES, &error);
    assert_non_null(root);
    return root;
}

static void check_has(const char *whole, const char *part)
{
    if (strstr(whole, part) == NULL) {
        fail_msg("\"%s\" is not in:\n%s", part, whole);
    }
}

/* The example of the contract, key by key. */
static void test_status__json_of_the_contract(void **state)
{
    (void)state;
    json_int_t rows, wal_no, frame_no, archived_frame_no, archived_ms, frames, bytes, ms, seconds;
    json_int_t p50, p99, max, segments, spool_bytes, spool_max, snapshot_wal_no, snapshot_frame_no;
    double uptime_s, put_p50, put_p99, age_s;
    const char *role, *version, *generation, *url, *store_state, *sqlite, *synchronous;
    int ready;
    json_t *reason, *store_error;
    json_t *root = json();
    assert_int_equal(
        json_unpack_ex(
            root, NULL, 0,
            "{s:I, s:s, s:b, s:o, s:s, s:F, s:s, s:{s:I, s:I}, s:{s:I, s:I, s:I}, "
            "s:{s:I, s:I, s:I, s:{s:I, s:I, s:I, s:I}}, s:{s:I, s:I, s:I}, "
            "s:{s:s, s:s, s:o, s:{s:F, s:F}}, s:{s:I, s:I, s:F}, s:{s:s, s:s}}",
            "rows", &rows, "role", &role, "ready", &ready, "reason", &reason, "version", &version,
            "uptime_s", &uptime_s, "generation", &generation, "local", "wal_no", &wal_no,
            "frame_no", &frame_no, "archived", "wal_no", &wal_no, "frame_no", &archived_frame_no,
            "unix_ms", &archived_ms, "lag", "frames", &frames, "bytes", &bytes, "ms", &ms,
            "recent_ms", "seconds", &seconds, "p50", &p50, "p99", &p99, "max", &max, "spool",
            "segments", &segments, "bytes", &spool_bytes, "max_bytes", &spool_max, "store", "url",
            &url, "state", &store_state, "error", &store_error, "put_ms", "p50", &put_p50, "p99",
            &put_p99, "snapshot", "wal_no", &snapshot_wal_no, "frame_no", &snapshot_frame_no,
            "age_s", &age_s, "sqlite", "version", &sqlite, "synchronous", &synchronous),
        0);
    assert_int_equal(rows, 1234);
    assert_string_equal(role, "leader");
    assert_true(ready);
    assert_true(json_is_null(reason) && json_is_null(store_error));
    assert_true(uptime_s > 12.4 && uptime_s < 12.6 && put_p50 > 3.0 && put_p99 > 8.9);
    assert_string_equal(generation, "00000003-9f2c41d7a6b0e355");
    assert_int_equal(frame_no, 164);
    assert_int_equal(archived_frame_no, 160);
    assert_true(archived_ms == INT64_C(1795493580123));
    assert_int_equal(frames * 1000000 + ms, 4000012);
    assert_int_equal(bytes, 16480);
    assert_int_equal(seconds * 1000000 + p50 * 10000 + p99 * 100 + max, 60093155);
    assert_int_equal(segments, 1);
    assert_int_equal(spool_max, 1073741824);
    assert_string_equal(store_state, "ok");
    assert_int_equal(snapshot_wal_no * 10 + snapshot_frame_no, 10);
    assert_true(age_s > 299 && age_s < 301);
    assert_string_equal(synchronous, "FULL");
    json_decref(root);
}

static void test_status__json_of_counters(void **state)
{
    (void)state;
    json_int_t rows, batches, failed, freeze_us, p999_us, max_us;
    facts.inserted_rows = 100;
    facts.batches = 20;
    facts.failed_batches = 3;
    facts.writer_pause_p999_us = 4500;
    facts.writer_pause_max_us = 6700;
    facts.replicator.freeze_max_us = 8900;
    json_t *root = json();
    assert_int_equal(json_unpack(root, "{s:{s:I, s:I, s:I, s:I, s:I, s:I}}", "counters",
                                 "inserted_rows", &rows, "batches", &batches, "failed_batches",
                                 &failed, "freeze_max_us", &freeze_us, "writer_pause_p999_us",
                                 &p999_us, "writer_pause_max_us", &max_us),
                     0);
    assert_int_equal(rows * 10000 + batches * 100 + failed, 1002003);
    assert_int_equal(freeze_us, 8900);
    assert_int_equal(p999_us, 4500);
    assert_int_equal(max_us, 6700);
    json_decref(root);
}

static void test_status__json_of_nothing(void **state)
{
    (void)state;
    static const char *const nulls[] = {"rows", "generation", "local", "archived", "snapshot"};
    facts.has_rows = false;
    facts.ready = false;
    facts.replicator = (struct replicator_status){.role = ROLE_WAITING_FOR_RESTORE};
    (void)snprintf(facts.reason, sizeof facts.reason, "run ./restore --to-latest");
    json_t *root = json();
    for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++) {
        assert_true(json_is_null(json_object_get(root, nulls[i])));
    }
    assert_string_equal(json_string_value(json_object_get(root, "role")), "waiting for a restore");
    assert_string_equal(json_string_value(json_object_get(root, "reason")),
                        "run ./restore --to-latest");
    json_decref(root);
}

/* A path or a store's words may be anything; the answer is JSON all the same. */
static void test_status__json_of_foreign_texts(void **state)
{
    (void)state;
    (void)snprintf(facts.reason, sizeof facts.reason, "bad \xff\xfe \"quoted\" \n \x01");
    memset(facts.replicator.store_error, 0xe2, sizeof facts.replicator.store_error - 1);
    json_t *root = json();
    check_has(json_string_value(json_object_get(root, "reason")), "bad ?? \"quoted\" \n \x01");
    json_decref(root);
}

static void test_status__text_for_people(void **state)
{
    (void)state;
    const char *whole = text();
    assert_memory_equal(whole, "Total rows: 1234\n", 17);
    static const char *const parts[] = {"Role: leader\n",
                                        "Ready: yes\n",
                                        "Generation: 00000003-9f2c41d7a6b0e355\n",
                                        "Local position: 3/164\n",
                                        "Archived position: 3/160\n",
                                        "Lag: 4 frames, 16480 bytes, 12 ms",
                                        "p50 9 ms, p99 31 ms, max 55 ms",
                                        "Spool: 1 segment, 16480 of 1073741824 bytes\n",
                                        "Store: s3://harvey/demo  ok",
                                        "Snapshot: 1/0, 300 s ago\n",
                                        "SQLite: 3.40.1, synchronous FULL\n",
                                        "Version: 0.1.0, up 12.5 s\n"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        check_has(whole, parts[i]);
    }
    assert_null(strstr(whole, "ALARM"));
    assert_null(strstr(whole, "Reason"));
}

static void test_status__text_of_trouble(void **state)
{
    (void)state;
    facts.has_rows = false;
    facts.ready = false;
    facts.unsafe_filesystem = true;
    facts.filesystem = "overlay";
    facts.replicator = (struct replicator_status){
        .role = ROLE_WAITING, .alarm = true, .store_state = STORE_DOWN, .same_filesystem = true};
    (void)snprintf(facts.reason, sizeof facts.reason, "an old volume");
    (void)snprintf(facts.replicator.store_error, sizeof facts.replicator.store_error, "refused");
    const char *whole = text();
    static const char *const parts[] = {"Total rows: unknown",
                                        "Ready: no\n",
                                        "ALARM: an old volume\n",
                                        "ALARM: the database lies on overlay",
                                        "Generation: none\n",
                                        "Archived position: none\n",
                                        "down",
                                        "own filesystem",
                                        "Store error: refused\n",
                                        "Snapshot: none\n"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        check_has(whole, parts[i]);
    }
}

static void test_status__text_without_an_archive(void **state)
{
    (void)state;
    facts.replicator.store_state = STORE_OFF;
    check_has(text(), "NOTHING IS BACKED UP");
}

/* The largest texts that can come in: neither form overflows its cap. */
static void test_status__fits_its_cap(void **state)
{
    (void)state;
    memset(facts.reason, 'r', sizeof facts.reason - 1);
    memset(facts.replicator.store_url, 'u', sizeof facts.replicator.store_url - 1);
    memset(facts.replicator.store_error, 'e', sizeof facts.replicator.store_error - 1);
    facts.rows = INT64_MAX;
    facts.replicator.lag_bytes = INT64_MAX;
    facts.replicator.local = (struct position){UINT32_MAX, UINT32_MAX};
    (void)text();
    buf_clear(&out);
    json_decref(json());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_status__json_of_counters),        CASE(test_status__json_of_the_contract),
        CASE(test_status__json_of_nothing),         CASE(test_status__json_of_foreign_texts),
        CASE(test_status__text_for_people),         CASE(test_status__text_of_trouble),
        CASE(test_status__text_without_an_archive), CASE(test_status__fits_its_cap),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
