/* SPDX-License-Identifier: Apache-2.0 */
/* lead: see lead.h. The end: the last capture, what is left is shipped, or the lead handed over. */
#include "replicator/lead_internal.h"

#include "base/clk.h"
#include "base/failpoint.h"
#include "base/log.h"

#include <stdio.h>

#define LEAD_SIBLING_MS 500 /* a waiter seen within that time is alive */
#define LEAD_HANDOVER_MS 1000
#define LEAD_FREEZE_TRY_MS 10

static bool lead_sibling_waits(const struct lead *lead)
{
    int64_t seen_ms = atomic_load(&lead->context->state->live->waiter_ms);
    return seen_ms != 0 && clk_boottime_ms() - seen_ms < LEAD_SIBLING_MS;
}

/* HANDOVER: the lock is dropped first, the transaction kept until the successor has its own. */
static void lead_hand_over(struct lead *lead)
{
    struct state_live *live = lead->context->state->live;
    uint64_t mine = lead->context->lead_seq;
    snapshotter_destroy(
        lead->snapshotter); /* what writes the state or the spool ends with the lock */
    lead->snapshotter = NULL;
    shipper_stop(lead->shipper);
    lockfile_release(lead->context->leader_lock);
    FAILPOINT("handover_lock_dropped");
    int64_t deadline = clk_monotonic_ms() + LEAD_HANDOVER_MS;
    while (atomic_load(&live->begun_lead) <= mine && clk_monotonic_ms() < deadline) {
        clk_pause_ms(1);
    }
    log_info("leader", "handed over  successor=%s",
             atomic_load(&live->begun_lead) > mine ? "leads" : "has not begun");
}

/*
 * A bad frame was met: SQLite's recovery, at the next start, would drop it and every commit behind it. The
 * WAL begins anew first, as the loop would have had it; the store has no part in that.
 */
static void lead_leave_bad_wal(struct lead *lead, int64_t deadline_ms)
{
    struct err err = ERR_INIT;
    enum rc rc = RC_OK;
    while (rc == RC_OK && !lead_has_fresh_wal(lead) && clk_monotonic_ms() < deadline_ms &&
           !stop_wait_ms(lead->context->stop, STOP_NOW, LEAD_FREEZE_TRY_MS)) {
        rc = lead_maintain(lead, &err);
    }
    if (!lead_has_fresh_wal(lead)) {
        log_error("leader", "the WAL could not begin anew behind a bad frame: %s",
                  rc != RC_OK ? err.text : "a reader holds it");
    }
}

/*
 * The spool was full and has been shipped: what was written since goes into the next generation, now. Where
 * that cannot begin, rows are in the database alone, and the stop says so.
 */
static enum rc lead_ship_uncaptured(struct lead *lead, int64_t deadline_ms, struct err *err)
{
    struct shipper_view view;
    shipper_get_view(lead->shipper, &view);
    enum rc rc = lead_resume_capture(lead, &view, err);
    if (rc == RC_OK && lead->capture != CAPTURE_ON) {
        rc = err_set(err, RC_UNAVAILABLE,
                     "rows that nobody could capture are in the database alone");
    }
    if (rc == RC_OK && (rc = lead_pass(lead, err)) == RC_OK &&
        (rc = lead_cut(lead, err)) == RC_OK) {
        rc = shipper_drain(lead->shipper, lead->context->stop, deadline_ms - clk_monotonic_ms(),
                           err);
    }
    return rc;
}

/* Waits until the archive has everything, a first snapshot too, within the time that a stop may take. */
static enum rc lead_ship_rest(struct lead *lead, struct err *err)
{
    int64_t deadline = clk_monotonic_ms() + lead->context->config->stop_timeout_ms;
    int64_t failed_ms;
    if (lead->capture == CAPTURE_BAD_FRAME) {
        lead_leave_bad_wal(lead, deadline);
    }
    enum rc rc =
        shipper_drain(lead->shipper, lead->context->stop, deadline - clk_monotonic_ms(), err);
    if (rc == RC_OK && lead->capture != CAPTURE_ON) {
        rc = lead_ship_uncaptured(lead, deadline, err);
    }
    while (rc == RC_OK) {
        struct shipper_view view;
        shipper_get_view(lead->shipper, &view);
        if (view.has_archived) {
            break;
        }
        if (!snapshotter_is_busy(lead->snapshotter, &failed_ms) &&
            (failed_ms != 0 || (rc = lead_begin_snapshot(lead, err)) != RC_OK)) {
            rc = err_set(err, RC_UNAVAILABLE, "the first snapshot could not be made");
        } else if (clk_monotonic_ms() >= deadline ||
                   stop_wait_ms(lead->context->stop, STOP_NOW, 5)) {
            rc = err_set(err, RC_TIMEOUT, "the first snapshot is not complete");
        }
    }
    struct err keep;
    enum rc kept = shipper_housekeep(lead->shipper, &keep);
    if (kept != RC_OK) {
        log_warn("leader", "%s", keep.text);
    }
    return rc;
}

static void lead_tell_unshipped(const struct shipper_view *view, const struct err *why,
                                char *reason, size_t reason_bytes)
{
    (void)snprintf(reason, reason_bytes,
                   "%llu segments (%llu bytes) stay in the spool and are shipped by the next "
                   "start: %s",
                   (unsigned long long)view->spool_segments, (unsigned long long)view->spool_bytes,
                   why->text);
}

bool lead_begun_in_part(struct lead *lead, const struct err *why, char *reason, size_t reason_bytes)
{
    struct shipper_view view;
    if (lead->shipper == NULL || lead->capture == CAPTURE_NONE) {
        return false;
    }
    shipper_get_view(lead->shipper, &view);
    lead_tell_unshipped(&view, why, reason, reason_bytes);
    return view.spool_segments > 0 || !view.has_archived;
}

enum lead_end lead_finish(struct lead *lead, bool *unshipped, char *reason, size_t reason_bytes)
{
    struct err err = ERR_INIT;
    /* before the last pass: whoever stops beside us and commits after it sees this, and ships that himself */
    atomic_store(&lead->context->state->live->finishing_lead, lead->context->lead_seq);
    FAILPOINT("stop_last_look");
    enum rc rc = lead->at_mark0 ? RC_OK : lead_pass(lead, &err);
    if (rc == RC_OK && lead->capture == CAPTURE_ON) {
        rc = lead_cut(lead, &err);
    }
    if (rc == RC_OK) {
        rc = lead_note_checkpoint(lead, false, &err);
    }
    if (rc != RC_OK) {
        log_error("leader", "the last capture failed: %s", err.text);
    }
    FAILPOINT("stop_looked");
    if (lead->capture == CAPTURE_NONE) {
        return LEAD_STOPPED;
    }
    if (lead_sibling_waits(lead)) {
        lead_hand_over(lead);
        return LEAD_HANDED_OVER;
    }
    if (rc == RC_OK) {
        rc = lead_ship_rest(lead, &err);
    }
    struct shipper_view view;
    shipper_get_view(lead->shipper, &view);
    lead_publish(lead, &view);
    if (rc != RC_OK) {
        *unshipped = true;
        lead_tell_unshipped(&view, &err, reason, reason_bytes);
    }
    return LEAD_STOPPED;
}
