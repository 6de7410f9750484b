/* SPDX-License-Identifier: Apache-2.0 */
/* lead: see lead.h. Snapshots: when one is due, where it begins, and a packed one whose frames are lost. */
#include "replicator/lead_internal.h"

#include "base/clk.h"
#include "base/failpoint.h"
#include "base/log.h"

#include <stdio.h>

#define SNAPSHOT_WAL_BYTES_MIN (256ull << 20)
#define SNAPSHOT_OBJECTS_MAX 8192u
#define SNAPSHOT_OBJECTS_AGE_MS (10 * 60 * 1000)
#define SNAPSHOT_RETRY_MS 10000
#define SNAPSHOT_WRITE_BUDGET_MS 100

enum rc lead_begin_snapshot(struct lead *lead, struct err *err)
{
    sqlite3 *source = NULL;
    struct shipper_view view;
    struct snapshot_job job = {.generation = lead->generation};
    shipper_get_view(lead->shipper, &view);
    job.in_background = view.has_snapshot; /* without one nothing of the generation is archived */
    enum rc rc = lead_connections_open_one(lead->context->sidecar->database, false, &source, err);
    if (rc == RC_OK) { /* the first read opens the wal-index: not under the lock */
        int code = sqlite3_exec(source, "SELECT 1 FROM sqlite_schema LIMIT 1", NULL, NULL, NULL);
        rc = code == SQLITE_OK ? RC_OK : lead_sqlite_fail(err, source, code, "first read");
    }
    if (rc == RC_OK) {
        rc = lead_take_write(&lead->connections, SNAPSHOT_WRITE_BUDGET_MS, err);
    }
    if (rc != RC_OK) {
        goto done;
    }
    rc = lead_pass(lead, err);
    if (rc == RC_OK && lead->capture != CAPTURE_ON) {
        rc = err_set(err, RC_BUSY,
                     "a bad frame lies between the chain and what a snapshot would see");
    }
    if (rc == RC_OK) {
        rc = lead_begin_read(source, err);
    }
    lead_release_write(&lead->connections);
    if (rc != RC_OK) {
        goto done;
    }
    FAILPOINT("snapshot_opened");
    job.point = lead->follower.end;
    job.page_size_bytes = lead->seen.page_size_bytes;
    job.database_pages = lead->seen.page_count;
    job.unix_ms = lead_unix_ms(lead); /* never before a commit that is in it */
    rc = snapshotter_begin(lead->snapshotter, source, &job, err);
    source = NULL; /* taken, also on error */
done:
    (void)sqlite3_close_v2(source);
    return rc;
}

static bool lead_snapshot_is_due(const struct lead *lead, const struct shipper_view *view)
{
    const struct replicator_config *config = lead->context->config;
    if (!generation_id_equal(&view->generation, &lead->generation)) {
        return false; /* its birth is not put yet */
    }
    if (!view->has_snapshot) {
        return true;
    }
    int64_t age_ms = clk_boottime_ms() - view->snapshot_made_ms;
    uint64_t database_bytes = (uint64_t)lead->seen.page_count * lead->seen.page_size_bytes;
    bool nothing_new = view->generation_objects == 0;
    return (!nothing_new && age_ms >= config->snapshot_interval_s * 1000) ||
           (view->generation_wal_bytes > database_bytes &&
            view->generation_wal_bytes > SNAPSHOT_WAL_BYTES_MIN) ||
           (view->generation_objects > SNAPSHOT_OBJECTS_MAX &&
            view->generation_bytes > view->snapshot_bytes && age_ms >= SNAPSHOT_OBJECTS_AGE_MS);
}

enum rc lead_consider_snapshot(struct lead *lead, const struct shipper_view *view, struct err *err)
{
    int64_t failed_ms;
    if (snapshotter_is_busy(lead->snapshotter, &failed_ms)) {
        char trouble[ERR_TEXT_BYTES];
        if (snapshotter_is_in_trouble(lead->snapshotter, trouble)) {
            (void)snprintf(lead->snapshot_alarm, sizeof lead->snapshot_alarm,
                           "no snapshot gets into the archive: %.440s", trouble);
        }
        return RC_OK;
    }
    lead->snapshot_alarm[0] = '\0';
    if (failed_ms != 0) {
        (void)snprintf(lead->snapshot_alarm, sizeof lead->snapshot_alarm,
                       "no snapshot can be made: %.440s", snapshotter_failure(lead->snapshotter));
    }
    if (lead->capture != CAPTURE_ON || !lead->verified ||
        (failed_ms != 0 && clk_monotonic_ms() - failed_ms < SNAPSHOT_RETRY_MS) ||
        !lead_snapshot_is_due(lead, view)) {
        return RC_OK;
    }
    enum rc rc = lead_begin_snapshot(lead, err);
    return rc == RC_BUSY ? RC_OK : rc;
}

/* Only of the WAL that is there: what lies before it was synced before the reset. */
static bool lead_chain_has(const struct lead *lead, const struct wal_index_header *header,
                           const struct wal_point *point)
{
    const struct wal_follower *follower = &lead->follower;
    struct wal_salts salts;
    struct wal_checksum checksum;
    struct err ignored;
    bool is_here = point->position.wal_no == follower->wal_no && point->position.frame_no > 0 &&
                   header->mx_frame > 0 && wal_salts_equal(header->salts, follower->salts);
    if (position_compare(point->position, follower->end.position) > 0) {
        return false;
    }
    return !is_here ||
           (wal_follower_checksum_at(follower, header->page_size_bytes, point->position.frame_no,
                                     &salts, &checksum, &ignored) == RC_OK &&
            wal_salts_equal(salts, follower->salts) &&
            wal_checksum_equal(checksum, point->checksum));
}

enum rc lead_drop_lost_snapshot(struct lead *lead, const struct wal_index_header *header,
                                struct err *err)
{
    struct wal_point point;
    bool found = false;
    enum rc rc =
        snapshotter_packed_point(lead->snapshotter, &lead->generation, &found, &point, err);
    if (rc == RC_OK && found && !lead_chain_has(lead, header, &point)) {
        log_warn("snapshot", "a packed one is dropped, its frames are lost  wal_no=%u frame_no=%u",
                 point.position.wal_no, point.position.frame_no);
        snapshotter_abandon(lead->snapshotter);
    }
    return rc;
}
