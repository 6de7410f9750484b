/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shipper_internal: the shipper's own data, shared by the files that it is written in:
 *   shipper.c       create, add, ask, housekeep, drain, stop
 *   shipper_run.c   the queue and the confirmed run
 *   shipper_lane.c  the calls to the store, and the threads that make them
 */
#ifndef HARVEY_REPLICATOR_SHIPPER_INTERNAL_H
#define HARVEY_REPLICATOR_SHIPPER_INTERNAL_H

#include "base/buf.h"
#include "replicator/shipper.h"

#include <pthread.h>

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
    bool look_came_due;       /* by time, when something was queued: whichever lane puts that */
    bool prepared;            /* lane 0's handle */
    int64_t housekept_ms;
    bool housekeeping;
    bool record_is_stale; /* confirmed moved since the state was written */
    int64_t summarized_ms;
    struct recent put_us;
    struct recent lag_ms;
};

/* ---- shipper_run.c: all of it under the mutex ---- */

/* An item with an empty body, or NULL without memory. */
struct ship_item *ship_item_create(enum ship_kind kind);
void ship_item_destroy(struct ship_item *item);

/* The item becomes the queue's last, and the queue's own. */
void ship_enqueue(struct shipper *s, struct ship_item *item);

/* The next item that this lane may start now, or NULL. */
struct ship_item *ship_take(struct shipper *s, int lane);

/* Moves the items that are done at the head of the queue into the run, and publishes what follows. */
void ship_advance(struct shipper *s);

/* The generation has its snapshot: what is confirmed is archived. */
void ship_set_archived(struct shipper *s);

/* Is something other than segments queued? */
bool ship_has_barrier(const struct shipper *s);

/* Publishes the oldest commit that is not archived: the queue's, or the birth's while it has no snapshot. */
void ship_publish_oldest(struct shipper *s);
void ship_publish_epoch(struct shipper *s);

/* ---- shipper_lane.c ---- */

/* A lane's thread; arg is its struct ship_lane. */
void *ship_lane_thread_main(void *arg);

/*
 * Ends the shipping: archive or spool is not what we left; the leader starts over with the start table.
 * Takes the mutex. RC_STOPPED, whose text is the verdict's.
 */
enum rc ship_conflict(struct shipper *s, enum shipper_verdict verdict, const char *name,
                      const char *what, struct err *err);

/* Under the mutex: waits for a change, for that long at most. */
void ship_wait(struct shipper *s, int64_t timeout_ms);

/* Under the mutex: is it time to look for other hosts? Only while something is put, never when idle. */
bool ship_fence_due(const struct shipper *s);

#endif
