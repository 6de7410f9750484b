/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan, choose, cut: which objects a restore would read and at which commit it ends, on an archive
 * made up in a directory. Two WALs of sample frames, cut so that some objects end inside a
 * transaction:
 *
 *   WAL 1: commits at 2 3 8 10 12     objects 1-3, 4-6 (no commit), 7-9 (commit at 8), 10-12
 *   WAL 2: commits at 1 5             objects 1-1, 2-5
 *
 * Times: object n (from 1) has rows 1000 n and, for its last frame, 1000 n + 500 ms after the epoch
 * of the test. The snapshots: (1, 0), and (1, 8) where a test asks for it.
 */
#include "restorer/plan.h"

#include "restorer/choose.h"
#include "restorer/cut.h"
#include "tests/unit/checks.h"
#include "tests/unit/sample_wal.h"
#include "tests/unit/scratch.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE 512u
#define PAGES 9u
#define EPOCH_MS SAMPLE_UNIX_MS

static const uint32_t ends[2][5] = {{3, 6, 9, 12, 0}, {1, 5, 0, 0, 0}};
static const uint32_t commits[2][6] = {{2, 3, 8, 10, 12, 0}, {1, 5, 0, 0, 0, 0}};

struct fixture {
    struct scratch scratch;
    struct store *store;
    struct segment_writer *writer;
    struct segment_header *header;
    struct sample_wal wals[2];
    struct plan plan;
    struct plan_failure failure;
    struct restore_request request;
    struct err err;
};

static bool is_commit(uint32_t wal_no, uint32_t frame_no)
{
    for (size_t i = 0; commits[wal_no - 1][i] != 0; i++) {
        if (commits[wal_no - 1][i] == frame_no) {
            return true;
        }
    }
    return false;
}

static void make_wal(struct sample_wal *wal, uint32_t wal_no, uint32_t count)
{
    struct sample_frame frames[12];
    for (uint32_t i = 0; i < count; i++) {
        frames[i] = (struct sample_frame){i % 7 + 1, is_commit(wal_no, i + 1) ? PAGES + wal_no : 0};
    }
    sample_wal_init(wal, PAGE, false, wal_no, frames, count);
}

static void put(struct fixture *fixture, const struct object_key *key, const struct buf *bytes)
{
    char text[OBJECT_KEY_BYTES];
    struct err err = ERR_INIT;
    object_key_format(key, text);
    check_ok(
        store_put_bytes(fixture->store, text, bytes->data, bytes->size, STORE_PUT_PLAIN, &err));
}

/* Object `number` (from 1 over both WALs). */
static void put_segment(struct fixture *fixture, uint32_t wal_no, uint32_t first, uint32_t last,
                        int64_t number)
{
    struct err err = ERR_INIT;
    struct object_key key;
    struct buf object;
    size_t count = 0;
    struct segment_header *header = fixture->header;
    const struct sample_wal *wal = &fixture->wals[wal_no - 1];
    sample_header(wal, wal_no, first, last, header);
    header->times[0] = (struct segment_time){first, EPOCH_MS + 1000 * number};
    header->time_count = first < last ? 2 : 1;
    header->times[header->time_count - 1] =
        (struct segment_time){last, EPOCH_MS + 1000 * number + (first < last ? 500 : 0)};
    if (wal_no == 2 && first == 1) {
        header->link = (struct wal_point){{1, 12}, sample_wal_checksum(&fixture->wals[0], 12)};
    }
    const uint8_t *content = sample_wal_content(wal, first, last, &count);
    buf_init(&object, SEGMENT_OBJECT_BYTES_MAX);
    check_ok(segment_write(fixture->writer, header, content, count, &object, &err));
    segment_key(header, &key);
    put(fixture, &key, &object);
    buf_deinit(&object);
}

static void put_segments(struct fixture *fixture)
{
    int64_t number = 1;
    for (uint32_t wal_no = 1; wal_no <= 2; wal_no++) {
        uint32_t first = 1;
        for (size_t i = 0; ends[wal_no - 1][i] != 0; i++) {
            put_segment(fixture, wal_no, first, ends[wal_no - 1][i], number);
            first = ends[wal_no - 1][i] + 1;
            number++;
        }
    }
}

static void put_birth(struct fixture *fixture)
{
    struct err err = ERR_INIT;
    struct generation_birth birth = {
        .page_size_bytes = PAGE, .window = 4, .host = "h", .unix_ms = EPOCH_MS};
    struct object_key key = {.kind = OBJECT_GENERATION, .generation_number = 3};
    struct buf json;
    assert_true(generation_id_parse(SAMPLE_GENERATION, &birth.id, NULL));
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    check_ok(generation_birth_encode(&birth, &json, &err));
    put(fixture, &key, &json);
    buf_deinit(&json);
}

/* Parts of one page each; what is in them does not matter to a plan. */
static void put_snapshot(struct fixture *fixture, uint32_t frame_no, int64_t unix_ms,
                         uint32_t missing_part)
{
    struct err err = ERR_INIT;
    struct snapshot_manifest manifest;
    struct object_key key = {.kind = OBJECT_SNAPSHOT_PART, .position = {1, frame_no}};
    struct buf bytes;
    buf_init(&bytes, 1u << 20);
    snapshot_manifest_init(&manifest);
    assert_true(generation_id_parse(SAMPLE_GENERATION, &manifest.generation, NULL));
    manifest.point.position = key.position;
    if (frame_no > 0) {
        manifest.point.checksum = sample_wal_checksum(&fixture->wals[0], frame_no);
    }
    memcpy(manifest.tag, "0a0b0c0d", sizeof manifest.tag);
    manifest.page_size_bytes = PAGE;
    manifest.database_pages = PAGES;
    manifest.unix_ms = unix_ms;
    manifest.completed_unix_ms = unix_ms;
    key.generation = manifest.generation;
    memcpy(key.tag, manifest.tag, sizeof key.tag);
    check_ok(buf_append(&bytes, "ten bytes.", 10, &err));
    for (uint32_t i = 1; i <= PAGES; i++) {
        struct snapshot_part part = {.content_bytes = PAGE, .object_bytes = 10};
        check_ok(snapshot_manifest_add(&manifest, &part, &err));
        key.part_no = i;
        if (i != missing_part) {
            put(fixture, &key, &bytes);
        }
    }
    buf_clear(&bytes);
    check_ok(snapshot_manifest_encode(&manifest, &bytes, &err));
    key.kind = OBJECT_SNAPSHOT_COMPLETE;
    put(fixture, &key, &bytes);
    snapshot_manifest_deinit(&manifest);
    buf_deinit(&bytes);
}

static int setup(void **state)
{
    struct err err = ERR_INIT;
    struct store_config config = {.off = false};
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture->header = malloc(sizeof *fixture->header);
    assert_non_null(fixture->header);
    scratch_init(&fixture->scratch);
    (void)snprintf(config.dir, sizeof config.dir, "%s/archive", fixture->scratch.dir);
    (void)snprintf(config.url, sizeof config.url, "dir:%s/archive", fixture->scratch.dir);
    check_ok(store_open(&config, NULL, &fixture->store, &err));
    check_ok(store_prepare(fixture->store, true, &err));
    check_ok(segment_writer_create(1, &fixture->writer, &err));
    make_wal(&fixture->wals[0], 1, 12);
    make_wal(&fixture->wals[1], 2, 5);
    put_birth(fixture);
    put_segments(fixture);
    put_snapshot(fixture, 0, EPOCH_MS, 0);
    plan_init(&fixture->plan);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    plan_deinit(&fixture->plan);
    sample_wal_deinit(&fixture->wals[0]);
    sample_wal_deinit(&fixture->wals[1]);
    segment_writer_destroy(fixture->writer);
    store_close(fixture->store);
    scratch_deinit(&fixture->scratch);
    free(fixture->header);
    free(fixture);
    return 0;
}

static enum rc make(struct fixture *fixture, size_t skip)
{
    plan_deinit(&fixture->plan);
    plan_init(&fixture->plan);
    fixture->err = (struct err)ERR_INIT;
    return plan_make(&fixture->plan, &fixture->request, fixture->store, NULL, skip,
                     &fixture->failure, &fixture->err);
}

/* Where the plan ends, the time of that, and how many objects are read. */
static void check_plan(struct fixture *fixture, uint32_t wal_no, uint32_t frame_no,
                       size_t segment_count)
{
    enum rc rc = make(fixture, 0);
    struct err err = fixture->err;
    check_ok(rc);
    const struct cut *cut = &fixture->plan.cut;
    if (cut->point.position.wal_no != wal_no || cut->point.position.frame_no != frame_no ||
        fixture->plan.segment_count != segment_count) {
        fail_msg("ends at %u/%u with %zu objects, wanted %u/%u with %zu",
                 cut->point.position.wal_no, cut->point.position.frame_no,
                 fixture->plan.segment_count, wal_no, frame_no, segment_count);
    }
    if (frame_no > 0) {
        assert_true(wal_checksum_equal(cut->point.checksum,
                                       sample_wal_checksum(&fixture->wals[wal_no - 1], frame_no)));
        assert_int_equal(cut->commit_pages, cut->is_snapshot ? PAGES : PAGES + wal_no);
    }
}

static void ask_position(struct fixture *fixture, uint32_t wal_no, uint32_t frame_no)
{
    fixture->request.target = RESTORE_TO_POSITION;
    fixture->request.target_position = (struct position){wal_no, frame_no};
    assert_true(generation_id_parse(SAMPLE_GENERATION, &fixture->request.generation, NULL));
}

static void ask_time(struct fixture *fixture, int64_t after_ms)
{
    fixture->request.target = RESTORE_TO_TIME;
    fixture->request.target_unix_ms = EPOCH_MS + after_ms;
}

static void test_plan__latest(void **state)
{
    struct fixture *fixture = *state;
    check_plan(fixture, 2, 5, 6);
    assert_int_equal(fixture->plan.cut.unix_ms, EPOCH_MS + 6500);
    assert_int_equal(fixture->plan.part_object_bytes, 10 * PAGES);
    assert_false(fixture->plan.left_out);
    assert_string_equal(fixture->plan.newest_generation.text, SAMPLE_GENERATION);
    assert_int_equal(fixture->plan.newest_end.position.frame_no, 5);
}

/* Every frame of both WALs: the commits are reached, the others refused with the one before. */
static void test_plan__every_position(void **state)
{
    struct fixture *fixture = *state;
    size_t object = 0;
    struct position last = {1, 0};
    for (uint32_t wal_no = 1; wal_no <= 2; wal_no++) {
        size_t i = 0;
        for (uint32_t frame_no = 1; frame_no <= fixture->wals[wal_no - 1].frame_count; frame_no++) {
            i += frame_no > ends[wal_no - 1][i];
            ask_position(fixture, wal_no, frame_no);
            if (is_commit(wal_no, frame_no)) {
                check_plan(fixture, wal_no, frame_no, object + i + 1);
                last = (struct position){wal_no, frame_no};
                continue;
            }
            assert_int_equal(make(fixture, 0), RC_CORRUPT);
            assert_non_null(strstr(fixture->err.text, "inside a transaction"));
            assert_true(fixture->failure.has_last_good);
            assert_int_equal(position_compare(fixture->failure.last_good, last), 0);
        }
        object += i + 1;
    }
    static const struct position beyond[] = {{2, 6}, {3, 1}, {9, 999}};
    for (size_t i = 0; i < 3; i++) {
        ask_position(fixture, beyond[i].wal_no, beyond[i].frame_no);
        assert_int_equal(make(fixture, 0), RC_CORRUPT);
        assert_int_equal(position_compare(fixture->failure.last_good, last), 0);
    }
    ask_position(fixture, 1, 13); /* between two WALs */
    assert_int_equal(make(fixture, 0), RC_CORRUPT);
    assert_int_equal(fixture->failure.last_good.frame_no, 12);
}

static void test_plan__every_time(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        int64_t after_ms;
        uint32_t wal_no;
        uint32_t frame_no;
        size_t objects;
    } cases[] = {
        {0, 1, 0, 0},    /* the snapshot's own time */
        {1000, 1, 0, 0}, /* a row that ends inside the first transaction */
        {1499, 1, 0, 0},  {1500, 1, 3, 1},  {2500, 1, 3, 1}, /* object 2 holds no commit */
        {3499, 1, 3, 1},  {3500, 1, 8, 3}, /* object 3 ends inside a transaction */
        {4000, 1, 10, 4}, {4500, 1, 12, 4}, {4999, 1, 12, 4}, {5000, 2, 1, 5},
        {6000, 2, 1, 5},  {6500, 2, 5, 6},  {99999, 2, 5, 6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ask_time(fixture, cases[i].after_ms);
        check_plan(fixture, cases[i].wal_no, cases[i].frame_no, cases[i].objects);
    }
    ask_time(fixture, -1);
    assert_int_equal(make(fixture, 0), RC_CORRUPT);
    assert_false(fixture->failure.has_last_good);
}

/* A snapshot inside a WAL: objects that end before its frame are not read, the one that holds it is. */
static void test_plan__later_snapshot(void **state)
{
    struct fixture *fixture = *state;
    put_snapshot(fixture, 8, EPOCH_MS + 3600, 0);
    check_plan(fixture, 2, 5, 4);
    assert_int_equal(fixture->plan.first_index, 2);
    ask_position(fixture, 1, 8);
    check_plan(fixture, 1, 8, 1);
    assert_true(fixture->plan.cut.is_snapshot);
    ask_position(fixture, 1, 3); /* before it: the older one serves */
    check_plan(fixture, 1, 3, 1);
    ask_time(fixture, 3550);
    fixture->request.generation.text[0] = '\0';
    check_plan(fixture, 1, 8, 3);
    assert_int_equal(fixture->plan.manifest.point.position.frame_no, 0);
}

static void test_plan__skipped_snapshots(void **state)
{
    struct fixture *fixture = *state;
    put_snapshot(fixture, 8, EPOCH_MS + 3600, 4); /* part 4 is missing */
    assert_int_equal(make(fixture, 0), RC_CORRUPT);
    assert_true(fixture->failure.snapshot_is_damaged);
    assert_int_equal(make(fixture, 1), RC_OK);
    assert_int_equal(fixture->plan.cut.point.position.frame_no, 5);
    assert_int_equal(make(fixture, 2), RC_CORRUPT);
    assert_false(fixture->failure.snapshot_is_damaged);
}

static void test_plan__last_commit_before(void **state)
{
    struct fixture *fixture = *state;
    static const uint32_t wanted[][2] = {{1, 0}, {1, 3}, {1, 3}, {1, 8}, {1, 12}, {2, 1}, {2, 5}};
    struct err err = ERR_INIT;
    check_ok(make(fixture, 0));
    for (size_t index = 0; index < 7; index++) {
        struct position position;
        check_ok(
            plan_last_commit_before(&fixture->plan, fixture->store, NULL, index, &position, &err));
        assert_int_equal(position.wal_no, wanted[index][0]);
        assert_int_equal(position.frame_no, wanted[index][1]);
    }
}

static void test_plan__unknown_generation(void **state)
{
    struct fixture *fixture = *state;
    assert_true(
        generation_id_parse("00000009-0000000000000009", &fixture->request.generation, NULL));
    assert_int_equal(make(fixture, 0), RC_NOT_FOUND);
    assert_non_null(strstr(fixture->err.text, SAMPLE_GENERATION)); /* names what there is */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_plan__latest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plan__every_position, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plan__every_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plan__later_snapshot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plan__skipped_snapshots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plan__last_commit_before, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plan__unknown_generation, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
