/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wal_follower: made-up -wal files on a disk, read up to what a made-up wal-index header says is
 * committed. What reaches the segmenter must be the bytes of the file, no frame more and none less;
 * what is damaged must stop it at the last good frame.
 */
#include "replicator/wal_follower.h"

#include "tests/unit/checks.h"
#include "tests/unit/guarded.h"
#include "tests/unit/sample_wal.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGE_BYTES 512u
#define FRAME_BYTES (PAGE_BYTES + WAL_FRAME_HEADER_BYTES)
#define FRAMES 6
#define TAKEN_BYTES_MAX (4u << 20)

/* Two transactions are committed, a third is begun. */
static const struct sample_frame sample_frames[FRAMES] = {{1, 0}, {2, 2}, {3, 0},
                                                          {1, 3}, {4, 0}, {2, 0}};

static struct scratch scratch;
static struct err err;
static struct sample_wal wal;
static struct segmenter segmenter;
static struct wal_follower follower;
static uint8_t *taken; /* content of all segments, one behind the other */
static size_t taken_bytes;
static struct wal_point taken_end;
static bool emit_fails;

static enum rc take(void *arg, struct segment_header *header, const uint8_t *content, size_t count,
                    struct err *at)
{
    (void)arg;
    if (emit_fails) {
        return err_set(at, RC_IO, "the disk is full");
    }
    assert_true(taken_bytes + count <= TAKEN_BYTES_MAX);
    memcpy(taken + taken_bytes, content, count);
    taken_bytes += count;
    taken_end = (struct wal_point){{header->wal_no, header->last_frame_no}, header->after};
    return RC_OK;
}

static void write_wal(const struct sample_wal *from)
{
    FILE *file = fopen(scratch_path(&scratch, "state.db-wal"), "w");
    assert_non_null(file);
    assert_int_equal(fwrite(from->bytes, 1, from->count, file), from->count);
    assert_int_equal(fclose(file), 0);
}

/* Overwrites bytes of the file that the follower has open. */
static void write_at(const struct sample_wal *from, size_t first, size_t count)
{
    int fd = open(scratch_path(&scratch, "state.db-wal"), O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, from->bytes + first, count, (off_t)first), (ssize_t)count);
    assert_int_equal(close(fd), 0);
}

static struct wal_index_header index_at(const struct sample_wal *of, uint32_t mx_frame)
{
    return (struct wal_index_header){.page_size_bytes = of->page_size_bytes,
                                     .mx_frame = mx_frame,
                                     .checksum = sample_wal_checksum(of, mx_frame),
                                     .salts = of->salts};
}

static void begin_segmenter(const struct wal_point *link, bool first)
{
    struct generation_id id;
    assert_true(generation_id_parse(SAMPLE_GENERATION, &id, NULL));
    segmenter_begin(&segmenter, &id, 2, "5e1ec7ed", link, first);
    segmenter_begin_pass(&segmenter, SAMPLE_UNIX_MS);
}

static int setup(void **state)
{
    (void)state;
    scratch_init(&scratch);
    err = (struct err)ERR_INIT;
    taken_bytes = 0;
    emit_fails = false;
    taken = malloc(TAKEN_BYTES_MAX);
    assert_non_null(taken);
    sample_wal_init(&wal, PAGE_BYTES, false, 1, sample_frames, FRAMES);
    write_wal(&wal);
    check_ok(segmenter_init(&segmenter, take, NULL, &err));
    begin_segmenter(&(struct wal_point){{0, 0}, {0, 0}}, true);
    wal_follower_init(&follower, scratch_path(&scratch, "state.db-wal"));
    check_ok(wal_follower_open(&follower, &err));
    wal_follower_begin_generation(&follower, wal.salts);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    wal_follower_deinit(&follower);
    segmenter_deinit(&segmenter);
    sample_wal_deinit(&wal);
    free(taken);
    scratch_deinit(&scratch);
    return 0;
}

static enum rc capture(const struct sample_wal *of, uint32_t mx_frame)
{
    struct wal_index_header header = index_at(of, mx_frame);
    return wal_follower_capture(&follower, &header, &segmenter, &err);
}

static void check_at(uint32_t wal_no, uint32_t frame_no, const struct sample_wal *of)
{
    struct wal_point wanted = {{wal_no, frame_no}, sample_wal_checksum(of, frame_no)};
    assert_int_equal(follower.frame_no, frame_no);
    assert_int_equal(follower.wal_no, wal_no);
    assert_true(wal_point_equal(follower.end, wanted));
}

static void check_taken(const struct sample_wal *of, uint32_t first, uint32_t last)
{
    size_t count;
    const uint8_t *bytes = sample_wal_content(of, first, last, &count);
    assert_int_equal(taken_bytes, count);
    assert_memory_equal(taken, bytes, count);
}

static void test_wal_follower__stops_where_the_wal_index_does(void **state)
{
    (void)state;
    check_ok(capture(&wal, 2));
    check_at(1, 2, &wal);
    check_ok(segmenter_cut(&segmenter, &err));
    check_taken(&wal, 1, 2);
    check_ok(capture(&wal, 2)); /* again: nothing new */
    assert_true(segmenter_is_empty(&segmenter));
    check_ok(capture(&wal, 4));
    check_at(1, 4, &wal);
    check_ok(segmenter_cut(&segmenter, &err));
    check_taken(&wal, 1, 4); /* frames 5 and 6 lie there, and are nobody's yet */
}

/* What lies behind the committed end is not even looked at. */
static void test_wal_follower__garbage_behind_the_end(void **state)
{
    (void)state;
    memset(wal.bytes + WAL_HEADER_BYTES + 4 * FRAME_BYTES, 0xee, 2 * FRAME_BYTES);
    write_wal(&wal);
    check_ok(capture(&wal, 4));
    check_ok(segmenter_cut(&segmenter, &err));
    check_taken(&wal, 1, 4);
}

/* Frame 4 is bad: 1 to 3 are read, and of those the whole transactions are what is left. */
static void check_bad_frame_4(const char *text)
{
    check_fails(RC_CORRUPT, capture(&wal, 4));
    check_text("reading frame 4 of WAL 1");
    check_text(text);
    check_at(1, 3, &wal);
    segmenter_drop_open_transaction(&segmenter);
    check_ok(segmenter_cut(&segmenter, &err));
    check_taken(&wal, 1, 2);
}

static void test_wal_follower__a_page_that_is_not_what_was_written(void **state)
{
    (void)state;
    wal.bytes[WAL_HEADER_BYTES + 3 * FRAME_BYTES + WAL_FRAME_HEADER_BYTES + 17] ^= 0x40;
    write_wal(&wal);
    check_bad_frame_4("checksum");
}

/* A frame of the WAL before the reset, left over in the file: whole, and not ours. */
static void test_wal_follower__a_frame_with_other_salts(void **state)
{
    (void)state;
    struct sample_wal old;
    sample_wal_init(&old, PAGE_BYTES, false, 2, sample_frames, FRAMES);
    size_t at = WAL_HEADER_BYTES + 3 * FRAME_BYTES;
    memcpy(wal.bytes + at + 8, old.bytes + at + 8, 8);
    write_wal(&wal);
    check_bad_frame_4("salt");
    sample_wal_deinit(&old);
}

/* The frames hold together, and yet the last is not the one that the wal-index speaks of. */
static void test_wal_follower__the_wal_index_has_another_checksum(void **state)
{
    (void)state;
    struct wal_index_header header = index_at(&wal, 4);
    header.checksum.sum2 ^= 1;
    check_fails(RC_CORRUPT, wal_follower_capture(&follower, &header, &segmenter, &err));
    check_text("frame 4 of WAL 1");
}

static void test_wal_follower__a_file_that_is_cut_short(void **state)
{
    (void)state;
    assert_int_equal(
        truncate(scratch_path(&scratch, "state.db-wal"), WAL_HEADER_BYTES + 4 * FRAME_BYTES - 1),
        0);
    check_ok(capture(&wal, 3));
    check_fails(RC_CORRUPT, capture(&wal, 4));
    check_at(1, 3, &wal);
}

static void test_wal_follower__a_bad_wal_header(void **state)
{
    (void)state;
    struct sample_wal old;
    sample_wal_init(&old, PAGE_BYTES, false, 2, sample_frames, FRAMES);
    write_at(&old, 0, WAL_HEADER_BYTES);
    check_fails(RC_CORRUPT, capture(&wal, 2));
    check_text("salts");
    wal.bytes[9] ^= 1;
    write_at(&wal, 0, WAL_HEADER_BYTES);
    check_fails(RC_CORRUPT, capture(&wal, 2));
    assert_int_equal(follower.frame_no, 0);
    assert_true(segmenter_is_empty(&segmenter));
    wal.bytes[9] ^= 1;
    write_at(&wal, 0, WAL_HEADER_BYTES);
    check_ok(capture(&wal, 2)); /* it is read anew each time until it is good */
    sample_wal_deinit(&old);
}

/* After a start: behind a point, in the middle of a WAL. */
static void test_wal_follower__continues(void **state)
{
    (void)state;
    const struct wal_point end = {{7, 2}, sample_wal_checksum(&wal, 2)};
    wal_follower_continue(&follower, &end, wal.salts);
    begin_segmenter(&end, false);
    assert_int_equal(wal_follower_next_wal_no(&follower), 8);
    check_ok(capture(&wal, 4));
    check_at(7, 4, &wal);
    check_ok(segmenter_cut(&segmenter, &err));
    check_taken(&wal, 3, 4);
}

/* The point's checksum is where the rolling one goes on: with another one nothing follows. */
static void test_wal_follower__continues_only_behind_its_own_point(void **state)
{
    (void)state;
    const struct wal_point end = {{7, 2}, {1, 2}};
    wal_follower_continue(&follower, &end, wal.salts);
    begin_segmenter(&end, false);
    check_fails(RC_CORRUPT, capture(&wal, 4));
    assert_int_equal(follower.frame_no, 2);
    assert_true(segmenter_is_empty(&segmenter));
}

/* SQLite resets the WAL: the file is written anew from its beginning, the old tail stays behind. */
static void test_wal_follower__goes_on_with_the_next_wal(void **state)
{
    (void)state;
    struct sample_wal next;
    sample_wal_init(&next, PAGE_BYTES, true, 2, sample_frames, 4);
    assert_int_equal(wal_follower_next_wal_no(&follower), 1);
    check_ok(capture(&wal, 4));
    write_at(&next, 0, WAL_HEADER_BYTES + 2 * FRAME_BYTES);
    assert_int_equal(wal_follower_next_wal_no(&follower), 2);
    wal_follower_begin_wal(&follower, next.salts);
    check_ok(capture(&next, 2));
    check_at(2, 2, &next);
    check_ok(segmenter_cut(&segmenter, &err));
    assert_int_equal(taken_end.position.wal_no, 2);
    assert_int_equal(taken_end.position.frame_no, 2);
    sample_wal_deinit(&next);
}

/* A WAL that carried no frame has no number: the next one gets it. */
static void test_wal_follower__an_empty_wal_does_not_count(void **state)
{
    (void)state;
    check_ok(capture(&wal, 2));
    wal_follower_begin_wal(&follower, (struct wal_salts){1, 2});
    assert_int_equal(follower.wal_no, 2);
    wal_follower_begin_wal(&follower, (struct wal_salts){3, 4});
    assert_int_equal(follower.wal_no, 2);
    wal_follower_begin_generation(&follower, wal.salts);
    assert_int_equal(follower.wal_no, 1);
    assert_int_equal(follower.frame_no, 0);
}

/* More than one read and more than one segment: a transaction of 3 MiB, then one of 3 MiB. */
static void test_wal_follower__many_frames(void **state)
{
    (void)state;
    enum { COUNT = 48, PAGE = 65536 };
    struct sample_frame frames[COUNT];
    struct sample_wal large;
    for (uint32_t i = 0; i < COUNT; i++) {
        frames[i] = (struct sample_frame){i + 1, i == 23 || i + 1 == COUNT ? i + 1 : 0};
    }
    sample_wal_init(&large, PAGE, false, 3, frames, COUNT);
    write_wal(&large);
    wal_follower_begin_generation(&follower, large.salts);
    check_ok(capture(&large, COUNT));
    check_at(1, COUNT, &large);
    check_ok(segmenter_cut(&segmenter, &err));
    check_taken(&large, 1, COUNT);
    sample_wal_deinit(&large);
}

/* The segmenter cannot get rid of what it has: its error comes through, and nothing is skipped. */
static void test_wal_follower__the_error_of_a_cut(void **state)
{
    (void)state;
    struct sample_wal next;
    sample_wal_init(&next, PAGE_BYTES, false, 2, sample_frames, 4);
    check_ok(capture(&wal, 4));
    write_at(&next, 0, next.count);
    wal_follower_begin_wal(&follower, next.salts);
    emit_fails = true;
    check_fails(RC_IO, capture(&next, 2));
    assert_int_equal(follower.frame_no, 0);
    emit_fails = false;
    check_ok(capture(&next, 2));
    check_at(2, 2, &next);
    check_taken(&wal, 1, 4);
    sample_wal_deinit(&next);
}

static void test_wal_follower__checksum_at(void **state)
{
    (void)state;
    struct wal_salts salts;
    struct wal_checksum sum;
    for (uint32_t i = 0; i <= FRAMES; i++) {
        check_ok(wal_follower_checksum_at(&follower, PAGE_BYTES, i, &salts, &sum, &err));
        assert_true(wal_checksum_equal(sum, sample_wal_checksum(&wal, i)));
        assert_true(wal_salts_equal(salts, wal.salts));
    }
    check_fails(RC_NOT_FOUND,
                wal_follower_checksum_at(&follower, PAGE_BYTES, FRAMES + 1, &salts, &sum, &err));
    assert_int_equal(truncate(scratch_path(&scratch, "state.db-wal"), WAL_HEADER_BYTES - 1), 0);
    check_fails(RC_NOT_FOUND,
                wal_follower_checksum_at(&follower, PAGE_BYTES, 0, &salts, &sum, &err));
}

static void test_wal_follower__the_file_goes_away(void **state)
{
    (void)state;
    check_ok(wal_follower_check_file(&follower, &err));
    assert_int_equal(rename(scratch_path(&scratch, "state.db-wal"), scratch_path(&scratch, "away")),
                     0);
    check_fails(RC_CORRUPT, wal_follower_check_file(&follower, &err));
    check_text("deleted");
    check_ok(capture(&wal, 4)); /* the open file is still there */
    write_wal(&wal);
    check_fails(RC_CORRUPT, wal_follower_check_file(&follower, &err));
    check_text("replaced");
    check_ok(wal_follower_open(&follower, &err));
    check_ok(wal_follower_check_file(&follower, &err));
    assert_int_equal(unlink(scratch_path(&scratch, "state.db-wal")), 0);
    check_fails(RC_NOT_FOUND, wal_follower_open(&follower, &err));
}

/* The checks of a run of frames read no byte behind it. */
static void test_wal_follower__frames_before_an_unreadable_page(void **state)
{
    (void)state;
    struct guarded guarded;
    guarded_init(&guarded, wal.count);
    for (uint32_t count = 1; count <= FRAMES; count++) {
        const uint8_t *frames =
            guarded_place(&guarded, wal.bytes + WAL_HEADER_BYTES, count * FRAME_BYTES);
        struct wal_run of = {
            .salts = wal.salts, .page_size_bytes = PAGE_BYTES, .sum = sample_wal_checksum(&wal, 0)};
        check_ok(wal_run_check(&of, frames, count, &err));
        assert_int_equal(of.good_count, count);
        assert_true(wal_checksum_equal(of.sum, sample_wal_checksum(&wal, count)));
    }
    guarded_deinit(&guarded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_wal_follower__stops_where_the_wal_index_does),
        CASE(test_wal_follower__garbage_behind_the_end),
        CASE(test_wal_follower__a_page_that_is_not_what_was_written),
        CASE(test_wal_follower__a_frame_with_other_salts),
        CASE(test_wal_follower__the_wal_index_has_another_checksum),
        CASE(test_wal_follower__a_file_that_is_cut_short),
        CASE(test_wal_follower__a_bad_wal_header),
        CASE(test_wal_follower__continues),
        CASE(test_wal_follower__continues_only_behind_its_own_point),
        CASE(test_wal_follower__goes_on_with_the_next_wal),
        CASE(test_wal_follower__an_empty_wal_does_not_count),
        CASE(test_wal_follower__many_frames),
        CASE(test_wal_follower__the_error_of_a_cut),
        CASE(test_wal_follower__checksum_at),
        CASE(test_wal_follower__the_file_goes_away),
        CASE(test_wal_follower__frames_before_an_unreadable_page),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
