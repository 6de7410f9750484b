/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state: the file is closed, damaged byte for byte and opened again: the newer whole slot counts, the
 * older one when that is torn, none when both are. The mapped part is looked at through two openings
 * of one file, as two processes have it.
 */
#include "replicator/state.h"

#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include "base/bytes.h"
#include "base/clk.h"
#include "base/hash.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOT_BYTES 4096
#define GENERATION "00000003-9f2c41d7a6b0e355"
#define PENDING "00000004-0123456789abcdef"

static long allocations_left; /* of jansson's, until one fails; 0 = none does */

static void *failing_malloc(size_t count)
{
    if (allocations_left > 0) {
        allocations_left--;
        if (allocations_left == 0) {
            allocations_left = -1; /* it failed, once */
            return NULL;
        }
    }
    return malloc(count);
}

/* Before the constructor of json_fields.c, which wraps what it finds. */
__attribute__((constructor(101))) static void install(void)
{
    json_set_alloc_funcs(failing_malloc, free);
}

static struct scratch scratch;
static struct err err;
static struct state file;
static char path[SCRATCH_PATH_BYTES];

static int setup(void **state)
{
    (void)state;
    scratch_init(&scratch);
    (void)snprintf(path, sizeof path, "%s", scratch_path(&scratch, "state"));
    err = (struct err)ERR_INIT;
    check_ok(state_open(&file, path, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    state_close(&file);
    scratch_deinit(&scratch);
    return 0;
}

static void open_again(void)
{
    state_close(&file);
    check_ok(state_open(&file, path, &err));
}

/* Every field has a value of its own, the extremes among them. */
static void fill(struct state_record *r, uint32_t term)
{
    *r = (struct state_record){
        .valid = true,
        .archive = "s3://bucket/prefix",
        .replicated = true,
        .generation_number_highest = GENERATION_NUMBER_MAX,
        .term = term,
        .term_tag = "5e1ec7ed",
        .pending_term = UINT32_MAX,
        .pending_tag = "0badcafe",
        .confirmed = {{7, 4000000000u}, {0xffffffffu, 1}},
        .confirmed_salts = {0xfffffffeu, 2},
        .has_archived = true,
        .archived_unix_ms = INT64_C(1795543200123),
        .snapshot = {6, 12},
        .snapshot_unix_ms = INT64_C(1795543100001),
        .snapshot_bytes = UINT64_C(1) << 40,
        .captured = {{8, 9}, {10, 11}},
        .captured_salts = {12, 13},
        .database = {UINT64_C(1) << 50, 4096, INT64_C(1795543200123456789)},
        .backfilled = 4000000001u,
        .checkpoint_running = true,
        .reset_follows = true,
        .reset_point = {{14, 15}, {16, 17}},
        .reset_salts = {18, 19},
    };
    assert_true(generation_id_parse(GENERATION, &r->generation, NULL));
    assert_true(generation_id_parse(PENDING, &r->pending_generation, NULL));
}

static void check_point(struct wal_point at, struct wal_salts salts, struct wal_point wanted,
                        struct wal_salts wanted_salts)
{
    assert_true(wal_point_equal(at, wanted));
    assert_true(wal_salts_equal(salts, wanted_salts));
}

static void check_record(const struct state_record *r, uint32_t term)
{
    struct state_record w;
    fill(&w, term);
    assert_true(r->valid);
    assert_string_equal(r->archive, w.archive);
    assert_string_equal(r->generation.text, GENERATION);
    assert_string_equal(r->pending_generation.text, PENDING);
    assert_string_equal(r->term_tag, w.term_tag);
    assert_string_equal(r->pending_tag, w.pending_tag);
    assert_int_equal(r->term, term);
    assert_int_equal(r->pending_term, w.pending_term);
    assert_int_equal(r->generation_number_highest, w.generation_number_highest);
    check_point(r->confirmed, r->confirmed_salts, w.confirmed, w.confirmed_salts);
    check_point(r->captured, r->captured_salts, w.captured, w.captured_salts);
    check_point(r->reset_point, r->reset_salts, w.reset_point, w.reset_salts);
    assert_int_equal(r->archived_unix_ms, w.archived_unix_ms);
    assert_int_equal(position_compare(r->snapshot, w.snapshot), 0);
    assert_int_equal(r->snapshot_unix_ms, w.snapshot_unix_ms);
    assert_int_equal(r->snapshot_bytes, w.snapshot_bytes);
    assert_int_equal(r->database.inode, w.database.inode);
    assert_int_equal(r->database.size_bytes, w.database.size_bytes);
    assert_int_equal(r->database.mtime_ns, w.database.mtime_ns);
    assert_int_equal(r->backfilled, w.backfilled);
    assert_true(r->replicated && r->has_archived && r->checkpoint_running && r->reset_follows);
}

/* Writes a record whose term says which one it is. */
static void write_term(uint32_t term)
{
    struct state_record record;
    state_edit_begin(&file, &record);
    fill(&record, term);
    check_ok(state_edit_end(&file, &record, &err));
}

static void check_term(uint32_t term)
{
    struct state_record record;
    state_get(&file, &record);
    check_record(&record, term);
}

static void check_no_record(void)
{
    struct state_record record;
    state_get(&file, &record);
    assert_false(record.valid);
    assert_string_equal(record.generation.text, "");
    assert_int_equal(record.term, 0);
}

/* Changes one byte of a slot, in the file. */
static void damage(int slot, size_t offset)
{
    uint8_t byte;
    off_t at = (off_t)((size_t)slot * SLOT_BYTES + offset);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x04;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    assert_int_equal(close(fd), 0);
}

static void test_state__a_new_file_holds_no_record(void **state)
{
    (void)state;
    struct stat stat_of;
    check_no_record();
    assert_int_equal(stat(path, &stat_of), 0);
    assert_int_equal(stat_of.st_size, STATE_FILE_BYTES);
    assert_true(stat_of.st_blocks * 512 >= STATE_FILE_BYTES); /* no store to the map can fail */
    open_again();
    check_no_record();
}

static void test_state__a_record_comes_back(void **state)
{
    (void)state;
    write_term(1);
    check_term(1);
    open_again();
    check_term(1);
}

static void test_state__an_empty_record_comes_back(void **state)
{
    (void)state;
    struct state_record record;
    state_edit_begin(&file, &record);
    check_ok(state_edit_end(&file, &record, &err));
    open_again();
    state_get(&file, &record);
    assert_true(record.valid);
    assert_true(generation_id_is_none(&record.generation));
    assert_false(record.replicated || record.has_archived || record.checkpoint_running);
}

/* Record n lies in slot n % 2: the newest counts, and torn it leaves the one before. */
static void test_state__the_newest_counts_and_torn_the_one_before(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 5; n++) {
        write_term(n);
        open_again();
        check_term(n);
    }
    damage(1, 100);
    open_again();
    check_term(4);
    write_term(6); /* into the damaged slot, not over the only good one */
    damage(1, 100);
    open_again();
    check_term(4);
    damage(1, 100); /* whole again */
    open_again();
    check_term(6);
    damage(0, 100);
    damage(1, 100);
    open_again();
    check_no_record();
    write_term(7);
    open_again();
    check_term(7);
}

/* Magic, version, length, sequence, text, padding, hash: there is no byte that does not count. */
static void test_state__any_damaged_byte_is_seen(void **state)
{
    (void)state;
    write_term(1);
    for (size_t offset = 0; offset < SLOT_BYTES; offset += offset < 64 ? 1 : 61) {
        damage(1, offset);
        check_ok(state_reload(&file, &err));
        check_no_record();
        damage(1, offset);
    }
    damage(1, SLOT_BYTES - 1);
    check_ok(state_reload(&file, &err));
    check_no_record();
    damage(1, SLOT_BYTES - 1);
    check_ok(state_reload(&file, &err));
    check_term(1);
}

static void test_state__a_file_cut_short(void **state)
{
    (void)state;
    write_term(1);
    state_close(&file);
    assert_int_equal(truncate(path, SLOT_BYTES + 100), 0);
    check_ok(state_open(&file, path, &err));
    check_no_record();
    write_term(2);
    open_again();
    check_term(2);
    assert_int_equal(truncate(path, 100), 0); /* under the open file: no record, no error */
    check_ok(state_reload(&file, &err));
    check_no_record();
}

/* A slot as somebody else's program might write it: the hash is right, what it says is not. */
static void put_slot(uint32_t version, const char *json, uint32_t json_bytes)
{
    uint8_t bytes[SLOT_BYTES] = {'H', 'A', 'R', 'V', 'E', 'Y', 'S', 'T'};
    bytes_put_u32(bytes + 8, version);
    bytes_put_u32(bytes + 12, json_bytes);
    bytes_put_u64(bytes + 16, 99);
    memcpy(bytes + 24, json, strlen(json));
    check_ok(hash_sha256(bytes, SLOT_BYTES - HASH_SHA256_BYTES,
                         bytes + SLOT_BYTES - HASH_SHA256_BYTES, &err));
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, sizeof bytes, SLOT_BYTES), (ssize_t)sizeof bytes);
    assert_int_equal(close(fd), 0);
    check_ok(state_reload(&file, &err));
}

#define POINT "[7,8,9,10,11,12]"
#define RECORD(term, generation, confirmed)                                                        \
    "{\"archive\":\"dir:/a\",\"replicated\":true,\"generation\":\"" generation                     \
    "\",\"pending_generation\":\"\",\"number_highest\":3,\"term\":" term                           \
    ",\"term_tag\":\"5e1ec7ed\",\"pending_term\":0,\"pending_tag\":\"\",\"confirmed\":" confirmed  \
    ",\"has_archived\":true,\"archived_unix_ms\":1,\"snapshot\":[1,2],\"snapshot_unix_ms\":3,"     \
    "\"snapshot_bytes\":4,\"captured\":" POINT ",\"database\":[1,2,3],\"backfilled\":5,"           \
    "\"checkpoint_running\":false,\"reset_follows\":false,\"reset\":" POINT "}"

static void test_state__a_record_with_a_field_out_of_range(void **state)
{
    (void)state;
    static const char *const bad[] = {
        RECORD("-1", GENERATION, POINT),
        RECORD("4294967296", GENERATION, POINT),
        RECORD("\"2\"", GENERATION, POINT),
        RECORD("2", "00000003-9f2c41d7a6b0e35", POINT),
        RECORD("2", "../../../../etc", POINT),
        RECORD("2", GENERATION, "[7,8,9,10,11]"),
        RECORD("2", GENERATION, "[7,8,9,10,11,12,13]"),
        RECORD("2", GENERATION, "[7,8,9,10,11,-12]"),
        RECORD("2", GENERATION, "[7,4294967296,9,10,11,12]"),
        RECORD("2", GENERATION, "7"),
        "[]",
        "{",
        "",
    };
    const char *good = RECORD("2", GENERATION, POINT);
    struct state_record record;
    put_slot(1, good, (uint32_t)strlen(good));
    state_get(&file, &record);
    assert_true(record.valid);
    assert_int_equal(record.confirmed.position.frame_no, 8);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put_slot(1, bad[i], (uint32_t)strlen(bad[i]));
        check_no_record();
    }
    put_slot(2, good, (uint32_t)strlen(good)); /* a version that we do not know */
    check_no_record();
    put_slot(1, good, SLOT_BYTES); /* a text that is longer than the slot */
    check_no_record();
}

#define ALLOCATIONS_MAX 10000

/* Each allocation of a reading fails in turn: never is the record, or the one before it, taken for the last. */
static void test_state__no_memory_is_not_no_record(void **state)
{
    (void)state;
    write_term(1);
    write_term(2);
    write_term(3);
    for (long n = 1;; n++) {
        assert_true(n < ALLOCATIONS_MAX);
        allocations_left = n;
        enum rc rc = state_reload(&file, &err);
        bool failed = allocations_left <= 0;
        allocations_left = 0;
        if (!failed) {
            check_ok(rc);
            assert_true(n > 10); /* else jansson does not ask us */
            return;
        }
        if (rc != RC_NOMEM && rc != RC_OK) { /* jansson can do without some of them */
            fail_msg("allocation %ld failed, and the reading gave %s", n, rc_name(rc));
        }
        check_term(3);
    }
}

static void test_state__an_edit_that_is_given_up(void **state)
{
    (void)state;
    struct state_record record;
    write_term(1);
    state_edit_begin(&file, &record);
    record.term = 2;
    state_edit_cancel(&file);
    check_term(1);
    write_term(3); /* the lock is free */
    check_term(3);
}

/* The longest path, every byte of it six in JSON, and the longest numbers: one slot holds them. */
static void test_state__the_largest_record_fits(void **state)
{
    (void)state;
    const struct wal_point last = {{UINT32_MAX, UINT32_MAX}, {UINT32_MAX, UINT32_MAX}};
    const struct wal_salts salts = {UINT32_MAX, UINT32_MAX};
    struct state_record record;
    struct state_record found;
    fill(&record, UINT32_MAX);
    memset(record.archive, 1, sizeof record.archive - 1);
    record.archive[sizeof record.archive - 1] = '\0';
    record.replicated = record.has_archived = false; /* longer than true */
    record.checkpoint_running = record.reset_follows = false;
    record.confirmed = record.captured = record.reset_point = last;
    record.confirmed_salts = record.captured_salts = record.reset_salts = salts;
    record.snapshot = last.position;
    record.snapshot_unix_ms = record.archived_unix_ms = INT64_MIN;
    record.snapshot_bytes = INT64_MAX;
    record.database = (struct file_identity){INT64_MAX, INT64_MAX, INT64_MIN};
    record.backfilled = UINT32_MAX;
    state_edit_begin(&file, &found);
    check_ok(state_edit_end(&file, &record, &err));
    open_again();
    state_get(&file, &found);
    assert_true(found.valid);
    assert_string_equal(found.archive, record.archive);
    check_point(found.reset_point, found.reset_salts, last, salts);
    assert_int_equal(found.database.mtime_ns, INT64_MIN);
}

/* What cannot be written leaves the record as it was, here and in the file, and the lock free. */
static void test_state__a_write_that_fails(void **state)
{
    (void)state;
    struct state_record record;
    write_term(1);
    int fd = file.fd;
    file.fd = open(path, O_RDONLY);
    state_edit_begin(&file, &record);
    record.term = 2;
    assert_int_not_equal(state_edit_end(&file, &record, &err), RC_OK);
    assert_int_equal(close(file.fd), 0);
    file.fd = fd;
    check_term(1);
    write_term(3);
    open_again();
    check_term(3);
}

/* One process leads, then another: reload brings what the first one wrote. */
static void test_state__another_process(void **state)
{
    (void)state;
    struct state other;
    check_ok(state_open(&other, path, &err));
    write_term(1);
    assert_false(other.record.valid);
    check_ok(state_reload(&other, &err));
    assert_int_equal(other.record.term, 1);
    atomic_store(&file.live->epoch_started, 5);
    assert_int_equal(atomic_load(&other.live->epoch_started), 5);
    state_close(&other);
}

static void test_state__a_boot_begins_the_mapped_part_anew(void **state)
{
    (void)state;
    write_term(1);
    atomic_store(&file.live->lead_seq, 7);
    open_again();
    assert_int_equal(atomic_load(&file.live->lead_seq), 7);
    file.live->boot_id[0] ^= 1;
    open_again();
    assert_int_equal(atomic_load(&file.live->lead_seq), 0);
    check_term(1); /* the record is none of the boot's business */
}

static void test_state__moved_aside_and_adopted(void **state)
{
    (void)state;
    struct state fresh;
    write_term(1);
    assert_true(state_is_current(&file, path));
    assert_int_equal(rename(path, scratch_path(&scratch, "aside")), 0);
    assert_false(state_is_current(&file, path));
    check_ok(state_open(&fresh, path, &err));
    assert_false(state_is_current(&file, path));
    struct state_live *old = file.live;
    state_adopt(&file, &fresh);
    assert_true(state_is_current(&file, path));
    check_no_record();
    atomic_store(&old->wake, 1); /* who still holds the old address does no harm */
    write_term(2);
    open_again();
    check_term(2);
}

static void test_state__publish(void **state)
{
    (void)state;
    struct state other;
    struct replicator_status status = {0};
    struct replicator_status seen;
    struct state_wal_map map = {.known = true, .wal_no = 4, .wal_no_next = 5, .salts = {6, 7}};
    struct state_wal_map seen_map;
    check_ok(state_open(&other, path, &err));
    state_read_published(&other, &seen_map, NULL);
    assert_false(seen_map.known);
    state_publish(&file, &map, &status);
    state_read_published(&other, &seen_map, &seen);
    assert_memory_equal(&seen_map, &map, sizeof map);
    atomic_fetch_add(&file.live->publish_seq, 1); /* a publisher died in the middle */
    state_read_published(&other, &seen_map, NULL);
    assert_false(seen_map.known);
    state_publish(&file, &map, &status); /* the next one is whole again */
    state_read_published(&other, &seen_map, &seen);
    assert_true(seen_map.known);
    state_close(&other);
}

/* The oldest of three stamps counts, wherever it is; none: 0; one from the future: 1. */
static void test_state__lag(void **state)
{
    (void)state;
    struct state_live *live = file.live;
    int64_t now = clk_boottime_ms();
    assert_int_equal(state_lag_ms(&file), 0);
    _Atomic int64_t *stamps[] = {&live->uncaptured_ms, &live->capturing_ms, &live->spooled_ms};
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
            atomic_store(stamps[j], j == i ? now - 100000 : now);
        }
        assert_in_range(state_lag_ms(&file), 100001, 200000);
    }
    for (int i = 0; i < 3; i++) {
        atomic_store(stamps[i], i == 1 ? now + 1000000 : 0);
    }
    assert_int_equal(state_lag_ms(&file), 1);
}

/* The first commit that no pass has seen keeps its stamp, and each one changes what the leader saw. */
static void test_state__a_commit_stamps_and_wakes(void **state)
{
    (void)state;
    struct state_seen before = state_seen(&file);
    state_note_commit(&file);
    assert_int_not_equal(atomic_load(&file.live->uncaptured_ms), 0);
    struct state_seen after = state_seen(&file);
    assert_int_not_equal(after.wake, before.wake);
    assert_int_equal(after.urgent, before.urgent);
    atomic_store(&file.live->uncaptured_ms, 42);
    state_note_commit(&file);
    assert_int_equal(atomic_load(&file.live->uncaptured_ms), 42);
    state_wake(&file);
    assert_int_not_equal(state_seen(&file).urgent, after.urgent);
    state_sleep(&file, before, true, 600000);  /* news since: it does not sleep */
    state_sleep(&file, before, false, 600000); /* the same for urgent ones */
}

/* Two versions of the program never share a mapped part that they read in two ways. */
static void test_state__another_layout_waits_for_its_users(void **state)
{
    struct state newer;
    (void)state;
    file.live->layout = STATE_LIVE_LAYOUT + 1; /* as if the running process were of that version */
    atomic_store(&file.live->lead_seq, 7);
    check_fails(RC_BUSY, state_open(&newer, path, &err));
    check_text("another version");
    assert_int_equal(atomic_load(&file.live->lead_seq), 7);
    state_close(&file);
    check_ok(state_open(&file, path, &err));
    assert_int_equal(file.live->layout, STATE_LIVE_LAYOUT);
    assert_int_equal(atomic_load(&file.live->lead_seq), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_state__a_new_file_holds_no_record),
        CASE(test_state__a_record_comes_back),
        CASE(test_state__an_empty_record_comes_back),
        CASE(test_state__the_newest_counts_and_torn_the_one_before),
        CASE(test_state__any_damaged_byte_is_seen),
        CASE(test_state__a_file_cut_short),
        CASE(test_state__a_record_with_a_field_out_of_range),
        CASE(test_state__no_memory_is_not_no_record),
        CASE(test_state__an_edit_that_is_given_up),
        CASE(test_state__the_largest_record_fits),
        CASE(test_state__a_write_that_fails),
        CASE(test_state__another_process),
        CASE(test_state__a_boot_begins_the_mapped_part_anew),
        CASE(test_state__another_layout_waits_for_its_users),
        CASE(test_state__moved_aside_and_adopted),
        CASE(test_state__publish),
        CASE(test_state__lag),
        CASE(test_state__a_commit_stamps_and_wakes),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
