/* SPDX-License-Identifier: Apache-2.0 */
/* shipper_run: see shipper_internal.h. */
#include "replicator/shipper_internal.h"

#include "base/clk.h"

#include <stdlib.h>
#include <string.h>

struct ship_item *ship_item_create(enum ship_kind kind)
{
    struct ship_item *item = calloc(1, sizeof *item);
    if (item != NULL) {
        item->kind = kind;
        buf_init(&item->body, SHIP_BODY_BYTES_MAX);
    }
    return item;
}

void ship_item_destroy(struct ship_item *item)
{
    buf_deinit(&item->body);
    free(item);
}

void ship_enqueue(struct shipper *s, struct ship_item *item)
{
    if (s->tail == NULL) {
        s->head = item;
    } else {
        s->tail->next = item;
    }
    s->tail = item;
}

/* Publishes the oldest commit that is not archived: the queue's, or the birth's while it has no snapshot. */
void ship_publish_oldest(struct shipper *s)
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

void ship_publish_epoch(struct shipper *s)
{
    uint64_t epoch = s->view.has_archived ? s->confirmed_epoch : 0;
    if (ship_is_idle(s) && s->idle_epoch > epoch) {
        epoch = s->idle_epoch;
    }
    if (epoch > atomic_load(&s->state->live->epoch_archived)) {
        atomic_store(&s->state->live->epoch_archived, epoch);
    }
}

void ship_set_archived(struct shipper *s)
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
void ship_advance(struct shipper *s)
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

bool ship_has_barrier(const struct shipper *s)
{
    for (const struct ship_item *item = s->head; item != NULL; item = item->next) {
        if (item->kind != SHIP_SEGMENT) {
            return true;
        }
    }
    return false;
}

/* The next item that this lane may start now, or NULL. */
struct ship_item *ship_take(struct shipper *s, int lane)
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
