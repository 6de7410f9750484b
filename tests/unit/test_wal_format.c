/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wal_format: against made-up WALs whose checksums come from the algorithm as SQLite's page writes it,
 * and against a WAL that SQLite itself has written.
 */
#include "archive/wal_format.h"

#include "base/buf.h"
#include "base/bytes.h"
#include "base/fsio.h"
#include "tests/unit/checks.h"
#include "tests/unit/guarded.h"
#include "tests/unit/sample_wal.h"
#include "tests/unit/scratch.h"

#include <sqlite3.h>
#include <stdio.h>

static const struct sample_frame frames[] = {{1, 0}, {2, 2}, {3, 0}, {2, 0}, {1, 3}};
#define FRAMES 5u

static struct err err;

static struct wal_run run_of(const struct sample_wal *wal, uint32_t first_frame_no)
{
    return (struct wal_run){
        .salts = wal->salts,
        .big_endian_checksums = wal->big_endian_checksums,
        .page_size_bytes = wal->page_size_bytes,
        .sum = sample_wal_checksum(wal, first_frame_no - 1),
        .commit_pages = 77,
    };
}

static void test_wal_format__page_sizes_are_powers_of_two(void **state)
{
    (void)state;
    uint32_t valid = 0;
    for (uint32_t size = 0; size <= 131072; size++) {
        valid += wal_page_size_is_valid(size);
    }
    assert_int_equal(valid, 8);
    for (uint32_t size = 512; size <= 65536; size *= 2) {
        assert_true(wal_page_size_is_valid(size));
    }
    assert_false(wal_page_size_is_valid(UINT32_MAX));
    assert_false(wal_page_size_is_valid(0x80000000u));
}

static void test_wal_format__offsets_pass_four_gigabytes(void **state)
{
    (void)state;
    assert_true(wal_frame_offset(4096, 1) == 32);
    assert_true(wal_frame_offset(4096, 2) == 32 + 4120);
    assert_true(wal_frame_offset(65536, UINT32_MAX) == 32 + UINT64_C(4294967294) * 65560);
}

static void test_wal_format__checksum_equals_the_published_algorithm(void **state)
{
    (void)state;
    uint8_t bytes[1032];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * i + 3);
    }
    for (int big_endian = 0; big_endian <= 1; big_endian++) {
        for (size_t at = 0; at < 8; at++) { /* also from addresses that are not aligned */
            struct wal_checksum start = {0x01234567, 0x89abcdef};
            struct wal_checksum fast = wal_checksum_add(start, big_endian != 0, bytes + at, 1024);
            struct wal_checksum plain = sample_checksum(start, big_endian != 0, bytes + at, 1024);
            assert_true(wal_checksum_equal(fast, plain));
        }
    }
    struct wal_checksum none = wal_checksum_add((struct wal_checksum){5, 6}, false, bytes, 0);
    assert_true(wal_checksum_equal(none, (struct wal_checksum){5, 6}));
}

static void test_wal_format__header_fields_come_back(void **state)
{
    (void)state;
    for (int big_endian = 0; big_endian <= 1; big_endian++) {
        struct sample_wal wal;
        struct wal_header header;
        sample_wal_init(&wal, 65536, big_endian != 0, 9, frames, 1);
        check_ok(wal_header_decode(wal.bytes, &header, &err));
        assert_int_equal(header.big_endian_checksums, big_endian);
        assert_int_equal(header.page_size_bytes, 65536);
        assert_true(wal_salts_equal(header.salts, wal.salts));
        assert_true(wal_checksum_equal(header.checksum, sample_wal_checksum(&wal, 0)));
        sample_wal_deinit(&wal);
    }
}

static void test_wal_format__every_flip_of_the_header_is_found(void **state)
{
    (void)state;
    struct sample_wal wal;
    struct guarded guarded;
    sample_wal_init(&wal, 4096, false, 1, frames, 1);
    guarded_init(&guarded, WAL_HEADER_BYTES);
    for (size_t at = 0; at < WAL_HEADER_BYTES; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            struct wal_header header;
            uint8_t *bytes = guarded_place(&guarded, wal.bytes, WAL_HEADER_BYTES);
            bytes[at] ^= (uint8_t)(1u << bit);
            check_fails(RC_CORRUPT, wal_header_decode(bytes, &header, &err));
        }
    }
    guarded_deinit(&guarded);
    sample_wal_deinit(&wal);
}

/* The checksum says that somebody meant it: another kind of file, or a later format, is none of ours. */
static void test_wal_format__a_wrong_field_under_a_right_checksum(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint32_t value;
        const char *text;
    } wrong[] = {{0, 0x377f0680u, "begins with"},
                 {0, 0x12345678u, "begins with"},
                 {4, 3007001u, "version"},
                 {4, 0, "version"},
                 {8, 0, "page size"},
                 {8, 1000, "page size"},
                 {8, 131072, "page size"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct sample_wal wal;
        struct wal_header header;
        sample_wal_init(&wal, 4096, false, 1, frames, 1);
        bytes_put_u32(wal.bytes + wrong[i].at, wrong[i].value);
        struct wal_checksum sum = {0, 0};
        sum = wal_checksum_add(sum, (bytes_get_u32(wal.bytes) & 1) != 0, wal.bytes, 24);
        bytes_put_u32(wal.bytes + 24, sum.sum1);
        bytes_put_u32(wal.bytes + 28, sum.sum2);
        check_fails(RC_CORRUPT, wal_header_decode(wal.bytes, &header, &err));
        check_text(wrong[i].text);
        sample_wal_deinit(&wal);
    }
}

static void test_wal_format__run_finds_the_last_commit(void **state)
{
    (void)state;
    struct sample_wal wal;
    sample_wal_init(&wal, 1024, true, 2, frames, FRAMES);
    struct wal_run run = run_of(&wal, 1);
    check_ok(wal_run_check(&run, wal.bytes + WAL_HEADER_BYTES, FRAMES, &err));
    assert_int_equal(run.good_count, FRAMES);
    assert_int_equal(run.commit_pages, 3);
    assert_int_equal(run.last_commit_index, 4);
    assert_true(wal_checksum_equal(run.sum, sample_wal_checksum(&wal, FRAMES)));
    /* two halves are the whole */
    run = run_of(&wal, 1);
    check_ok(wal_run_check(&run, wal.bytes + WAL_HEADER_BYTES, 3, &err));
    assert_int_equal(run.commit_pages, 2);
    assert_int_equal(run.last_commit_index, 1);
    const uint8_t *rest = wal.bytes + wal_frame_offset(1024, 4);
    check_ok(wal_run_check(&run, rest, 1, &err));
    assert_int_equal(run.commit_pages, 2); /* unchanged: this part has no commit */
    assert_true(run.last_commit_index == SIZE_MAX);
    check_ok(wal_run_check(&run, rest + 1048, 1, &err));
    assert_int_equal(run.commit_pages, 3);
    assert_true(wal_checksum_equal(run.sum, sample_wal_checksum(&wal, FRAMES)));
    sample_wal_deinit(&wal);
}

static void test_wal_format__empty_run_changes_nothing(void **state)
{
    (void)state;
    struct sample_wal wal;
    sample_wal_init(&wal, 512, false, 2, frames, 1);
    struct wal_run run = run_of(&wal, 1);
    check_ok(wal_run_check(&run, NULL, 0, &err));
    assert_int_equal(run.good_count, 0);
    assert_int_equal(run.commit_pages, 77);
    assert_true(run.last_commit_index == SIZE_MAX);
    sample_wal_deinit(&wal);
}

static void test_wal_format__every_flip_of_a_run_is_found(void **state)
{
    (void)state;
    struct sample_wal wal;
    struct guarded guarded;
    sample_wal_init(&wal, 512, false, 3, frames, 3);
    size_t count = wal.count - WAL_HEADER_BYTES;
    guarded_init(&guarded, count);
    for (size_t at = 0; at < count; at++) {
        struct wal_run run = run_of(&wal, 1);
        uint8_t *bytes = guarded_place(&guarded, wal.bytes + WAL_HEADER_BYTES, count);
        bytes[at] ^= 0x40;
        size_t bad = at / 536;
        check_fails(RC_CORRUPT, wal_run_check(&run, bytes, 3, &err));
        assert_int_equal(run.good_count, bad);
        assert_true(wal_checksum_equal(run.sum, sample_wal_checksum(&wal, (uint32_t)bad)));
        char where[32];
        (void)snprintf(where, sizeof where, "frame %zu ", bad);
        check_text(where);
    }
    guarded_deinit(&guarded);
    sample_wal_deinit(&wal);
}

static void test_wal_format__page_zero_is_no_page(void **state)
{
    (void)state;
    static const struct sample_frame zero[] = {{1, 1}, {0, 1}};
    struct sample_wal wal;
    sample_wal_init(&wal, 512, false, 3, zero, 2);
    struct wal_run run = run_of(&wal, 1);
    check_fails(RC_CORRUPT, wal_run_check(&run, wal.bytes + WAL_HEADER_BYTES, 2, &err));
    check_text("page 0");
    assert_int_equal(run.good_count, 1);
    sample_wal_deinit(&wal);
}

/* Leaves a -wal of SQLite's own beside a database that stays open until *db is closed. */
static void write_real_wal(const struct scratch *scratch, struct buf *bytes, int *frame_count,
                           sqlite3 **db)
{
    int checkpointed = 0;
    assert_int_equal(sqlite3_open(scratch_path(scratch, "a.db"), db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(*db,
                     "PRAGMA page_size=1024; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;"
                     "CREATE TABLE t(a); INSERT INTO t VALUES(randomblob(9000));"
                     "INSERT INTO t VALUES(1); UPDATE t SET a=randomblob(3000);",
                     NULL, NULL, NULL),
        SQLITE_OK);
    check_ok(fsio_read_file(scratch_path(scratch, "a.db-wal"), bytes, &err));
    assert_int_equal(
        sqlite3_wal_checkpoint_v2(*db, NULL, SQLITE_CHECKPOINT_PASSIVE, frame_count, &checkpointed),
        SQLITE_OK);
}

static void test_wal_format__reads_what_sqlite_writes(void **state)
{
    (void)state;
    struct scratch scratch;
    struct buf bytes;
    struct wal_header header;
    int frame_count = 0;
    sqlite3 *db = NULL;
    scratch_init(&scratch);
    buf_init(&bytes, 1 << 20);
    write_real_wal(&scratch, &bytes, &frame_count, &db);
    assert_true(frame_count > 10);
    check_ok(wal_header_decode(bytes.data, &header, &err));
    assert_int_equal(header.page_size_bytes, 1024);
    assert_true(bytes.size >= wal_frame_offset(1024, (uint32_t)frame_count + 1));
    struct wal_run run = {
        .salts = header.salts,
        .big_endian_checksums = header.big_endian_checksums,
        .page_size_bytes = header.page_size_bytes,
        .sum = header.checksum,
    };
    check_ok(wal_run_check(&run, bytes.data + WAL_HEADER_BYTES, (size_t)frame_count, &err));
    assert_int_equal(run.last_commit_index, frame_count - 1);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    struct fsio_stat stat;
    check_ok(fsio_stat(scratch_path(&scratch, "a.db"), &stat, &err));
    assert_int_equal(stat.size_bytes, (uint64_t)run.commit_pages * 1024);
    buf_deinit(&bytes);
    scratch_deinit(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal_format__page_sizes_are_powers_of_two),
        cmocka_unit_test(test_wal_format__offsets_pass_four_gigabytes),
        cmocka_unit_test(test_wal_format__checksum_equals_the_published_algorithm),
        cmocka_unit_test(test_wal_format__header_fields_come_back),
        cmocka_unit_test(test_wal_format__every_flip_of_the_header_is_found),
        cmocka_unit_test(test_wal_format__a_wrong_field_under_a_right_checksum),
        cmocka_unit_test(test_wal_format__run_finds_the_last_commit),
        cmocka_unit_test(test_wal_format__empty_run_changes_nothing),
        cmocka_unit_test(test_wal_format__every_flip_of_a_run_is_found),
        cmocka_unit_test(test_wal_format__page_zero_is_no_page),
        cmocka_unit_test(test_wal_format__reads_what_sqlite_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
