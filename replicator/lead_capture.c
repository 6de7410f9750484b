/* SPDX-License-Identifier: Apache-2.0 */
/* lead_capture: STREAM, see lead_internal.h. */
#include "replicator/lead_internal.h"

#include "base/clk.h"
#include "base/failpoint.h"
#include "base/log.h"

#include <stdio.h>

#define LEAD_CLOCK_BEHIND_MS 60000 /* a step of the clock that is worth a word */

enum rc lead_emit(void *arg, struct segment_header *header, const uint8_t *content,
                  size_t content_bytes, struct err *err)
{
    struct lead *lead = arg;
    struct shipper_segment segment = {0};
    char key[OBJECT_KEY_BYTES];
    header->archived = lead->archived;
    buf_clear(&lead->object);
    enum rc rc = segment_write(lead->writer, header, content, content_bytes, &lead->object, err);
    if (rc != RC_OK) {
        return rc;
    }
    segment_key(header, &segment.key);
    object_key_format(&segment.key, key);
    rc = spool_write(lead->context->spool, key, lead->object.data, lead->object.size, err);
    if (rc != RC_OK) {
        return rc;
    }
    segment.end = (struct wal_point){{header->wal_no, header->last_frame_no}, header->after};
    segment.salts = header->salts;
    segment.frames = header->last_frame_no - header->first_frame_no + 1;
    segment.page_size_bytes = header->page_size_bytes;
    segment.object_bytes = lead->object.size;
    segment.epoch = lead->epoch;
    segment.oldest_ms = atomic_load(&lead->context->state->live->capturing_ms);
    lead->segments_made++;
    return shipper_add_segment(lead->shipper, &segment, err);
}

enum rc lead_cut(struct lead *lead, struct err *err)
{
    if (segmenter_is_empty(&lead->segmenter)) {
        return RC_OK;
    }
    enum rc rc = segmenter_cut(&lead->segmenter, err);
    if (rc == RC_OK) {
        lead->last_cut_ms = clk_monotonic_ms();
    }
    /* the shipper has published the stamp as the oldest in the spool; behind a bad frame more waits under it */
    if (rc == RC_OK && lead->capture == CAPTURE_ON) {
        atomic_store(&lead->context->state->live->capturing_ms, 0);
    }
    return rc;
}

/* The stamp of the oldest commit moves from "no pass has seen it" to "this pass has". */
static void lead_take_stamp(struct lead *lead)
{
    struct state_live *live = lead->context->state->live;
    int64_t stamp = atomic_load(&live->uncaptured_ms);
    if (stamp != 0) {
        int64_t capturing = atomic_load(&live->capturing_ms);
        if (capturing == 0 || stamp < capturing) {
            atomic_store(&live->capturing_ms, stamp);
        }
        atomic_store(&live->uncaptured_ms, 0);
    }
    lead->epoch = atomic_fetch_add(&live->epoch_started, 1) + 1;
}

int64_t lead_unix_ms(struct lead *lead)
{
    int64_t now = clk_unix_ms();
    if (now >= lead->last_unix_ms) {
        lead->last_unix_ms = now;
    } else if (lead->last_unix_ms - now >= LEAD_CLOCK_BEHIND_MS && !lead->clock_is_behind) {
        lead->clock_is_behind = true;
        log_warn(
            "leader",
            "the clock stands before the archive's last time: until it has caught up, a restore "
            "--to-time cannot tell commits apart  behind_ms=%lld",
            (long long)(lead->last_unix_ms - now));
    }
    return lead->last_unix_ms;
}

/* A commit frame's bytes do not fit its checksum: it is never shipped (SQLite's spill bug, or damage). */
static enum rc lead_meet_bad_frame(struct lead *lead, struct err *err)
{
    struct err file_err;
    if (wal_follower_check_file(&lead->follower, &file_err) != RC_OK) {
        return err_set(err, RC_CORRUPT, "%s", file_err.text);
    }
    log_error("leader", "a bad frame in the WAL, it is not shipped: %s", err->text);
    segmenter_drop_open_transaction(&lead->segmenter);
    (void)snprintf(lead->alarm, sizeof lead->alarm,
                   "a foreign program wrote a bad WAL frame; a new generation begins: %.400s",
                   err->text);
    lead->capture = CAPTURE_BAD_FRAME;
    return lead_cut(lead, err);
}

enum rc lead_capture_to(struct lead *lead, const struct wal_index_header *header, struct err *err)
{
    struct state_live *live = lead->context->state->live;
    if (lead->capture != CAPTURE_ON) {
        return RC_OK;
    }
    int64_t unix_ms = lead_unix_ms(lead);
    if (atomic_load(&live->capturing_ms) == 0) {
        /* a foreign writer's commit, nobody stamped it; or its stamp came after this pass took the others */
        int64_t stamp = atomic_load(&live->uncaptured_ms);
        atomic_store(&live->capturing_ms, stamp != 0 ? stamp : clk_boottime_ms());
    }
    segmenter_begin_pass(&lead->segmenter, unix_ms);
    enum rc rc = wal_follower_capture(&lead->follower, header, &lead->segmenter, err);
    if (rc == RC_OK) {
        segmenter_end_pass(&lead->segmenter);
    }
    return rc == RC_CORRUPT ? lead_meet_bad_frame(lead, err) : rc;
}

enum rc lead_swap_readers(struct lead *lead, struct err *err)
{
    struct lead_connections *c = &lead->connections;
    enum rc rc = lead_reader_begin(&c->readers[1 - c->current], err);
    if (rc == RC_OK) {
        lead_reader_end(&c->readers[c->current]);
        c->current = 1 - c->current;
    }
    return rc;
}

/* Does the header go on from what was seen? RC_CORRUPT says why not. */
static enum rc lead_check_header(const struct lead *lead, const struct wal_index_header *header,
                                 struct err *err)
{
    const struct wal_index_header *seen = &lead->seen;
    if (!wal_salts_equal(header->salts, seen->salts)) {
        return err_set(err, RC_CORRUPT,
                       "the WAL was reset while the leader held its read transaction");
    }
    if (header->mx_frame < seen->mx_frame) {
        return err_set(err, RC_CORRUPT, "the WAL went back from frame %u to %u", seen->mx_frame,
                       header->mx_frame);
    }
    if (header->mx_frame == seen->mx_frame &&
        !wal_checksum_equal(header->checksum, seen->checksum)) {
        return err_set(err, RC_CORRUPT, "frame %u of the WAL has another checksum than before",
                       header->mx_frame);
    }
    return RC_OK;
}

enum rc lead_pass(struct lead *lead, struct err *err)
{
    struct lead_connections *c = &lead->connections;
    struct wal_index_header header;
    ASSERT(!lead->at_mark0);
    lead_take_stamp(lead);
    enum rc rc = wal_index_read(&c->index, &header, err);
    if (rc != RC_OK) {
        return rc;
    }
    if ((rc = lead_check_header(lead, &header, err)) != RC_OK) {
        return rc;
    }
    lead->last_pass_ms = clk_monotonic_ms();
    if (header.mx_frame == lead->seen.mx_frame) {
        if (segmenter_is_empty(&lead->segmenter) && lead->capture == CAPTURE_ON) {
            atomic_store(&lead->context->state->live->capturing_ms, 0);
            shipper_note_idle_epoch(lead->shipper, lead->epoch);
        }
        return RC_OK;
    }
    if (header.mx_frame <= lead->mark_frame) {
        /*
         * Nothing is newer than our mark (frames are captured again for a new generation) and anybody may
         * backfill up to it, now: another transaction could land on mark 0. Ours protects the frames.
         */
        rc = lead_capture_to(lead, &header, err);
        lead->seen = rc == RC_OK ? header : lead->seen;
        return rc;
    }
    /* our mark keeps nBackfill below mxFrame, so the new transaction lands on a mark k > 0 */
    if ((rc = lead_reader_begin(&c->readers[1 - c->current], err)) != RC_OK) {
        return rc;
    }
    uint32_t frame_before = header.mx_frame;
    rc = wal_index_read(&c->index, &header, err);
    if (rc == RC_OK) {
        rc = lead_capture_to(lead, &header, err);
    }
    if (rc != RC_OK) { /* the old transaction still protects what was not captured */
        lead_reader_end(&c->readers[1 - c->current]);
        return rc;
    }
    FAILPOINT("capture_done");
    lead_reader_end(&c->readers[c->current]);
    c->current = 1 - c->current;
    lead->mark_frame = header.mx_frame;
    lead->mark_is_late = header.mx_frame != frame_before;
    lead->seen = header;
    return RC_OK;
}
