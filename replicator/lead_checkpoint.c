/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lead_checkpoint: CHECKPOINT and FREEZE, see lead_internal.h.
 *
 * Policy: past SOFT bytes that are not backfilled a PASSIVE checkpoint, which blocks no writer; it is
 * run only while the leader's mark is below mxFrame, so the backfill stays incomplete and a successor
 * can go on. Past HARD bytes a freeze, in which the leader itself lets the WAL begin anew.
 */
#include "replicator/lead_internal.h"

#include "base/clk.h"
#include "base/failpoint.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

#define CHECKPOINT_SOFT_BYTES (4u << 20)
#define CHECKPOINT_HARD_BYTES (16u << 20)
#define CHECKPOINT_PAUSE_MS 20
#define FREEZE_PAUSE_MS 50
#define FREEZE_WRITE_BUDGET_MS 5
#define FREEZE_STEP_BUDGET_MS 10
#define FREEZE_CLOCK_WAIT_MS 50 /* the coarse clock ticks every 1 to 10 ms */
#define MARK0_BUSY_MS 100
#define MARK0_TORN_MS 100 /* no living writer leaves the wal-index's header torn that long */

static uint32_t lead_frames_of(const struct lead *lead, uint32_t bytes)
{
    uint32_t page_size = lead->seen.page_size_bytes != 0 ? lead->seen.page_size_bytes : 4096;
    return bytes / page_size;
}

/* ---- CHECKPOINT ---- */

/* Notes in the state that a checkpoint may be writing the database file. */
static enum rc lead_flag_checkpoint(struct lead *lead, struct err *err)
{
    struct state_record record;
    state_edit_begin(lead->context->state, &record);
    record.checkpoint_running = true;
    enum rc rc = state_edit_end(lead->context->state, &record, err);
    FAILPOINT("checkpoint_flagged");
    return rc;
}

static void lead_fill_captured(const struct lead *lead, struct state_record *record)
{
    record->captured = lead->segmenter.link;
    record->captured_salts = lead->follower.salts;
}

/* A later write to the file in the same clock tick would leave the noted mtime as it is: wait it out. */
static void lead_wait_past(int64_t mtime_ns)
{
    for (int i = 0; i < FREEZE_CLOCK_WAIT_MS && clk_coarse_unix_ns() <= mtime_ns; i++) {
        clk_pause_ms(1);
    }
}

enum rc lead_note_checkpoint(struct lead *lead, bool reset, struct err *err)
{
    struct state_record record;
    struct file_identity identity;
    enum rc rc = start_identify(lead->context->sidecar->database, &identity, err);
    if (rc != RC_OK) {
        return rc;
    }
    state_edit_begin(lead->context->state, &record);
    record.checkpoint_running = false;
    record.database = identity;
    record.backfilled = wal_index_backfilled(&lead->connections.index);
    record.reset_follows = reset && lead->capture == CAPTURE_ON;
    /* what is read is not what was captured last: a reset came, and its own note could not be written */
    bool reset_came = !wal_salts_equal(lead->seen.salts, lead->follower.salts);
    if (lead->capture != CAPTURE_ON && (reset || reset_came)) {
        record.replicated =
            false; /* frames go with this WAL that nobody captured: no next start goes on */
    }
    if (record.reset_follows) {
        record.reset_point = lead->follower.end;
        record.reset_salts = lead->seen.salts;
    }
    if (lead->capture == CAPTURE_ON) {
        lead_fill_captured(lead, &record);
    }
    rc = state_edit_end(lead->context->state, &record, err);
    if (rc == RC_OK && record.reset_follows) {
        FAILPOINT("freeze_reset_noted");
        lead_wait_past(identity.mtime_ns);
    }
    return rc;
}

/* One PASSIVE run. *complete: the whole WAL is in the database file. */
static enum rc lead_run_passive(struct lead *lead, bool *complete, struct err *err)
{
    int log_frames = 0;
    int done_frames = 0;
    int code = sqlite3_wal_checkpoint_v2(lead->connections.checkpoint_db, "main",
                                         SQLITE_CHECKPOINT_PASSIVE, &log_frames, &done_frames);
    FAILPOINT("checkpoint_done");
    *complete = code == SQLITE_OK && log_frames == done_frames;
    if (code == SQLITE_OK) {
        lead->checkpoints++;
        return RC_OK;
    }
    return lead_sqlite_fail(err, lead->connections.checkpoint_db, code, "checkpoint");
}

static enum rc lead_checkpoint(struct lead *lead, struct err *err)
{
    bool complete;
    enum rc rc = lead_flag_checkpoint(lead, err);
    if (rc != RC_OK) {
        return rc;
    }
    enum rc run = lead_run_passive(lead, &complete, err);
    struct err note_err;
    rc = lead_note_checkpoint(lead, false, &note_err);
    if (run != RC_OK) {
        return run == RC_BUSY ? RC_OK : run; /* busy: somebody else checkpoints right now */
    }
    if (rc != RC_OK) {
        *err = note_err;
    }
    return rc;
}

/* ---- leaving mark 0 ---- */

/* Commits one frame that changes nothing but page 1's change counter: user_version set to itself. */
static enum rc lead_touch(struct lead *lead, struct err *err)
{
    sqlite3 *db = lead->connections.write_db;
    char *sql = NULL;
    sqlite3_stmt *read = NULL;
    (void)sqlite3_busy_timeout(db, MARK0_BUSY_MS);
    int code = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &read, NULL);
    }
    if (code == SQLITE_OK && (code = sqlite3_step(read)) == SQLITE_ROW) {
        sql = sqlite3_mprintf("PRAGMA user_version=%d; COMMIT;", sqlite3_column_int(read, 0));
        code = SQLITE_OK;
    }
    (void)sqlite3_finalize(read);
    if (code == SQLITE_OK) {
        code = sql == NULL ? SQLITE_NOMEM : sqlite3_exec(db, sql, NULL, NULL, NULL);
    }
    enum rc rc =
        code == SQLITE_OK ? RC_OK : lead_sqlite_fail(err, db, code, "beginning the WAL anew");
    sqlite3_free(sql);
    if (sqlite3_get_autocommit(db) == 0) {
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    }
    return rc;
}

/*
 * Waits for the first commit behind mark 0, making it itself where nobody else does. RC_BUSY: a writer died
 * and left the wal-index's header torn. Its recovery needs CKPT, which is held here: until the lead has
 * let go of it, every connection waits. The header is looked at first: SQLite itself would try for 10 s.
 */
static enum rc lead_await_commit(struct lead *lead, struct wal_index_header *header,
                                 struct err *err)
{
    const struct wal_index_header *seen = &lead->seen;
    int64_t readable_ms = clk_monotonic_ms();
    for (;;) {
        enum rc rc = wal_index_read(&lead->connections.index, header, err);
        if (rc == RC_OK) {
            if (header->mx_frame > 0 && (!wal_salts_equal(header->salts, seen->salts) ||
                                         header->mx_frame != seen->mx_frame)) {
                return RC_OK;
            }
            rc = lead_touch(lead, err);
            readable_ms = clk_monotonic_ms();
        } else if (clk_monotonic_ms() - readable_ms >= MARK0_TORN_MS) {
            return rc;
        }
        if (rc != RC_OK && rc != RC_BUSY) {
            return rc;
        }
        if (rc != RC_OK && stop_wait_ms(lead->context->stop, STOP_SOON, 1)) {
            return err_set(err, RC_STOPPED, "stopped at mark 0");
        }
    }
}

/* The WAL has a first commit behind what was seen: anew, or appended where a reader came back. */
static enum rc lead_follow_commit(struct lead *lead, const struct wal_index_header *header,
                                  bool anew, struct err *err)
{
    if (anew) {
        FAILPOINT("freeze_reset_done");
        lead->wal_resets += lead->seen.mx_frame > 0 ? 1 : 0;
        if (lead->capture == CAPTURE_ON) {
            wal_follower_begin_wal(&lead->follower, header->salts);
        }
    }
    enum rc rc = lead_capture_to(lead, header, err);
    if (rc == RC_OK) {
        lead->seen = *header;
    }
    return rc;
}

enum rc lead_leave_mark0(struct lead *lead, struct err *err)
{
    struct wal_index_header header;
    ASSERT(lead->at_mark0);
    lead_release_write(&lead->connections);
    FAILPOINT("freeze_released");
    enum rc rc = lead_await_commit(lead, &header, err);
    if (rc != RC_OK) {
        return rc;
    }
    bool anew = !wal_salts_equal(header.salts, lead->seen.salts) || lead->seen.mx_frame == 0;
    /* at mark 0 nobody can backfill the new frames, so this WAL cannot be reset before we left */
    if ((rc = lead_follow_commit(lead, &header, anew, err)) != RC_OK) {
        return rc;
    }
    ASSERT(wal_index_backfilled(&lead->connections.index) < header.mx_frame);
    uint32_t frame_before = header.mx_frame;
    /* the mark is read after it was taken: a commit that came in between is below it */
    if ((rc = lead_swap_readers(lead, err)) != RC_OK ||
        (rc = wal_index_read(&lead->connections.index, &header, err)) != RC_OK) {
        return rc;
    }
    lead->at_mark0 = false;
    lead->mark_frame = header.mx_frame;
    lead->mark_is_late = header.mx_frame != frame_before;
    lead_release_checkpoint(&lead->connections);
    /* no reset follows any more: the note would explain a -wal that somebody deletes */
    return anew ? RC_OK : lead_note_checkpoint(lead, false, err);
}

/* ---- FREEZE ---- */

/*
 * With WRITE held and all captured. A mark that lies below mxFrame keeps the backfill from being complete, and where
 * nobody commits any more no pass moves it. The other reader takes its own, and is kept unless it may be mark 0: it
 * is not where something is left to be backfilled, for nobody can begin the WAL anew meanwhile.
 */
static enum rc lead_freeze_mark(struct lead *lead, struct err *err)
{
    struct lead_connections *c = &lead->connections;
    struct lead_reader *other = &c->readers[1 - c->current];
    if (!lead->mark_is_late) {
        return RC_OK;
    }
    enum rc rc = lead_reader_begin(other, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (wal_index_backfilled(&c->index) >= lead->seen.mx_frame) {
        lead_reader_end(other); /* and ours is at mxFrame, or this could not be */
        return RC_OK;
    }
    lead_reader_end(&c->readers[c->current]);
    c->current = 1 - c->current;
    return RC_OK; /* it may be as late: where all marks are others', SQLite takes one of theirs */
}

/* With WRITE held: everything captured, spooled, durable; the mark at mxFrame. */
static enum rc lead_freeze_tail(struct lead *lead, struct err *err)
{
    FAILPOINT("freeze_write_held");
    enum rc rc = lead_pass(lead, err);
    if (rc == RC_OK) {
        rc = lead_freeze_mark(lead, err);
    }
    if (rc == RC_OK && lead->capture == CAPTURE_ON) {
        rc = lead_cut(lead, err);
    }
    return rc != RC_OK ? rc : shipper_sync_spool(lead->shipper, err);
}

static enum rc lead_freeze_backfill(struct lead *lead, struct err *err)
{
    int64_t deadline_us = clk_monotonic_us() + FREEZE_STEP_BUDGET_MS * 1000;
    bool complete = false;
    do {
        enum rc rc = lead_run_passive(lead, &complete, err);
        if (rc != RC_OK && rc != RC_BUSY) {
            return rc;
        }
    } while (!complete && clk_monotonic_us() < deadline_us);
    FAILPOINT("freeze_backfilled");
    return complete ? RC_OK : err_set(err, RC_BUSY, "a reader holds the WAL");
}

/* From k > 0 to mark 0, with CKPT and WRITE; then waits a moment for all other readers to leave theirs. */
static enum rc lead_freeze_to_mark0(struct lead *lead, struct err *err)
{
    enum rc rc = lead_take_checkpoint(&lead->connections, FREEZE_STEP_BUDGET_MS, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (wal_index_backfilled(&lead->connections.index) != lead->seen.mx_frame) {
        lead_release_checkpoint(&lead->connections);
        return err_set(err, RC_BUSY, "the backfill is not complete");
    }
    if ((rc = lead_swap_readers(lead, err)) != RC_OK) {
        lead_release_checkpoint(&lead->connections);
        return rc;
    }
    lead->at_mark0 = true;
    FAILPOINT("freeze_at_mark0");
    int64_t deadline_us = clk_monotonic_us() + FREEZE_STEP_BUDGET_MS * 1000;
    while (!wal_index_readers_gone(&lead->connections.index) && clk_monotonic_us() < deadline_us) {
        clk_pause_ms(1);
    }
    return RC_OK;
}

static enum rc lead_freeze_locked(struct lead *lead, struct err *err)
{
    enum rc rc;
    if ((rc = lead_freeze_tail(lead, err)) != RC_OK ||
        (rc = lead_freeze_backfill(lead, err)) != RC_OK ||
        (rc = lead_freeze_to_mark0(lead, err)) != RC_OK) {
        return rc;
    }
    /* also where a reader stays: it may leave before the first commit, which then begins the WAL anew */
    return lead_note_checkpoint(lead, true, err);
}

/*
 * RC_BUSY on a mark k > 0: somebody was in the way, nothing changed, come back. Any error at mark 0, and
 * elsewhere any other but RC_STOPPED and RC_IO, means that the lead must start over.
 */
static enum rc lead_freeze(struct lead *lead, struct err *err)
{
    enum rc rc = lead_flag_checkpoint(lead, err);
    FAILPOINT("freeze_begins");
    if (rc != RC_OK ||
        (rc = lead_take_write(&lead->connections, FREEZE_WRITE_BUDGET_MS, err)) != RC_OK) {
        return rc;
    }
    int64_t begun_us = clk_monotonic_us();
    rc = lead_freeze_locked(lead, err);
    int64_t took_us = clk_monotonic_us() - begun_us;
    lead->freeze_max_us = took_us > lead->freeze_max_us ? took_us : lead->freeze_max_us;
    if (lead->at_mark0) {
        enum rc left = lead_leave_mark0(lead, err);
        return left != RC_OK ? left : rc;
    }
    lead_release_write(&lead->connections);
    struct err ignored; /* the flag must not stay: what went wrong is told by rc */
    (void)!lead_note_checkpoint(lead, false, &ignored);
    return rc;
}

/* ---- policy ---- */

enum rc lead_maintain(struct lead *lead, struct err *err)
{
    int64_t now = clk_monotonic_ms();
    struct wal_index_header header;
    enum rc rc = wal_index_read(&lead->connections.index, &header, err);
    if (rc != RC_OK) {
        return rc == RC_BUSY ? RC_OK : rc;
    }
    uint32_t backfilled = wal_index_backfilled(&lead->connections.index);
    uint32_t soft = lead_frames_of(lead, CHECKPOINT_SOFT_BYTES);
    uint32_t hard = lead_frames_of(lead, CHECKPOINT_HARD_BYTES);
    bool above_mark = header.mx_frame > lead->mark_frame;
    bool held = snapshotter_holds_transaction(lead->snapshotter);
    if (header.mx_frame > backfilled + soft && above_mark &&
        now - lead->last_checkpoint_ms >= CHECKPOINT_PAUSE_MS) {
        rc = lead_checkpoint(lead, err);
        lead->last_checkpoint_ms = clk_monotonic_ms();
        backfilled = wal_index_backfilled(&lead->connections.index);
    }
    bool forced = lead->capture == CAPTURE_BAD_FRAME || lead->wants_fresh_wal;
    bool old_reader = above_mark && backfilled + soft < lead->mark_frame;
    if (rc == RC_OK && !held && !old_reader && (header.mx_frame > hard || forced) &&
        now - lead->last_freeze_ms >= FREEZE_PAUSE_MS) {
        rc = lead_freeze(lead, err);
        lead->last_freeze_ms = clk_monotonic_ms();
        lead->wants_fresh_wal = lead->wants_fresh_wal && rc != RC_OK; /* else asked for again */
        rc = rc == RC_BUSY && !lead->at_mark0 ? RC_OK : rc;
    }
    return rc;
}
