/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start_spool: segments of a made-up WAL lie in a spool; the archive's run ends here or there. What is
 * left in the chain, and in the folder, must be what continues the archive and nothing else.
 */
#include "replicator/start_spool.h"

#include "tests/unit/checks.h"
#include "tests/unit/sample_wal.h"
#include "tests/unit/scratch.h"

#include "archive/segment.h"
#include "base/buf.h"
#include "base/fsio.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define FRAMES 6

/* Commit frames are 2, 4 and 6. */
static const struct sample_frame sample_frames[FRAMES] = {{1, 0}, {2, 2}, {3, 0},
                                                          {1, 3}, {4, 0}, {2, 4}};
static const struct wal_point beginning = {{1, 0}, {0, 0}};

static struct scratch scratch;
static struct err err;
static struct spool spool;
static struct sample_wal wal;
static struct sample_wal next_wal;
static struct generation_id generation;
static struct spool_chain chain;
static struct segment_header *header;

static int setup(void **state)
{
    (void)state;
    scratch_init(&scratch);
    err = (struct err)ERR_INIT;
    check_ok(spool_open(&spool, scratch_path(&scratch, "spool"), &err));
    sample_wal_init(&wal, 512, false, 1, sample_frames, FRAMES);
    sample_wal_init(&next_wal, 512, false, 2, sample_frames, FRAMES);
    assert_true(generation_id_parse(SAMPLE_GENERATION, &generation, NULL));
    header = malloc(sizeof *header);
    assert_non_null(header);
    spool_chain_init(&chain);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    spool_chain_deinit(&chain);
    free(header);
    sample_wal_deinit(&wal);
    sample_wal_deinit(&next_wal);
    scratch_deinit(&scratch);
    return 0;
}

static struct wal_point point_at(uint32_t frame_no)
{
    return (struct wal_point){{1, frame_no}, sample_wal_checksum(&wal, frame_no)};
}

/* Writes the header's segment into the spool. */
static void spool_header(const struct sample_wal *from, char key[OBJECT_KEY_BYTES])
{
    struct segment_writer *writer = NULL;
    struct object_key name;
    struct buf object;
    size_t count;
    const uint8_t *content =
        sample_wal_content(from, header->first_frame_no, header->last_frame_no, &count);
    buf_init(&object, SEGMENT_OBJECT_BYTES_MAX);
    check_ok(segment_writer_create(1, &writer, &err));
    check_ok(segment_write(writer, header, content, count, &object, &err));
    segment_key(header, &name);
    object_key_format(&name, key);
    check_ok(spool_write(&spool, key, object.data, object.size, &err));
    segment_writer_destroy(writer);
    buf_deinit(&object);
}

static void spool_frames(uint32_t first, uint32_t last, char key[OBJECT_KEY_BYTES])
{
    sample_header(&wal, 1, first, last, header);
    spool_header(&wal, key);
}

/* Three segments of a transaction each. */
static void spool_three(char keys[3][OBJECT_KEY_BYTES])
{
    for (uint32_t i = 0; i < 3; i++) {
        spool_frames(2 * i + 1, 2 * i + 2, keys[i]);
    }
}

static bool is_spooled(const char *key)
{
    char path[FSIO_PATH_BYTES];
    check_ok(spool_path(&spool, key, path, &err));
    return access(path, F_OK) == 0;
}

static void read_chain(struct wal_point archive_end, bool trust_spool)
{
    check_ok(spool_chain_read(&chain, &spool, &generation, &archive_end, (struct wal_salts){8, 9},
                              77, trust_spool, &err));
}

/* The chain holds these frames and ends there. */
static void check_chain(size_t count, const uint32_t (*ranges)[2], struct wal_point end)
{
    assert_int_equal(chain.count, count);
    for (size_t i = 0; i < count; i++) {
        char key[OBJECT_KEY_BYTES];
        const struct shipper_segment *segment = &chain.segments[i];
        assert_int_equal(segment->key.first_frame_no, ranges[i][0]);
        assert_int_equal(segment->end.position.frame_no, ranges[i][1]);
        assert_int_equal(segment->frames, ranges[i][1] - ranges[i][0] + 1);
        assert_int_equal(segment->page_size_bytes, 512);
        object_key_format(&segment->key, key);
        assert_true(is_spooled(key));
    }
    assert_true(wal_point_equal(chain.end, end));
}

/* These do not fit: noted and kept, until the start that serves drops them. */
static void check_misfits(size_t count, char (*keys)[OBJECT_KEY_BYTES])
{
    char key[OBJECT_KEY_BYTES];
    assert_int_equal(chain.misfit_count, count);
    for (size_t i = 0; i < count; i++) {
        object_key_format(&chain.misfits[i].key, key);
        assert_string_equal(key, keys[i]);
        assert_true(is_spooled(keys[i]));
    }
    check_ok(spool_chain_drop(&chain, &spool, &err));
    for (size_t i = 0; i < count; i++) {
        assert_false(is_spooled(keys[i]));
    }
    for (size_t i = 0; i < chain.count; i++) {
        object_key_format(&chain.segments[i].key, key);
        assert_true(is_spooled(key));
    }
}

static void test_start_spool__nothing_there(void **state)
{
    (void)state;
    read_chain(point_at(4), false);
    check_chain(0, NULL, point_at(4));
    assert_int_equal(chain.end_unix_ms, 77);
    assert_int_equal(chain.end_salts.salt1, 8);
    assert_false(chain.knows_archive_end || chain.contradicts_archive_end);
}

static void test_start_spool__an_empty_archive(void **state)
{
    (void)state;
    char keys[3][OBJECT_KEY_BYTES];
    spool_three(keys);
    read_chain(beginning, false);
    const uint32_t ranges[][2] = {{1, 2}, {3, 4}, {5, 6}};
    check_chain(3, ranges, point_at(6));
    assert_true(wal_salts_equal(chain.end_salts, wal.salts));
    assert_int_equal(chain.end_unix_ms, SAMPLE_UNIX_MS);
    assert_true(chain.knows_archive_end);
}

/* The last segment that the archive has stays, and is named: nothing else may know that it is ours. */
static void check_witness(const char *key)
{
    assert_true(is_spooled(key));
    assert_string_equal(chain.witness, key);
}

/* What the archive has goes when the start serves, but for the last of it; the rest is shipped. */
static void test_start_spool__the_archive_has_some(void **state)
{
    (void)state;
    char keys[3][OBJECT_KEY_BYTES];
    spool_three(keys);
    read_chain(point_at(2), false);
    const uint32_t ranges[][2] = {{3, 4}, {5, 6}};
    check_chain(2, ranges, point_at(6));
    check_witness(keys[0]);
    assert_true(chain.knows_archive_end);
    assert_false(chain.contradicts_archive_end);
}

static void test_start_spool__the_archive_has_all(void **state)
{
    (void)state;
    char keys[3][OBJECT_KEY_BYTES];
    spool_three(keys);
    read_chain(point_at(6), false);
    check_chain(0, NULL, point_at(6));
    assert_int_equal(chain.misfit_count, 0);
    assert_true(is_spooled(keys[0])); /* a start that waits deletes nothing */
    assert_true(is_spooled(keys[1]));
    check_ok(spool_chain_drop(&chain, &spool, &err));
    assert_false(is_spooled(keys[0]));
    assert_false(is_spooled(keys[1]));
    check_witness(keys[2]);
    assert_true(chain.knows_archive_end);
}

/* The archive goes further under the same numbers, with other frames: nothing else may hold ours. */
static void test_start_spool__the_archive_has_others_of_that_number(void **state)
{
    (void)state;
    char keys[2][OBJECT_KEY_BYTES];
    struct wal_point other = point_at(6);
    other.checksum.sum1 ^= 1;
    spool_frames(1, 2, keys[0]);
    spool_frames(3, 4, keys[1]);
    read_chain(other, false);
    check_chain(0, NULL, other);
    assert_false(chain.knows_archive_end);
    assert_true(is_spooled(keys[0]));
    assert_true(is_spooled(keys[1]));
}

/* Reads what a cut left, as the archive's readers will. */
static void read_cut(struct segment_header *cut)
{
    struct segment_reader *reader = NULL;
    struct buf object;
    struct buf content;
    char key[OBJECT_KEY_BYTES];
    char path[FSIO_PATH_BYTES];
    buf_init(&object, SEGMENT_OBJECT_BYTES_MAX);
    buf_init(&content, SEGMENT_CONTENT_BYTES_MAX + 2 * WAL_PAGE_BYTES_MAX);
    check_ok(segment_reader_create(&reader, &err));
    object_key_format(&chain.segments[0].key, key);
    check_ok(spool_path(&spool, key, path, &err));
    check_ok(fsio_read_file(path, &object, &err));
    assert_int_equal(object.size, chain.segments[0].object_bytes);
    check_ok(segment_read(reader, &chain.segments[0].key, object.data, object.size, cut, &content,
                          &err));
    size_t count;
    const uint8_t *wanted =
        sample_wal_content(&wal, cut->first_frame_no, cut->last_frame_no, &count);
    assert_int_equal(content.size, count);
    assert_memory_equal(content.data, wanted, count);
    segment_reader_destroy(reader);
    buf_deinit(&object);
    buf_deinit(&content);
}

/* One segment, of which the archive holds the first `have` frames. */
static void check_cut(uint32_t have, uint32_t flags)
{
    char key[OBJECT_KEY_BYTES];
    spool_frames(1, 6, key);
    read_chain(point_at(have), false);
    const uint32_t ranges[][2] = {{have + 1, 6}};
    check_chain(1, ranges, point_at(6));
    assert_false(is_spooled(key));
    assert_true(chain.knows_archive_end);
    read_cut(header);
    assert_int_equal(header->flags, flags);
    assert_int_equal(header->commit_pages, 4);
    assert_true(wal_point_equal(header->link, point_at(have)));
    assert_int_equal(header->time_count, 1);
}

static void test_start_spool__cut_between_transactions(void **state)
{
    (void)state;
    check_cut(2, 0);
}

static void test_start_spool__cut_inside_a_transaction(void **state)
{
    (void)state;
    check_cut(3, SEGMENT_CONTINUES);
}

/* A segment that ends inside a transaction, with a time for each capture pass: what is left says both. */
static void check_cut_of_two_passes(uint32_t have, uint32_t time_count, uint32_t commit_pages)
{
    char key[OBJECT_KEY_BYTES];
    sample_header(&wal, 1, 1, 5, header);
    header->times[0] = (struct segment_time){2, SAMPLE_UNIX_MS - 10};
    header->times[1] = (struct segment_time){5, SAMPLE_UNIX_MS};
    header->time_count = 2;
    spool_header(&wal, key);
    read_chain(point_at(have), false);
    const uint32_t ranges[][2] = {{have + 1, 5}};
    check_chain(1, ranges, point_at(5));
    read_cut(header);
    assert_int_equal(header->time_count, time_count);
    assert_int_equal(header->times[0].frame_no, time_count == 2 ? 2 : 5);
    assert_int_equal(header->commit_pages, commit_pages);
    assert_true((header->flags & SEGMENT_CONTINUED) != 0);
}

static void test_start_spool__cut_keeps_the_times_of_what_is_left(void **state)
{
    (void)state;
    check_cut_of_two_passes(2, 1, 3);
}

static void test_start_spool__cut_inside_the_first_pass(void **state)
{
    (void)state;
    check_cut_of_two_passes(1, 2, 3);
}

/* The same numbers, other frames: nothing of the spool may follow what the archive holds. */
static void test_start_spool__contradicts_inside(void **state)
{
    (void)state;
    char key[OBJECT_KEY_BYTES];
    struct wal_point other = point_at(2);
    other.checksum.sum1 ^= 1;
    spool_frames(1, 6, key);
    read_chain(other, false);
    check_chain(0, NULL, other);
    assert_true(chain.contradicts_archive_end);
    assert_false(chain.knows_archive_end);
    check_misfits(1, &key);
}

static void test_start_spool__contradicts_by_its_link(void **state)
{
    (void)state;
    char key[OBJECT_KEY_BYTES];
    struct wal_point other = point_at(2);
    other.checksum.sum2 ^= 1;
    spool_frames(3, 4, key);
    read_chain(other, false);
    check_chain(0, NULL, other);
    assert_true(chain.contradicts_archive_end);
    check_misfits(1, &key);
}

static void test_start_spool__a_hole(void **state)
{
    (void)state;
    char first[OBJECT_KEY_BYTES];
    char third[OBJECT_KEY_BYTES];
    spool_frames(1, 2, first);
    spool_frames(5, 6, third);
    read_chain(beginning, false);
    const uint32_t ranges[][2] = {{1, 2}};
    check_chain(1, ranges, point_at(2));
    check_misfits(1, &third);
}

/* A power cut leaves a name without its bytes: it goes, and what lies behind it. */
static void test_start_spool__a_damaged_segment(void **state)
{
    (void)state;
    char keys[3][OBJECT_KEY_BYTES];
    char path[FSIO_PATH_BYTES];
    struct fsio_stat stat;
    spool_three(keys);
    check_ok(spool_path(&spool, keys[1], path, &err));
    check_ok(fsio_stat(path, &stat, &err));
    assert_int_equal(truncate(path, (off_t)stat.size_bytes / 2), 0);
    read_chain(beginning, false);
    const uint32_t ranges[][2] = {{1, 2}};
    check_chain(1, ranges, point_at(2));
    check_misfits(2, keys + 1);
}

static void test_start_spool__an_empty_file(void **state)
{
    (void)state;
    char keys[3][OBJECT_KEY_BYTES];
    spool_three(keys);
    check_ok(spool_write(&spool, keys[0], "", 0, &err));
    read_chain(beginning, false);
    check_chain(0, NULL, beginning);
    check_misfits(3, keys);
}

/* Over a WAL reset the link is what counts. */
static void spool_next_wal(struct wal_point link, char key[OBJECT_KEY_BYTES])
{
    char first[OBJECT_KEY_BYTES];
    spool_frames(1, 6, first);
    sample_header(&next_wal, 2, 1, 2, header);
    header->link = link;
    spool_header(&next_wal, key);
}

static void test_start_spool__over_a_wal_reset(void **state)
{
    (void)state;
    char key[OBJECT_KEY_BYTES];
    spool_next_wal(point_at(6), key);
    read_chain(beginning, false);
    const uint32_t ranges[][2] = {{1, 6}, {1, 2}};
    const struct wal_point end = {{2, 2}, sample_wal_checksum(&next_wal, 2)};
    check_chain(2, ranges, end);
    assert_true(wal_salts_equal(chain.end_salts, next_wal.salts));
}

static void test_start_spool__a_wal_that_does_not_follow(void **state)
{
    (void)state;
    char key[OBJECT_KEY_BYTES];
    spool_next_wal(point_at(4), key); /* frames 5 and 6 were not in its history */
    read_chain(beginning, false);
    const uint32_t ranges[][2] = {{1, 6}};
    check_chain(1, ranges, point_at(6));
    check_misfits(1, &key);
}

/* The archive is not reached: the chain begins where the spool does, if not before what is confirmed. */
static void test_start_spool__trusts_the_spool(void **state)
{
    (void)state;
    char keys[2][OBJECT_KEY_BYTES];
    spool_frames(3, 4, keys[0]);
    spool_frames(5, 6, keys[1]);
    read_chain(beginning, true);
    const uint32_t ranges[][2] = {{3, 4}, {5, 6}};
    check_chain(2, ranges, point_at(6));
}

static void test_start_spool__trusts_what_is_confirmed_more(void **state)
{
    (void)state;
    char keys[3][OBJECT_KEY_BYTES];
    spool_three(keys);
    read_chain(point_at(2), true); /* the first is only not yet deleted */
    const uint32_t ranges[][2] = {{3, 4}, {5, 6}};
    check_chain(2, ranges, point_at(6));
    check_witness(keys[0]);
}

/* With the archive at hand the same spool does not reach it, and goes. */
static void test_start_spool__does_not_reach_the_archive(void **state)
{
    (void)state;
    char keys[2][OBJECT_KEY_BYTES];
    spool_frames(3, 4, keys[0]);
    spool_frames(5, 6, keys[1]);
    read_chain(beginning, false);
    check_chain(0, NULL, beginning);
    check_misfits(2, keys);
}

static void test_start_spool__other_generations_go(void **state)
{
    (void)state;
    static const char other[] = "00000002-fedcba9876543210/wal/0000000001/x.wal.zst";
    static const struct generation_id none = {""};
    char key[OBJECT_KEY_BYTES];
    spool_frames(1, 2, key);
    check_ok(spool_write(&spool, other, "x", 1, &err));
    check_ok(spool_write(&spool, "not-ours/x", "x", 1, &err));
    check_ok(spool_chain_remove_others(&spool, &generation, &err));
    assert_true(is_spooled(key));
    assert_false(is_spooled(other));
    assert_true(is_spooled("not-ours/x")); /* no name of ours: left alone */
    check_ok(spool_chain_remove_others(&spool, &none, &err));
    assert_false(is_spooled(key));
    assert_true(is_spooled(".tmp"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_start_spool__nothing_there),
        CASE(test_start_spool__an_empty_archive),
        CASE(test_start_spool__the_archive_has_some),
        CASE(test_start_spool__the_archive_has_all),
        CASE(test_start_spool__the_archive_has_others_of_that_number),
        CASE(test_start_spool__cut_between_transactions),
        CASE(test_start_spool__cut_inside_a_transaction),
        CASE(test_start_spool__cut_keeps_the_times_of_what_is_left),
        CASE(test_start_spool__cut_inside_the_first_pass),
        CASE(test_start_spool__contradicts_inside),
        CASE(test_start_spool__contradicts_by_its_link),
        CASE(test_start_spool__a_hole),
        CASE(test_start_spool__a_damaged_segment),
        CASE(test_start_spool__an_empty_file),
        CASE(test_start_spool__over_a_wal_reset),
        CASE(test_start_spool__a_wal_that_does_not_follow),
        CASE(test_start_spool__trusts_the_spool),
        CASE(test_start_spool__trusts_what_is_confirmed_more),
        CASE(test_start_spool__does_not_reach_the_archive),
        CASE(test_start_spool__other_generations_go),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
