/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment_rules: each rule of docs/archive-format.md, "WAL object", broken alone. A good object is
 * changed in one field and sealed again with right hashes, as a wrong or hostile writer would: only
 * the rule itself is left to find it.
 */
#include "archive/codec.h"
#include "archive/segment.h"
#include "archive/segment_internal.h"
#include "base/bytes.h"
#include "tests/unit/checks.h"
#include "tests/unit/sample_wal.h"

#include <stdlib.h>

#define HEAD 8u /* of the skippable frame */

static const struct sample_frame frames[] = {{1, 0}, {2, 2}, {3, 0}, {2, 0}, {1, 3}, {2, 3}};
#define FRAMES 6u

static struct err err;
static struct sample_wal wal;
static struct segment_writer *writer;
static struct segment_reader *reader;
static struct codec_encoder *encoder;
static struct segment_header *header;
static struct segment_header *read_header;
static struct buf object;
static struct buf content;

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    sample_wal_init(&wal, 512, false, 1, frames, FRAMES);
    header = calloc(1, sizeof *header);
    read_header = calloc(1, sizeof *read_header);
    buf_init(&object, SEGMENT_OBJECT_BYTES_MAX);
    buf_init(&content, SEGMENT_CONTENT_BYTES_MAX + (64u << 10));
    return header == NULL || read_header == NULL ||
           segment_writer_create(1, &writer, &err) != RC_OK ||
           segment_reader_create(&reader, &err) != RC_OK ||
           codec_encoder_create(1, &encoder, &err) != RC_OK;
}

static int teardown(void **state)
{
    (void)state;
    segment_writer_destroy(writer);
    segment_reader_destroy(reader);
    codec_encoder_destroy(encoder);
    free(header);
    free(read_header);
    buf_deinit(&object);
    buf_deinit(&content);
    sample_wal_deinit(&wal);
    return 0;
}

static void write_range(uint32_t wal_no, uint32_t first, uint32_t last)
{
    size_t count = 0;
    sample_header(&wal, wal_no, first, last, header);
    const uint8_t *bytes = sample_wal_content(&wal, first, last, &count);
    buf_clear(&object);
    check_ok(segment_write(writer, header, bytes, count, &object, &err));
}

/* The header's own hash, right again. */
static void seal(void)
{
    size_t header_bytes = bytes_get_u32_le(object.data + 4);
    uint8_t *p = object.data + HEAD;
    check_ok(hash_sha256(p, header_bytes - HASH_SHA256_BYTES, p + header_bytes - HASH_SHA256_BYTES,
                         &err));
}

static enum rc read_object(void)
{
    return segment_read(reader, NULL, object.data, object.size, read_header, &content, &err);
}

struct broken {
    size_t offset;
    uint32_t value;
    const char *text;
};

/* Each row on a fresh copy of the range, a big-endian u32 at the offset of the page's table. */
static void check_rows(uint32_t wal_no, uint32_t first, uint32_t last, const struct broken *rows,
                       size_t count)
{
    for (size_t i = 0; i < count; i++) {
        write_range(wal_no, first, last);
        seal();
        check_ok(read_object());
        bytes_put_u32(object.data + HEAD + rows[i].offset, rows[i].value);
        seal();
        check_fails(RC_CORRUPT, read_object());
        check_text(rows[i].text);
        assert_int_equal(content.size, 0);
    }
}
#define CHECK_ROWS(wal_no, first, last, rows)                                                      \
    check_rows(wal_no, first, last, rows, sizeof(rows) / sizeof(rows)[0])

static void test_segment_rules__fields_of_any_object(void **state)
{
    (void)state;
    static const struct broken rows[] = {
        {0, 0x48617277, "magic"},
        {8, 0, "format 0"},
        {8, 2, "format 2; this program reads 1: use a newer one"},
        {12, 224, "lengths"},
        {16, 0x8, "flag"},
        {16, 0x80000000, "flag"},
        {16, 1, "the last commit"}, /* CONTINUED, though it ends with one */
        {20, 0, "page size"},
        {20, 513, "page size"},
        {20, 131072, "page size"},
        {20, 1024, "content's length"},
        {24, 0, "out of range"},
        {24, 100000000, "out of range"},
        {36, 0, "term"},
        {44, 0, "range of frames"},
        {48, 0, "range of frames"},
        {48, 6, "range of frames"},
        {48, 4, "content's length"},
        {52, 6, "content's length"},
        {52, UINT32_MAX, "content's length"},
        {56, 0, "size of the database"},
        {56, 4, "the last commit"},
        {60, 0x377f0681, "out of range"},
        {60, 0x377f0683, "checksum does not follow"},
        {64, 1, "other salts"},
        {72, 1, "link"},
        {80, 1, "last frame's checksum"},
        {120, 1, "content's length"},
        {128, 1, "SHA-256"},
        {160, 0, "lengths"},
        {160, 2, "lengths"},
        {160, UINT32_MAX, "lengths"},
        {164, 1, "out of range"},
    };
    CHECK_ROWS(2, 3, 5, rows);
}

static void test_segment_rules__links_inside_a_wal(void **state)
{
    (void)state;
    static const struct broken rows[] = {
        {16, SEGMENT_FIRST, "first of its generation"},
        {88, 1, "link"},
        {88, 0, "link"},
        {92, 1, "link"},
        {92, 3, "link"},
        {96, 7, "link"},
        {100, 7, "link"},
    };
    CHECK_ROWS(2, 3, 5, rows);
}

static void test_segment_rules__links_across_a_reset(void **state)
{
    (void)state;
    static const struct broken rows[] = {
        {88, 2, "link"},
        {88, 0, "link"},
        {92, 0, "link"},
        {16, SEGMENT_FIRST, "first of its generation"},
        {16, SEGMENT_CONTINUES, "inside a transaction"},
        {72, 1, "WAL header inside"},
        {64, 1, "WAL header inside"},
        {60, 0x377f0683, "WAL header inside"},
    };
    CHECK_ROWS(2, 1, 5, rows);
}

static void test_segment_rules__first_of_a_generation(void **state)
{
    (void)state;
    static const struct broken rows[] = {
        {16, 0, "first of its generation"},
        {88, 1, "no link"},
        {92, 1, "no link"},
        {96, 1, "no link"},
        {100, 1, "no link"},
    };
    CHECK_ROWS(1, 1, 5, rows);
}

static void test_segment_rules__archived_position(void **state)
{
    (void)state;
    static const struct broken rows[] = {
        {108, 1, "WAL 0"},
        {112, 1, "WAL 0"},
        {104, 2, "frame 0"},
        {104, 3, "frame 0"},
        {104, UINT32_MAX, "frame 0"},
    };
    CHECK_ROWS(2, 3, 5, rows);
    write_range(2, 3, 5);
    bytes_put_u32(object.data + HEAD + 104, 2);
    bytes_put_u32(object.data + HEAD + 108, 6); /* one frame beyond the last */
    seal();
    check_fails(RC_CORRUPT, read_object());
    check_text("beyond");
    bytes_put_u32(object.data + HEAD + 104, 1);
    bytes_put_u32(object.data + HEAD + 108, 0);
    bytes_put_u32(object.data + HEAD + 112, 5); /* (1, 0) has no checksum */
    seal();
    check_fails(RC_CORRUPT, read_object());
    check_text("frame 0");
}

static void check_times(uint32_t frame_a, int64_t ms_a, uint32_t frame_b, int64_t ms_b,
                        const char *text)
{
    sample_header(&wal, 2, 3, 5, header);
    header->time_count = 2;
    header->times[0] = (struct segment_time){4, 1};
    header->times[1] = (struct segment_time){5, 2};
    size_t count = 0;
    const uint8_t *bytes = sample_wal_content(&wal, 3, 5, &count);
    buf_clear(&object);
    check_ok(segment_write(writer, header, bytes, count, &object, &err));
    uint8_t *row = object.data + HEAD + 168;
    bytes_put_u32(row, frame_a);
    bytes_put_u64(row + 4, (uint64_t)ms_a);
    bytes_put_u32(row + 12, frame_b);
    bytes_put_u64(row + 16, (uint64_t)ms_b);
    seal();
    if (text == NULL) {
        check_ok(read_object());
    } else {
        check_fails(RC_CORRUPT, read_object());
        check_text(text);
    }
}

static void test_segment_rules__time_table(void **state)
{
    (void)state;
    check_times(3, 0, 5, 0, NULL);
    check_times(4, 9999999999999, 5, 9999999999999, NULL);
    check_times(2, 1, 5, 2, "out of range");
    check_times(4, -1, 5, 2, "out of range");
    check_times(4, 1, 5, 10000000000000, "out of range");
    check_times(4, 1, 5, INT64_MIN, "out of range");
    check_times(5, 1, 5, 2, "does not rise");
    check_times(4, 3, 5, 2, "does not rise");
    check_times(3, 1, 4, 2, "last frame");
    check_times(3, 1, 6, 2, "last frame");
    check_times(6, 1, 5, 2, "does not rise");
}

static void test_segment_rules__frame_around_the_header(void **state)
{
    (void)state;
    static const struct {
        size_t offset;
        uint32_t value;
        const char *text;
    } rows[] = {
        {0, 0x184d2a50, "not a WAL object"},
        {0, 0xfd2fb528, "not a WAL object"},
        {4, 0, "not a WAL object"},
        {4, 211, "not a WAL object"},
        {4, 65529, "not a WAL object"},
        {4, UINT32_MAX, "not a WAL object"},
        {4, 60000, "cut off"},
        {4, 213, "SHA-256"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_range(2, 3, 5);
        bytes_put_u32_le(object.data + rows[i].offset, rows[i].value);
        check_fails(RC_CORRUPT, read_object());
        check_text(rows[i].text);
    }
}

static void test_segment_rules__too_large_a_content(void **state)
{
    (void)state;
    write_range(2, 3, 5);
    bytes_put_u32(object.data + HEAD + 20, 65536);
    bytes_put_u32(object.data + HEAD + 52, 3 + 63); /* 64 frames: 4 MiB and some */
    bytes_put_u64(object.data + HEAD + 120, UINT64_C(64) * 65560);
    seal();
    check_fails(RC_CORRUPT, read_object());
    check_text("larger than 4 MiB");
}

/* An object with this content, whatever it is; header's hash and length of content are made right. */
static void build(const uint8_t *bytes, size_t count)
{
    size_t header_bytes = segment_header_frame_bytes(header->time_count);
    header->content_bytes = count;
    check_ok(hash_sha256(bytes, count, header->content_sha256, &err));
    buf_clear(&object);
    check_ok(buf_reserve(&object, header_bytes, &err));
    check_ok(segment_header_encode(header, object.data, &err));
    object.size = header_bytes;
    check_ok(codec_encode(encoder, bytes, count, &object, &err));
}

/* Frames 1..5 with one byte changed at `offset`. */
static void build_changed(size_t offset)
{
    size_t count = 0;
    sample_header(&wal, 1, 1, 5, header);
    const uint8_t *bytes = sample_wal_content(&wal, 1, 5, &count);
    uint8_t *copy = malloc(count);
    assert_non_null(copy);
    memcpy(copy, bytes, count);
    copy[offset] ^= 1;
    build(copy, count);
    free(copy);
}

static void test_segment_rules__every_byte_of_the_content_is_covered(void **state)
{
    (void)state;
    size_t count = 0;
    (void)sample_wal_content(&wal, 1, 5, &count);
    for (size_t at = 0; at < count; at++) {
        build_changed(at);
        check_fails(RC_CORRUPT, read_object());
        assert_int_equal(content.size, 0);
    }
}

static void test_segment_rules__bad_content_is_named(void **state)
{
    (void)state;
    build_changed(0);
    check_fails(RC_CORRUPT, read_object());
    check_text("WAL header begins");
    build_changed(31);
    check_fails(RC_CORRUPT, read_object());
    check_text("WAL header's checksum");
    build_changed(32 + 536 + 8);
    check_fails(RC_CORRUPT, read_object());
    check_text("frame 1 of the run has other salts");
    build_changed(32 + 4 * 536 + 100);
    check_fails(RC_CORRUPT, read_object());
    check_text("frame 4 of the run: its checksum");
}

static void test_segment_rules__content_shorter_than_announced(void **state)
{
    (void)state;
    size_t count = 0;
    sample_header(&wal, 2, 3, 5, header);
    const uint8_t *bytes = sample_wal_content(&wal, 3, 5, &count);
    build(bytes, count);
    check_ok(read_object());
    size_t header_bytes = segment_header_frame_bytes(1);
    object.size = header_bytes;
    check_ok(codec_encode(encoder, bytes, count - 536, &object, &err));
    check_fails(RC_CORRUPT, read_object());
    object.size = header_bytes;
    check_ok(codec_encode(encoder, bytes, count + 8, &object, &err));
    check_fails(RC_CORRUPT, read_object());
    object.size = header_bytes;
    check_fails(RC_CORRUPT, read_object());
}

static void test_segment_rules__flags_and_commit_size_follow_the_frames(void **state)
{
    (void)state;
    size_t count = 0;
    /* frames 3..4 hold no commit: CONTINUED, and a size of 0 */
    sample_header(&wal, 2, 3, 4, header);
    assert_int_equal(header->flags, SEGMENT_CONTINUED);
    const uint8_t *bytes = sample_wal_content(&wal, 3, 4, &count);
    build(bytes, count);
    check_ok(read_object());
    header->commit_pages = 2;
    build(bytes, count);
    check_fails(RC_CORRUPT, read_object());
    check_text("last commit");
    header->flags = 0;
    build(bytes, count);
    check_fails(RC_CORRUPT, read_object());
    check_text("last commit");
    /* frames 1..3: a commit inside, and a part of the next transaction */
    sample_header(&wal, 2, 1, 3, header);
    assert_int_equal(header->commit_pages, 2);
    bytes = sample_wal_content(&wal, 1, 3, &count);
    build(bytes, count);
    check_ok(read_object());
    header->commit_pages = 0;
    build(bytes, count);
    check_fails(RC_CORRUPT, read_object());
    check_text("last commit");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_segment_rules__fields_of_any_object),
        TEST(test_segment_rules__links_inside_a_wal),
        TEST(test_segment_rules__links_across_a_reset),
        TEST(test_segment_rules__first_of_a_generation),
        TEST(test_segment_rules__archived_position),
        TEST(test_segment_rules__time_table),
        TEST(test_segment_rules__frame_around_the_header),
        TEST(test_segment_rules__too_large_a_content),
        TEST(test_segment_rules__every_byte_of_the_content_is_covered),
        TEST(test_segment_rules__bad_content_is_named),
        TEST(test_segment_rules__content_shorter_than_announced),
        TEST(test_segment_rules__flags_and_commit_size_follow_the_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
