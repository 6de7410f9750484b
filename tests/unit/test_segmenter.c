/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segmenter: made-up WALs go in through reserve and add, as the follower does it, and each segment
 * that comes out is written and read by archive/segment, which checks salts, checksums, flags and
 * commit size. The link of each must be the end of the one before.
 */
#include "replicator/segmenter.h"

#include "tests/unit/checks.h"
#include "tests/unit/sample_wal.h"

#include "base/buf.h"

#include <stdlib.h>

#define CUTS_MAX 8
#define LARGE_PAGE_BYTES 65536u
#define LARGE_FRAMES_MAX (SEGMENT_CONTENT_BYTES_MAX / (LARGE_PAGE_BYTES + WAL_FRAME_HEADER_BYTES))

struct cuts {
    size_t count;
    struct segment_header *headers[CUTS_MAX];
    struct wal_point end; /* of the last one */
    size_t content_bytes[CUTS_MAX];
    bool fails;
};

static struct err err;
static struct cuts cuts;
static struct segmenter segmenter;
static struct segment_writer *writer;
static struct segment_reader *reader;
static struct buf object;
static struct buf content;

/* What a segment must be, whoever made it. */
static enum rc take_cut(void *arg, struct segment_header *header, const uint8_t *bytes,
                        size_t count, struct err *at)
{
    struct cuts *into = arg;
    struct object_key key;
    if (into->fails) {
        return err_set(at, RC_IO, "the disk is full");
    }
    assert_in_range(into->count, 0, CUTS_MAX - 1);
    bool is_first = (header->flags & SEGMENT_FIRST) != 0;
    assert_true(wal_point_equal(header->link, is_first ? (struct wal_point){0} : into->end));
    struct segment_header *copy = malloc(sizeof *copy);
    assert_non_null(copy);
    buf_clear(&object);
    check_ok(segment_write(writer, header, bytes, count, &object, &err));
    segment_key(header, &key);
    check_ok(segment_read(reader, &key, object.data, object.size, copy, &content, &err));
    assert_int_equal(content.size, count);
    assert_memory_equal(content.data, bytes, count);
    into->end = (struct wal_point){{header->wal_no, header->last_frame_no}, header->after};
    into->content_bytes[into->count] = count;
    into->headers[into->count++] = copy;
    return RC_OK;
}

static struct generation_id sample_generation(void)
{
    struct generation_id id;
    assert_true(generation_id_parse(SAMPLE_GENERATION, &id, NULL));
    return id;
}

static void begin(const struct wal_point *link, bool first)
{
    struct generation_id id = sample_generation();
    cuts.end = *link;
    segmenter_begin(&segmenter, &id, 2, "5e1ec7ed", link, first);
    segmenter_begin_pass(&segmenter, SAMPLE_UNIX_MS);
}

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    cuts = (struct cuts){0};
    buf_init(&object, SEGMENT_OBJECT_BYTES_MAX);
    buf_init(&content, SEGMENT_CONTENT_BYTES_MAX + 2 * WAL_PAGE_BYTES_MAX);
    check_ok(segment_writer_create(1, &writer, &err));
    check_ok(segment_reader_create(&reader, &err));
    check_ok(segmenter_init(&segmenter, take_cut, &cuts, &err));
    begin(&(struct wal_point){{0, 0}, {0, 0}}, true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < cuts.count; i++) {
        free(cuts.headers[i]);
    }
    segmenter_deinit(&segmenter);
    segment_writer_destroy(writer);
    segment_reader_destroy(reader);
    buf_deinit(&object);
    buf_deinit(&content);
    return 0;
}

/* Frames first..last of the WAL go in, at most `step` at a time. False when the segmenter fails. */
static bool feed(const struct sample_wal *wal, uint32_t wal_no, uint32_t first, uint32_t last,
                 uint32_t step)
{
    const struct segmenter_wal about = {wal_no, wal->page_size_bytes, wal->big_endian_checksums,
                                        wal->salts, wal->bytes};
    size_t frame_bytes = WAL_FRAME_HEADER_BYTES + (size_t)wal->page_size_bytes;
    while (first <= last) {
        uint8_t *at;
        size_t want = last - first + 1 < step ? last - first + 1 : step;
        size_t room = segmenter_reserve(&segmenter, &about, first,
                                        sample_wal_checksum(wal, first - 1), &at, &err);
        if (room == 0) {
            return false;
        }
        want = want < room ? want : room;
        memcpy(at, wal->bytes + WAL_HEADER_BYTES + (first - 1) * frame_bytes, want * frame_bytes);
        first += (uint32_t)want;
        segmenter_add(&segmenter, want, sample_wal_checksum(wal, first - 1));
    }
    return true;
}

static void check_cut(size_t index, uint32_t wal_no, uint32_t first, uint32_t last, uint32_t flags,
                      uint32_t commit_pages)
{
    assert_true(index < cuts.count);
    const struct segment_header *header = cuts.headers[index];
    assert_int_equal(header->wal_no, wal_no);
    assert_int_equal(header->first_frame_no, first);
    assert_int_equal(header->last_frame_no, last);
    assert_int_equal(header->flags, flags);
    assert_int_equal(header->commit_pages, commit_pages);
}

static void test_segmenter__whole_transactions_in_one_segment(void **state)
{
    (void)state;
    const struct sample_frame frames[] = {{1, 0}, {2, 2}, {3, 3}, {1, 0}, {4, 4}};
    struct sample_wal wal;
    sample_wal_init(&wal, 1024, false, 1, frames, 5);
    assert_true(segmenter_is_empty(&segmenter));
    assert_true(feed(&wal, 1, 1, 3, 2));
    segmenter_end_pass(&segmenter);
    assert_false(segmenter_is_empty(&segmenter));
    assert_int_equal(cuts.count, 0); /* nothing leaves before it is cut */
    segmenter_begin_pass(&segmenter, SAMPLE_UNIX_MS + 50);
    assert_true(feed(&wal, 1, 4, 5, 2));
    segmenter_end_pass(&segmenter);
    check_ok(segmenter_cut(&segmenter, &err));
    assert_true(segmenter_is_empty(&segmenter));
    check_cut(0, 1, 1, 5, SEGMENT_FIRST, 4);
    const struct segment_header *header = cuts.headers[0];
    assert_int_equal(header->time_count, 2);
    assert_int_equal(header->times[0].frame_no, 3);
    assert_int_equal(header->times[0].unix_ms, SAMPLE_UNIX_MS);
    assert_int_equal(header->times[1].frame_no, 5);
    assert_int_equal(header->times[1].unix_ms, SAMPLE_UNIX_MS + 50);
    assert_int_equal(header->term, 2);
    assert_string_equal(header->lead_tag, "5e1ec7ed");
    check_ok(segmenter_cut(&segmenter, &err)); /* of nothing: nothing */
    assert_int_equal(cuts.count, 1);
    sample_wal_deinit(&wal);
}

/* The next segment goes on behind the last, without a WAL header, and is not the first any more. */
static void test_segmenter__segments_are_linked(void **state)
{
    (void)state;
    const struct sample_frame frames[] = {{1, 1}, {2, 2}, {3, 3}};
    struct sample_wal wal;
    sample_wal_init(&wal, 512, true, 1, frames, 3);
    for (uint32_t i = 1; i <= 3; i++) {
        assert_true(feed(&wal, 1, i, i, 1));
        check_ok(segmenter_cut(&segmenter, &err));
        check_cut(i - 1, 1, i, i, i == 1 ? SEGMENT_FIRST : 0, i);
        assert_int_equal(cuts.content_bytes[i - 1], 536 + (i == 1 ? WAL_HEADER_BYTES : 0));
    }
    sample_wal_deinit(&wal);
}

static void test_segmenter__goes_on_behind_a_link(void **state)
{
    (void)state;
    const struct sample_frame frames[] = {{1, 1}, {2, 2}, {3, 3}};
    struct sample_wal wal;
    sample_wal_init(&wal, 512, false, 1, frames, 3);
    const struct wal_point link = {{4, 2}, sample_wal_checksum(&wal, 2)};
    assert_true(feed(&wal, 1, 1, 1, 1));
    begin(&link, false); /* what was gathered is forgotten */
    assert_true(segmenter_is_empty(&segmenter));
    assert_true(feed(&wal, 4, 3, 3, 1));
    check_ok(segmenter_cut(&segmenter, &err));
    check_cut(0, 4, 3, 3, 0, 3);
    sample_wal_deinit(&wal);
}

/* One WAL per segment: the frames of the WAL before are cut when the first of the next comes. */
static void test_segmenter__a_wal_reset_cuts(void **state)
{
    (void)state;
    const struct sample_frame frames[] = {{1, 0}, {2, 2}};
    struct sample_wal wals[2];
    sample_wal_init(&wals[0], 512, false, 1, frames, 2);
    sample_wal_init(&wals[1], 1024, true, 2, frames, 2);
    assert_true(feed(&wals[0], 1, 1, 2, 2));
    assert_true(feed(&wals[1], 2, 1, 2, 1));
    assert_int_equal(cuts.count, 1);
    check_ok(segmenter_cut(&segmenter, &err));
    check_cut(0, 1, 1, 2, SEGMENT_FIRST, 2);
    check_cut(1, 2, 1, 2, 0, 2);
    assert_int_equal(cuts.headers[1]->page_size_bytes, 1024);
    assert_true(wal_salts_equal(cuts.headers[1]->salts, wals[1].salts));
    sample_wal_deinit(&wals[0]);
    sample_wal_deinit(&wals[1]);
}

static void init_large_wal(struct sample_wal *wal, uint32_t count, uint32_t commit_every)
{
    struct sample_frame *frames = calloc(count, sizeof *frames);
    assert_non_null(frames);
    for (uint32_t i = 0; i < count; i++) {
        bool commits = i + 1 == count || (i + 1) % commit_every == 0;
        frames[i] = (struct sample_frame){i + 1, commits ? i + 1 : 0};
    }
    sample_wal_init(wal, LARGE_PAGE_BYTES, false, 3, frames, count);
    free(frames);
}

/* A full buffer is cut behind the last whole transaction; the begun one moves to the front. */
static void test_segmenter__cuts_between_transactions_when_full(void **state)
{
    (void)state;
    struct sample_wal wal;
    init_large_wal(&wal, 100, 10);
    assert_true(feed(&wal, 1, 1, 100, 7));
    assert_int_equal(cuts.count, 1);
    check_ok(segmenter_cut(&segmenter, &err));
    check_cut(0, 1, 1, 60, SEGMENT_FIRST, 60);
    check_cut(1, 1, 61, 100, 0, 100);
    sample_wal_deinit(&wal);
}

/* A transaction larger than a segment is cut inside, and both sides say so. */
static void test_segmenter__cuts_inside_a_large_transaction(void **state)
{
    (void)state;
    struct sample_wal wal;
    init_large_wal(&wal, 150, 1000);
    assert_true(feed(&wal, 1, 1, 150, 9));
    check_ok(segmenter_cut(&segmenter, &err));
    assert_int_equal(cuts.count, 3);
    check_cut(0, 1, 1, LARGE_FRAMES_MAX, SEGMENT_FIRST | SEGMENT_CONTINUED, 0);
    check_cut(1, 1, LARGE_FRAMES_MAX + 1, 2 * LARGE_FRAMES_MAX,
              SEGMENT_CONTINUES | SEGMENT_CONTINUED, 0);
    check_cut(2, 1, 2 * LARGE_FRAMES_MAX + 1, 150, SEGMENT_CONTINUES, 150);
    for (size_t i = 0; i < cuts.count; i++) {
        assert_in_range(cuts.content_bytes[i], 1, SEGMENT_CONTENT_BYTES_MAX);
        const struct segment_header *header = cuts.headers[i];
        assert_int_equal(header->times[header->time_count - 1].frame_no, header->last_frame_no);
    }
    sample_wal_deinit(&wal);
}

static void test_segmenter__drops_the_open_transaction(void **state)
{
    (void)state;
    const struct sample_frame frames[] = {{1, 0}, {2, 2}, {3, 0}, {4, 0}};
    struct sample_wal wal;
    sample_wal_init(&wal, 512, false, 1, frames, 4);
    segmenter_drop_open_transaction(&segmenter); /* of nothing: nothing */
    assert_true(feed(&wal, 1, 1, 4, 3));
    segmenter_drop_open_transaction(&segmenter);
    check_ok(segmenter_cut(&segmenter, &err));
    check_cut(0, 1, 1, 2, SEGMENT_FIRST, 2);
    assert_true(wal_checksum_equal(cuts.headers[0]->after, sample_wal_checksum(&wal, 2)));
    assert_true(feed(&wal, 1, 3, 4, 1));
    segmenter_drop_open_transaction(&segmenter);
    assert_true(segmenter_is_empty(&segmenter));
    check_ok(segmenter_cut(&segmenter, &err));
    assert_int_equal(cuts.count, 1);
    sample_wal_deinit(&wal);
}

/* What could not be spooled stays gathered, and the next try cuts it once, whole. */
static void test_segmenter__a_failed_cut_can_be_repeated(void **state)
{
    (void)state;
    const struct sample_frame frames[] = {{1, 1}, {2, 2}, {3, 3}};
    struct sample_wal wal;
    sample_wal_init(&wal, 512, false, 1, frames, 3);
    assert_true(feed(&wal, 1, 1, 2, 2));
    cuts.fails = true;
    check_fails(RC_IO, segmenter_cut(&segmenter, &err));
    assert_false(segmenter_is_empty(&segmenter));
    cuts.fails = false;
    assert_true(feed(&wal, 1, 3, 3, 1));
    check_ok(segmenter_cut(&segmenter, &err));
    assert_int_equal(cuts.count, 1);
    check_cut(0, 1, 1, 3, SEGMENT_FIRST, 3);
    sample_wal_deinit(&wal);
}

static void test_segmenter__reserve_says_when_the_cut_fails(void **state)
{
    (void)state;
    const struct sample_frame frames[] = {{1, 1}, {2, 2}};
    struct sample_wal wals[2];
    sample_wal_init(&wals[0], 512, false, 1, frames, 2);
    sample_wal_init(&wals[1], 512, false, 2, frames, 2);
    assert_true(feed(&wals[0], 1, 1, 2, 2));
    cuts.fails = true;
    assert_false(feed(&wals[1], 2, 1, 2, 2));
    assert_int_equal(err.rc, RC_IO);
    cuts.fails = false;
    assert_true(feed(&wals[1], 2, 1, 2, 2));
    check_cut(0, 1, 1, 2, SEGMENT_FIRST, 2);
    sample_wal_deinit(&wals[0]);
    sample_wal_deinit(&wals[1]);
}

/* More passes than rows: every second row goes, frames and times still rise, the last one stays. */
static void test_segmenter__time_table_is_thinned(void **state)
{
    (void)state;
    enum { PASSES = SEGMENT_TIMES_MAX + 10 };
    struct sample_frame frames[PASSES];
    struct sample_wal wal;
    for (uint32_t i = 0; i < PASSES; i++) {
        frames[i] = (struct sample_frame){1, 1};
    }
    sample_wal_init(&wal, 512, false, 1, frames, PASSES);
    for (uint32_t i = 1; i <= PASSES; i++) {
        segmenter_begin_pass(&segmenter, SAMPLE_UNIX_MS + i);
        assert_true(feed(&wal, 1, i, i, 1));
        segmenter_end_pass(&segmenter);
    }
    check_ok(segmenter_cut(&segmenter, &err));
    const struct segment_header *header = cuts.headers[0];
    assert_int_equal(header->time_count, SEGMENT_TIMES_MAX / 2 + 10);
    for (uint32_t i = 0; i < header->time_count; i++) {
        uint32_t frame_no = header->times[i].frame_no; /* frame n was seen by pass n */
        assert_int_equal(header->times[i].unix_ms, SAMPLE_UNIX_MS + frame_no);
        assert_true(i == 0 || frame_no > header->times[i - 1].frame_no);
        assert_true(i >= SEGMENT_TIMES_MAX / 2 || frame_no == 2 * (i + 1)); /* the later of two */
    }
    assert_int_equal(header->times[header->time_count - 1].frame_no, PASSES);
    sample_wal_deinit(&wal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_segmenter__whole_transactions_in_one_segment),
        CASE(test_segmenter__segments_are_linked),
        CASE(test_segmenter__goes_on_behind_a_link),
        CASE(test_segmenter__a_wal_reset_cuts),
        CASE(test_segmenter__cuts_between_transactions_when_full),
        CASE(test_segmenter__cuts_inside_a_large_transaction),
        CASE(test_segmenter__drops_the_open_transaction),
        CASE(test_segmenter__a_failed_cut_can_be_repeated),
        CASE(test_segmenter__reserve_says_when_the_cut_fails),
        CASE(test_segmenter__time_table_is_thinned),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
