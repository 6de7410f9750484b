/* SPDX-License-Identifier: Apache-2.0 */
/* lead: see lead.h. The loop, housekeeping and publishing. */
#include "replicator/lead_internal.h"

#include "base/clk.h"
#include "base/failpoint.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEAD_POLL_MS 100      /* a foreign writer is noticed that late at most */
#define LEAD_PASS_EVERY_MS 50 /* marks move, and checkpoints go on, while the store is slow */
#define LEAD_HOUSEKEEP_MS 1000
#define LEAD_HOUSEKEEP_NEW_MS 20 /* until a generation has its first snapshot */
#define LEAD_PUBLISH_MS 20
#define LEAD_TROUBLE_PAUSE_MS 200
#define LEAD_TROUBLE_LOG_MS 5000

/* ---- publishing ---- */

static void lead_fill_from_view(const struct lead *lead, const struct shipper_view *view,
                                struct replicator_status *status)
{
    bool ours = generation_id_equal(&view->generation, &lead->generation);
    status->has_archived = ours && view->has_archived;
    status->archived = view->archived.position;
    status->archived_unix_ms = view->archived_unix_ms;
    status->lag_recent = (struct replicator_lag_stats){
        SHIPPER_LAG_WINDOW_MS / 1000, view->lag_ms.p50, view->lag_ms.p99, view->lag_ms.max};
    status->spool_segments = (int64_t)view->spool_segments;
    status->spool_bytes = (int64_t)view->spool_bytes;
    status->store_state = view->store_state;
    (void)snprintf(status->store_error, sizeof status->store_error, "%s", view->store_error);
    status->put_p50_ms = (double)view->put_us.p50 / 1000.0;
    status->put_p99_ms = (double)view->put_us.p99 / 1000.0;
    status->put_count = view->put_count;
    status->requests = view->request_count;
    status->has_snapshot = ours && view->has_snapshot;
    status->snapshot = view->snapshot;
    status->snapshot_age_ms = view->has_snapshot ? clk_boottime_ms() - view->snapshot_made_ms : 0;
}

static void lead_fill_lag(const struct lead *lead, const struct shipper_view *view,
                          struct replicator_status *status)
{
    struct wal_index_header header;
    struct err ignored;
    int64_t frame_bytes = (int64_t)lead->seen.page_size_bytes + WAL_FRAME_HEADER_BYTES;
    int64_t waiting = (int64_t)lead->segmenter.frame_count;
    status->has_local = true;
    status->local = lead->follower.end.position;
    if (wal_index_read(&lead->connections.index, &header, &ignored) == RC_OK) {
        bool same_wal = wal_salts_equal(header.salts, lead->follower.salts);
        uint32_t captured = same_wal ? lead->follower.frame_no : 0;
        waiting += header.mx_frame > captured ? (int64_t)(header.mx_frame - captured) : 0;
        if (same_wal && header.mx_frame > captured) {
            status->local = (struct position){lead->follower.wal_no, header.mx_frame};
        }
    }
    status->lag_frames = waiting + (int64_t)view->unarchived_frames;
    status->lag_bytes = waiting * frame_bytes + (int64_t)view->unarchived_bytes;
}

static void lead_fill_reason(const struct lead *lead, const struct shipper_view *view,
                             struct replicator_status *status)
{
    const char *alarm = lead->trouble[0] != '\0' ? lead->trouble
                        : lead->alarm[0] != '\0' ? lead->alarm
                                                 : lead->snapshot_alarm;
    status->alarm = alarm[0] != '\0' || view->store_state == STORE_DOWN;
    if (alarm[0] != '\0') {
        (void)snprintf(status->reason, sizeof status->reason, "%s", alarm);
    } else if (view->store_state == STORE_DOWN) {
        (void)snprintf(status->reason, sizeof status->reason, "the store does not answer: %.200s",
                       view->store_error);
    }
}

void lead_publish(struct lead *lead, const struct shipper_view *view)
{
    const struct lead_context *x = lead->context;
    struct replicator_status status = {.role = ROLE_LEADER, .may_serve = true};
    status.generation = lead->generation;
    lead_fill_from_view(lead, view, &status);
    status.spool_bytes_max = x->config->spool_bytes_max;
    if (lead->capture != CAPTURE_NONE) {
        lead_fill_lag(lead, view, &status);
    }
    (void)snprintf(status.store_url, sizeof status.store_url, "%s", x->config->store.url);
    lead_fill_reason(lead, view, &status);
    status.generations_begun = lead->generations_begun;
    status.wal_resets = lead->wal_resets;
    status.checkpoints = lead->checkpoints;
    status.segments_made = lead->segments_made;
    status.freeze_max_us = lead->freeze_max_us;
    struct state_wal_map map = {.known = lead->capture == CAPTURE_ON,
                                .generation = lead->generation,
                                .wal_no = lead->follower.wal_no,
                                .wal_no_next = wal_follower_next_wal_no(&lead->follower),
                                .salts = lead->follower.salts};
    bool ours = generation_id_equal(&view->generation, &lead->generation);
    lead->archived =
        ours && view->has_archived ? view->archived : (struct wal_point){{0, 0}, {0, 0}};
    atomic_store(&x->state->live->heartbeat_ms, clk_boottime_ms());
    x->publish(x->publish_arg, &status, &map);
    lead->last_publish_ms = clk_monotonic_ms();
}

/* ---- housekeeping ---- */

/* The database's file is still the one that is open, and no checkpoint but ours changed it unseen. */
static enum rc lead_check_files(struct lead *lead, struct err *err)
{
    const struct sidecar *sidecar = lead->context->sidecar;
    struct fsio_stat stat;
    struct state_record record;
    enum rc rc = fsio_stat(sidecar->database, &stat, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (!stat.exists || stat.inode != lead->database_inode || stat.links != 1) {
        return err_set(err, RC_CORRUPT, "the database file %s was %s under the running server",
                       sidecar->database,
                       !stat.exists                         ? "deleted or renamed"
                       : stat.inode != lead->database_inode ? "replaced"
                                                            : "linked a second time");
    }
    if ((rc = wal_follower_check_file(&lead->follower, err)) != RC_OK) {
        return rc;
    }
    state_get(lead->context->state, &record);
    if (wal_index_backfilled(&lead->connections.index) != record.backfilled ||
        record.database.size_bytes != stat.size_bytes ||
        record.database.mtime_ns != stat.mtime_ns) {
        rc = lead_note_checkpoint(lead, false,
                                  err); /* a foreign checkpoint: note the file as it is */
    }
    return rc;
}

static void lead_drop_marker(struct lead *lead, const struct shipper_view *view)
{
    struct err err;
    if (lead->marker_pending && generation_id_equal(&view->generation, &lead->generation)) {
        FAILPOINT("marker_before_delete");
        lead->marker_pending = fsio_remove_file(lead->context->sidecar->restored, &err) != RC_OK;
    }
}

/*
 * A generation begins with all frames of the WAL that is there. If those alone come near the spool's cap,
 * it would end as soon as it has begun, and so would the next.
 */
static bool lead_wal_fits_spool(const struct lead *lead)
{
    int64_t frame_bytes = (int64_t)lead->seen.page_size_bytes + WAL_FRAME_HEADER_BYTES;
    return (int64_t)lead->seen.mx_frame * frame_bytes <= lead->context->config->spool_bytes_max / 2;
}

bool lead_has_fresh_wal(const struct lead *lead)
{
    return lead->capture == CAPTURE_BAD_FRAME && lead->wal_resets > 0 &&
           !wal_salts_equal(lead->seen.salts, lead->follower.salts);
}

enum rc lead_resume_capture(struct lead *lead, const struct shipper_view *view, struct err *err)
{
    bool outage = lead->capture == CAPTURE_OUTAGE && view->spool_segments == 0 &&
                  view->store_state == STORE_OK && view->open_for_segments;
    bool fresh = lead_has_fresh_wal(lead);
    if (outage && !lead_wal_fits_spool(lead)) {
        lead->wants_fresh_wal = true; /* and then this is looked at again */
        outage = false;
    }
    if (!outage && !fresh) {
        return RC_OK;
    }
    struct wal_point parent_point = lead->segmenter.link;
    struct generation_id parent = lead->generation;
    struct wal_index_header header = lead->seen;
    snapshotter_abandon(lead->snapshotter);
    enum rc rc = lead_begin_generation(lead, outage ? CAUSE_OUTAGE : CAUSE_BAD_FRAME,
                                       outage ? "the spool was full during an outage of the store"
                                              : "a foreign program wrote a bad WAL frame",
                                       &parent, &parent_point, &header, err);
    if (rc != RC_OK) {
        char why[ERR_TEXT_BYTES];
        memcpy(why, err->text, sizeof why);
        return err_set(err, RC_CORRUPT, "the next generation could not begin: %.440s", why);
    }
    lead->alarm[0] = '\0';
    return RC_OK;
}

/*
 * HARVEY_ON_OUTAGE stands here: what happens when the spool reaches its cap. `continue`: what was
 * captured is kept and shipped when the store answers, nothing more is captured, the generation ends
 * there, and the next one begins then.
 */
static enum rc lead_meet_full_spool(struct lead *lead, enum replicator_store_state store,
                                    struct err *err)
{
    enum rc rc = lead_pass(lead, err); /* one that failed may have ended within a transaction */
    if (rc == RC_OK && lead->capture == CAPTURE_ON) {
        rc = lead_cut(lead, err);
    }
    if (rc == RC_OK && lead->capture == CAPTURE_ON) {
        lead->capture = CAPTURE_OUTAGE;
        (void)snprintf(lead->alarm, sizeof lead->alarm,
                       "the store %s and the spool is full (HARVEY_SPOOL_MAX_BYTES): rows written "
                       "from now on are not in the archive until it %s",
                       store == STORE_OK ? "is too slow for what was written" : "does not answer",
                       store == STORE_OK ? "has caught up" : "answers");
        log_error("leader", "%s", lead->alarm);
    }
    return rc;
}

enum rc lead_housekeep(struct lead *lead, struct err *err)
{
    struct shipper_view view;
    shipper_get_view(lead->shipper, &view);
    enum rc rc = lead_check_files(lead, err);
    if (rc == RC_OK && lead->capture == CAPTURE_ON &&
        (int64_t)view.spool_bytes >= lead->context->config->spool_bytes_max) {
        rc = lead_meet_full_spool(lead, view.store_state, err);
    }
    if (rc == RC_OK) {
        rc = lead_resume_capture(lead, &view, err);
    }
    lead_drop_marker(lead, &view);
    return rc == RC_OK ? lead_consider_snapshot(lead, &view, err) : rc;
}

/* ---- the loop ---- */

static int64_t lead_until_cut(const struct lead *lead)
{
    int64_t left = lead->last_cut_ms + lead->context->config->ship_interval_ms - clk_monotonic_ms();
    return left > 0 ? left : 0;
}

static bool lead_has_new_frames(const struct lead *lead, struct wal_index_header *header)
{
    struct err ignored;
    return wal_index_read(&lead->connections.index, header, &ignored) != RC_OK ||
           header->mx_frame != lead->seen.mx_frame ||
           !wal_salts_equal(header->salts, lead->seen.salts);
}

/* Capture and cut when a segment can leave, or when frames have waited long enough for the marks' sake. */
static enum rc lead_step(struct lead *lead, int64_t *sleep_ms, bool *for_commits, struct err *err)
{
    struct wal_index_header header;
    bool fresh = lead_has_new_frames(lead, &header);
    bool waiting = fresh || !segmenter_is_empty(&lead->segmenter);
    *sleep_ms = LEAD_POLL_MS;
    *for_commits = !waiting;
    if (!waiting) {
        if (atomic_load(&lead->context->state->live->uncaptured_ms) != 0) {
            return lead_pass(lead, err); /* stamped late for frames that are captured already */
        }
        return RC_OK;
    }
    bool ready = lead->capture == CAPTURE_ON && shipper_is_ready(lead->shipper);
    int64_t until_cut = lead_until_cut(lead);
    bool leaves_now = ready && until_cut == 0;
    int64_t until_pass = lead->last_pass_ms + LEAD_PASS_EVERY_MS - clk_monotonic_ms();
    enum rc rc = RC_OK;
    if (fresh && (leaves_now || until_pass <= 0)) {
        rc = lead_pass(lead, err);
        until_pass = LEAD_PASS_EVERY_MS;
    }
    if (rc == RC_OK && leaves_now && lead->capture == CAPTURE_ON) {
        rc = lead_cut(lead, err);
        *sleep_ms = 0; /* look once more before sleeping: the next commit may leave at once too */
        return rc;
    }
    /* a lane that comes free wakes the leader by itself */
    *sleep_ms = until_pass > 0 && until_pass < LEAD_POLL_MS ? until_pass : LEAD_POLL_MS;
    if (ready && until_cut > 0 && until_cut < *sleep_ms) {
        *sleep_ms = until_cut;
    }
    return rc;
}

static bool lead_verdict(struct lead *lead, char *reason, size_t reason_bytes)
{
    struct shipper_view view;
    shipper_get_view(lead->shipper, &view);
    if (clk_monotonic_ms() - lead->last_publish_ms >= LEAD_PUBLISH_MS) {
        lead_publish(lead, &view);
    }
    switch (view.verdict) {
    case SHIPPER_GOES_ON:
        return false;
    case SHIPPER_REACHED:
        (void)snprintf(reason, reason_bytes, "the archive answers: comparing");
        return true;
    case SHIPPER_CONFLICT:
    case SHIPPER_STORE_LOST:
    case SHIPPER_SPOOL_LOST:
        (void)snprintf(reason, reason_bytes, "%s", view.verdict_text);
        return true;
    }
    return false;
}

/* Local trouble (a full disk, a busy database): said now and then, tried again; nothing is lost. */
static void lead_note_trouble(struct lead *lead, const struct err *err)
{
    int64_t now = clk_monotonic_ms();
    (void)snprintf(lead->trouble, sizeof lead->trouble, "replication is held up: %.440s",
                   err->text);
    if (now - lead->trouble_logged_ms >= LEAD_TROUBLE_LOG_MS) {
        lead->trouble_logged_ms = now;
        log_error("leader", "%s", lead->trouble);
    }
}

/*
 * A process that does not lead may open the database once a living leader has passed its start. A lock
 * tells it, not a number in the state: a leader that died frees it, however it died. A predecessor that
 * hands over still holds it for a moment, hence again and again.
 */
static void lead_tell_serving(struct lead *lead)
{
    struct err err;
    if (lead->serving.fd < 0) {
        enum rc rc = lockfile_try(&lead->serving, lead->context->sidecar->serving_lock, &err);
        if (rc != RC_OK && rc != RC_BUSY) {
            log_warn("leader", "%s", err.text);
        }
    }
}

static enum rc lead_round(struct lead *lead, int64_t *sleep_ms, bool *for_commits, struct err *err)
{
    lead_tell_serving(lead);
    enum rc rc = lead_step(lead, sleep_ms, for_commits, err);
    if (rc == RC_OK) {
        rc = lead_maintain(lead, err);
    }
    bool is_new = lead->capture == CAPTURE_ON && lead->archived.position.wal_no == 0;
    int64_t every_ms = is_new ? LEAD_HOUSEKEEP_NEW_MS : LEAD_HOUSEKEEP_MS;
    if (rc == RC_OK && clk_monotonic_ms() - lead->last_housekeep_ms >= every_ms) {
        rc = lead_housekeep(lead, err);
        lead->last_housekeep_ms = clk_monotonic_ms();
    }
    return rc;
}

static enum lead_end lead_loop(struct lead *lead, char *reason, size_t reason_bytes)
{
    struct err err = ERR_INIT;
    while (stop_level(lead->context->stop) == STOP_NONE) {
        struct state_seen seen = state_seen(lead->context->state);
        int64_t sleep_ms = LEAD_POLL_MS;
        bool for_commits = true;
        enum rc rc = lead_round(lead, &sleep_ms, &for_commits, &err);
        if (rc == RC_CORRUPT || (rc != RC_OK && lead->at_mark0)) {
            (void)snprintf(reason, reason_bytes, "%s", err.text);
            return LEAD_RESTART;
        }
        if (rc != RC_OK && rc != RC_STOPPED) {
            lead_note_trouble(lead, &err);
            sleep_ms = LEAD_TROUBLE_PAUSE_MS;
            for_commits = false;
        } else if (lead->trouble[0] != '\0') {
            lead->trouble[0] = '\0';
            log_info("leader", "the trouble is over");
        }
        if (lead_verdict(lead, reason, reason_bytes)) {
            return LEAD_RESTART;
        }
        if (sleep_ms > 0) {
            state_sleep(lead->context->state, seen, for_commits, sleep_ms);
        }
    }
    return LEAD_STOPPED;
}

/* ---- its life ---- */

struct lead *lead_create(const struct lead_context *context, struct start_plan *plan)
{
    struct lead *lead = calloc(1, sizeof *lead);
    if (lead != NULL) {
        lead->context = context;
        lead->plan = plan;
        lead->marker_pending = true;
        lead->follower.fd = -1;
        lead->serving = (struct lockfile)LOCKFILE_INIT;
    }
    return lead;
}

void lead_destroy(struct lead *lead)
{
    if (lead == NULL) {
        return;
    }
    lockfile_release(&lead->serving);
    snapshotter_destroy(lead->snapshotter);
    shipper_destroy(lead->shipper);
    lead_connections_close(&lead->connections);
    wal_follower_deinit(&lead->follower);
    segmenter_deinit(&lead->segmenter);
    segment_writer_destroy(lead->writer);
    buf_deinit(&lead->object);
    free(lead);
}

enum lead_end lead_run(const struct lead_context *context, struct start_plan *plan, char *reason,
                       size_t reason_bytes, bool *unshipped)
{
    struct err err = ERR_INIT;
    struct lead *lead = lead_create(context, plan);
    enum lead_end end = LEAD_FAILED;
    *unshipped = false;
    if (lead == NULL) {
        (void)snprintf(reason, reason_bytes, "no memory for the lead");
        return end;
    }
    if (plan->alarm) {
        (void)snprintf(lead->alarm, sizeof lead->alarm, "%s", plan->reason);
    }
    enum rc rc = lead_begin(lead, &err);
    if (rc == RC_OK) {
        struct shipper_view view;
        atomic_store(&context->state->live->begun_lead, context->lead_seq);
        lead_tell_serving(lead);
        shipper_get_view(lead->shipper, &view);
        lead_publish(lead, &view);
        end = lead_loop(lead, reason, reason_bytes);
        if (end == LEAD_STOPPED) {
            end = lead_finish(lead, unshipped, reason, reason_bytes);
        }
    } else if (rc == RC_STOPPED) {
        end = LEAD_STOPPED;
        *unshipped = lead_begun_in_part(lead, &err, reason, reason_bytes);
    } else {
        (void)snprintf(reason, reason_bytes, "%s", err.text);
    }
    lead_destroy(lead);
    return end;
}
