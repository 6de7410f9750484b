/* SPDX-License-Identifier: Apache-2.0 */
/* shipper: see shipper.h; what the owner and other threads ask of it. */
#include "replicator/shipper_internal.h"

#include "base/clk.h"
#include "base/failpoint.h"

#include <stdlib.h>
#include <string.h>

#define SHIP_SUMMARY_MS 200 /* percentiles are computed at most that often */

enum rc shipper_create(const struct store_config *config, struct spool *spool, struct state *state,
                       struct shipper **shipper, struct err *err)
{
    struct shipper *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the shipper");
    }
    s->config = config;
    s->spool = spool;
    s->state = state;
    s->view.store_state = config->off ? STORE_OFF : STORE_OK;
    s->looked_ms = clk_monotonic_ms(); /* the start has looked just now */
    stop_init(&s->call_stop);
    pthread_condattr_t attributes;
    ASSERT(pthread_condattr_init(&attributes) == 0);
    ASSERT(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    ASSERT(pthread_cond_init(&s->changed, &attributes) == 0);
    (void)pthread_condattr_destroy(&attributes);
    ASSERT(pthread_mutex_init(&s->mutex, NULL) == 0);
    *shipper = s;
    return RC_OK;
}

static void ship_free_list(struct ship_item *item)
{
    while (item != NULL) {
        struct ship_item *next = item->next;
        ship_item_destroy(item);
        item = next;
    }
}

void shipper_destroy(struct shipper *s)
{
    if (s == NULL) {
        return;
    }
    shipper_stop(s);
    ship_free_list(s->head);
    ship_free_list(s->confirmed_files);
    stop_deinit(&s->call_stop);
    (void)pthread_cond_destroy(&s->changed);
    (void)pthread_mutex_destroy(&s->mutex);
    free(s);
}

/* Under the mutex. A snapshot of the future (the clock was set back) is as young as can be. */
static void ship_note_snapshot_time(struct shipper *s, int64_t unix_ms)
{
    int64_t age_ms = clk_unix_ms() - unix_ms;
    s->view.snapshot_unix_ms = unix_ms;
    s->view.snapshot_made_ms = clk_boottime_ms() - (age_ms > 0 ? age_ms : 0);
}

static void ship_begin(struct shipper *s, const struct shipper_begin *begin)
{
    s->view.generation = begin->generation;
    s->view.confirmed = begin->confirmed;
    s->confirmed_salts = begin->confirmed_salts;
    memcpy(s->confirmed_key, begin->confirmed_key, sizeof s->confirmed_key);
    s->term = begin->term;
    s->view.has_snapshot = begin->has_snapshot;
    s->view.snapshot = begin->snapshot;
    ship_note_snapshot_time(s, begin->snapshot_unix_ms);
    s->view.snapshot_bytes = begin->snapshot_bytes;
    s->view.has_archived =
        begin->has_snapshot && position_compare(begin->confirmed.position, begin->snapshot) >= 0;
    s->view.archived = begin->confirmed;
    s->view.archived_unix_ms = begin->archived_unix_ms;
    s->birth_oldest_ms = begin->oldest_ms;
    s->housekept_ms = clk_monotonic_ms();
    ship_publish_oldest(s);
}

enum rc shipper_start(struct shipper *s, const struct shipper_begin *begin, struct err *err)
{
    (void)pthread_mutex_lock(&s->mutex);
    ship_begin(s, begin);
    (void)pthread_mutex_unlock(&s->mutex);
    if (s->config->off) {
        return RC_OK;
    }
    for (int i = 0; i < SHIP_LANES; i++) {
        struct ship_lane *lane = &s->lanes[i];
        lane->shipper = s;
        lane->number = i;
        enum rc rc = store_open(s->config, &s->call_stop, &lane->store, err);
        if (rc != RC_OK) {
            return rc;
        }
        if (pthread_create(&lane->thread, NULL, ship_lane_thread_main, lane) != 0) {
            store_close(lane->store);
            lane->store = NULL;
            return err_set(err, RC_NOMEM, "cannot start an uploader thread");
        }
        s->lanes_started++;
    }
    return RC_OK;
}

static enum rc ship_add(struct shipper *s, struct ship_item *item)
{
    (void)pthread_mutex_lock(&s->mutex);
    ship_enqueue(s, item);
    ship_publish_oldest(s);
    s->look_came_due = s->look_came_due || ship_fence_due(s);
    bool any_lane_will_do =
        item->kind == SHIP_SEGMENT && s->pausing_count == 0 && !s->look_needed && !s->look_came_due;
    if (any_lane_will_do) {
        (void)pthread_cond_signal(&s->changed);
    } else {
        (void)pthread_cond_broadcast(&s->changed);
    }
    (void)pthread_mutex_unlock(&s->mutex);
    return RC_OK;
}

enum rc shipper_add_probe(struct shipper *s, struct err *err)
{
    struct ship_item *item = ship_item_create(SHIP_PROBE);
    return item == NULL ? err_set(err, RC_NOMEM, "no memory for the queue") : ship_add(s, item);
}

enum rc shipper_add_birth(struct shipper *s, const struct generation_birth *birth,
                          int64_t oldest_ms, struct err *err)
{
    struct ship_item *item = ship_item_create(SHIP_BIRTH);
    if (item == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the queue");
    }
    struct object_key key = {.kind = OBJECT_GENERATION,
                             .generation_number = generation_id_number(&birth->id)};
    object_key_format(&key, item->key);
    item->generation = birth->id;
    item->oldest_ms = oldest_ms;
    enum rc rc = generation_birth_encode(birth, &item->body, err);
    if (rc != RC_OK) {
        ship_item_destroy(item);
        return rc;
    }
    return ship_add(s, item);
}

enum rc shipper_add_claim(struct shipper *s, const struct lead_claim *claim, struct err *err)
{
    struct ship_item *item = ship_item_create(SHIP_CLAIM);
    if (item == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the queue");
    }
    struct object_key key = {
        .kind = OBJECT_LEAD, .generation = claim->generation, .term = claim->term};
    object_key_format(&key, item->key);
    item->generation = claim->generation;
    item->term = claim->term;
    memcpy(item->tag, claim->tag, sizeof item->tag);
    enum rc rc = lead_claim_encode(claim, &item->body, err);
    if (rc != RC_OK) {
        ship_item_destroy(item);
        return rc;
    }
    return ship_add(s, item);
}

enum rc shipper_add_segment(struct shipper *s, const struct shipper_segment *segment,
                            struct err *err)
{
    struct ship_item *item = ship_item_create(SHIP_SEGMENT);
    if (item == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the queue");
    }
    object_key_format(&segment->key, item->key);
    item->generation = segment->key.generation;
    item->oldest_ms = segment->oldest_ms;
    item->segment = *segment;
    (void)pthread_mutex_lock(&s->mutex);
    s->view.spool_segments++;
    s->view.spool_bytes += segment->object_bytes;
    s->view.unarchived_frames += segment->frames;
    s->view.unarchived_bytes +=
        (uint64_t)segment->frames * (segment->page_size_bytes + WAL_FRAME_HEADER_BYTES);
    (void)pthread_mutex_unlock(&s->mutex);
    return ship_add(s, item);
}

bool shipper_is_ready(struct shipper *s)
{
    (void)pthread_mutex_lock(&s->mutex);
    unsigned waiting = 0;
    bool ready = s->active_count < SHIP_LANES && s->view.store_state == STORE_OK &&
                 s->view.verdict == SHIPPER_GOES_ON;
    for (const struct ship_item *item = s->head; item != NULL && ready; item = item->next) {
        waiting++;
        /* a barrier, or something queued already: gather on */
        ready =
            item->kind == SHIP_SEGMENT && item->progress != SHIP_QUEUED && waiting < SHIP_WINDOW;
    }
    (void)pthread_mutex_unlock(&s->mutex);
    return ready;
}

void shipper_note_idle_epoch(struct shipper *s, uint64_t epoch)
{
    (void)pthread_mutex_lock(&s->mutex);
    s->idle_epoch = epoch;
    ship_publish_epoch(s);
    (void)pthread_mutex_unlock(&s->mutex);
}

void shipper_snapshot_complete(struct shipper *s, const struct generation_id *generation,
                               struct position position, int64_t unix_ms, uint64_t stored_bytes)
{
    (void)pthread_mutex_lock(&s->mutex);
    if (generation_id_equal(generation, &s->view.generation)) {
        s->view.has_snapshot = true;
        s->view.snapshot = position;
        ship_note_snapshot_time(s, unix_ms);
        s->view.snapshot_bytes = stored_bytes;
        s->view.generation_objects = 0;
        s->view.generation_bytes = 0;
        s->view.generation_wal_bytes = 0;
        ship_set_archived(s);
        s->record_is_stale = true;
        ship_publish_oldest(s);
        ship_publish_epoch(s);
    }
    (void)pthread_mutex_unlock(&s->mutex);
    state_wake(s->state);
}

void shipper_get_view(struct shipper *s, struct shipper_view *view)
{
    (void)pthread_mutex_lock(&s->mutex);
    int64_t now = clk_monotonic_ms();
    if (now - s->summarized_ms >= SHIP_SUMMARY_MS) {
        s->summarized_ms = now;
        recent_summarize(&s->put_us, now, 0, &s->view.put_us);
        recent_summarize(&s->lag_ms, now, SHIPPER_LAG_WINDOW_MS, &s->view.lag_ms);
    }
    s->view.open_for_segments = !ship_has_barrier(s);
    *view = s->view;
    (void)pthread_mutex_unlock(&s->mutex);
}

/* The queue's item under this key, or (NULL) the first segment that waits and is not synced. */
static struct ship_item *ship_find_segment(const struct shipper *s, const char *key)
{
    for (struct ship_item *item = s->head; item != NULL; item = item->next) {
        bool wanted = key != NULL ? strcmp(item->key, key) == 0
                                  : !item->synced && item->progress != SHIP_DONE;
        if (item->kind == SHIP_SEGMENT && wanted) {
            return item;
        }
    }
    return NULL;
}

enum rc shipper_sync_spool(struct shipper *s, struct err *err)
{
    /* only the leader adds and only confirmed items leave; keys are copied so that no lock is held */
    for (;;) {
        char key[OBJECT_KEY_BYTES];
        (void)pthread_mutex_lock(&s->mutex);
        struct ship_item *item = ship_find_segment(s, NULL);
        if (item != NULL) {
            memcpy(key, item->key, sizeof key);
        }
        (void)pthread_mutex_unlock(&s->mutex);
        if (item == NULL) {
            return RC_OK;
        }
        enum rc rc = spool_sync(s->spool, key, err);
        if (rc != RC_OK && rc != RC_NOT_FOUND) {
            return rc; /* not marked: the next call tries it again */
        }
        (void)pthread_mutex_lock(&s->mutex);
        item = ship_find_segment(s, key); /* none: confirmed, and perhaps deleted, meanwhile */
        if (item != NULL) {
            item->synced = rc == RC_OK;
        }
        (void)pthread_mutex_unlock(&s->mutex);
        if (item != NULL && rc == RC_NOT_FOUND) {
            static const char lost[] = "somebody removed it from the spool";
            (void)ship_conflict(s, SHIPPER_SPOOL_LOST, key, lost, err);
            return err_set(err, RC_NOT_FOUND, "%s: %s", key, lost);
        }
    }
}

enum rc shipper_housekeep(struct shipper *s, struct err *err)
{
    (void)pthread_mutex_lock(&s->mutex);
    if (s->housekeeping || !s->record_is_stale) {
        (void)pthread_mutex_unlock(&s->mutex);
        return RC_OK;
    }
    s->housekeeping = true;
    s->record_is_stale = false;
    s->housekept_ms = clk_monotonic_ms();
    struct ship_item *files = s->confirmed_files;
    s->confirmed_files = NULL;
    s->confirmed_file_count = 0;
    struct shipper_view view = s->view;
    struct wal_salts salts = s->confirmed_salts;
    (void)pthread_mutex_unlock(&s->mutex);

    struct state_record record;
    state_edit_begin(s->state, &record);
    enum rc rc = RC_OK;
    if (generation_id_equal(&record.generation, &view.generation)) {
        record.confirmed = view.confirmed;
        record.confirmed_salts = salts;
        record.has_archived = view.has_archived;
        record.archived_unix_ms = view.archived_unix_ms;
        record.snapshot = view.snapshot;
        record.snapshot_unix_ms = view.snapshot_unix_ms;
        record.snapshot_bytes = view.snapshot_bytes;
        rc = state_edit_end(s->state, &record, err);
    } else {
        state_edit_cancel(s->state);
    }
    FAILPOINT("spool_before_delete");
    while (files != NULL) {
        struct ship_item *next = files->next;
        if (rc == RC_OK) {
            rc = spool_remove(s->spool, files->key, err);
        }
        ship_item_destroy(
            files); /* on error the file stays; the next start compares and deletes it */
        files = next;
    }
    (void)pthread_mutex_lock(&s->mutex);
    s->housekeeping = false;
    (void)pthread_mutex_unlock(&s->mutex);
    return rc;
}

enum rc shipper_drain(struct shipper *s, struct stop *stop, int64_t timeout_ms, struct err *err)
{
    int64_t deadline = clk_monotonic_ms() + timeout_ms;
    enum rc rc = RC_OK;
    (void)pthread_mutex_lock(&s->mutex);
    s->draining = true;
    /* what lies in an archive that was lost, or is another's now, is not archived, though nothing waits */
    while (rc == RC_OK && (s->head != NULL || (s->view.verdict != SHIPPER_GOES_ON &&
                                               s->view.verdict != SHIPPER_REACHED))) {
        int64_t left = deadline - clk_monotonic_ms();
        if (s->view.verdict != SHIPPER_GOES_ON) {
            rc = err_set(err, RC_UNAVAILABLE, "%s", s->view.verdict_text);
        } else if (stop_level(stop) == STOP_NOW) {
            rc = err_set(err, RC_STOPPED, "told not to wait for the store");
        } else if (left <= 0) {
            rc = err_set(err, RC_TIMEOUT, "the store did not confirm everything within %lld ms",
                         (long long)timeout_ms);
        } else {
            ship_wait(s, left < 50 ? left : 50); /* short: the stop flag has its own condition */
        }
    }
    s->draining = false;
    (void)pthread_mutex_unlock(&s->mutex);
    return rc;
}

void shipper_stop(struct shipper *s)
{
    (void)pthread_mutex_lock(&s->mutex);
    s->stopping = true;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->mutex);
    stop_raise(&s->call_stop, STOP_NOW);
    for (int i = 0; i < s->lanes_started; i++) {
        (void)pthread_join(s->lanes[i].thread, NULL);
        store_close(s->lanes[i].store);
    }
    s->lanes_started = 0;
}
