/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment: objects written and read back; then every prefix and every flip of a small one, at an
 * unreadable page. What each single rule refuses is in test_segment_rules.c.
 */
#include "archive/segment.h"

#include "tests/unit/checks.h"
#include "tests/unit/guarded.h"
#include "tests/unit/sample_wal.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

static const struct sample_frame frames[] = {{1, 0}, {2, 2}, {3, 0}, {2, 0}, {1, 3}, {2, 3}};
#define FRAMES 6u

static struct err err;
static struct sample_wal wal;
static struct segment_writer *writer;
static struct segment_reader *reader;
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
           segment_writer_create(3, &writer, &err) != RC_OK ||
           segment_reader_create(&reader, &err) != RC_OK;
}

static int teardown(void **state)
{
    (void)state;
    segment_writer_destroy(writer);
    segment_reader_destroy(reader);
    writer = NULL;
    reader = NULL;
    free(header);
    free(read_header);
    buf_deinit(&object);
    buf_deinit(&content);
    sample_wal_deinit(&wal);
    return 0;
}

/* Writes `header`'s range of the sample WAL as the only contents of `object`. */
static void write_object(void)
{
    size_t count = 0;
    const uint8_t *bytes =
        sample_wal_content(&wal, header->first_frame_no, header->last_frame_no, &count);
    buf_clear(&object);
    check_ok(segment_write(writer, header, bytes, count, &object, &err));
}

static void check_same_header(const struct segment_header *a, const struct segment_header *b)
{
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->page_size_bytes, b->page_size_bytes);
    assert_string_equal(a->generation.text, b->generation.text);
    assert_int_equal(a->term, b->term);
    assert_string_equal(a->lead_tag, b->lead_tag);
    assert_int_equal(a->wal_no, b->wal_no);
    assert_int_equal(a->first_frame_no, b->first_frame_no);
    assert_int_equal(a->last_frame_no, b->last_frame_no);
    assert_int_equal(a->commit_pages, b->commit_pages);
    assert_int_equal(a->big_endian_checksums, b->big_endian_checksums);
    assert_true(wal_salts_equal(a->salts, b->salts));
    assert_true(wal_checksum_equal(a->before, b->before));
    assert_true(wal_checksum_equal(a->after, b->after));
    assert_true(wal_point_equal(a->link, b->link));
    assert_true(wal_point_equal(a->archived, b->archived));
    assert_int_equal(a->time_count, b->time_count);
    for (uint32_t i = 0; i < a->time_count; i++) {
        assert_int_equal(a->times[i].frame_no, b->times[i].frame_no);
        assert_int_equal(a->times[i].unix_ms, b->times[i].unix_ms);
    }
    assert_int_equal(a->content_bytes, b->content_bytes);
    assert_memory_equal(a->content_sha256, b->content_sha256, HASH_SHA256_BYTES);
}

static void check_reads_back(void)
{
    size_t count = 0;
    const uint8_t *bytes =
        sample_wal_content(&wal, header->first_frame_no, header->last_frame_no, &count);
    struct object_key key;
    segment_key(header, &key);
    memset(read_header, 0xa5, sizeof *read_header);
    check_ok(segment_read(reader, &key, object.data, object.size, read_header, &content, &err));
    check_same_header(read_header, header);
    assert_int_equal(content.size, count);
    assert_memory_equal(content.data, bytes, count);
    size_t offset = header->first_frame_no == 1 ? WAL_HEADER_BYTES : 0;
    assert_ptr_equal(segment_frames(read_header, content.data), content.data + offset);
}

static void test_segment__every_range_round_trips(void **state)
{
    (void)state;
    for (uint32_t wal_no = 1; wal_no <= 2; wal_no++) {
        for (uint32_t first = 1; first <= FRAMES; first++) {
            for (uint32_t last = first; last <= FRAMES; last++) {
                sample_header(&wal, wal_no, first, last, header);
                write_object();
                check_reads_back();
            }
        }
    }
}

static void test_segment__every_page_size_and_byte_order_round_trips(void **state)
{
    (void)state;
    for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
        for (int big_endian = 0; big_endian <= 1; big_endian++) {
            sample_wal_deinit(&wal);
            sample_wal_init(&wal, page_size, big_endian != 0, page_size, frames, FRAMES);
            sample_header(&wal, 1, 1, FRAMES, header);
            write_object();
            check_reads_back();
        }
    }
}

static void test_segment__largest_content_round_trips(void **state)
{
    (void)state;
    uint32_t count = (SEGMENT_CONTENT_BYTES_MAX - WAL_HEADER_BYTES) / (65536 + 24);
    struct sample_frame *many = calloc(count, sizeof *many);
    assert_non_null(many);
    for (uint32_t i = 0; i < count; i++) {
        many[i] = (struct sample_frame){i + 1, i == count - 1 ? count : 0};
    }
    sample_wal_deinit(&wal);
    sample_wal_init(&wal, 65536, false, 4, many, count);
    free(many);
    sample_header(&wal, 1, 1, count, header);
    write_object();
    check_reads_back();
}

static void test_segment__longest_time_table_round_trips(void **state)
{
    (void)state;
    struct sample_frame *many = calloc(SEGMENT_TIMES_MAX, sizeof *many);
    assert_non_null(many);
    for (uint32_t i = 0; i < SEGMENT_TIMES_MAX; i++) {
        many[i] = (struct sample_frame){1, 1};
    }
    sample_wal_deinit(&wal);
    sample_wal_init(&wal, 512, false, 5, many, SEGMENT_TIMES_MAX);
    free(many);
    sample_header(&wal, 1, 1, SEGMENT_TIMES_MAX, header);
    header->time_count = SEGMENT_TIMES_MAX;
    for (uint32_t i = 0; i < SEGMENT_TIMES_MAX; i++) {
        header->times[i] = (struct segment_time){i + 1, SAMPLE_UNIX_MS + i / 3};
    }
    write_object();
    check_reads_back();
    struct object_key key;
    segment_key(header, &key);
    assert_int_equal(key.unix_ms, SAMPLE_UNIX_MS + (SEGMENT_TIMES_MAX - 1) / 3);
}

static void test_segment__archived_point_round_trips(void **state)
{
    (void)state;
    static const struct wal_point points[] = {
        {{1, 0}, {0, 0}}, {{1, 7}, {8, 9}}, {{2, 1}, {0, 1}}, {{2, 5}, {1, 0}}};
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        sample_header(&wal, 2, 3, 5, header);
        header->archived = points[i];
        write_object();
        check_reads_back();
    }
}

static void test_segment__key_says_what_the_header_says(void **state)
{
    (void)state;
    char text[OBJECT_KEY_BYTES];
    struct object_key key;
    sample_header(&wal, 3, 3, 5, header);
    segment_key(header, &key);
    object_key_format(&key, text);
    assert_string_equal(text, SAMPLE_GENERATION
                        "/wal/0000000003/0000000003-0000000005-1795543200123-0000000002-5e1ec7ed"
                        ".wal.zst");
}

static void test_segment__stock_zstd_gives_the_wal_bytes(void **state)
{
    (void)state;
    uint8_t plain[8192];
    struct buf all;
    buf_init(&all, 1 << 20);
    sample_header(&wal, 1, 1, 2, header);
    write_object();
    check_ok(buf_append(&all, object.data, object.size, &err));
    sample_header(&wal, 1, 3, FRAMES, header);
    write_object();
    check_ok(buf_append(&all, object.data, object.size, &err));
    size_t count = ZSTD_decompress(plain, sizeof plain, all.data, all.size);
    assert_int_equal(count, wal.count);
    assert_memory_equal(plain, wal.bytes, wal.count);
    buf_deinit(&all);
}

static void test_segment__same_input_gives_the_same_bytes(void **state)
{
    (void)state;
    struct segment_writer *other = NULL;
    struct buf again;
    size_t count = 0;
    buf_init(&again, SEGMENT_OBJECT_BYTES_MAX);
    check_ok(segment_writer_create(3, &other, &err));
    for (uint32_t last = 2; last <= FRAMES; last++) {
        sample_header(&wal, 1, 1, last, header);
        write_object();
        const uint8_t *bytes = sample_wal_content(&wal, 1, last, &count);
        buf_clear(&again);
        check_ok(segment_write(other, header, bytes, count, &again, &err));
        assert_int_equal(again.size, object.size);
        assert_memory_equal(again.data, object.data, object.size);
    }
    segment_writer_destroy(other);
    buf_deinit(&again);
}

static void test_segment__content_memory_is_used_again(void **state)
{
    (void)state;
    sample_header(&wal, 1, 1, FRAMES, header);
    write_object();
    check_reads_back();
    const uint8_t *place = content.data;
    sample_header(&wal, 1, 3, 5, header);
    write_object();
    check_reads_back();
    assert_ptr_equal(content.data, place);
}

static void test_segment__write_appends_whole_objects_or_nothing(void **state)
{
    (void)state;
    struct buf small;
    size_t count = 0;
    sample_header(&wal, 1, 1, FRAMES, header);
    write_object();
    const uint8_t *bytes = sample_wal_content(&wal, 1, FRAMES, &count);
    buf_init(&small, object.size / 2 + 4);
    check_ok(buf_append(&small, "head", 4, &err));
    check_fails(RC_LIMIT, segment_write(writer, header, bytes, count, &small, &err));
    assert_int_equal(small.size, 4);
    buf_deinit(&small);
    buf_init(&small, 100); /* not even the header */
    check_fails(RC_LIMIT, segment_write(writer, header, bytes, count, &small, &err));
    assert_int_equal(small.size, 0);
    buf_deinit(&small);
    write_object();
    check_reads_back();
}

static void test_segment__header_asks_for_the_bytes_it_needs(void **state)
{
    (void)state;
    struct guarded guarded;
    size_t header_bytes = 0;
    size_t need_bytes = 0;
    sample_header(&wal, 1, 1, FRAMES, header);
    header->time_count = 2;
    header->times[0] = (struct segment_time){2, SAMPLE_UNIX_MS};
    header->times[1] = (struct segment_time){FRAMES, SAMPLE_UNIX_MS};
    write_object();
    guarded_init(&guarded, object.size);
    const size_t wanted = 8 + 200 + 2 * 12;
    for (size_t count = 0; count < wanted; count++) {
        const uint8_t *bytes = guarded_place(&guarded, object.data, count);
        check_fails(RC_LIMIT, segment_header_decode(bytes, count, read_header, &header_bytes,
                                                    &need_bytes, &err));
        assert_true(need_bytes > count);
        assert_int_equal(need_bytes, count < 8 ? wanted - 12 : wanted);
    }
    for (size_t count = wanted; count <= object.size; count++) {
        const uint8_t *bytes = guarded_place(&guarded, object.data, count);
        check_ok(
            segment_header_decode(bytes, count, read_header, &header_bytes, &need_bytes, &err));
        assert_int_equal(header_bytes, wanted);
    }
    check_same_header(read_header, header);
    guarded_deinit(&guarded);
}

static void test_segment__every_prefix_is_corrupt(void **state)
{
    (void)state;
    struct guarded guarded;
    sample_header(&wal, 1, 1, 2, header);
    write_object();
    guarded_init(&guarded, object.size);
    for (size_t count = 0; count < object.size; count++) {
        const uint8_t *bytes = guarded_place(&guarded, object.data, count);
        check_fails(RC_CORRUPT,
                    segment_read(reader, NULL, bytes, count, read_header, &content, &err));
        assert_int_equal(content.size, 0);
    }
    check_ok(segment_read(reader, NULL, guarded_place(&guarded, object.data, object.size),
                          object.size, read_header, &content, &err));
    guarded_deinit(&guarded);
}

static void test_segment__every_flip_is_corrupt_or_harmless(void **state)
{
    (void)state;
    struct guarded guarded;
    size_t count = 0;
    sample_header(&wal, 1, 1, 2, header);
    write_object();
    const uint8_t *wanted = sample_wal_content(&wal, 1, 2, &count);
    guarded_init(&guarded, object.size);
    for (size_t at = 0; at < object.size; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            uint8_t *bytes = guarded_place(&guarded, object.data, object.size);
            bytes[at] ^= (uint8_t)(1u << bit);
            enum rc rc =
                segment_read(reader, NULL, bytes, object.size, read_header, &content, &err);
            if (rc == RC_OK) { /* a bit that zstd does not use: all the same what it is */
                assert_true(at >= 8 + 212);
                check_same_header(read_header, header);
                assert_int_equal(content.size, count);
                assert_memory_equal(content.data, wanted, count);
            } else {
                assert_int_equal(rc, RC_CORRUPT);
                assert_int_equal(content.size, 0);
            }
        }
    }
    guarded_deinit(&guarded);
}

static void test_segment__two_objects_in_one_are_corrupt(void **state)
{
    (void)state;
    size_t count = 0;
    sample_header(&wal, 1, 1, 2, header);
    write_object();
    sample_header(&wal, 1, 3, FRAMES, header);
    const uint8_t *bytes = sample_wal_content(&wal, 3, FRAMES, &count);
    check_ok(segment_write(writer, header, bytes, count, &object, &err));
    check_fails(RC_CORRUPT,
                segment_read(reader, NULL, object.data, object.size, read_header, &content, &err));
}

static void test_segment__another_name_is_corrupt(void **state)
{
    (void)state;
    sample_header(&wal, 2, 3, 5, header);
    write_object();
    for (int field = 0; field < 7; field++) {
        struct object_key key;
        segment_key(header, &key);
        if (field == 0) {
            key.generation.text[24] = '0';
        }
        key.position.wal_no += field == 1;
        key.position.frame_no += field == 2;
        key.first_frame_no -= field == 3;
        key.unix_ms += field == 4;
        key.term += field == 5;
        if (field == 6) {
            key.tag[0] = '0';
        }
        check_fails(RC_CORRUPT, segment_read(reader, &key, object.data, object.size, read_header,
                                             &content, &err));
        check_text(SAMPLE_GENERATION "/wal/0000000002/0000000003-0000000005-");
        assert_int_equal(content.size, 0);
    }
}

static void test_segment__small_buffer_is_a_limit(void **state)
{
    (void)state;
    struct buf small;
    sample_header(&wal, 1, 1, FRAMES, header);
    write_object();
    buf_init(&small, wal.count - 1);
    check_fails(RC_LIMIT,
                segment_read(reader, NULL, object.data, object.size, read_header, &small, &err));
    buf_deinit(&small);
}

/* The code with which a child that writes this header dies; content = frames 1..2. */
static int write_in_child(const struct segment_header *wrong)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        size_t count = 0;
        struct segment_header *copy = malloc(sizeof *copy);
        (void)close(STDERR_FILENO);
        (void)signal(SIGABRT, SIG_DFL);
        if (copy != NULL) {
            *copy = *wrong;
            const uint8_t *bytes = sample_wal_content(&wal, 1, 2, &count);
            enum rc rc = segment_write(writer, copy, bytes, count, &object, NULL);
            _exit(rc == RC_OK ? 0 : 1);
        }
        _exit(2);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

static void test_segment__wrong_header_stops_the_writer(void **state)
{
    (void)state;
    sample_header(&wal, 1, 1, 2, header);
    assert_int_equal(write_in_child(header), 0);
    header->last_frame_no = 3; /* the content is too short for it */
    assert_int_equal(write_in_child(header), SIGABRT);
    sample_header(&wal, 1, 1, 2, header);
    header->after.sum1++;
    assert_int_equal(write_in_child(header), SIGABRT);
    sample_header(&wal, 1, 1, 2, header);
    header->before.sum1++;
    assert_int_equal(write_in_child(header), SIGABRT);
    sample_header(&wal, 1, 1, 2, header);
    header->flags |= SEGMENT_CONTINUED;
    assert_int_equal(write_in_child(header), SIGABRT);
    sample_header(&wal, 1, 1, 2, header);
    header->lead_tag[0] = 'X';
    assert_int_equal(write_in_child(header), SIGABRT);
}

static void test_segment__destroy_takes_null(void **state)
{
    (void)state;
    struct segment_writer *none = NULL;
    segment_writer_destroy(NULL);
    segment_reader_destroy(NULL);
    check_fails(RC_INVALID, segment_writer_create(99, &none, &err));
    assert_null(none);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_segment__every_range_round_trips),
        TEST(test_segment__every_page_size_and_byte_order_round_trips),
        TEST(test_segment__largest_content_round_trips),
        TEST(test_segment__longest_time_table_round_trips),
        TEST(test_segment__archived_point_round_trips),
        TEST(test_segment__key_says_what_the_header_says),
        TEST(test_segment__stock_zstd_gives_the_wal_bytes),
        TEST(test_segment__same_input_gives_the_same_bytes),
        TEST(test_segment__content_memory_is_used_again),
        TEST(test_segment__write_appends_whole_objects_or_nothing),
        TEST(test_segment__header_asks_for_the_bytes_it_needs),
        TEST(test_segment__every_prefix_is_corrupt),
        TEST(test_segment__every_flip_is_corrupt_or_harmless),
        TEST(test_segment__two_objects_in_one_are_corrupt),
        TEST(test_segment__another_name_is_corrupt),
        TEST(test_segment__small_buffer_is_a_limit),
        TEST(test_segment__wrong_header_stops_the_writer),
        TEST(test_segment__destroy_takes_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
