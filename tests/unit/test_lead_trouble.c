/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lead: what it does about a bad frame, a full spool, a generation that cannot begin, and a packed snapshot of
 * frames that are lost.
 */
#include "replicator/lead_internal.h"

#include "tests/unit/checks.h"
#include "tests/unit/lead_scene.h"

#include "base/clk.h"
#include "base/fsio.h"
#include "replicator/snapshot_pack.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_BYTES 4096

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

/* ---- a bad frame ---- */

/* One byte of the frame's page, in its middle. */
static void spoil_frame(uint32_t frame_no)
{
    int fd = open(scene.sidecar.wal, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    off_t at = (off_t)wal_frame_offset(PAGE_BYTES, frame_no + 1) - PAGE_BYTES / 2;
    assert_int_equal(pwrite(fd, "\xa5", 1, at), 1);
    assert_int_equal(close(fd), 0);
}

/* As SQLite's spill bug leaves it. */
static void spoil_last_frame(void)
{
    struct fsio_stat stat;
    check_ok(fsio_stat(scene.sidecar.wal, &stat, &err));
    spoil_frame(
        (uint32_t)((stat.size_bytes - WAL_HEADER_BYTES) / (PAGE_BYTES + WAL_FRAME_HEADER_BYTES)));
}

/* What lies behind a bad frame is in no archive: the cut of what lay before it ends no lag. */
static void test_lead_trouble__a_bad_frame_keeps_the_stamp(void **state)
{
    (void)state;
    struct shipper_view view;
    lead_scene_begin_first();
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    int64_t now = clk_boottime_ms();
    lead_scene_insert(1, 10);
    lead_scene_insert(1, 10);
    spoil_last_frame();
    atomic_store(&scene.shared.live->uncaptured_ms, now);
    check_ok(lead_pass(lead, &err));
    assert_int_equal(lead->capture, CAPTURE_BAD_FRAME);
    assert_true(segmenter_is_empty(&lead->segmenter));
    assert_int_equal(atomic_load(&scene.shared.live->capturing_ms), now);
    lead_scene_ship();
    shipper_get_view(lead->shipper, &view);
    lead_publish(lead, &view);
    assert_true(lead_scene_published.lag_frames > (int64_t)view.unarchived_frames);
}

/* What the loop does then: a freeze, and a generation that has all that is in the database. */
static void next_generation_has_all(const struct generation_id *before)
{
    struct shipper_view view;
    lead_scene_insert(1, 10);
    lead_scene_maintain_until_reset();
    shipper_get_view(lead->shipper, &view);
    check_ok(lead_resume_capture(lead, &view, &err));
    assert_int_equal(lead->capture, CAPTURE_ON);
    assert_false(generation_id_equal(&lead->generation, before));
    check_ok(lead_pass(lead, &err));
    assert_int_equal(lead->capture, CAPTURE_ON);
    assert_int_equal(lead->follower.end.position.frame_no, lead_scene_wal_now().mx_frame);
}

/* A lead captured `good`, then died; a stranger's commit behind it ends in a bad frame. */
static struct wal_point die_before_a_bad_frame(void)
{
    lead_scene_begin_first();
    lead_scene_insert_and_ship(10, 3000);
    struct wal_point good = lead->segmenter.link;
    lead_scene_die();
    lead_scene_insert(1, 3000);
    spoil_last_frame();
    return good;
}

/* The lead that found it is gone before it could freeze, and the wal-index lives on in a sibling. */
static void test_lead_trouble__begins_in_front_of_a_bad_frame(void **state)
{
    (void)state;
    struct wal_point good = die_before_a_bad_frame();
    lead_scene_begin_capturing(LEAD_SCENE_CONTINUES, CAPTURE_BAD_FRAME);
    struct generation_id before = lead->generation;
    assert_true(wal_point_equal(lead->segmenter.link, good));
    assert_true(lead->alarm[0] != '\0');
    next_generation_has_all(&before);
}

/* The same where everything is backfilled: the start itself lets the WAL begin anew. */
static void test_lead_trouble__begins_at_mark_0_in_front_of_a_bad_frame(void **state)
{
    (void)state;
    (void)die_before_a_bad_frame();
    assert_int_equal(sqlite3_wal_checkpoint_v2(app, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL),
                     SQLITE_OK);
    lead_scene_begin_capturing(LEAD_SCENE_CONTINUES, CAPTURE_BAD_FRAME);
    struct generation_id before = lead->generation;
    assert_false(lead->at_mark0);
    next_generation_has_all(&before);
}

/* Frames that are captured again, for a new generation, under a mark that nobody may leave. */
static void test_lead_trouble__a_pass_over_a_backfilled_wal_meets_a_bad_frame(void **state)
{
    (void)state;
    lead_scene_begin_first();
    lead_scene_insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    lead_scene_backfill();
    struct wal_index_header header = lead_scene_wal_now();
    struct wal_point parent_point = lead->segmenter.link;
    struct generation_id parent = lead->generation;
    check_ok(
        lead_begin_generation(lead, CAUSE_OUTAGE, "a test", &parent, &parent_point, &header, &err));
    spoil_last_frame();
    check_ok(lead_pass(lead, &err));
    assert_int_equal(lead->capture, CAPTURE_BAD_FRAME);
    struct generation_id before = lead->generation;
    next_generation_has_all(&before);
}

/* Its state is one that no frame of the chain leads to. */
static void test_lead_trouble__no_snapshot_begins_behind_a_bad_frame(void **state)
{
    (void)state;
    int64_t failed_ms;
    lead_scene_begin_first();
    lead_scene_insert(10, 3000);
    spoil_last_frame();
    check_fails(RC_BUSY, lead_begin_snapshot(lead, &err));
    assert_int_equal(lead->capture, CAPTURE_BAD_FRAME);
    assert_false(snapshotter_is_busy(lead->snapshotter, &failed_ms));
    assert_false(lead->connections.holds_write);
}

/* ---- a full spool ---- */

/* A pass failed within a transaction; its rest is captured before the generation ends. */
static void test_lead_trouble__a_full_spool_ends_a_generation_at_a_commit(void **state)
{
    (void)state;
    lead_scene_begin_first();
    check_ok(lead_pass(lead, &err));
    assert_int_equal(rename(scene.config.store.dir, scratch_path(&scene.scratch, "away")), 0);
    check_ok(fsio_replace_file(scene.config.store.dir, "no directory", 12, false, &err));
    check_ok(lead_cut(lead, &err)); /* it stays in the spool, and is more than that may hold */
    scene.config.spool_bytes_max = 1;

    lead_scene_insert(1700, 4000); /* two segments */
    assert_int_equal(rename(scene.sidecar.spool, scratch_path(&scene.scratch, "spool")), 0);
    check_ok(fsio_replace_file(scene.sidecar.spool, "no folder", 9, false, &err));
    check_fails(RC_IO, lead_pass(lead, &err));
    assert_int_equal(unlink(scene.sidecar.spool), 0);
    assert_int_equal(rename(scratch_path(&scene.scratch, "spool"), scene.sidecar.spool), 0);
    check_ok(lead_housekeep(lead, &err));
    assert_int_equal(lead->capture, CAPTURE_OUTAGE);
    assert_true(segmenter_is_empty(&lead->segmenter));
    assert_int_equal(lead->segmenter.link.position.frame_no, lead_scene_wal_now().mx_frame);
}

/* ---- an outage's end ---- */

/* The next generation cannot be noted: whatever of it was noted and queued, the lead starts over. */
static void test_lead_trouble__a_resumption_that_fails_starts_over(void **state)
{
    (void)state;
    struct shipper_view view;
    lead_scene_begin_first();
    lead_scene_insert_and_ship(10, 3000);
    struct generation_id before = lead->generation;
    lead->capture = CAPTURE_OUTAGE;
    lead_scene_insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    char *database = scene.sidecar.database;
    size_t count = strlen(database);
    (void)snprintf(database + count, FSIO_PATH_BYTES - count, "/x");
    shipper_get_view(lead->shipper, &view);
    check_fails(RC_CORRUPT, lead_resume_capture(lead, &view, &err));
    database[count] = '\0';
    lead_scene_die();

    lead_scene_begin(
        LEAD_SCENE_CONTINUES); /* nothing was noted, and the WAL has what nobody captured */
    assert_true(generation_id_equal(&lead->generation, &before));
    assert_int_equal(lead->follower.end.position.frame_no, lead_scene_wal_now().mx_frame);
}

/* ---- a packed snapshot ---- */

static bool a_snapshot_is_packed(const struct generation_id *generation)
{
    struct snapshot_manifest manifest;
    bool found = false;
    snapshot_manifest_init(&manifest);
    check_ok(snapshot_pack_find(scene.sidecar.snapshot, generation, &manifest, &found, &err));
    snapshot_manifest_deinit(&manifest);
    return found;
}

/* A lead has packed a snapshot behind what is spooled; the store does not answer, and the lead dies. */
static struct generation_id die_with_a_packed_snapshot(struct wal_point *spooled)
{
    lead_scene_begin_first();
    lead_scene_insert_and_ship(10, 3000);
    *spooled = lead->segmenter.link;
    assert_int_equal(rename(scene.config.store.dir, scratch_path(&scene.scratch, "away")), 0);
    lead_scene_insert(10, 3000);
    check_ok(lead_begin_snapshot(lead, &err));
    struct generation_id generation = lead->generation;
    int64_t until = clk_monotonic_ms() + LEAD_SCENE_WAIT_MS;
    while (!a_snapshot_is_packed(&generation) && clk_monotonic_ms() < until) {
        clk_pause_ms(2);
    }
    lead_scene_die();
    assert_true(a_snapshot_is_packed(&generation));
    assert_int_equal(rename(scratch_path(&scene.scratch, "away"), scene.config.store.dir), 0);
    return generation;
}

/* The power fails: behind what was spooled a page of the -wal never came to the disk, later ones did. */
static void lose_the_wal_behind(const struct wal_point *point)
{
    char shm[FSIO_PATH_BYTES];
    assert_int_equal(sqlite3_db_config(app, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(app), SQLITE_OK);
    app = NULL;
    (void)snprintf(shm, sizeof shm, "%.4000s-shm", scene.sidecar.database);
    (void)unlink(shm);
    spoil_frame(point->position.frame_no + 1);
}

static void test_lead_trouble__a_packed_snapshot_on_the_chain_is_resumed(void **state)
{
    (void)state;
    struct wal_point spooled;
    int64_t failed_ms;
    struct generation_id generation = die_with_a_packed_snapshot(&spooled);
    lead_scene_begin(LEAD_SCENE_CONTINUES);
    assert_true(generation_id_equal(&lead->generation, &generation));
    assert_true(snapshotter_is_busy(lead->snapshotter, &failed_ms));
}

static void check_dropped(const struct generation_id *generation)
{
    int64_t failed_ms;
    assert_true(generation_id_equal(&lead->generation, generation));
    assert_false(snapshotter_is_busy(lead->snapshotter, &failed_ms));
    assert_false(a_snapshot_is_packed(generation));
}

static void test_lead_trouble__a_packed_snapshot_of_lost_frames_is_dropped(void **state)
{
    (void)state;
    struct wal_point spooled;
    struct generation_id generation = die_with_a_packed_snapshot(&spooled);
    lose_the_wal_behind(&spooled);
    lead_scene_begin(LEAD_SCENE_CONTINUES);
    check_dropped(&generation);
}

/* Somebody wrote before we came: the numbers are there again, the frames are not. */
static void test_lead_trouble__a_packed_snapshot_of_overwritten_frames_is_dropped(void **state)
{
    (void)state;
    struct wal_point spooled;
    struct generation_id generation = die_with_a_packed_snapshot(&spooled);
    lose_the_wal_behind(&spooled);
    lead_scene_connect_app();
    lead_scene_insert(40, 3500);
    lead_scene_begin(LEAD_SCENE_CONTINUES);
    check_dropped(&generation);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_lead_trouble__a_bad_frame_keeps_the_stamp),
        CASE(test_lead_trouble__no_snapshot_begins_behind_a_bad_frame),
        CASE(test_lead_trouble__begins_in_front_of_a_bad_frame),
        CASE(test_lead_trouble__begins_at_mark_0_in_front_of_a_bad_frame),
        CASE(test_lead_trouble__a_pass_over_a_backfilled_wal_meets_a_bad_frame),
        CASE(test_lead_trouble__a_full_spool_ends_a_generation_at_a_commit),
        CASE(test_lead_trouble__a_resumption_that_fails_starts_over),
        CASE(test_lead_trouble__a_packed_snapshot_on_the_chain_is_resumed),
        CASE(test_lead_trouble__a_packed_snapshot_of_lost_frames_is_dropped),
        CASE(test_lead_trouble__a_packed_snapshot_of_overwritten_frames_is_dropped),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
