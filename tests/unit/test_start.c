/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start: the start table row by row: a database (any bytes: only row 16 opens it), a state, a spool and
 * a directory archive are laid out, and the plan must be that of the row. Row 16 needs a real database
 * and SQLite's locks: tests/integration.
 */
#include "replicator/start.h"

#include "tests/unit/checks.h"
#include "tests/unit/start_scene.h"

#include "base/buf.h"
#include "base/fsio.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define OURS "00000003-9f2c41d7a6b0e355"
#define OTHER "00000004-fedcba9876543210"
#define TAG "5e1ec7ed"

static struct err err;

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    start_scene_set_up();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    start_scene_tear_down();
    return 0;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void decide(enum start_action action, int row)
{
    start_scene_decide(action, row, "");
}

static void check_reason(const char *part)
{
    if (strstr(scene.plan.reason, part) == NULL) {
        fail_msg("\"%s\" does not hold \"%s\"", scene.plan.reason, part);
    }
}

static struct generation_id id_of(const char *text)
{
    struct generation_id id;
    assert_true(generation_id_parse(text, &id, NULL));
    return id;
}

static void put_birth(const char *id)
{
    struct buf json;
    struct generation_birth birth = {.id = id_of(id),
                                     .cause = CAUSE_FIRST_START,
                                     .page_size_bytes = 4096,
                                     .window = SHIP_WINDOW,
                                     .host = "host",
                                     .harvey_version = "0",
                                     .sqlite_version = "3.40.1",
                                     .unix_ms = INT64_C(1795543200000)};
    const struct object_key key = {.kind = OBJECT_GENERATION,
                                   .generation_number = generation_id_number(&birth.id)};
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    check_ok(generation_birth_encode(&birth, &json, &err));
    start_scene_put(&key, json.data, json.size);
    buf_deinit(&json);
}

static void put_claim(uint32_t term, const char *tag)
{
    struct buf json;
    struct lead_claim claim = {.generation = id_of(OURS),
                               .term = term,
                               .start = {{1, 0}, {0, 0}},
                               .host = "host",
                               .boot_id = "boot",
                               .pid = 7,
                               .unix_ms = INT64_C(1795543200000)};
    const struct object_key key = {
        .kind = OBJECT_LEAD, .generation = claim.generation, .term = term};
    (void)snprintf(claim.tag, sizeof claim.tag, "%s", tag);
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    check_ok(lead_claim_encode(&claim, &json, &err));
    start_scene_put(&key, json.data, json.size);
    buf_deinit(&json);
}

static void put_snapshot_with(const char *id, const void *manifest, size_t count)
{
    const struct object_key key = {.kind = OBJECT_SNAPSHOT_COMPLETE,
                                   .generation = id_of(id),
                                   .position = {1, 0},
                                   .tag = "0badcafe"};
    start_scene_put(&key, manifest, count);
}

static void put_snapshot(const char *id)
{
    put_snapshot_with(id, "{}", 2);
}

/* A generation with a complete snapshot at (1, 0). */
static void put_generation(const char *id)
{
    put_birth(id);
    put_snapshot(id);
}

/* The state says that this database is the archive's generation, at (1, 0). */
static void note_ours(void)
{
    struct state_record record;
    state_edit_begin(&scene.shared, &record);
    (void)snprintf(record.archive, sizeof record.archive, "%s", scene.config.store.url);
    record.replicated = true;
    record.generation = id_of(OURS);
    record.generation_number_highest = 3;
    record.term = 2;
    memcpy(record.term_tag, TAG, sizeof record.term_tag);
    record.confirmed = (struct wal_point){{1, 0}, {0, 0}};
    record.captured = record.confirmed;
    check_ok(start_identify(scene.sidecar.database, &record.database, &err));
    check_ok(state_edit_end(&scene.shared, &record, &err));
}

/* The archive cannot be read: something lies in its place. */
static void block_archive(void)
{
    write_file(scene.config.store.dir, "no directory");
}

static void database_is_there(void)
{
    write_file(scene.sidecar.database, "any bytes");
}

static void test_start__row_0_no_archive(void **state)
{
    (void)state;
    scene.config.store.off = true;
    decide(START_SERVE, 0);
    assert_true(scene.plan.create_database);
    database_is_there();
    decide(START_SERVE, 0);
    assert_false(scene.plan.create_database || scene.plan.continues);
}

static void test_start__row_1_a_wal_without_its_database(void **state)
{
    (void)state;
    write_file(scene.sidecar.wal, "frames");
    decide(START_WAIT, 1);
    check_reason(scene.sidecar.wal);
    scene.config.store.off = true; /* it is worth as much then */
    decide(START_WAIT, 1);
    write_file(scene.sidecar.database, ""); /* an empty file is none */
    decide(START_WAIT, 1);
}

static void test_start__row_2_the_spool_may_be_the_only_copy(void **state)
{
    (void)state;
    check_ok(store_prepare(scene.store, true, &err));
    note_ours();
    check_ok(spool_write(&scene.spool, OURS "/wal/0000000001/x", "x", 1, &err));
    decide(START_WAIT, 2);
    check_reason(scene.sidecar.dir);
}

static void test_start__row_3_no_database_and_no_answer(void **state)
{
    (void)state;
    block_archive();
    decide(START_WAIT, 3);
    check_reason(scene.config.store.url);
}

/* An archive that was there is not made anew: that is a disk which is not mounted. */
static void test_start__row_3_a_directory_that_is_gone(void **state)
{
    (void)state;
    note_ours();
    decide(START_WAIT, 3);
    assert_int_equal(access(scene.config.store.dir, F_OK), -1);
}

static void test_start__row_4_the_first_start(void **state)
{
    (void)state;
    decide(START_SERVE, 4);
    assert_true(scene.plan.create_database && scene.plan.verified);
    assert_false(scene.plan.continues || scene.plan.has_parent || scene.plan.alarm);
    assert_int_equal(scene.plan.generation_number_next, 1);
    assert_int_equal(scene.plan.cause, CAUSE_FIRST_START);
    put_birth(OURS); /* born, and never got a snapshot */
    decide(START_SERVE, 4);
    assert_int_equal(scene.plan.generation_number_next, 4);
    assert_int_equal(scene.plan.supersedes_count, 1);
    assert_string_equal(scene.plan.supersedes[0].text, OURS);
    write_file(scene.sidecar.database, ""); /* an empty file is none */
    decide(START_SERVE, 4);
}

static void test_start__row_5_the_archive_holds_one(void **state)
{
    (void)state;
    put_generation(OURS);
    decide(START_WAIT_FOR_RESTORE, 5);
    check_reason("HARVEY_ON_EMPTY=new:" OURS);
    scene.config.on_empty = ON_EMPTY_NEW;
    scene.config.on_empty_generation = id_of(OTHER);
    decide(START_WAIT_FOR_RESTORE, 5);
    check_reason("names another generation");
    scene.config.on_empty_generation = id_of(OURS);
    decide(START_SERVE, 5);
    assert_true(scene.plan.create_database);
    assert_int_equal(scene.plan.generation_number_next, 4);
    assert_string_equal(scene.plan.supersedes[0].text, OURS);
    scene.config.on_empty = ON_EMPTY_RESTORE;
    decide(START_RESTORE, 5);
    assert_false(scene.plan.replace);
}

/* The only birth is lost: the archive is full all the same, and nothing begins over it unasked. */
static void test_start__row_5_the_birth_is_lost(void **state)
{
    (void)state;
    put_snapshot(OURS);
    decide(START_WAIT_FOR_RESTORE, 5);
    check_reason("HARVEY_ON_EMPTY=new:" OURS);
    check_reason("lost");
    scene.config.on_empty = ON_EMPTY_NEW;
    scene.config.on_empty_generation = id_of(OURS);
    decide(START_SERVE, 5);
    assert_int_equal(scene.plan.generation_number_next, 4);
    assert_int_equal(scene.plan.supersedes_count, 1);
    assert_string_equal(scene.plan.supersedes[0].text, OURS);
}

static void test_start__row_10_the_birth_is_lost(void **state)
{
    (void)state;
    put_snapshot(OURS);
    database_is_there();
    decide(START_WAIT, 10);
    check_reason("HARVEY_ON_STALE=fork:" OURS);
    scene.config.on_stale = ON_STALE_FORK;
    scene.config.on_stale_generation = id_of(OURS);
    decide(START_SERVE, 10);
    assert_int_equal(scene.plan.generation_number_next, 4);
    assert_string_equal(scene.plan.supersedes[0].text, OURS);
}

static void write_marker(uint32_t newest_term)
{
    struct buf json;
    struct file_identity identity;
    check_ok(start_identify(scene.sidecar.database, &identity, &err));
    struct restored_marker marker = {.generation = id_of(OURS),
                                     .point = {{1, 0}, {0, 0}},
                                     .newest_generation = id_of(OURS),
                                     .newest_end = {{1, 0}, {0, 0}},
                                     .newest_term = newest_term,
                                     .inode = identity.inode,
                                     .size_bytes = identity.size_bytes,
                                     .mtime_ns = identity.mtime_ns,
                                     .unix_ms = INT64_C(1795543200000)};
    (void)snprintf(marker.archive, sizeof marker.archive, "%s", scene.config.store.url);
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    check_ok(restored_marker_encode(&marker, &json, &err));
    check_ok(fsio_replace_file(scene.sidecar.restored, json.data, json.size, false, &err));
    buf_deinit(&json);
}

static void test_start__row_6_restored(void **state)
{
    (void)state;
    put_generation(OURS);
    database_is_there();
    write_marker(0);
    decide(START_SERVE, 6);
    assert_int_equal(scene.plan.cause, CAUSE_RESTORED);
    assert_true(scene.plan.has_parent && scene.plan.verified && scene.plan.is_ordinary);
    assert_false(scene.plan.continues);
    assert_string_equal(scene.plan.parent.text, OURS);
    assert_int_equal(scene.plan.generation_number_next, 4);
}

/* A marker speaks of one file and one archive; beside any other it counts as none. */
static void test_start__row_6_a_marker_of_something_else(void **state)
{
    (void)state;
    char url[sizeof scene.config.store.url];
    put_generation(OURS);
    database_is_there();
    write_marker(0);
    write_file(scratch_path(&scene.scratch, "new"), "any bytes");
    struct timespec times[2];
    struct stat stat_before;
    assert_int_equal(stat(scene.sidecar.database, &stat_before), 0);
    times[0] = times[1] = stat_before.st_mtim;
    assert_int_equal(utimensat(AT_FDCWD, scratch_path(&scene.scratch, "new"), times, 0), 0);
    assert_int_equal(rename(scratch_path(&scene.scratch, "new"), scene.sidecar.database), 0);
    decide(START_WAIT, 10); /* another inode */
    write_marker(0);
    decide(START_SERVE, 6);
    assert_int_equal(truncate(scene.sidecar.database, 5), 0);
    assert_int_equal(utimensat(AT_FDCWD, scene.sidecar.database, times, 0), 0);
    decide(START_WAIT, 10); /* another size */
    write_marker(0);
    decide(START_SERVE, 6);
    times[1].tv_nsec ^= 1;
    assert_int_equal(utimensat(AT_FDCWD, scene.sidecar.database, times, 0), 0);
    decide(START_WAIT, 10); /* another mtime */
    memcpy(url, scene.config.store.url, sizeof url);
    (void)snprintf(scene.config.store.url, sizeof scene.config.store.url, "dir:/another");
    write_marker(0);
    memcpy(scene.config.store.url, url, sizeof url);
    decide(START_WAIT, 10);
}

/* The restored file got the number that the old one had, which the state still names: ext4 gives it again at once. */
static void test_start__row_6_restored_under_the_old_inode(void **state)
{
    (void)state;
    put_generation(OURS);
    put_claim(2, TAG);
    database_is_there();
    note_ours();
    write_marker(2);
    decide(START_SERVE,
           15); /* the state has named the file since: the marker was to go, and a crash came */
    write_file(scene.sidecar.database, "other bytes");
    write_marker(2);
    decide(START_SERVE, 6);
    assert_string_equal(scene.plan.parent.text, OURS);
    assert_int_equal(rename(scene.config.store.dir, scratch_path(&scene.scratch, "away")), 0);
    block_archive();
    decide(START_WAIT, 8);
}

static void test_start__row_7_restored_and_the_archive_moved(void **state)
{
    (void)state;
    put_generation(OURS);
    database_is_there();
    write_marker(0);
    put_claim(1, "0badcafe"); /* somebody leads it since */
    decide(START_WAIT, 7);
    write_marker(1);
    decide(START_SERVE, 6);
    put_birth(OTHER);
    decide(START_WAIT, 7);
    scene.config.on_stale = ON_STALE_RESTORE;
    decide(START_RESTORE, 7);
    assert_true(scene.plan.replace);
}

/* Nothing is left of what it was restored from: there is nothing to override. */
static void test_start__row_9_restored_and_the_archive_is_empty(void **state)
{
    (void)state;
    check_ok(store_prepare(scene.store, true, &err));
    database_is_there();
    write_marker(0);
    decide(START_SERVE, 9);
    put_snapshot(OURS); /* or nearly nothing */
    decide(START_WAIT, 10);
}

static void test_start__row_7_a_generation_has_begun_since(void **state)
{
    (void)state;
    put_generation(OURS);
    database_is_there();
    write_marker(0);
    decide(START_SERVE, 6);
    put_birth(OTHER); /* nothing in it yet: its end and its claims are those of the one restored */
    decide(START_WAIT, 7);
}

static void test_start__row_8_the_archive_must_be_asked(void **state)
{
    (void)state;
    block_archive();
    database_is_there();
    decide(START_WAIT, 8);
    note_ours();
    write_file(scratch_path(&scene.scratch, "new"), "any bytes");
    assert_int_equal(rename(scratch_path(&scene.scratch, "new"), scene.sidecar.database), 0);
    decide(START_WAIT, 8); /* ours, but another file */
}

static void test_start__row_9_adopted(void **state)
{
    (void)state;
    database_is_there();
    decide(START_SERVE, 9);
    assert_int_equal(scene.plan.cause, CAUSE_ADOPTED);
    assert_int_equal(scene.plan.generation_number_next, 1);
    assert_false(scene.plan.create_database || scene.plan.continues);
}

/* What the state says of another archive says nothing of this one. */
static void test_start__row_9_notes_of_another_archive(void **state)
{
    (void)state;
    struct state_record record;
    database_is_there();
    note_ours();
    state_edit_begin(&scene.shared, &record);
    (void)snprintf(record.archive, sizeof record.archive, "dir:/another");
    check_ok(state_edit_end(&scene.shared, &record, &err));
    decide(START_SERVE, 9);
    assert_int_equal(scene.plan.generation_number_next, 1);
}

static void test_start__row_10_nothing_ties_it_to_the_archive(void **state)
{
    (void)state;
    put_generation(OURS);
    database_is_there();
    decide(START_WAIT, 10);
    check_reason("HARVEY_ON_STALE=fork:" OURS);
    scene.config.on_stale = ON_STALE_FORK;
    scene.config.on_stale_generation = id_of(OTHER);
    decide(START_WAIT, 10);
    check_reason("names another generation");
    scene.config.on_stale_generation = id_of(OURS);
    decide(START_SERVE, 10);
    assert_int_equal(scene.plan.cause, CAUSE_FORK);
    assert_int_equal(scene.plan.supersedes_count, 1);
    scene.config.on_stale = ON_STALE_RESTORE;
    decide(START_RESTORE, 10);
    assert_true(scene.plan.replace);
}

static void test_start__row_11_ours_and_no_answer(void **state)
{
    (void)state;
    database_is_there();
    note_ours();
    decide(START_SERVE, 11);
    assert_true(scene.plan.alarm && scene.plan.continues);
    assert_false(scene.plan.verified);
    assert_string_equal(scene.plan.begin.generation.text, OURS);
    assert_int_equal(access(scene.config.store.dir, F_OK), -1);
}

static void test_start__row_12_a_newer_generation(void **state)
{
    (void)state;
    put_generation(OURS);
    put_generation(OTHER);
    database_is_there();
    note_ours();
    decide(START_WAIT, 12);
    check_reason("newer generation");
    scene.config.on_stale = ON_STALE_FORK;
    scene.config.on_stale_generation = id_of(OTHER);
    decide(START_SERVE, 12);
    assert_int_equal(scene.plan.generation_number_next, 5);
    assert_int_equal(scene.plan.supersedes_count, 2);
}

static void test_start__row_12_another_claim(void **state)
{
    (void)state;
    put_generation(OURS);
    database_is_there();
    note_ours();
    put_claim(2, "0badcafe");
    decide(START_WAIT, 12);
    check_reason("claimed the lead");
}

/* The end of the chain lay in a -wal that is gone, and nobody wrote the file since. */
static void test_start__row_12_the_wal_is_gone(void **state)
{
    (void)state;
    struct state_record record;
    database_is_there();
    note_ours();
    state_edit_begin(&scene.shared, &record);
    record.confirmed = (struct wal_point){{1, 9}, {1, 2}};
    check_ok(state_edit_end(&scene.shared, &record, &err));
    decide(START_WAIT, 12);
    state_edit_begin(&scene.shared, &record);
    record.reset_follows = true; /* our freeze copied everything */
    record.reset_point = record.confirmed;
    check_ok(state_edit_end(&scene.shared, &record, &err));
    decide(START_SERVE, 11);
}

static void test_start__row_13_another_file(void **state)
{
    (void)state;
    struct state_record record;
    put_generation(OURS);
    database_is_there();
    note_ours();
    state_edit_begin(&scene.shared, &record);
    record.database.inode++;
    check_ok(state_edit_end(&scene.shared, &record, &err));
    decide(START_WAIT, 13);
}

/* A volume that moved, with all that was beside it, to a new and empty store: the cure that is printed acts. */
static void test_start__row_13_and_an_empty_archive(void **state)
{
    (void)state;
    struct state_record record;
    check_ok(store_prepare(scene.store, true, &err));
    database_is_there();
    note_ours();
    state_edit_begin(&scene.shared, &record);
    record.database.inode++;
    check_ok(state_edit_end(&scene.shared, &record, &err));
    decide(START_WAIT, 13);
    check_reason("HARVEY_ON_STALE=fork:" OURS);
    scene.config.on_stale = ON_STALE_FORK;
    scene.config.on_stale_generation = id_of(OTHER);
    decide(START_WAIT, 13);
    check_reason("names another generation");
    scene.config.on_stale_generation = id_of(OURS);
    decide(START_SERVE, 13);
    assert_int_equal(scene.plan.generation_number_next, 4);
    assert_int_equal(scene.plan.supersedes_count, 0);
}

static void test_start__row_14_the_store_lost_objects(void **state)
{
    (void)state;
    struct state_record record;
    put_generation(OURS);
    database_is_there();
    note_ours();
    state_edit_begin(&scene.shared, &record);
    record.confirmed = (struct wal_point){{1, 9}, {1, 2}};
    record.reset_point = (struct wal_point){{1, 9}, {1, 2}};
    check_ok(state_edit_end(&scene.shared, &record, &err));
    decide(START_SERVE, 14);
    assert_true(scene.plan.alarm);
    assert_false(scene.plan.continues);
    assert_int_equal(scene.plan.cause, CAUSE_STORE_LOST);
    assert_int_equal(scene.plan.generation_number_next, 4);
}

static void test_start__row_14_the_generation_is_gone(void **state)
{
    (void)state;
    check_ok(store_prepare(scene.store, true, &err));
    database_is_there();
    note_ours();
    decide(START_SERVE, 14);
    assert_int_equal(scene.plan.generation_number_next, 4); /* its number is not given twice */
    put_generation("00000002-0123456789abcdef");            /* an older one is left */
    decide(START_SERVE, 14);
    assert_int_equal(scene.plan.generation_number_next, 4);
}

static void test_start__row_15_continues(void **state)
{
    (void)state;
    put_generation(OURS);
    database_is_there();
    note_ours();
    put_claim(2, TAG);
    decide(START_SERVE, 15);
    assert_true(scene.plan.continues && scene.plan.verified && scene.plan.is_ordinary);
    assert_false(scene.plan.alarm || scene.plan.identity_differs);
    assert_string_equal(scene.plan.begin.generation.text, OURS);
    assert_true(scene.plan.begin.has_snapshot);
    assert_int_equal(scene.plan.term_next, 3);
    assert_int_equal(scene.plan.generation_number_next, 4);
}

/* Longer than the manifest of so few parts can be: a new snapshot is due, no more. */
static void test_start__row_15_a_manifest_that_is_too_long(void **state)
{
    (void)state;
    static char manifest[(64u << 10) + 1];
    memset(manifest, ' ', sizeof manifest);
    put_birth(OURS);
    put_snapshot_with(OURS, manifest, sizeof manifest);
    database_is_there();
    note_ours();
    put_claim(2, TAG);
    decide(START_SERVE, 15);
    assert_true(scene.plan.begin.has_snapshot);
    assert_int_equal(scene.plan.begin.snapshot_unix_ms, 0);
}

/* A birth that was put right before a crash: the record catches up. One that was not is given up. */
static void test_start__row_15_a_birth_that_was_noted(void **state)
{
    (void)state;
    struct state_record record;
    put_generation(OURS);
    database_is_there();
    note_ours();
    state_edit_begin(&scene.shared, &record);
    record.pending_generation = id_of(OTHER);
    check_ok(state_edit_end(&scene.shared, &record, &err));
    decide(START_SERVE, 15);
    assert_string_equal(scene.plan.begin.generation.text, OURS);
    put_birth(OTHER);
    decide(START_SERVE, 15);
    assert_string_equal(scene.plan.begin.generation.text, OTHER);
    assert_int_equal(scene.plan.term_next, 1);
}

/* Somebody wrote the file: continuing is for the lead to refuse. In our own checkpoint we wrote it. */
static void test_start__row_16_the_file_was_touched(void **state)
{
    (void)state;
    struct state_record record;
    put_generation(OURS);
    database_is_there();
    note_ours();
    write_file(scene.sidecar.database, "other bytes");
    decide(START_SERVE, 15);
    assert_true(scene.plan.identity_differs);
    state_edit_begin(&scene.shared, &record);
    record.checkpoint_running = true;
    check_ok(state_edit_end(&scene.shared, &record, &err));
    decide(START_SERVE, 15);
    assert_false(scene.plan.identity_differs);
}

/* It ran with HARVEY_ARCHIVE=none since: nothing was captured, so nothing continues. */
static void test_start__row_17_not_replicated_since(void **state)
{
    (void)state;
    struct state_record record;
    put_generation(OURS);
    database_is_there();
    note_ours();
    state_edit_begin(&scene.shared, &record);
    record.replicated = false;
    check_ok(state_edit_end(&scene.shared, &record, &err));
    decide(START_SERVE, 15);
    assert_false(scene.plan.continues);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_start__row_0_no_archive),
        CASE(test_start__row_1_a_wal_without_its_database),
        CASE(test_start__row_2_the_spool_may_be_the_only_copy),
        CASE(test_start__row_3_no_database_and_no_answer),
        CASE(test_start__row_3_a_directory_that_is_gone),
        CASE(test_start__row_4_the_first_start),
        CASE(test_start__row_5_the_archive_holds_one),
        CASE(test_start__row_5_the_birth_is_lost),
        CASE(test_start__row_6_restored),
        CASE(test_start__row_6_a_marker_of_something_else),
        CASE(test_start__row_6_restored_under_the_old_inode),
        CASE(test_start__row_7_restored_and_the_archive_moved),
        CASE(test_start__row_7_a_generation_has_begun_since),
        CASE(test_start__row_8_the_archive_must_be_asked),
        CASE(test_start__row_9_adopted),
        CASE(test_start__row_9_restored_and_the_archive_is_empty),
        CASE(test_start__row_9_notes_of_another_archive),
        CASE(test_start__row_10_nothing_ties_it_to_the_archive),
        CASE(test_start__row_10_the_birth_is_lost),
        CASE(test_start__row_11_ours_and_no_answer),
        CASE(test_start__row_12_a_newer_generation),
        CASE(test_start__row_12_another_claim),
        CASE(test_start__row_12_the_wal_is_gone),
        CASE(test_start__row_13_another_file),
        CASE(test_start__row_13_and_an_empty_archive),
        CASE(test_start__row_14_the_store_lost_objects),
        CASE(test_start__row_14_the_generation_is_gone),
        CASE(test_start__row_15_continues),
        CASE(test_start__row_15_a_manifest_that_is_too_long),
        CASE(test_start__row_15_a_birth_that_was_noted),
        CASE(test_start__row_16_the_file_was_touched),
        CASE(test_start__row_17_not_replicated_since),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
