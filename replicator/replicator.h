/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replicator: WAL frames -> segments -> archive, inside the server's process.
 *
 * It waits for the leader lock of the database, decides by the start table (docs/archive-format.md,
 * "What a start makes of what it finds") whether this database may be served, then follows the WAL,
 * checkpoints, ships and makes snapshots until it is stopped. Where another process leads, it only
 * watches the shared state, and takes over when that one is gone.
 *
 * The server opens the database only while `replicator_status.may_serve` is true, closes it when it
 * turns false, and calls replicator_committed after each COMMIT, before it answers.
 *
 * Threads: create, start, stop: main. replicator_committed: the writer. The rest: any.
 */
#ifndef HARVEY_REPLICATOR_REPLICATOR_H
#define HARVEY_REPLICATOR_REPLICATOR_H

#include "archive/position.h"
#include "archive/store.h"
#include "base/err.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

enum replicator_on_empty { ON_EMPTY_REFUSE, ON_EMPTY_RESTORE, ON_EMPTY_NEW };
enum replicator_on_stale { ON_STALE_REFUSE, ON_STALE_RESTORE, ON_STALE_FORK };

struct replicator_config {
    const char *database_path; /* borrowed for the replicator's life */
    struct store_config store; /* store.off: no archive, but it still leads and checkpoints */
    int64_t ship_interval_ms;
    int64_t snapshot_interval_s;
    int64_t spool_bytes_max;
    int64_t stop_timeout_ms;
    bool synchronous_normal;
    enum replicator_on_empty on_empty;
    struct generation_id on_empty_generation; /* new:GENERATION */
    enum replicator_on_stale on_stale;
    struct generation_id on_stale_generation; /* fork:GENERATION */
    const char *version;                      /* of Harvey, for births */
    /*
     * Restores the latest state to database_path (replace = move what is there aside first). Called
     * on the replicator's thread while no lock is held. May be NULL: then restore is refused.
     */
    enum rc (*restore)(void *arg, bool replace, struct err *err);
    void *restore_arg;
};

enum replicator_role {
    ROLE_STARTING, /* comparing with the archive */
    ROLE_LEADER,
    ROLE_FOLLOWER,            /* another process leads */
    ROLE_WAITING,             /* not proven, or the store must answer first: see reason */
    ROLE_WAITING_FOR_RESTORE, /* the database is missing and the archive holds one */
    ROLE_RESTORING,
    ROLE_STOPPED,
};
const char *
replicator_role_name(enum replicator_role role); /* "leader", "waiting for a restore" … */

enum replicator_store_state { STORE_OFF, STORE_OK, STORE_RETRYING, STORE_DOWN };
const char *replicator_store_state_name(enum replicator_store_state state);

struct replicator_lag_stats {
    int64_t seconds; /* how far back they look */
    int64_t p50_ms;
    int64_t p99_ms;
    int64_t max_ms;
};

struct replicator_status {
    enum replicator_role role;
    bool may_serve;                  /* the database may be open for the app */
    bool alarm;                      /* red: something a person must look at; `reason` says what */
    char reason[512];                /* "" when all is well; why it waits, and the cure */
    struct generation_id generation; /* none while unknown */
    struct position local;           /* the WAL's last commit */
    bool has_local;
    struct position archived; /* as docs/archive-format.md defines it */
    bool has_archived;
    int64_t archived_unix_ms;
    int64_t lag_frames; /* across WALs: frames captured or waiting that are not archived */
    int64_t lag_bytes;
    int64_t lag_ms; /* every row acknowledged before (now - lag_ms) is archived */
    struct replicator_lag_stats lag_recent;
    int64_t spool_segments;
    int64_t spool_bytes;
    int64_t spool_bytes_max;
    char store_url[STORE_URL_BYTES];
    enum replicator_store_state store_state;
    char store_error[256]; /* "" = none */
    double put_p50_ms;
    double put_p99_ms;
    uint64_t put_count;
    bool has_snapshot;
    struct position snapshot;
    int64_t snapshot_age_ms;
    bool same_filesystem; /* the directory archive lies on the database's filesystem */
    /* counters since the process started */
    uint64_t generations_begun;
    uint64_t wal_resets;
    uint64_t checkpoints;
    uint64_t segments_made;
    uint64_t requests;
    int64_t freeze_max_us;
};

struct replicator;

/* Makes the object and the folder beside the database. `config` is copied, its strings are borrowed. RC_IO, RC_DENIED, RC_INVALID, RC_NOMEM. */
RC_MUST_CHECK enum rc replicator_create(const struct replicator_config *config,
                                        struct replicator **replicator, struct err *err);
void replicator_destroy(
    struct replicator *replicator); /* stopped, or never started; NULL is legal */

/* Starts its threads; returns at once. RC_NOMEM, RC_IO. */
RC_MUST_CHECK enum rc replicator_start(struct replicator *replicator, struct err *err);

/*
 * Stop, in two steps. The first: no more commits will come from this process (its writer is closed);
 * capture the rest and, where no sibling waits for the lead, ship it within stop_timeout_ms, then
 * close everything. Blocks; a call to the store that is under way after that time is ended, whatever
 * it is for. replicator_stop_now (any thread, async-signal-unsafe) ends them at once, and the shipping.
 * RC_TIMEOUT: something stays in the spool, the text says how much.
 */
RC_MUST_CHECK enum rc replicator_stop(struct replicator *replicator, struct err *err);
void replicator_stop_now(struct replicator *replicator);

void replicator_get_status(struct replicator *replicator, struct replicator_status *status);

/* Cheap (an atomic load): may_serve of now. For the request path. */
bool replicator_may_serve(const struct replicator *replicator);

/* An eventfd-like descriptor that becomes readable when may_serve or role changes; read 8 bytes to clear. */
int replicator_event_fd(const struct replicator *replicator);

/*
 * After a COMMIT by `db` has returned, before its rows are answered: stamps the time for the lag,
 * wakes the leader, and tells the position at or after the commit. *known is false (and no position
 * may be told to the client) while no leader has mapped this WAL. *ticket is what
 * replicator_is_archived takes. Never blocks: no I/O, no lock held across a wait.
 */
struct replicator_commit {
    bool known;
    struct generation_id generation;
    struct position position;
    uint64_t ticket;
};
void replicator_committed(struct replicator *replicator, sqlite3 *db,
                          struct replicator_commit *commit);

/* True once the archive has confirmed everything up to the ticket (HARVEY_ACK=archive stands here). */
bool replicator_is_archived(struct replicator *replicator, uint64_t ticket);

/* The settings that every connection to the database needs (architecture.md, rule 1), the app's too. */
RC_MUST_CHECK enum rc replicator_configure_connection(sqlite3 *db, bool synchronous_normal,
                                                      struct err *err);

#endif
