/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lead: its steps one by one, on a real database in WAL mode that another connection writes, with real
 * lanes to a directory archive. What the loop does at its own pace is called here in the order that a
 * test wants: marks, freezes, stamps and the snapshot's position, each where its defence is needed.
 */
#include "replicator/lead_internal.h"

#include "tests/unit/checks.h"
#include "tests/unit/start_scene.h"

#include "base/clk.h"
#include "base/fsio.h"
#include "replicator/snapshot_pack.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS 30000
#define FIRST_START 4 /* rows of the start table */
#define UNREACHABLE 11
#define CONTINUES 15
#define PAGE_BYTES 4096
#define ROWS_OF_A_CHECKPOINT 2000 /* of 4000 bytes: more than the 4 MiB past which one is made */
#define ROWS_OF_A_FREEZE                                                                           \
    5000 /* of 4000 bytes: more than the 16 MiB past which the WAL begins anew */

static struct err err;
static struct stop stop;
static struct lead_context context;
static struct lead *lead;
static sqlite3 *app;
static sqlite3 *reader;

/* What happens in between: once, when a connection of the lead begins a statement that starts so. */
static struct {
    const char *statement;
    void (*act)(void);
} moment;

static struct replicator_status published;

static void publish(void *arg, const struct replicator_status *status,
                    const struct state_wal_map *map)
{
    (void)arg;
    (void)map;
    published = *status;
}

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    start_scene_set_up();
    scene.config.snapshot_interval_s = 3600;
    scene.config.spool_bytes_max = 1 << 30;
    scene.config.synchronous_normal = true;
    check_ok(store_prepare(scene.store, true, &err));
    stop_init(&stop);
    context = (struct lead_context){.config = &scene.config,
                                    .sidecar = &scene.sidecar,
                                    .spool = &scene.spool,
                                    .state = &scene.shared,
                                    .stop = &stop,
                                    .publish = publish};
    lead = NULL;
    app = NULL;
    reader = NULL;
    moment.act = NULL;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lead_destroy(lead);
    (void)sqlite3_close(reader);
    (void)sqlite3_close(app);
    stop_deinit(&stop);
    start_scene_tear_down();
    return 0;
}

static void begin_capturing(int row, enum lead_capture capture)
{
    start_scene_decide(START_SERVE, row, "");
    lead = lead_create(&context, &scene.plan);
    assert_non_null(lead);
    check_ok(lead_begin(lead, &err));
    assert_int_equal(lead->capture, capture);
}

/* A start as the replicator makes it, to the point where the database may be served. */
static void begin(int row)
{
    begin_capturing(row, CAPTURE_ON);
}

/* What was only gathered goes, as in a kill. */
static void die(void)
{
    lead_destroy(lead);
    lead = NULL;
}

static int sql(const char *text)
{
    return sqlite3_exec(app, text, NULL, NULL, NULL);
}

/* The app's connection; it never checkpoints, as rule 1 of the architecture wants it. */
static void connect_app(void)
{
    assert_int_equal(sqlite3_open(scene.sidecar.database, &app), SQLITE_OK);
    assert_int_equal(
        sql("PRAGMA wal_autocheckpoint=0; CREATE TABLE IF NOT EXISTS test (value BLOB)"),
        SQLITE_OK);
}

/* `rows` of `bytes` each, in one transaction. */
static void insert(int rows, int bytes)
{
    char text[256];
    (void)snprintf(text, sizeof text,
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
                   "INSERT INTO test SELECT zeroblob(%d) FROM n",
                   rows, bytes);
    assert_int_equal(sql(text), SQLITE_OK);
}

static struct wal_index_header wal_now(void)
{
    struct wal_index_header header;
    check_ok(wal_index_read(&lead->connections.index, &header, &err));
    return header;
}

/* A stranger's checkpoint: the whole WAL is in the database file afterwards, and the mark allowed it. */
static void backfill(void)
{
    int log_frames = 0;
    int done_frames = -1;
    assert_int_equal(sqlite3_wal_checkpoint_v2(app, "main", SQLITE_CHECKPOINT_PASSIVE, &log_frames,
                                               &done_frames),
                     SQLITE_OK);
    assert_int_equal(log_frames, done_frames);
    assert_int_equal(wal_index_backfilled(&lead->connections.index), wal_now().mx_frame);
}

static int moment_comes(unsigned type, void *arg, void *statement, void *text)
{
    (void)type;
    (void)arg;
    (void)statement;
    if (moment.act != NULL && strncmp(text, moment.statement, strlen(moment.statement)) == 0) {
        void (*act)(void) = moment.act;
        moment.act = NULL;
        act();
    }
    return 0;
}

static void at(sqlite3 *db, const char *statement, void (*act)(void))
{
    moment.statement = statement;
    moment.act = act;
    assert_int_equal(sqlite3_trace_v2(db, SQLITE_TRACE_STMT, moment_comes, NULL), SQLITE_OK);
}

static int moment_ends(unsigned type, void *arg, void *statement, void *took_ns)
{
    (void)took_ns;
    return moment_comes(type, arg, statement, (void *)(uintptr_t)sqlite3_sql(statement));
}

/* The same when the statement has been run. */
static void after(sqlite3 *db, const char *statement, void (*act)(void))
{
    moment.statement = statement;
    moment.act = act;
    assert_int_equal(sqlite3_trace_v2(db, SQLITE_TRACE_PROFILE, moment_ends, NULL), SQLITE_OK);
}

static struct lead_reader *other_reader(void)
{
    return &lead->connections.readers[1 - lead->connections.current];
}

/* A stranger in a read transaction at the WAL's end: it lets a checkpoint copy all, and no reset happen. */
static void begin_reading(void)
{
    assert_int_equal(sqlite3_open(scene.sidecar.database, &reader), SQLITE_OK);
    assert_int_equal(sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM test;", NULL, NULL, NULL),
                     SQLITE_OK);
}

static void end_reading(void)
{
    assert_int_equal(sqlite3_exec(reader, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
}

static void insert_one(void)
{
    insert(1, 10);
}

static int64_t stamped_ms;

static void commit_stamped_long_ago(void)
{
    insert(1, 10);
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

static void begin_another_generation(void)
{
    struct wal_point parent_point = lead->segmenter.link;
    struct generation_id parent = lead->generation;
    struct wal_index_header header = wal_now();
    check_ok(lead_cut(lead, &err));
    check_ok(
        lead_begin_generation(lead, CAUSE_OUTAGE, "a test", &parent, &parent_point, &header, &err));
}

/* As after an outage, and nobody writes: a stranger's checkpoint ends between the pass's look and its reader. */
static void test_lead__a_pass_never_lands_on_mark_0(void **state)
{
    (void)state;
    begin(FIRST_START);
    connect_app();
    insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    begin_another_generation();
    struct wal_index_header before = wal_now();
    at(other_reader()->db, "BEGIN", backfill);
    check_ok(lead_pass(lead, &err));
    assert_int_equal(lead->follower.end.position.frame_no, before.mx_frame);
    backfill();

    insert(1, 10); /* a writer that finds no mark but 0 would begin the WAL anew now */
    assert_true(wal_salts_equal(wal_now().salts, before.salts));
}

static void test_lead__a_pass_over_a_backfilled_wal_keeps_its_mark(void **state)
{
    (void)state;
    begin(FIRST_START);
    connect_app();
    insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    backfill();
    struct wal_index_header before = wal_now();

    /* as after an outage: a new generation begins with frame 1 of this WAL, which must not be reset */
    begin_another_generation();
    check_ok(lead_pass(lead, &err));
    assert_int_equal(lead->follower.end.position.frame_no, before.mx_frame);

    insert(1, 10); /* a writer that finds no mark but 0 would begin the WAL anew now */
    struct wal_index_header after = wal_now();
    assert_true(wal_salts_equal(after.salts, before.salts));
    assert_int_equal(after.mx_frame, before.mx_frame + 1);
    check_ok(lead_pass(lead, &err));
    assert_int_equal(lead->follower.end.position.frame_no, after.mx_frame);
}

/* lead_maintain until a freeze got through: a PASSIVE checkpoint and its pauses come before. */
static void maintain_until_reset(void)
{
    int64_t until = clk_monotonic_ms() + WAIT_MS;
    while (lead->wal_resets == 0 && clk_monotonic_ms() < until) {
        check_ok(lead_maintain(lead, &err));
        clk_pause_ms(5);
    }
    assert_int_equal(lead->wal_resets, 1);
}

/* A commit between the taking of a mark and the look at what is there, and none behind it: the freeze gets through. */
static void test_lead__a_freeze_whose_mark_is_late(void **state)
{
    (void)state;
    begin(FIRST_START);
    connect_app();
    insert(ROWS_OF_A_FREEZE, 4000);
    after(other_reader()->db, "SELECT", insert_one);
    check_ok(lead_pass(lead, &err));
    assert_int_equal(lead->seen.mx_frame, wal_now().mx_frame);
    maintain_until_reset();
}

static void test_lead__a_freeze_captures_what_no_pass_has_seen(void **state)
{
    (void)state;
    begin(FIRST_START);
    connect_app();
    insert(ROWS_OF_A_FREEZE, 4000);
    uint32_t frames = wal_now().mx_frame;
    assert_true(lead->seen.mx_frame < frames);
    maintain_until_reset();

    struct state_record record;
    state_get(&scene.shared, &record);
    assert_true(record.reset_follows);
    assert_int_equal(record.reset_point.position.frame_no, frames);
    assert_int_equal(lead->follower.end.position.wal_no, 2);
    assert_int_equal(lead->segmenter.link.position.frame_no, frames);
}

/* Until nothing waits in the spool. */
static void ship(void)
{
    struct shipper_view view;
    int64_t until = clk_monotonic_ms() + WAIT_MS;
    do {
        clk_pause_ms(2);
        shipper_get_view(lead->shipper, &view);
    } while (view.spool_segments > 0 && clk_monotonic_ms() < until);
    assert_int_equal(view.spool_segments, 0);
}

/* The mark that follows a freeze is not above what the lead takes it for: it would checkpoint to the end. */
static void test_lead__a_freeze_knows_its_new_mark(void **state)
{
    (void)state;
    begin(FIRST_START);
    connect_app();
    insert(ROWS_OF_A_FREEZE, 4000);
    check_ok(lead_pass(lead, &err));
    /* two swaps: to mark 0 on the other reader, and from there back to this one */
    at(lead->connections.readers[lead->connections.current].db, "BEGIN", insert_one);
    maintain_until_reset();
    assert_null(moment.act);
    assert_int_equal(lead->mark_frame, wal_now().mx_frame);
}

/* A sibling commits behind mark 0 before the leader does; it stamped that, and the stamp is the oldest. */
static void test_lead__a_commit_at_mark_0_keeps_its_stamp(void **state)
{
    (void)state;
    struct state_live *live = scene.shared.live;
    begin(FIRST_START);
    connect_app();
    insert(ROWS_OF_A_FREEZE, 4000);
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    at(lead->connections.write_db, "BEGIN IMMEDIATE", commit_stamped_long_ago);
    maintain_until_reset();
    assert_null(moment.act);
    int64_t stamp = atomic_load(&live->capturing_ms);
    assert_true(stamp != 0 && stamp <= stamped_ms);
}

/* A foreign commit is stamped when it is seen, a stamp that comes late may be older: the oldest stays. */
static void test_lead__an_older_stamp_that_comes_late_counts(void **state)
{
    (void)state;
    struct state_live *live = scene.shared.live;
    begin(FIRST_START);
    connect_app();
    insert(1, 10);
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
    begin(FIRST_START);
    connect_app();
    insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    ship();
    lead->capture = CAPTURE_OUTAGE;
    insert(ROWS_OF_A_FREEZE, 4000);
    check_ok(lead_pass(lead, &err));
    begin_reading();
    at(lead->connections.write_db, "BEGIN IMMEDIATE", end_reading);
    maintain_until_reset();
    assert_null(moment.act);
    state_get(&scene.shared, &record);
    assert_false(record.replicated);
    die();
    start_scene_decide(START_SERVE, CONTINUES, "");
    assert_false(scene.plan.continues);
}

/* The same, and the note cannot be written: the next one that can says it. */
static void test_lead__a_reset_whose_note_failed_is_told_later(void **state)
{
    (void)state;
    struct state_record record;
    begin(FIRST_START);
    connect_app();
    insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    lead->capture = CAPTURE_OUTAGE;
    insert(ROWS_OF_A_FREEZE, 4000);
    check_ok(lead_pass(lead, &err));
    backfill();
    char *database = scene.sidecar.database;
    size_t count = strlen(database);
    (void)snprintf(database + count, FSIO_PATH_BYTES - count, "/x");
    int64_t until = clk_monotonic_ms() + WAIT_MS;
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
    begin(FIRST_START);
    connect_app();
    insert(ROWS_OF_A_FREEZE, 4000);
    check_ok(lead_pass(lead, &err));
    begin_reading();
    struct wal_index_header before = wal_now();
    int64_t until = clk_monotonic_ms() + WAIT_MS;
    while (wal_now().mx_frame == before.mx_frame && clk_monotonic_ms() < until) {
        check_ok(lead_maintain(lead, &err));
    }
    assert_int_equal(wal_now().mx_frame, before.mx_frame + 1);
    assert_true(wal_salts_equal(wal_now().salts, before.salts));
    assert_false(lead->at_mark0);
    state_get(&scene.shared, &record);
    assert_false(record.reset_follows);
    assert_true(record.replicated);
}

/* Recovery of the wal-index needs CKPT, which mark 0 holds: the lead gives both up and starts over. */
static void test_lead__mark_0_is_left_when_the_wal_index_is_torn(void **state)
{
    (void)state;
    begin(FIRST_START);
    connect_app();
    insert(ROWS_OF_A_FREEZE, 4000);
    check_ok(lead_pass(lead, &err));
    /* the reader on k > 0 ends when the other one has mark 0 */
    at(lead->connections.readers[lead->connections.current].db, "COMMIT", tear_the_wal_index);
    enum rc rc = RC_OK;
    int64_t begun = clk_monotonic_ms();
    while (rc == RC_OK && clk_monotonic_ms() < begun + WAIT_MS) {
        rc = lead_maintain(lead, &err);
    }
    check_fails(RC_BUSY, rc);
    assert_true(lead->at_mark0);
    assert_true(clk_monotonic_ms() - begun < 5000);
    die();
    insert(1, 10);
}

/* A lead that noted a reset, made it and died; then the archive cannot be read, and another one begins. */
static struct generation_id begin_after_a_reset_without_the_archive(bool touched)
{
    begin(FIRST_START);
    connect_app();
    insert(ROWS_OF_A_FREEZE, 4000);
    maintain_until_reset();
    ship();
    struct generation_id generation = lead->generation;
    die();
    assert_int_equal(rename(scene.config.store.dir, scratch_path(&scene.scratch, "away")), 0);
    check_ok(fsio_replace_file(scene.config.store.dir, "no directory", 12, false, &err));
    if (touched) {
        const struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
        assert_int_equal(utimensat(AT_FDCWD, scene.sidecar.database, times, 0), 0);
    }
    begin(UNREACHABLE);
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
    begin(FIRST_START);
    connect_app();
    insert(ROWS_OF_A_FREEZE, 4000);
    maintain_until_reset();
    assert_false(lead->at_mark0);
    assert_false(lead->connections.holds_checkpoint);
    assert_false(lead->connections.holds_write);
    insert(1, 10);
    assert_int_equal(sqlite3_wal_checkpoint_v2(app, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL),
                     SQLITE_OK);
}

/* lead_maintain until a checkpoint ran; what that call returned. */
static enum rc maintain_until_checkpoint(void)
{
    enum rc rc = RC_OK;
    uint64_t before = lead->checkpoints;
    int64_t until = clk_monotonic_ms() + WAIT_MS;
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
    begin(FIRST_START);
    connect_app();
    insert(ROWS_OF_A_CHECKPOINT, 4000);
    check_ok(lead_pass(lead, &err));
    insert(1, 10); /* behind the mark: else there is no hurry */
    char *database = scene.sidecar.database;
    size_t count = strlen(database);
    (void)snprintf(database + count, FSIO_PATH_BYTES - count, "/x"); /* its end cannot be noted */
    check_fails(RC_IO, maintain_until_checkpoint());
    state_get(&scene.shared, &record);
    assert_true(record.checkpoint_running);

    database[count] = '\0';
    insert(ROWS_OF_A_CHECKPOINT, 4000);
    check_ok(lead_pass(lead, &err));
    insert(1, 10); /* behind the mark: else there is no hurry */
    check_ok(maintain_until_checkpoint());
    state_get(&scene.shared, &record);
    assert_false(record.checkpoint_running);
}

static void test_lead__the_oldest_commits_stamp_stays_until_its_segment_is_cut(void **state)
{
    (void)state;
    begin(FIRST_START);
    connect_app();
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    struct state_live *live = scene.shared.live;
    int64_t now = clk_boottime_ms();
    insert(1, 10);
    atomic_store(&live->uncaptured_ms, now);
    check_ok(lead_pass(lead, &err));
    assert_int_equal(atomic_load(&live->capturing_ms), now);

    insert(1, 10);
    atomic_store(&live->uncaptured_ms, now + 1000);
    check_ok(lead_pass(lead, &err));
    assert_int_equal(atomic_load(&live->uncaptured_ms), 0);
    assert_int_equal(atomic_load(&live->capturing_ms), now);
    check_ok(lead_cut(lead, &err));
    assert_int_equal(atomic_load(&live->capturing_ms), 0);
}

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
static void test_lead__a_bad_frame_keeps_the_stamp(void **state)
{
    (void)state;
    struct shipper_view view;
    begin(FIRST_START);
    connect_app();
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    int64_t now = clk_boottime_ms();
    insert(1, 10);
    insert(1, 10);
    spoil_last_frame();
    atomic_store(&scene.shared.live->uncaptured_ms, now);
    check_ok(lead_pass(lead, &err));
    assert_int_equal(lead->capture, CAPTURE_BAD_FRAME);
    assert_true(segmenter_is_empty(&lead->segmenter));
    assert_int_equal(atomic_load(&scene.shared.live->capturing_ms), now);
    ship();
    shipper_get_view(lead->shipper, &view);
    lead_publish(lead, &view);
    assert_true(published.lag_frames > (int64_t)view.unarchived_frames);
}

static void test_lead__a_snapshot_begins_where_the_capture_stands(void **state)
{
    (void)state;
    begin(FIRST_START);
    connect_app();
    insert(10, 3000); /* no pass has seen these, and the snapshot has them */
    check_ok(lead_begin_snapshot(lead, &err));
    assert_int_equal(lead->follower.end.position.frame_no, wal_now().mx_frame);
}

static void test_lead__goes_on_inside_a_large_transaction(void **state)
{
    (void)state;
    begin(FIRST_START);
    connect_app();
    insert(1700, 4000); /* 7 MB: the first 4 MiB are cut off into the spool */
    check_ok(lead_pass(lead, &err));
    struct wal_point link = lead->segmenter.link;
    assert_true(link.position.frame_no < wal_now().mx_frame);
    ship();             /* the birth's note would else be pending, and its frames begin anew */
    lead_destroy(lead); /* what was only gathered goes, as in a kill */

    begin(CONTINUES);
    assert_int_equal(lead->segmenter.link.position.frame_no, link.position.frame_no);
    assert_true(lead->segmenter.inside_transaction);
    check_ok(lead_cut(lead, &err));
    assert_false(lead->segmenter.inside_transaction);
}

/* ---- a bad frame ---- */

/* What the loop does then: a freeze, and a generation that has all that is in the database. */
static void next_generation_has_all(const struct generation_id *before)
{
    struct shipper_view view;
    insert(1, 10);
    maintain_until_reset();
    shipper_get_view(lead->shipper, &view);
    check_ok(lead_resume_capture(lead, &view, &err));
    assert_int_equal(lead->capture, CAPTURE_ON);
    assert_false(generation_id_equal(&lead->generation, before));
    check_ok(lead_pass(lead, &err));
    assert_int_equal(lead->capture, CAPTURE_ON);
    assert_int_equal(lead->follower.end.position.frame_no, wal_now().mx_frame);
}

/* A lead captured `good`, then died; a stranger's commit behind it ends in a bad frame. */
static struct wal_point die_before_a_bad_frame(void)
{
    begin(FIRST_START);
    connect_app();
    insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    ship();
    struct wal_point good = lead->segmenter.link;
    die();
    insert(1, 3000);
    spoil_last_frame();
    return good;
}

/* The lead that found it is gone before it could freeze, and the wal-index lives on in a sibling. */
static void test_lead__begins_in_front_of_a_bad_frame(void **state)
{
    (void)state;
    struct wal_point good = die_before_a_bad_frame();
    begin_capturing(CONTINUES, CAPTURE_BAD_FRAME);
    struct generation_id before = lead->generation;
    assert_true(wal_point_equal(lead->segmenter.link, good));
    assert_true(lead->alarm[0] != '\0');
    next_generation_has_all(&before);
}

/* The same where everything is backfilled: the start itself lets the WAL begin anew. */
static void test_lead__begins_at_mark_0_in_front_of_a_bad_frame(void **state)
{
    (void)state;
    (void)die_before_a_bad_frame();
    assert_int_equal(sqlite3_wal_checkpoint_v2(app, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL),
                     SQLITE_OK);
    begin_capturing(CONTINUES, CAPTURE_BAD_FRAME);
    struct generation_id before = lead->generation;
    assert_false(lead->at_mark0);
    next_generation_has_all(&before);
}

/* Frames that are captured again, for a new generation, under a mark that nobody may leave. */
static void test_lead__a_pass_over_a_backfilled_wal_meets_a_bad_frame(void **state)
{
    (void)state;
    begin(FIRST_START);
    connect_app();
    insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    backfill();
    struct wal_index_header header = wal_now();
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
static void test_lead__no_snapshot_begins_behind_a_bad_frame(void **state)
{
    (void)state;
    int64_t failed_ms;
    begin(FIRST_START);
    connect_app();
    insert(10, 3000);
    spoil_last_frame();
    check_fails(RC_BUSY, lead_begin_snapshot(lead, &err));
    assert_int_equal(lead->capture, CAPTURE_BAD_FRAME);
    assert_false(snapshotter_is_busy(lead->snapshotter, &failed_ms));
    assert_false(lead->connections.holds_write);
}

/* ---- a full spool ---- */

/* A pass failed within a transaction; its rest is captured before the generation ends. */
static void test_lead__a_full_spool_ends_a_generation_at_a_commit(void **state)
{
    (void)state;
    begin(FIRST_START);
    connect_app();
    check_ok(lead_pass(lead, &err));
    assert_int_equal(rename(scene.config.store.dir, scratch_path(&scene.scratch, "away")), 0);
    check_ok(fsio_replace_file(scene.config.store.dir, "no directory", 12, false, &err));
    check_ok(lead_cut(lead, &err)); /* it stays in the spool, and is more than that may hold */
    scene.config.spool_bytes_max = 1;

    insert(1700, 4000); /* two segments */
    assert_int_equal(rename(scene.sidecar.spool, scratch_path(&scene.scratch, "spool")), 0);
    check_ok(fsio_replace_file(scene.sidecar.spool, "no folder", 9, false, &err));
    check_fails(RC_IO, lead_pass(lead, &err));
    assert_int_equal(unlink(scene.sidecar.spool), 0);
    assert_int_equal(rename(scratch_path(&scene.scratch, "spool"), scene.sidecar.spool), 0);
    check_ok(lead_housekeep(lead, &err));
    assert_int_equal(lead->capture, CAPTURE_OUTAGE);
    assert_true(segmenter_is_empty(&lead->segmenter));
    assert_int_equal(lead->segmenter.link.position.frame_no, wal_now().mx_frame);
}

/* ---- an outage's end ---- */

/* The next generation cannot be noted: whatever of it was noted and queued, the lead starts over. */
static void test_lead__a_resumption_that_fails_starts_over(void **state)
{
    (void)state;
    struct shipper_view view;
    begin(FIRST_START);
    connect_app();
    insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    ship();
    struct generation_id before = lead->generation;
    lead->capture = CAPTURE_OUTAGE;
    insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    char *database = scene.sidecar.database;
    size_t count = strlen(database);
    (void)snprintf(database + count, FSIO_PATH_BYTES - count, "/x");
    shipper_get_view(lead->shipper, &view);
    check_fails(RC_CORRUPT, lead_resume_capture(lead, &view, &err));
    database[count] = '\0';
    die();

    begin(CONTINUES); /* nothing was noted, and the WAL has what nobody captured */
    assert_true(generation_id_equal(&lead->generation, &before));
    assert_int_equal(lead->follower.end.position.frame_no, wal_now().mx_frame);
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
    begin(FIRST_START);
    connect_app();
    insert(10, 3000);
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    ship();
    *spooled = lead->segmenter.link;
    assert_int_equal(rename(scene.config.store.dir, scratch_path(&scene.scratch, "away")), 0);
    insert(10, 3000);
    check_ok(lead_begin_snapshot(lead, &err));
    struct generation_id generation = lead->generation;
    int64_t until = clk_monotonic_ms() + WAIT_MS;
    while (!a_snapshot_is_packed(&generation) && clk_monotonic_ms() < until) {
        clk_pause_ms(2);
    }
    die();
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

static void test_lead__a_packed_snapshot_on_the_chain_is_resumed(void **state)
{
    (void)state;
    struct wal_point spooled;
    int64_t failed_ms;
    struct generation_id generation = die_with_a_packed_snapshot(&spooled);
    begin(CONTINUES);
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

static void test_lead__a_packed_snapshot_of_lost_frames_is_dropped(void **state)
{
    (void)state;
    struct wal_point spooled;
    struct generation_id generation = die_with_a_packed_snapshot(&spooled);
    lose_the_wal_behind(&spooled);
    begin(CONTINUES);
    check_dropped(&generation);
}

/* Somebody wrote before we came: the numbers are there again, the frames are not. */
static void test_lead__a_packed_snapshot_of_overwritten_frames_is_dropped(void **state)
{
    (void)state;
    struct wal_point spooled;
    struct generation_id generation = die_with_a_packed_snapshot(&spooled);
    lose_the_wal_behind(&spooled);
    connect_app();
    insert(40, 3500);
    begin(CONTINUES);
    check_dropped(&generation);
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
        CASE(test_lead__a_bad_frame_keeps_the_stamp),
        CASE(test_lead__no_snapshot_begins_behind_a_bad_frame),
        CASE(test_lead__a_snapshot_begins_where_the_capture_stands),
        CASE(test_lead__goes_on_inside_a_large_transaction),
        CASE(test_lead__begins_in_front_of_a_bad_frame),
        CASE(test_lead__begins_at_mark_0_in_front_of_a_bad_frame),
        CASE(test_lead__a_pass_over_a_backfilled_wal_meets_a_bad_frame),
        CASE(test_lead__a_full_spool_ends_a_generation_at_a_commit),
        CASE(test_lead__a_resumption_that_fails_starts_over),
        CASE(test_lead__a_packed_snapshot_on_the_chain_is_resumed),
        CASE(test_lead__a_packed_snapshot_of_lost_frames_is_dropped),
        CASE(test_lead__a_packed_snapshot_of_overwritten_frames_is_dropped),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
