/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lead: marks, freezes, stamps, checkpoints and the snapshot's position, each where its defence is needed.
 */
#include "replicator/lead_internal.h"

#include "tests/unit/checks.h"
#include "tests/unit/lead_scene.h"

#include "base/clk.h"
#include "base/fsio.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static struct err err;

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    lead_scene_set_up();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lead_scene_tear_down();
    return 0;
}

static int64_t stamped_ms;

static void commit_stamped_long_ago(void)
{
    lead_scene_insert(1, 10);
    stamped_ms = clk_boottime_ms() - 10000;
    atomic_store(&scene.shared.live->uncaptured_ms, stamped_ms);
}

/* As a writer leaves it that is killed between the header's two copies: the new one is whole, the old one not. */
static void tear_the_wal_index(void)
{
    uint32_t change;
    int fd = open(scratch_path(&scene.scratch, "state.db-shm"), O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &change, sizeof change, 48 + 8), sizeof change);
    change++;
    assert_int_equal(pwrite(fd, &change, sizeof change, 48 + 8), sizeof change);
    assert_int_equal(close(fd), 0);
}

/* As after an outage, and nobody writes: a stranger's checkpoint ends between the pass's look and its reader. */
static void test_lead__a_pass_never_lands_on_mark_0(void **state)
{
    (void)state;
    lead_scene_begin_first();
    lead_scene_insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    lead_scene_begin_another_generation();
    struct wal_index_header before = lead_scene_wal_now();
    lead_scene_at(lead_scene_other_reader()->db, "BEGIN", lead_scene_backfill);
    check_ok(lead_pass(lead, &err));
    assert_int_equal(lead->follower.end.position.frame_no, before.mx_frame);
    lead_scene_backfill();

    lead_scene_insert(1, 10); /* a writer that finds no mark but 0 would begin the WAL anew now */
    assert_true(wal_salts_equal(lead_scene_wal_now().salts, before.salts));
}

static void test_lead__a_pass_over_a_backfilled_wal_keeps_its_mark(void **state)
{
    (void)state;
    lead_scene_begin_first();
    lead_scene_insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    lead_scene_backfill();
    struct wal_index_header before = lead_scene_wal_now();

    /* as after an outage: a new generation begins with frame 1 of this WAL, which must not be reset */
    lead_scene_begin_another_generation();
    check_ok(lead_pass(lead, &err));
    assert_int_equal(lead->follower.end.position.frame_no, before.mx_frame);

    lead_scene_insert(1, 10); /* a writer that finds no mark but 0 would begin the WAL anew now */
    struct wal_index_header after = lead_scene_wal_now();
    assert_true(wal_salts_equal(after.salts, before.salts));
    assert_int_equal(after.mx_frame, before.mx_frame + 1);
    check_ok(lead_pass(lead, &err));
    assert_int_equal(lead->follower.end.position.frame_no, after.mx_frame);
}

/* A commit between the taking of a mark and the look at what is there, and none behind it: the freeze gets through. */
static void test_lead__a_freeze_whose_mark_is_late(void **state)
{
    (void)state;
    lead_scene_begin_first();
    lead_scene_insert(LEAD_SCENE_ROWS_OF_A_FREEZE, 4000);
    lead_scene_after(lead_scene_other_reader()->db, "SELECT", lead_scene_insert_one);
    check_ok(lead_pass(lead, &err));
    assert_int_equal(lead->seen.mx_frame, lead_scene_wal_now().mx_frame);
    lead_scene_maintain_until_reset();
}

static void test_lead__a_freeze_captures_what_no_pass_has_seen(void **state)
{
    (void)state;
    lead_scene_begin_first();
    lead_scene_insert(LEAD_SCENE_ROWS_OF_A_FREEZE, 4000);
    uint32_t frames = lead_scene_wal_now().mx_frame;
    assert_true(lead->seen.mx_frame < frames);
    lead_scene_maintain_until_reset();

    struct state_record record;
    state_get(&scene.shared, &record);
    assert_true(record.reset_follows);
    assert_int_equal(record.reset_point.position.frame_no, frames);
    assert_int_equal(lead->follower.end.position.wal_no, 2);
    assert_int_equal(lead->segmenter.link.position.frame_no, frames);
}

/* The mark that follows a freeze is not above what the lead takes it for: it would checkpoint to the end. */
static void test_lead__a_freeze_knows_its_new_mark(void **state)
{
    (void)state;
    lead_scene_begin_first();
    lead_scene_insert(LEAD_SCENE_ROWS_OF_A_FREEZE, 4000);
    check_ok(lead_pass(lead, &err));
    /* two swaps: to mark 0 on the other reader, and from there back to this one */
    lead_scene_at(lead->connections.readers[lead->connections.current].db, "BEGIN",
                  lead_scene_insert_one);
    lead_scene_maintain_until_reset();
    assert_true(lead_scene_has_acted());
    assert_int_equal(lead->mark_frame, lead_scene_wal_now().mx_frame);
}

/* A sibling commits behind mark 0 before the leader does; it stamped that, and the stamp is the oldest. */
static void test_lead__a_commit_at_mark_0_keeps_its_stamp(void **state)
{
    (void)state;
    struct state_live *live = scene.shared.live;
    lead_scene_begin_first();
    lead_scene_insert(LEAD_SCENE_ROWS_OF_A_FREEZE, 4000);
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    lead_scene_at(lead->connections.write_db, "BEGIN IMMEDIATE", commit_stamped_long_ago);
    lead_scene_maintain_until_reset();
    assert_true(lead_scene_has_acted());
    int64_t stamp = atomic_load(&live->capturing_ms);
    assert_true(stamp != 0 && stamp <= stamped_ms);
}

/* A foreign commit is stamped when it is seen, a stamp that comes late may be older: the oldest stays. */
static void test_lead__an_older_stamp_that_comes_late_counts(void **state)
{
    (void)state;
    struct state_live *live = scene.shared.live;
    lead_scene_begin_first();
    lead_scene_insert(1, 10);
    check_ok(lead_pass(lead, &err));
    int64_t seen_ms = atomic_load(&live->capturing_ms);
    assert_true(seen_ms != 0);
    atomic_store(&live->uncaptured_ms, seen_ms - 1000);
    check_ok(lead_pass(lead, &err));
    assert_int_equal(atomic_load(&live->capturing_ms), seen_ms - 1000);
}

/* Frames that nobody captures go with the WAL: the reader that held it leaves behind the look at the marks. */
static void test_lead__a_reader_that_leaves_late_hides_no_reset(void **state)
{
    (void)state;
    struct state_record record;
    lead_scene_begin_first();
    lead_scene_insert_and_ship(10, 3000);
    lead->capture = CAPTURE_OUTAGE;
    lead_scene_insert(LEAD_SCENE_ROWS_OF_A_FREEZE, 4000);
    check_ok(lead_pass(lead, &err));
    lead_scene_begin_reading();
    lead_scene_at(lead->connections.write_db, "BEGIN IMMEDIATE", lead_scene_end_reading);
    lead_scene_maintain_until_reset();
    assert_true(lead_scene_has_acted());
    state_get(&scene.shared, &record);
    assert_false(record.replicated);
    lead_scene_die();
    start_scene_decide(START_SERVE, LEAD_SCENE_CONTINUES, "");
    assert_false(scene.plan.continues);
}

/* The same, and the note cannot be written: the next one that can says it. */
static void test_lead__a_reset_whose_note_failed_is_told_later(void **state)
{
    (void)state;
    struct state_record record;
    lead_scene_begin_first();
    lead_scene_insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    lead->capture = CAPTURE_OUTAGE;
    lead_scene_insert(LEAD_SCENE_ROWS_OF_A_FREEZE, 4000);
    check_ok(lead_pass(lead, &err));
    lead_scene_backfill();
    char *database = scene.sidecar.database;
    size_t count = strlen(database);
    (void)snprintf(database + count, FSIO_PATH_BYTES - count, "/x");
    int64_t until = clk_monotonic_ms() + LEAD_SCENE_WAIT_MS;
    while (lead->wal_resets == 0 && clk_monotonic_ms() < until) {
        (void)!lead_maintain(lead, &err);
    }
    database[count] = '\0';
    assert_int_equal(lead->wal_resets, 1);
    check_ok(lead_note_checkpoint(lead, false, &err));
    state_get(&scene.shared, &record);
    assert_false(record.replicated);
}

/* A reader that stays: the first commit behind mark 0 is appended, and no reset follows any more. */
static void test_lead__a_note_goes_when_no_reset_came(void **state)
{
    (void)state;
    struct state_record record;
    lead_scene_begin_first();
    lead_scene_insert(LEAD_SCENE_ROWS_OF_A_FREEZE, 4000);
    check_ok(lead_pass(lead, &err));
    lead_scene_begin_reading();
    struct wal_index_header before = lead_scene_wal_now();
    int64_t until = clk_monotonic_ms() + LEAD_SCENE_WAIT_MS;
    while (lead_scene_wal_now().mx_frame == before.mx_frame && clk_monotonic_ms() < until) {
        check_ok(lead_maintain(lead, &err));
    }
    assert_int_equal(lead_scene_wal_now().mx_frame, before.mx_frame + 1);
    assert_true(wal_salts_equal(lead_scene_wal_now().salts, before.salts));
    assert_false(lead->at_mark0);
    state_get(&scene.shared, &record);
    assert_false(record.reset_follows);
    assert_true(record.replicated);
}

/* Recovery of the wal-index needs CKPT, which mark 0 holds: the lead gives both up and starts over. */
static void test_lead__mark_0_is_left_when_the_wal_index_is_torn(void **state)
{
    (void)state;
    lead_scene_begin_first();
    lead_scene_insert(LEAD_SCENE_ROWS_OF_A_FREEZE, 4000);
    check_ok(lead_pass(lead, &err));
    /* the reader on k > 0 ends when the other one has mark 0 */
    lead_scene_at(lead->connections.readers[lead->connections.current].db, "COMMIT",
                  tear_the_wal_index);
    enum rc rc = RC_OK;
    int64_t begun = clk_monotonic_ms();
    while (rc == RC_OK && clk_monotonic_ms() < begun + LEAD_SCENE_WAIT_MS) {
        rc = lead_maintain(lead, &err);
    }
    check_fails(RC_BUSY, rc);
    assert_true(lead->at_mark0);
    assert_true(clk_monotonic_ms() - begun < 5000);
    lead_scene_die();
    lead_scene_insert(1, 10);
}

/* A lead that noted a reset, made it and died; then the archive cannot be read, and another one begins. */
static struct generation_id begin_after_a_reset_without_the_archive(bool touched)
{
    lead_scene_begin_first();
    lead_scene_insert(LEAD_SCENE_ROWS_OF_A_FREEZE, 4000);
    lead_scene_maintain_until_reset();
    lead_scene_ship();
    struct generation_id generation = lead->generation;
    lead_scene_die();
    assert_int_equal(rename(scene.config.store.dir, scratch_path(&scene.scratch, "away")), 0);
    check_ok(fsio_replace_file(scene.config.store.dir, "no directory", 12, false, &err));
    if (touched) {
        const struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
        assert_int_equal(utimensat(AT_FDCWD, scene.sidecar.database, times, 0), 0);
    }
    lead_scene_begin(LEAD_SCENE_UNREACHABLE);
    return generation;
}

static void test_lead__a_noted_reset_is_believed(void **state)
{
    (void)state;
    struct generation_id before = begin_after_a_reset_without_the_archive(false);
    assert_true(generation_id_equal(&lead->generation, &before));
    assert_int_equal(lead->follower.end.position.wal_no, 2);
}

/* Somebody wrote the file after the note: the frames of the WAL that was reset may never have come into it. */
static void test_lead__a_noted_reset_is_not_believed_of_another_file(void **state)
{
    (void)state;
    struct generation_id before = begin_after_a_reset_without_the_archive(true);
    assert_false(generation_id_equal(&lead->generation, &before));
    assert_int_equal(lead->follower.end.position.wal_no, 1);
}

static void test_lead__after_a_freeze_others_may_checkpoint_and_write(void **state)
{
    (void)state;
    lead_scene_begin_first();
    lead_scene_insert(LEAD_SCENE_ROWS_OF_A_FREEZE, 4000);
    lead_scene_maintain_until_reset();
    assert_false(lead->at_mark0);
    assert_false(lead->connections.holds_checkpoint);
    assert_false(lead->connections.holds_write);
    lead_scene_insert(1, 10);
    assert_int_equal(sqlite3_wal_checkpoint_v2(app, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL),
                     SQLITE_OK);
}

/* lead_maintain until a checkpoint ran; what that call returned. */
static enum rc maintain_until_checkpoint(void)
{
    enum rc rc = RC_OK;
    uint64_t before = lead->checkpoints;
    int64_t until = clk_monotonic_ms() + LEAD_SCENE_WAIT_MS;
    while (lead->checkpoints == before && clk_monotonic_ms() < until) {
        rc = lead_maintain(lead, &err);
        clk_pause_ms(5);
    }
    assert_int_equal(lead->checkpoints, before + 1);
    return rc;
}

/* Whoever is killed inside one leaves a state that says so: the file's new time is then no stranger's. */
static void test_lead__a_checkpoint_is_noted_until_its_end_is(void **state)
{
    (void)state;
    struct state_record record;
    lead_scene_begin_first();
    lead_scene_insert(LEAD_SCENE_ROWS_OF_A_CHECKPOINT, 4000);
    check_ok(lead_pass(lead, &err));
    lead_scene_insert(1, 10); /* behind the mark: else there is no hurry */
    char *database = scene.sidecar.database;
    size_t count = strlen(database);
    (void)snprintf(database + count, FSIO_PATH_BYTES - count, "/x"); /* its end cannot be noted */
    check_fails(RC_IO, maintain_until_checkpoint());
    state_get(&scene.shared, &record);
    assert_true(record.checkpoint_running);

    database[count] = '\0';
    lead_scene_insert(LEAD_SCENE_ROWS_OF_A_CHECKPOINT, 4000);
    check_ok(lead_pass(lead, &err));
    lead_scene_insert(1, 10); /* behind the mark: else there is no hurry */
    check_ok(maintain_until_checkpoint());
    state_get(&scene.shared, &record);
    assert_false(record.checkpoint_running);
}

static void test_lead__the_oldest_commits_stamp_stays_until_its_segment_is_cut(void **state)
{
    (void)state;
    lead_scene_begin_first();
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    struct state_live *live = scene.shared.live;
    int64_t now = clk_boottime_ms();
    lead_scene_insert(1, 10);
    atomic_store(&live->uncaptured_ms, now);
    check_ok(lead_pass(lead, &err));
    assert_int_equal(atomic_load(&live->capturing_ms), now);

    lead_scene_insert(1, 10);
    atomic_store(&live->uncaptured_ms, now + 1000);
    check_ok(lead_pass(lead, &err));
    assert_int_equal(atomic_load(&live->uncaptured_ms), 0);
    assert_int_equal(atomic_load(&live->capturing_ms), now);
    check_ok(lead_cut(lead, &err));
    assert_int_equal(atomic_load(&live->capturing_ms), 0);
}

static void test_lead__a_snapshot_begins_where_the_capture_stands(void **state)
{
    (void)state;
    lead_scene_begin_first();
    lead_scene_insert(10, 3000); /* no pass has seen these, and the snapshot has them */
    check_ok(lead_begin_snapshot(lead, &err));
    assert_int_equal(lead->follower.end.position.frame_no, lead_scene_wal_now().mx_frame);
}

static void test_lead__goes_on_inside_a_large_transaction(void **state)
{
    (void)state;
    lead_scene_begin_first();
    lead_scene_insert(1700, 4000); /* 7 MB: the first 4 MiB are cut off into the spool */
    check_ok(lead_pass(lead, &err));
    struct wal_point link = lead->segmenter.link;
    assert_true(link.position.frame_no < lead_scene_wal_now().mx_frame);
    lead_scene_ship();  /* the birth's note would else be pending, and its frames begin anew */
    lead_destroy(lead); /* what was only gathered goes, as in a kill */

    lead_scene_begin(LEAD_SCENE_CONTINUES);
    assert_int_equal(lead->segmenter.link.position.frame_no, link.position.frame_no);
    assert_true(lead->segmenter.inside_transaction);
    check_ok(lead_cut(lead, &err));
    assert_false(lead->segmenter.inside_transaction);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_lead__a_pass_never_lands_on_mark_0),
        CASE(test_lead__a_pass_over_a_backfilled_wal_keeps_its_mark),
        CASE(test_lead__a_freeze_whose_mark_is_late),
        CASE(test_lead__a_freeze_captures_what_no_pass_has_seen),
        CASE(test_lead__a_freeze_knows_its_new_mark),
        CASE(test_lead__a_commit_at_mark_0_keeps_its_stamp),
        CASE(test_lead__an_older_stamp_that_comes_late_counts),
        CASE(test_lead__a_reader_that_leaves_late_hides_no_reset),
        CASE(test_lead__a_reset_whose_note_failed_is_told_later),
        CASE(test_lead__a_note_goes_when_no_reset_came),
        CASE(test_lead__mark_0_is_left_when_the_wal_index_is_torn),
        CASE(test_lead__a_noted_reset_is_believed),
        CASE(test_lead__a_noted_reset_is_not_believed_of_another_file),
        CASE(test_lead__after_a_freeze_others_may_checkpoint_and_write),
        CASE(test_lead__a_checkpoint_is_noted_until_its_end_is),
        CASE(test_lead__the_oldest_commits_stamp_stays_until_its_segment_is_cut),
        CASE(test_lead__a_snapshot_begins_where_the_capture_stands),
        CASE(test_lead__goes_on_inside_a_large_transaction),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
