/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wal_index: the layout of SQLite's shared memory is pinned against a real database: what is read
 * there must be what the -wal file says. Damage is done to a copy of the header that ends at an
 * unreadable page.
 */
#include "replicator/wal_index.h"

#include "tests/unit/checks.h"
#include "tests/unit/guarded.h"
#include "tests/unit/sample_wal.h"
#include "tests/unit/scratch.h"

#include "base/buf.h"
#include "base/fsio.h"

#include <stdio.h>

#define COPY_BYTES 100 /* both headers and nBackfill */

static struct scratch scratch;
static struct guarded guarded;
static struct err err;
static sqlite3 *db;
static sqlite3 *other;
static struct wal_index wal_index;

static void run(sqlite3 *handle, const char *sql)
{
    char *message = NULL;
    if (sqlite3_exec(handle, sql, NULL, NULL, &message) != SQLITE_OK) {
        fail_msg("%s: %s", sql, message);
    }
}

static uint32_t number(sqlite3 *handle, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_prepare_v2(handle, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    uint32_t value = (uint32_t)sqlite3_column_int64(statement, 0);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    return value;
}

static void open_one(sqlite3 **handle)
{
    assert_int_equal(sqlite3_open(scratch_path(&scratch, "state.db"), handle), SQLITE_OK);
    run(*handle, "PRAGMA wal_autocheckpoint=0");
}

static int setup(void **state)
{
    (void)state;
    scratch_init(&scratch);
    guarded_init(&guarded, COPY_BYTES);
    err = (struct err)ERR_INIT;
    open_one(&db);
    open_one(&other);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    guarded_deinit(&guarded);
    scratch_deinit(&scratch);
    return 0;
}

static void make_database(const char *page_size)
{
    run(db, page_size);
    run(db, "PRAGMA journal_mode=WAL; CREATE TABLE test (value); "
            "INSERT INTO test VALUES (zeroblob(200000))");
    check_ok(wal_index_open(&wal_index, db, &err));
}

/* The header against the -wal file: as many frames as it says, and the last one's checksum. */
static void check_against_wal(uint32_t page_size_bytes)
{
    struct wal_index_header header;
    struct wal_header wal;
    struct wal_frame_header last;
    struct buf bytes;
    buf_init(&bytes, 4u << 20);
    check_ok(fsio_read_file(scratch_path(&scratch, "state.db-wal"), &bytes, &err));
    check_ok(wal_header_decode(bytes.data, &wal, &err));
    check_ok(wal_index_read(&wal_index, &header, &err));
    assert_int_equal(header.page_size_bytes, page_size_bytes);
    assert_int_equal(header.page_size_bytes, wal.page_size_bytes);
    assert_true(header.mx_frame > 1);
    assert_int_equal(wal_frame_offset(page_size_bytes, header.mx_frame + 1), bytes.size);
    wal_frame_header_decode(bytes.data + wal_frame_offset(page_size_bytes, header.mx_frame), &last);
    assert_int_equal(header.page_count, last.commit_pages);
    assert_int_equal(header.page_count, number(db, "PRAGMA page_count"));
    assert_true(wal_checksum_equal(header.checksum, last.checksum));
    assert_true(wal_salts_equal(header.salts, wal.salts));
    assert_int_equal(header.salts.salt1, wal.salts.salt1);
    assert_int_equal(header.big_endian_checksums, wal.big_endian_checksums);
    buf_deinit(&bytes);
}

static void test_wal_index__says_what_the_wal_holds(void **state)
{
    (void)state;
    make_database("PRAGMA page_size=4096");
    check_against_wal(4096);
    run(other, "INSERT INTO test VALUES (1)");
    check_against_wal(4096);
}

/* 65536 does not fit the 16 bits of the field. */
static void test_wal_index__largest_and_smallest_page(void **state)
{
    (void)state;
    make_database("PRAGMA page_size=65536");
    check_against_wal(65536);
    run(db, "PRAGMA journal_mode=DELETE; PRAGMA page_size=512; VACUUM; PRAGMA journal_mode=WAL; "
            "CREATE TABLE more (value); INSERT INTO more VALUES (zeroblob(2000))");
    check_ok(wal_index_open(&wal_index, db, &err));
    check_against_wal(512);
}

static void test_wal_index__a_commit_moves_count_and_frame(void **state)
{
    (void)state;
    struct wal_index_header before;
    struct wal_index_header after;
    make_database("PRAGMA page_size=4096");
    check_ok(wal_index_read(&wal_index, &before, &err));
    run(other, "BEGIN IMMEDIATE; INSERT INTO test VALUES (1)");
    check_ok(wal_index_read(&wal_index, &after, &err));
    assert_int_equal(after.mx_frame, before.mx_frame); /* nothing before it is committed */
    run(other, "COMMIT");
    check_ok(wal_index_read(&wal_index, &after, &err));
    assert_true(after.mx_frame > before.mx_frame);
    assert_int_not_equal(after.change_count, before.change_count);
}

static void test_wal_index__backfill_and_reset(void **state)
{
    (void)state;
    struct wal_index_header before;
    struct wal_index_header after;
    make_database("PRAGMA page_size=4096");
    check_ok(wal_index_read(&wal_index, &before, &err));
    assert_int_equal(wal_index_backfilled(&wal_index), 0);
    run(other, "PRAGMA wal_checkpoint(PASSIVE)");
    assert_int_equal(wal_index_backfilled(&wal_index), before.mx_frame);
    run(other, "INSERT INTO test VALUES (1)");
    check_ok(wal_index_read(&wal_index, &after, &err));
    assert_false(wal_salts_equal(after.salts, before.salts));
    assert_int_equal(after.salts.salt1, before.salts.salt1 + 1); /* walformat.html, 2.1 */
    assert_true(after.mx_frame < before.mx_frame);
    assert_int_equal(wal_index_backfilled(&wal_index), 0);
}

/* A copy of the real header that ends where nobody may read. */
static uint8_t *copy_header(struct wal_index *copy)
{
    uint8_t bytes[COPY_BYTES];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = wal_index.map[i];
    }
    uint8_t *map = guarded_place(&guarded, bytes, sizeof bytes);
    *copy = (struct wal_index){.map = map};
    return map;
}

/* The header with its checksum made right again, in both copies. */
static void seal(uint8_t *map)
{
    bool big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
    struct wal_checksum sum = sample_checksum((struct wal_checksum){0, 0}, big_endian, map, 40);
    memcpy(map + 40, &sum.sum1, 4);
    memcpy(map + 44, &sum.sum2, 4);
    memcpy(map + 48, map, 48);
}

static void test_wal_index__any_torn_byte_is_seen(void **state)
{
    (void)state;
    struct wal_index copy;
    struct wal_index_header header;
    make_database("PRAGMA page_size=4096");
    uint8_t *map = copy_header(&copy);
    check_ok(wal_index_read(&copy, &header, &err));
    for (size_t i = 0; i < 96; i += 5) { /* one of the two copies is torn */
        map[i] ^= 0x10;
        check_fails(RC_BUSY, wal_index_read(&copy, &header, &err));
        map[i] ^= 0x10;
    }
    check_ok(wal_index_read(&copy, &header, &err));
}

static void test_wal_index__equal_copies_with_a_wrong_checksum(void **state)
{
    (void)state;
    struct wal_index copy;
    struct wal_index_header header;
    make_database("PRAGMA page_size=4096");
    uint8_t *map = copy_header(&copy);
    for (size_t i = 0; i < 48; i += 7) {
        map[i] ^= 0x01;
        map[48 + i] ^= 0x01;
        check_fails(RC_BUSY, wal_index_read(&copy, &header, &err));
        check_text("recovery");
        map[i] ^= 0x01;
        map[48 + i] ^= 0x01;
    }
}

static void test_wal_index__two_whole_headers_that_differ(void **state)
{
    (void)state;
    struct wal_index copy;
    struct wal_index_header header;
    make_database("PRAGMA page_size=4096");
    uint8_t *map = copy_header(&copy);
    uint8_t old[48];
    memcpy(old, map, sizeof old);
    map[16]++; /* mxFrame */
    seal(map);
    check_ok(wal_index_read(&copy, &header, &err));
    memcpy(map + 48, old, sizeof old); /* a writer that died between the two */
    check_fails(RC_BUSY, wal_index_read(&copy, &header, &err));
}

static void test_wal_index__another_version_or_no_header(void **state)
{
    (void)state;
    struct wal_index copy;
    struct wal_index_header header;
    make_database("PRAGMA page_size=4096");
    uint8_t *map = copy_header(&copy);
    uint32_t version = 3007001;
    memcpy(map, &version, sizeof version);
    seal(map);
    check_fails(RC_BUSY, wal_index_read(&copy, &header, &err));
    map = copy_header(&copy);
    map[12] = 0; /* isInit */
    seal(map);
    check_fails(RC_BUSY, wal_index_read(&copy, &header, &err));
    memset(map, 0, COPY_BYTES); /* a fresh -shm: its checksum is right */
    check_fails(RC_BUSY, wal_index_read(&copy, &header, &err));
}

static void test_wal_index__no_shared_memory(void **state)
{
    (void)state;
    struct wal_index none;
    sqlite3 *memory = NULL;
    assert_int_equal(sqlite3_open(":memory:", &memory), SQLITE_OK);
    check_fails(RC_INTERNAL, wal_index_open(&none, memory, &err));
    assert_int_equal(sqlite3_close(memory), SQLITE_OK);
}

/* The numbers of the locks are SQLite's: what we hold stops its own steps, and the other way round. */
static void test_wal_index__write_lock(void **state)
{
    (void)state;
    make_database("PRAGMA page_size=4096");
    check_ok(wal_index_lock(&wal_index, WAL_LOCK_WRITE, &err));
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_BUSY);
    wal_index_unlock(&wal_index, WAL_LOCK_WRITE);
    run(other, "BEGIN IMMEDIATE");
    check_fails(RC_BUSY, wal_index_lock(&wal_index, WAL_LOCK_WRITE, &err));
    run(other, "ROLLBACK");
}

static void test_wal_index__checkpoint_lock(void **state)
{
    (void)state;
    make_database("PRAGMA page_size=4096");
    check_ok(wal_index_lock(&wal_index, WAL_LOCK_CHECKPOINT, &err));
    assert_int_equal(number(other, "PRAGMA wal_checkpoint(PASSIVE)"), 1); /* busy */
    run(other, "INSERT INTO test VALUES (1)");                            /* writers do not mind */
    wal_index_unlock(&wal_index, WAL_LOCK_CHECKPOINT);
    assert_int_equal(number(other, "PRAGMA wal_checkpoint(PASSIVE)"), 0);
}

static void test_wal_index__readers(void **state)
{
    (void)state;
    make_database("PRAGMA page_size=4096");
    assert_true(wal_index_readers_gone(&wal_index));
    run(other, "BEGIN; SELECT count(*) FROM test"); /* READ(1) or higher */
    assert_false(wal_index_readers_gone(&wal_index));
    run(other, "COMMIT");
    assert_true(wal_index_readers_gone(&wal_index));
    run(other, "PRAGMA wal_checkpoint(PASSIVE); BEGIN; SELECT count(*) FROM test"); /* READ(0) */
    assert_true(wal_index_readers_gone(&wal_index));
    check_fails(RC_BUSY, wal_index_lock(&wal_index, WAL_LOCK_READ0, &err));
    run(other, "COMMIT");
    check_ok(wal_index_lock(&wal_index, WAL_LOCK_READ0, &err));
    wal_index_unlock(&wal_index, WAL_LOCK_READ0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_wal_index__says_what_the_wal_holds),
        CASE(test_wal_index__largest_and_smallest_page),
        CASE(test_wal_index__a_commit_moves_count_and_frame),
        CASE(test_wal_index__backfill_and_reset),
        CASE(test_wal_index__any_torn_byte_is_seen),
        CASE(test_wal_index__equal_copies_with_a_wrong_checksum),
        CASE(test_wal_index__two_whole_headers_that_differ),
        CASE(test_wal_index__another_version_or_no_header),
        CASE(test_wal_index__no_shared_memory),
        CASE(test_wal_index__write_lock),
        CASE(test_wal_index__checkpoint_lock),
        CASE(test_wal_index__readers),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
