/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state: `<database>-harvey/state`, the small file that the processes of one database share. The
 * only file that maps it.
 *
 * Bytes 0..8191 are two slots for the record: what must be durable. Each holds magic, version, a
 * sequence number, a JSON text and the SHA-256 of all that; the valid one with the higher number
 * counts. Only the leader writes; a write is pwrite and fdatasync of the older slot.
 * Bytes 8192.. are mapped: counters, clocks and the published status, which need not be durable and
 * are begun anew at each boot of the kernel (boot_id).
 *
 * The record is a hint that a start proves against WAL, spool and archive; it is never trusted alone.
 *
 * Times in the mapped part are CLOCK_BOOTTIME in ms: one clock for all containers of a kernel.
 * Thread: the record: the leader's process, under `mutex`. The mapped part: any process, atomics.
 */
#ifndef HARVEY_REPLICATOR_STATE_H
#define HARVEY_REPLICATOR_STATE_H

#include "archive/object_key.h"
#include "archive/position.h"
#include "archive/store.h"
#include "archive/wal_format.h"
#include "base/err.h"
#include "replicator/replicator.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A file by what stat(2) tells: enough to see that somebody else wrote or replaced it. */
struct file_identity {
    uint64_t inode;
    uint64_t size_bytes;
    int64_t mtime_ns;
};

struct state_record {
    bool valid;                    /* a record was found, or is being written */
    char archive[STORE_URL_BYTES]; /* whose archive the rest speaks of */
    bool
        replicated; /* false: frames were lost to the archive (HARVEY_ARCHIVE=none, a full spool) */
    struct generation_id generation;         /* that its birth is put; none before the first */
    struct generation_id pending_generation; /* noted before its birth is put */
    uint32_t generation_number_highest;      /* ever seen in this archive */
    uint32_t term;                           /* of our last claim in `generation`; 0 = none */
    char term_tag[OBJECT_TAG_BYTES];
    uint32_t pending_term; /* noted before the claim is put */
    char pending_tag[OBJECT_TAG_BYTES];
    struct wal_point confirmed; /* end of the confirmed run in `generation` */
    struct wal_salts confirmed_salts;
    bool has_archived; /* a complete snapshot is confirmed: confirmed is archived */
    int64_t archived_unix_ms;
    struct position snapshot; /* the last complete one */
    int64_t snapshot_unix_ms;
    uint64_t snapshot_bytes;   /* stored */
    struct wal_point captured; /* a hint: where the spool ended at the last write */
    struct wal_salts
        captured_salts;            /* of the WAL that was read then: captured's, or the next one */
    struct file_identity database; /* after our last checkpoint, or at the last look */
    uint32_t backfilled;           /* nBackfill that our last checkpoint left */
    bool checkpoint_running;
    bool reset_follows; /* the WAL ended at reset_point, fully backfilled, when this was written */
    struct wal_point reset_point;
    struct wal_salts reset_salts;
};

#define STATE_LIVE_OFFSET 8192
#define STATE_FILE_BYTES 16384

/* What maps (salts, frame) to a position, for processes that do not lead. */
struct state_wal_map {
    bool known;
    struct generation_id generation;
    uint32_t wal_no;      /* of `salts` */
    uint32_t wal_no_next; /* of the WAL that follows it */
    struct wal_salts salts;
};

/*
 * Shared by all processes on the database, and during a release those are of two versions: a change of
 * the layout changes its number, and a version with another one is refused until the last user has gone.
 */
#define STATE_LIVE_LAYOUT 1u

struct state_live {
    char boot_id[64];
    uint32_t layout;                 /* STATE_LIVE_LAYOUT of those who use it */
    _Atomic uint32_t wake;           /* futex word: commits and urgent news add 1 */
    _Atomic uint32_t urgent;         /* futex word: urgent news only (a lane is free, a stop) */
    _Atomic uint32_t leader_sleeps;  /* on `wake`: writers call futex only then */
    _Atomic uint64_t lead_seq;       /* times the leader lock was taken */
    _Atomic uint64_t refused_lead;   /* the lead_seq whose start refused the database */
    _Atomic uint64_t begun_lead;     /* the lead_seq that holds its first read transaction */
    _Atomic uint64_t finishing_lead; /* the lead_seq that ships the rest: no sibling goes on */
    _Atomic int64_t heartbeat_ms;    /* of the leader */
    _Atomic int64_t waiter_ms;       /* of the last process that waited for the lead */
    _Atomic uint64_t epoch_started;
    _Atomic uint64_t epoch_archived;
    _Atomic int64_t uncaptured_ms; /* oldest commit that no pass has seen; 0 = none */
    _Atomic int64_t capturing_ms;  /* the same, taken by the pass that runs */
    _Atomic int64_t spooled_ms;    /* oldest commit captured and not archived; 0 = none */
    _Atomic uint32_t publish_seq;  /* odd while the two below change */
    struct state_wal_map wal_map;
    struct replicator_status published;
};

struct state {
    int fd;
    pthread_mutex_t mutex; /* guards record and sequence */
    struct state_record record;
    uint64_t sequence;
    struct state_live *live; /* mapped, shared between processes */
};

/*
 * Opens or makes the file, reads the record, starts the mapped part anew after a boot. RC_BUSY: processes
 * of a version with another layout use it. RC_IO, RC_DENIED.
 */
RC_MUST_CHECK enum rc state_open(struct state *state, const char *path, struct err *err);
void state_close(struct state *state);

/* False when `path` leads to another file now, or to none: the folder was moved aside (restore --replace). */
bool state_is_current(const struct state *state, const char *path);

/*
 * `state` becomes what `fresh` opened (the folder was moved aside and made anew). The old mapping is
 * left in place on purpose: another thread may still hold its address; 8 KiB per restore.
 */
void state_adopt(struct state *state, struct state *fresh);

/* Reads the record again: another process led since. RC_IO, RC_NOMEM. An unreadable record is valid = false. */
RC_MUST_CHECK enum rc state_reload(struct state *state, struct err *err);

/* Copies the record out. */
void state_get(struct state *state, struct state_record *record);

/*
 * Changes the record: begin locks it and copies it out; end writes it, makes it durable (one
 * fdatasync) and unlocks, also on error (then the record is as before); cancel only unlocks.
 * RC_IO, RC_LIMIT, RC_NOMEM.
 */
void state_edit_begin(struct state *state, struct state_record *record);
RC_MUST_CHECK enum rc state_edit_end(struct state *state, const struct state_record *record,
                                     struct err *err);
void state_edit_cancel(struct state *state);

/* Publishes status and map for every process; called by the leader's process only, one thread at a time. */
void state_publish(struct state *state, const struct state_wal_map *map,
                   const struct replicator_status *status);
/* Either pointer may be NULL. */
void state_read_published(const struct state *state, struct state_wal_map *map,
                          struct replicator_status *status);

/* A writer committed: stamps the oldest uncaptured commit and wakes the leader. */
void state_note_commit(struct state *state);

/*
 * The leader sleeps until state_wake is called, timeout_ms passes, or, with `for_commits`, a commit is
 * noted. `seen` = what state_seen returned before the leader looked for work.
 */
struct state_seen {
    uint32_t wake;
    uint32_t urgent;
};
struct state_seen state_seen(const struct state *state);
void state_sleep(struct state *state, struct state_seen seen, bool for_commits, int64_t timeout_ms);
void state_wake(struct state *state);

/*
 * The stamp of the oldest commit that is not archived, wherever it has come to; 0 when there is none.
 * A new leader carries what it returns over to capturing_ms before it changes any of the three.
 */
int64_t state_oldest_ms(const struct state *state);

/* Age in ms of that commit; 0 when there is none. */
int64_t state_lag_ms(const struct state *state);

#endif
