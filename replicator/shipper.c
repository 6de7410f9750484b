/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shipper: see shipper.h.
 *
 * Lanes: each thread owns a store handle. Lane 0 alone takes barriers and the look after an outage,
 * so only its handle is prepared (bucket made, conditional put probed).
 */
#include "replicator/shipper.h"

#include "base/backoff.h"
#include "base/buf.h"
#include "base/clk.h"
#include "base/failpoint.h"
#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHIP_BACKOFF_FIRST_MS 50
#define SHIP_BACKOFF_CAP_MS 5000
#define SHIP_DOWN_AFTER_MS 3000 /* failing for that long is called down, not retrying */
#define SHIP_FENCE_MS 5000      /* how often other hosts are looked for under load */
#define SHIP_IDLE_WAIT_MS 1000
#define SHIP_HOUSEKEEP_MS 1000
#define SHIP_DELETE_MAX 256 /* confirmed files that wait for their deletion at most */
#define SHIP_SUMMARY_MS 200 /* percentiles are computed at most that often */
#define SHIP_BODY_BYTES_MAX HISTORY_JSON_BYTES_MAX

enum ship_kind { SHIP_SEGMENT, SHIP_BIRTH, SHIP_CLAIM, SHIP_PROBE };
enum ship_progress { SHIP_QUEUED, SHIP_ACTIVE, SHIP_DONE };

struct ship_item {
    struct ship_item *next;
    enum ship_kind kind;
    enum ship_progress progress;
    char key[OBJECT_KEY_BYTES];
    struct generation_id generation;
    int64_t oldest_ms;
    struct shipper_segment segment; /* SHIP_SEGMENT */
    bool synced;
    struct buf body; /* SHIP_BIRTH, SHIP_CLAIM */
    uint32_t term;   /* SHIP_CLAIM */
    char tag[OBJECT_TAG_BYTES];
};

struct ship_lane {
    struct shipper *shipper;
    int number;
    pthread_t thread;
    struct store *store;
    uint64_t requests_seen; /* of the store's counter, already added to the shipper's */
};

struct shipper {
    const struct store_config *config;
    struct spool *spool;
    struct state *state;
    struct stop call_stop; /* ends store calls under way */
    struct ship_lane lanes[SHIP_LANES];
    int lanes_started;

    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t changed;
    bool stopping;
    bool draining;          /* the leader waits for the end of the queue */
    struct ship_item *head; /* not yet confirmed, in order */
    struct ship_item *tail;
    struct ship_item *confirmed_files; /* confirmed, file not yet deleted */
    size_t confirmed_file_count;
    int active_count;
    int pausing_count; /* lanes that wait out a pause: waking one of them wakes nobody */
    struct shipper_view view;
    struct wal_salts confirmed_salts;
    char confirmed_key[OBJECT_KEY_BYTES];
    uint32_t term;
    int64_t birth_oldest_ms; /* stands until the generation is archived */
    uint64_t confirmed_epoch;
    uint64_t idle_epoch;
    uint64_t confirmed_frames; /* confirmed, not archived: no snapshot yet */
    uint64_t confirmed_bytes;
    int64_t failing_since_ms; /* 0 = not failing */
    int64_t looked_ms;        /* when other hosts were looked for */
    bool look_needed;         /* an outage was: look before the next put */
    bool prepared;            /* lane 0's handle */
    int64_t housekept_ms;
    bool housekeeping;
    bool record_is_stale; /* confirmed moved since the state was written */
    int64_t summarized_ms;
    struct recent put_us;
    struct recent lag_ms;
};

/* ---- the queue (under the mutex) ---- */

static struct ship_item *ship_item_create(enum ship_kind kind)
{
    struct ship_item *item = calloc(1, sizeof *item);
    if (item != NULL) {
        item->kind = kind;
        buf_init(&item->body, SHIP_BODY_BYTES_MAX);
    }
    return item;
}

static void ship_item_destroy(struct ship_item *item)
{
    buf_deinit(&item->body);
    free(item);
}

static void ship_enqueue(struct shipper *s, struct ship_item *item)
{
    if (s->tail == NULL) {
        s->head = item;
    } else {
        s->tail->next = item;
    }
    s->tail = item;
}

/* Publishes the oldest commit that is not archived: the queue's, or the birth's while it has no snapshot. */
static void ship_publish_oldest(struct shipper *s)
{
    int64_t oldest = s->view.has_archived ? 0 : s->birth_oldest_ms;
    for (const struct ship_item *item = s->head; item != NULL && oldest == 0; item = item->next) {
        oldest = item->oldest_ms;
    }
    atomic_store(&s->state->live->spooled_ms, oldest);
}

static bool ship_is_idle(const struct shipper *s)
{
    return s->head == NULL && s->view.has_archived;
}

static void ship_publish_epoch(struct shipper *s)
{
    uint64_t epoch = s->view.has_archived ? s->confirmed_epoch : 0;
    if (ship_is_idle(s) && s->idle_epoch > epoch) {
        epoch = s->idle_epoch;
    }
    if (epoch > atomic_load(&s->state->live->epoch_archived)) {
        atomic_store(&s->state->live->epoch_archived, epoch);
    }
}

static void ship_set_archived(struct shipper *s)
{
    s->view.has_archived = true;
    s->view.archived = s->view.confirmed;
    s->view.unarchived_frames -= s->confirmed_frames;
    s->view.unarchived_bytes -= s->confirmed_bytes;
    s->confirmed_frames = 0;
    s->confirmed_bytes = 0;
}

/* One segment joins the confirmed run. */
static void ship_confirm_segment(struct shipper *s, struct ship_item *item)
{
    const struct shipper_segment *segment = &item->segment;
    uint64_t wal_bytes =
        (uint64_t)segment->frames * (segment->page_size_bytes + WAL_FRAME_HEADER_BYTES);
    s->view.confirmed = segment->end;
    s->confirmed_salts = segment->salts;
    memcpy(s->confirmed_key, item->key, sizeof s->confirmed_key);
    s->confirmed_epoch = segment->epoch > s->confirmed_epoch ? segment->epoch : s->confirmed_epoch;
    s->confirmed_frames += segment->frames;
    s->confirmed_bytes += wal_bytes;
    s->view.archived_unix_ms = segment->key.unix_ms;
    s->view.spool_segments--;
    s->view.spool_bytes -= segment->object_bytes;
    s->view.generation_objects++;
    s->view.generation_bytes += segment->object_bytes;
    s->view.generation_wal_bytes += wal_bytes;
    s->record_is_stale = true;
    if (s->view.has_archived) {
        ship_set_archived(s);
        if (item->oldest_ms != 0) {
            recent_add(&s->lag_ms, clk_monotonic_ms(), clk_boottime_ms() - item->oldest_ms);
        }
    }
    item->next = s->confirmed_files;
    s->confirmed_files = item;
    s->confirmed_file_count++;
}

/* A generation's birth is put: the run begins anew. */
static void ship_confirm_birth(struct shipper *s, const struct ship_item *item)
{
    s->view.generation = item->generation;
    s->view.confirmed = (struct wal_point){{1, 0}, {0, 0}};
    s->confirmed_salts = (struct wal_salts){0, 0};
    s->confirmed_key[0] = '\0';
    s->view.has_archived = false;
    s->view.has_snapshot = false;
    s->view.generation_objects = 0;
    s->view.generation_bytes = 0;
    s->view.generation_wal_bytes = 0;
    s->term = 0;
    s->birth_oldest_ms = item->oldest_ms;
}

/* Moves the items that are done at the head of the queue into the run. */
static void ship_advance(struct shipper *s)
{
    while (s->head != NULL && s->head->progress == SHIP_DONE) {
        struct ship_item *item = s->head;
        s->head = item->next;
        if (s->head == NULL) {
            s->tail = NULL;
        }
        switch (item->kind) {
        case SHIP_SEGMENT:
            ship_confirm_segment(s, item);
            continue; /* the item lives on until its file is deleted */
        case SHIP_BIRTH:
            ship_confirm_birth(s, item);
            break;
        case SHIP_CLAIM:
            s->term = item->term;
            break;
        case SHIP_PROBE:
            s->view.verdict = SHIPPER_REACHED;
            break;
        }
        ship_item_destroy(item);
    }
    ship_publish_oldest(s);
    ship_publish_epoch(s);
}

static bool ship_has_barrier(const struct shipper *s)
{
    for (const struct ship_item *item = s->head; item != NULL; item = item->next) {
        if (item->kind != SHIP_SEGMENT) {
            return true;
        }
    }
    return false;
}

/* The next item that this lane may start now, or NULL. */
static struct ship_item *ship_take(struct shipper *s, int lane)
{
    if (s->view.verdict != SHIPPER_GOES_ON || s->look_needed) {
        return NULL;
    }
    unsigned index = 0;
    for (struct ship_item *item = s->head; item != NULL && index < SHIP_WINDOW;
         item = item->next, index++) {
        if (item->kind != SHIP_SEGMENT) {
            bool may_start = index == 0 && item->progress == SHIP_QUEUED && lane == 0;
            return may_start ? item : NULL;
        }
        if (item->progress == SHIP_QUEUED) {
            return item;
        }
    }
    return NULL;
}

/* ---- calls to the store (without the mutex) ---- */

/* Ends the shipping: archive or spool is not what we left. The leader starts over with the start table. */
static enum rc ship_conflict(struct shipper *s, enum shipper_verdict verdict, const char *name,
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

/* True when the object under the key is ours: the same bytes, or a claim with our tag. */
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
    if (rc == RC_OK && !*ours && item->kind == SHIP_CLAIM) {
        struct lead_claim claim;
        struct err ignored;
        *ours = lead_claim_decode(found.data, found.size, &claim, &ignored) == RC_OK &&
                strcmp(claim.tag, item->tag) == 0;
    }
    if (rc == RC_OK && !*ours && item->kind == SHIP_BIRTH) {
        struct generation_birth birth;
        struct err ignored;
        *ours = generation_birth_decode(found.data, found.size, &birth, &ignored) == RC_OK &&
                generation_id_equal(&birth.id, &item->generation);
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

static enum rc ship_found_key(void *arg, const char *key, uint64_t bytes, struct err *err)
{
    (void)bytes;
    char *found = arg;
    (void)snprintf(found, OBJECT_KEY_BYTES, "%s", key);
    return err_set(err, RC_EXISTS, "%s", key); /* one is enough: end the listing */
}

/* Is there an object below `prefix` behind `after`? */
static enum rc ship_find_behind(struct ship_lane *lane, const char *prefix, const char *after,
                                char found[OBJECT_KEY_BYTES], struct err *err)
{
    found[0] = '\0';
    enum rc rc = store_list(lane->store, prefix, after, ship_found_key, found, err);
    return rc == RC_EXISTS ? RC_OK : rc;
}

/*
 * Row 12 of the start table, while we lead: has another host begun a generation, or claimed ours? After
 * an outage row 14 too: before anything is put again, is what was confirmed still there?
 */
static enum rc ship_look(struct ship_lane *lane, bool after_outage, struct err *err)
{
    struct shipper *s = lane->shipper;
    char prefix[OBJECT_KEY_BYTES];
    char after[OBJECT_KEY_BYTES];
    char found[OBJECT_KEY_BYTES];
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
    object_key_format(&birth, after);
    if ((rc = ship_find_behind(lane, prefix, after, found, err)) != RC_OK) {
        return rc;
    }
    if (found[0] == '\0' && claim.term > 0) {
        object_key_leads_prefix(&claim.generation, prefix);
        object_key_format(&claim, after);
        rc = ship_find_behind(lane, prefix, after, found, err);
    }
    if (rc == RC_OK && found[0] != '\0') {
        return ship_conflict(s, SHIPPER_CONFLICT, found,
                             "the archive holds this, and it is not ours", err);
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
static bool ship_fence_due(const struct shipper *s)
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

static void ship_wait(struct shipper *s, int64_t timeout_ms)
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

static void *ship_lane_thread_main(void *arg)
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
        } else if ((item != NULL || s->look_needed) && lane->number == 0 &&
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

/* ---- public ---- */

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
    bool any_lane_will_do = item->kind == SHIP_SEGMENT && s->pausing_count == 0 &&
                            !s->look_needed && !ship_fence_due(s);
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
    while (s->head != NULL && rc == RC_OK) {
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
