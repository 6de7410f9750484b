/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shipper_lane: see shipper_internal.h.
 *
 * Each thread owns a store handle. Lane 0 alone takes barriers and the look after an outage,
 * so only its handle is prepared (bucket made, conditional put probed).
 */
#include "replicator/shipper_internal.h"

#include "base/backoff.h"
#include "base/clk.h"
#include "base/failpoint.h"
#include "base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SHIP_BACKOFF_FIRST_MS 50
#define SHIP_BACKOFF_CAP_MS 5000
#define SHIP_DOWN_AFTER_MS 3000 /* failing for that long is called down, not retrying */
#define SHIP_FENCE_MS 5000      /* how often other hosts are looked for under load */
#define SHIP_IDLE_WAIT_MS 1000
#define SHIP_HOUSEKEEP_MS 1000
#define SHIP_DELETE_MAX 256 /* confirmed files that wait for their deletion at most */

/* ---- calls to the store (without the mutex) ---- */

/* Ends the shipping: archive or spool is not what we left. The leader starts over with the start table. */
enum rc ship_conflict(struct shipper *s, enum shipper_verdict verdict, const char *name,
                      const char *what, struct err *err)
{
    (void)pthread_mutex_lock(&s->mutex);
    s->view.verdict = verdict;
    (void)snprintf(s->view.verdict_text, sizeof s->view.verdict_text, "%s: %s", name, what);
    (void)pthread_mutex_unlock(&s->mutex);
    return err_set(err, RC_STOPPED, "%s: %s", name, what);
}

static enum rc ship_put_segment(struct ship_lane *lane, const struct ship_item *item,
                                struct err *err)
{
    struct shipper *s = lane->shipper;
    char path[FSIO_PATH_BYTES];
    int fd = -1;
    enum rc rc;
    if ((rc = spool_path(s->spool, item->key, path, err)) != RC_OK ||
        (rc = fsio_open(path, O_RDONLY, 0, &fd, err)) != RC_OK) {
        return rc == RC_NOT_FOUND ? ship_conflict(s, SHIPPER_SPOOL_LOST, item->key,
                                                  "somebody removed it from the spool", err)
                                  : rc;
    }
    struct store_body body = {.bytes = NULL, .fd = fd, .size_bytes = item->segment.object_bytes};
    FAILPOINT("upload_before_put");
    rc = store_put(lane->store, item->key, &body, STORE_PUT_PLAIN, err);
    FAILPOINT("upload_after_put");
    (void)close(fd);
    return rc;
}

static enum rc ship_prepare(struct ship_lane *lane, struct err *err)
{
    struct shipper *s = lane->shipper;
    if (s->prepared) {
        return RC_OK;
    }
    enum rc rc =
        store_prepare(lane->store, s->config->is_s3, err); /* the start made the directory */
    if (rc == RC_OK) {
        s->prepared = true; /* only lane 0 comes here */
        if ((lane->store->features & STORE_CONDITIONAL_PUT) == 0) {
            log_warn("shipper", "the store ignores If-None-Match: two servers on one archive are "
                                "told apart by listing only");
        }
    }
    return rc;
}

/*
 * *ours = the object under the key is what this very item put: an answer was lost. The same tag or id is no
 * proof, for a copied volume holds it too. What a predecessor on this volume put before it could note
 * it is known by the next comparison (start table, row 12), to which a conflict leads.
 */
static enum rc ship_is_ours(struct ship_lane *lane, const struct ship_item *item, bool *ours,
                            struct err *err)
{
    struct buf found;
    buf_init(&found, SHIP_BODY_BYTES_MAX);
    enum rc rc = store_get_buf(lane->store, item->key, &found, err);
    if (rc == RC_OK) {
        *ours =
            found.size == item->body.size && memcmp(found.data, item->body.data, found.size) == 0;
    }
    buf_deinit(&found);
    return rc;
}

static enum rc ship_put_barrier(struct ship_lane *lane, const struct ship_item *item,
                                struct err *err)
{
    struct shipper *s = lane->shipper;
    enum rc rc = ship_prepare(lane, err);
    if (rc != RC_OK || item->kind == SHIP_PROBE) {
        return rc;
    }
    rc = store_put_bytes(lane->store, item->key, item->body.data, item->body.size,
                         STORE_PUT_IF_ABSENT, err);
    bool ours = true;
    if (rc == RC_EXISTS || rc == RC_OK) {
        /* read back even after success: a store may ignore the condition */
        rc = ship_is_ours(lane, item, &ours, err);
    }
    if (rc == RC_OK && !ours) {
        return ship_conflict(s, SHIPPER_CONFLICT, item->key,
                             "another server wrote this object to the archive", err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    struct state_record record;
    state_edit_begin(s->state, &record);
    if (item->kind == SHIP_BIRTH) {
        FAILPOINT("birth_put");
        record.generation = item->generation;
        record.pending_generation = (struct generation_id){""};
        record.term = 0;
        record.term_tag[0] = '\0';
        record.has_archived = false;
        record.confirmed = (struct wal_point){{1, 0}, {0, 0}};
        record.confirmed_salts = (struct wal_salts){0, 0};
        record.snapshot = (struct position){0, 0};
    } else {
        FAILPOINT("claim_put");
        record.term = item->term;
        memcpy(record.term_tag, item->tag, sizeof record.term_tag);
        record.pending_term = 0;
        record.pending_tag[0] = '\0';
    }
    return state_edit_end(s->state, &record, err);
}

/* What a listing shows of the keys from one of ours on. */
struct ship_neighbours {
    const char *ours;
    bool ours_is_there;
    char behind[OBJECT_KEY_BYTES]; /* the first behind it; "" = none */
};

static enum rc ship_found_key(void *arg, const char *key, uint64_t bytes, struct err *err)
{
    (void)bytes;
    struct ship_neighbours *found = arg;
    int order = strcmp(key, found->ours);
    found->ours_is_there = found->ours_is_there || order == 0;
    struct object_key parsed;
    if (order <= 0 || !object_key_parse(key, &parsed)) {
        return RC_OK; /* somebody's Thumbs.db is nobody's claim: no server wrote it */
    }
    (void)snprintf(found->behind, sizeof found->behind, "%s", key);
    return err_set(err, RC_EXISTS, "%s", key); /* one is enough: end the listing */
}

/*
 * Below the prefix our object must be, and be the last. One listing from just before it tells both; that
 * it is missing there is believed when the store, asked for it by name, says so too.
 */
static enum rc ship_check_last(struct ship_lane *lane, const char *prefix, const char *ours,
                               struct err *err)
{
    struct ship_neighbours found = {.ours = ours};
    char before[OBJECT_KEY_BYTES];
    uint64_t bytes;
    (void)snprintf(before, sizeof before, "%.*s", (int)strlen(ours) - 1, ours);
    enum rc rc = store_list(lane->store, prefix, before, ship_found_key, &found, err);
    if (rc == RC_EXISTS) {
        return ship_conflict(lane->shipper, SHIPPER_CONFLICT, found.behind,
                             "the archive holds this, and it is not ours", err);
    }
    if (rc == RC_OK && !found.ours_is_there &&
        (rc = store_head(lane->store, ours, &bytes, err)) == RC_NOT_FOUND) {
        return ship_conflict(lane->shipper, SHIPPER_STORE_LOST, ours,
                             "the store lost this object of ours", err);
    }
    return rc;
}

/*
 * Rows 12 and 14 of the start table, while we lead: has another host begun a generation, or claimed ours?
 * Are our birth and claim still there? (Neither is ours before it is put and has left the queue.) After an
 * outage also: before anything is put again, is what was confirmed last?
 */
static enum rc ship_look(struct ship_lane *lane, bool after_outage, struct err *err)
{
    struct shipper *s = lane->shipper;
    char prefix[OBJECT_KEY_BYTES];
    char ours[OBJECT_KEY_BYTES];
    (void)pthread_mutex_lock(&s->mutex);
    struct object_key birth = {.kind = OBJECT_GENERATION,
                               .generation_number = generation_id_number(&s->view.generation)};
    struct object_key claim = {
        .kind = OBJECT_LEAD, .generation = s->view.generation, .term = s->term};
    char last[OBJECT_KEY_BYTES];
    memcpy(last, s->confirmed_key, sizeof last);
    (void)pthread_mutex_unlock(&s->mutex);

    /* a bucket may have been deleted and is made anew; a directory that is gone is an unmounted disk */
    enum rc rc = after_outage ? store_prepare(lane->store, s->config->is_s3, err) : RC_OK;
    if (rc != RC_OK || birth.generation_number == 0) {
        return rc;
    }
    object_key_generations_prefix(prefix);
    object_key_format(&birth, ours);
    rc = ship_check_last(lane, prefix, ours, err);
    if (rc == RC_OK && claim.term > 0) {
        object_key_leads_prefix(&claim.generation, prefix);
        object_key_format(&claim, ours);
        rc = ship_check_last(lane, prefix, ours, err);
    }
    uint64_t bytes;
    if (rc == RC_OK && after_outage && last[0] != '\0' &&
        (rc = store_head(lane->store, last, &bytes, err)) == RC_NOT_FOUND) {
        return ship_conflict(s, SHIPPER_STORE_LOST, last,
                             "the store lost this object, which it had confirmed", err);
    }
    return rc;
}

/* ---- the lanes ---- */

/* Records how a call went (under the mutex). Returns true when the store's state changed. */
static void ship_note_result(struct shipper *s, enum rc rc, const struct err *err)
{
    int64_t now = clk_monotonic_ms();
    enum replicator_store_state before = s->view.store_state;
    if (rc == RC_OK) {
        s->failing_since_ms = 0;
        s->view.store_state = STORE_OK;
        s->view.store_error[0] = '\0';
    } else {
        if (s->failing_since_ms == 0) {
            s->failing_since_ms = now;
        }
        bool down = now - s->failing_since_ms >= SHIP_DOWN_AFTER_MS || !rc_is_retryable(rc);
        s->view.store_state = down ? STORE_DOWN : STORE_RETRYING;
        (void)snprintf(s->view.store_error, sizeof s->view.store_error, "%.250s", err->text);
        s->look_needed = s->look_needed || down;
    }
    if (before == s->view.store_state) {
        return;
    }
    if (s->view.store_state == STORE_OK) {
        if (before != STORE_OFF) {
            log_info("shipper", "the store answers again");
        }
    } else if (s->view.store_state == STORE_DOWN) {
        log_error("shipper", "store down, tried again until it answers: %s", err->text);
    } else {
        log_warn("shipper", "store call failed, trying again: %s", err->text);
    }
}

static void ship_count_requests(struct ship_lane *lane)
{
    lane->shipper->view.request_count += lane->store->request_count - lane->requests_seen;
    lane->requests_seen = lane->store->request_count;
}

/* Does one item; called and returns with the mutex held. */
static enum rc ship_do_item(struct ship_lane *lane, struct ship_item *item, struct err *err)
{
    struct shipper *s = lane->shipper;
    item->progress = SHIP_ACTIVE;
    s->active_count++;
    (void)pthread_mutex_unlock(&s->mutex);
    int64_t begun_us = clk_monotonic_us();
    enum rc rc = item->kind == SHIP_SEGMENT ? ship_put_segment(lane, item, err)
                                            : ship_put_barrier(lane, item, err);
    int64_t took_us = clk_monotonic_us() - begun_us;
    (void)pthread_mutex_lock(&s->mutex);
    s->active_count--;
    ship_count_requests(lane);
    if (rc == RC_OK) {
        item->progress = SHIP_DONE;
        if (item->kind == SHIP_SEGMENT) {
            recent_add(&s->put_us, clk_monotonic_ms(), took_us);
            s->view.put_count++;
        }
        ship_note_result(s, rc, err);
        ship_advance(s);
    } else {
        item->progress = SHIP_QUEUED;
        if (s->view.verdict == SHIPPER_GOES_ON && rc != RC_STOPPED) {
            ship_note_result(s, rc, err);
        }
    }
    if (s->head != NULL || s->draining) { /* else there is nothing that another lane could do */
        (void)pthread_cond_broadcast(&s->changed);
    }
    return rc;
}

/* Other hosts are looked for while we put something, and never when idle. */
bool ship_fence_due(const struct shipper *s)
{
    return clk_monotonic_ms() - s->looked_ms >= SHIP_FENCE_MS;
}

/* A look, by one lane; called and returns with the mutex held. */
static enum rc ship_do_look(struct ship_lane *lane, struct err *err)
{
    struct shipper *s = lane->shipper;
    bool after_outage = s->look_needed;
    (void)pthread_mutex_unlock(&s->mutex);
    enum rc rc = ship_look(lane, after_outage, err);
    (void)pthread_mutex_lock(&s->mutex);
    ship_count_requests(lane);
    if (rc == RC_OK) {
        s->look_needed = s->look_needed && !after_outage;
        s->look_came_due = false;
        s->looked_ms = clk_monotonic_ms();
    }
    /* a look that works says nothing of a put that fails: what waits shows it */
    if (s->view.verdict == SHIPPER_GOES_ON && rc != RC_STOPPED &&
        (rc != RC_OK || s->head == NULL)) {
        ship_note_result(s, rc, err);
    }
    (void)pthread_cond_broadcast(&s->changed);
    return rc;
}

void ship_wait(struct shipper *s, int64_t timeout_ms)
{
    struct timespec deadline = clk_deadline(timeout_ms);
    (void)pthread_cond_timedwait(&s->changed, &s->mutex, &deadline);
}

/* Waits out a pause even when others signal, but not a stop. */
static void ship_pause(struct shipper *s, int64_t pause_ms)
{
    int64_t until = clk_monotonic_ms() + pause_ms;
    s->pausing_count++;
    while (!s->stopping && s->view.verdict == SHIPPER_GOES_ON && clk_monotonic_ms() < until) {
        ship_wait(s, until - clk_monotonic_ms());
    }
    s->pausing_count--;
}

static bool ship_housekeep_due(const struct shipper *s)
{
    return !s->housekeeping && s->record_is_stale &&
           (clk_monotonic_ms() - s->housekept_ms >= SHIP_HOUSEKEEP_MS ||
            s->confirmed_file_count >= SHIP_DELETE_MAX);
}

void *ship_lane_thread_main(void *arg)
{
    struct ship_lane *lane = arg;
    struct shipper *s = lane->shipper;
    struct backoff backoff;
    struct err err = ERR_INIT;
    (void)pthread_setname_np(pthread_self(), "lane");
    backoff_init(&backoff, SHIP_BACKOFF_FIRST_MS, SHIP_BACKOFF_CAP_MS);
    (void)pthread_mutex_lock(&s->mutex);
    while (!s->stopping) {
        enum rc rc = RC_OK;
        struct ship_item *item = ship_take(s, lane->number);
        if (item != NULL && (lane->number != 0 || !ship_fence_due(s))) {
            rc = ship_do_item(lane, item, &err);
        } else if ((item != NULL || s->look_needed || s->look_came_due) && lane->number == 0 &&
                   s->view.verdict == SHIPPER_GOES_ON) {
            rc = ship_do_look(lane, &err);
        } else if (ship_housekeep_due(s)) {
            (void)pthread_mutex_unlock(&s->mutex);
            if (shipper_housekeep(s, &err) != RC_OK) {
                log_error("shipper", "%s", err.text);
            }
            (void)pthread_mutex_lock(&s->mutex);
        } else {
            ship_wait(s, SHIP_IDLE_WAIT_MS);
            continue;
        }
        (void)pthread_mutex_unlock(&s->mutex);
        state_wake(s->state); /* the leader cuts the next segment when a lane is free */
        (void)pthread_mutex_lock(&s->mutex);
        if (rc == RC_OK) {
            backoff_reset(&backoff);
        } else if (!s->stopping) {
            ship_pause(s, backoff_next_ms(&backoff));
        }
    }
    (void)pthread_mutex_unlock(&s->mutex);
    return NULL;
}
