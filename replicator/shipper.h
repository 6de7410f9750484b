/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shipper: the queue of what must reach the archive, and the threads that put it there.
 *
 * Items are put in the order of the queue. Births and claims are barriers: an item behind one is
 * started only when it is done. Of the segments, the first SHIP_WINDOW behind the confirmed run may
 * be under way at once, on SHIP_LANES threads; so a crash leaves a hole only near the tail.
 *
 * confirmed = the end of the run of segments that the store has confirmed without a gap.
 * archived  = confirmed, once a complete snapshot of the generation is (shipper_snapshot_complete).
 *
 * A store that fails is tried again for ever (base/backoff.h). After an outage, before anything is
 * put, it looks whether somebody else wrote here meanwhile, or the store lost what it had confirmed.
 *
 * Threads: create, start, stop, add, mark: the leader's. The rest: any. One mutex inside; the lanes
 * never hold it during a call to the store.
 */
#ifndef HARVEY_REPLICATOR_SHIPPER_H
#define HARVEY_REPLICATOR_SHIPPER_H

#include "archive/history_format.h"
#include "archive/object_key.h"
#include "archive/segment.h"
#include "archive/store.h"
#include "base/err.h"
#include "replicator/recent.h"
#include "replicator/spool.h"
#include "replicator/state.h"

#include <stdbool.h>
#include <stdint.h>

#define SHIP_LANES 3
#define SHIP_WINDOW 8u

enum shipper_verdict {
    SHIPPER_GOES_ON,
    SHIPPER_CONFLICT,   /* another server wrote to this archive; text says what was found */
    SHIPPER_STORE_LOST, /* the store no longer has what it had confirmed */
    SHIPPER_SPOOL_LOST, /* a spooled segment is gone; its frames may still be in the -wal */
    SHIPPER_REACHED,    /* the probe (shipper_add_probe) found the store answering */
};

struct shipper_view {
    enum shipper_verdict verdict;
    char verdict_text[256];
    struct generation_id generation; /* whose birth is put */
    bool open_for_segments;          /* no barrier is waiting */
    struct wal_point confirmed;
    bool has_archived;
    struct wal_point archived;
    int64_t archived_unix_ms;
    uint64_t unarchived_frames; /* given to the shipper and not archived */
    uint64_t unarchived_bytes;  /* of those, as WAL bytes */
    uint64_t spool_segments;    /* files not confirmed */
    uint64_t spool_bytes;
    uint64_t generation_objects;   /* segments confirmed since the last snapshot */
    uint64_t generation_bytes;     /* and their stored bytes */
    uint64_t generation_wal_bytes; /* and their WAL bytes */
    enum replicator_store_state store_state;
    char store_error[256];
    uint64_t put_count;
    uint64_t request_count;
    struct recent_summary put_us;
    struct recent_summary lag_ms;
    bool has_snapshot;
    struct position snapshot;
    int64_t snapshot_unix_ms;
    int64_t snapshot_made_ms; /* by boottime: its age, which no step of the clock changes */
    uint64_t snapshot_bytes;
};

#define SHIPPER_LAG_WINDOW_MS 60000

struct shipper;

/* config, spool and state are borrowed for its life. RC_NOMEM. */
RC_MUST_CHECK enum rc shipper_create(const struct store_config *config, struct spool *spool,
                                     struct state *state, struct shipper **shipper,
                                     struct err *err);
void shipper_destroy(struct shipper *shipper);

/* Where it goes on: a generation whose birth is put (or none), its confirmed end, its last snapshot. */
struct shipper_begin {
    struct generation_id generation;
    struct wal_point confirmed;
    struct wal_salts confirmed_salts;
    char confirmed_key[OBJECT_KEY_BYTES]; /* the last object of the run; "" = none */
    uint32_t term;                        /* of the last claim that is known to be ours */
    char term_tag[OBJECT_TAG_BYTES];      /* and its tag */
    bool has_snapshot;
    struct position snapshot;
    int64_t snapshot_unix_ms;
    uint64_t snapshot_bytes;
    int64_t archived_unix_ms;
    int64_t oldest_ms; /* boottime stamp of the oldest commit that may not be archived; 0 = none */
};
RC_MUST_CHECK enum rc shipper_start(struct shipper *shipper, const struct shipper_begin *begin,
                                    struct err *err);

/* Puts nothing, only finds out whether the store answers: then verdict = SHIPPER_REACHED. */
RC_MUST_CHECK enum rc shipper_add_probe(struct shipper *shipper, struct err *err);

/* A generation's birth; what follows in the queue belongs to it. oldest_ms as in shipper_begin. */
RC_MUST_CHECK enum rc shipper_add_birth(struct shipper *shipper,
                                        const struct generation_birth *birth, int64_t oldest_ms,
                                        struct err *err);
RC_MUST_CHECK enum rc shipper_add_claim(struct shipper *shipper, const struct lead_claim *claim,
                                        struct err *err);

/* A segment that lies in the spool under its key. RC_NOMEM. */
struct shipper_segment {
    struct object_key key;
    struct wal_point end;
    struct wal_salts salts;
    uint32_t frames;
    uint32_t page_size_bytes;
    uint64_t object_bytes;
    uint64_t epoch;    /* of the last capture pass in it; 0 = unknown */
    int64_t oldest_ms; /* boottime stamp of the oldest commit in it; 0 = unknown */
};
RC_MUST_CHECK enum rc shipper_add_segment(struct shipper *shipper,
                                          const struct shipper_segment *segment, struct err *err);

/* True when a segment cut now would leave at once. */
bool shipper_is_ready(struct shipper *shipper);

/* A capture pass found nothing new and nothing waits: everything up to `epoch` is archived if all else is. */
void shipper_note_idle_epoch(struct shipper *shipper, uint64_t epoch);

/* complete.json of this generation's snapshot is confirmed. */
void shipper_snapshot_complete(struct shipper *shipper, const struct generation_id *generation,
                               struct position position, int64_t unix_ms, uint64_t stored_bytes);

void shipper_get_view(struct shipper *shipper, struct shipper_view *view);

/*
 * Syncs the files of all segments that are not confirmed: before a WAL reset. RC_IO; RC_NOT_FOUND when
 * one of them is gone: then the verdict is SHIPPER_SPOOL_LOST.
 */
RC_MUST_CHECK enum rc shipper_sync_spool(struct shipper *shipper, struct err *err);

/* Writes the confirmed end into the state and deletes what is confirmed. Called about once a second. RC_IO. */
RC_MUST_CHECK enum rc shipper_housekeep(struct shipper *shipper, struct err *err);

/* Waits until everything given is confirmed (and, where a snapshot is pending, does not wait for it). RC_TIMEOUT, RC_STOPPED; RC_UNAVAILABLE: a verdict says why not. */
RC_MUST_CHECK enum rc shipper_drain(struct shipper *shipper, struct stop *stop, int64_t timeout_ms,
                                    struct err *err);

/* Ends calls under way and joins the lanes. What was not confirmed stays in the spool. */
void shipper_stop(struct shipper *shipper);

#endif
