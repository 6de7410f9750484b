/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start_look: the two looks that a start takes before it decides: at what lies here (database, -wal,
 * state, marker, spool) and at the archive (generations, claims, the run of the newest one).
 *
 * Thread: the replicator's, with leader.lock held.
 */
#ifndef HARVEY_REPLICATOR_START_LOOK_H
#define HARVEY_REPLICATOR_START_LOOK_H

#include "archive/catalog.h"
#include "archive/history_format.h"
#include "base/err.h"
#include "replicator/start.h"
#include "replicator/state.h"

#include <stdbool.h>
#include <stdint.h>

struct local_look {
    bool database_exists; /* and is not empty */
    bool wal_exists;      /* and is not empty */
    struct file_identity identity;
    struct state_record record;
    bool ours;              /* the record speaks of this archive and names a generation */
    bool has_unsent;        /* the spool or the snapshot folder holds something */
    bool marker_matches;    /* restored.json is there and speaks of this file and this archive */
    bool marker_is_foreign; /* something lies under its name that no restore of ours wrote */
    struct restored_marker marker;
};

struct archive_look {
    bool reachable;
    enum rc rc; /* why not */
    char error[ERR_TEXT_BYTES];
    struct catalog catalog;            /* owned */
    struct catalog_generation *newest; /* borrowed; NULL in an empty archive */
    struct catalog_generation *latest; /* the newest with a complete snapshot, or NULL */
    struct catalog_run run;            /* owned; of the newest */
    struct wal_point run_end;          /* its end; (1, 0) when it is empty */
    uint32_t number_highest;
    struct generation_id lost; /* see archive_look_lost; none as long as nobody asked */
};

/* RC_IO, RC_DENIED: what lies here cannot be read. */
RC_MUST_CHECK enum rc local_look_take(struct local_look *look, const struct start_input *input,
                                      struct err *err);

/*
 * Never fails: an archive that cannot be read is one that is not reachable, with the reason. `create`:
 * bucket or directory may be made. A directory that was there and is gone is an unmounted disk: not made.
 */
void archive_look_take(struct archive_look *look, struct store *store, bool create);
void archive_look_deinit(struct archive_look *look);

/*
 * Asked where no complete snapshot was found, before the archive is taken for empty: look->lost names a generation
 * that left objects and no birth, or that says itself that it held a complete snapshot. Errors of the store.
 */
RC_MUST_CHECK enum rc archive_look_lost(struct archive_look *look, struct store *store,
                                        struct err *err);

/*
 * The record tells that the WAL behind `end` (which lies in one with `end_salts`) had begun, with
 * record->captured_salts: whole WALs lie before it, and nobody can have reset it since it was noted
 * without changing its salts.
 */
bool start_saw_next_wal(const struct state_record *record, const struct wal_point *end,
                        struct wal_salts end_salts);

/* The -wal is the WAL with these salts. */
bool local_wal_is(const struct sidecar *sidecar, struct wal_salts salts);

/* The -wal holds the frame of `point`, in the WAL with these salts. */
bool local_wal_holds(const struct sidecar *sidecar, const struct wal_point *point,
                     struct wal_salts salts);

/*
 * The -wal that held the end of the chain is gone, and nobody has written the database file since our
 * last checkpoint: then the frames behind what that checkpoint copied are gone too. (After a foreign
 * checkpoint the file has changed, or its backfill was noted; after our own freeze the note says that
 * everything is in it, and later the salts of the WAL that began then.) Looks at the file once more: look->identity is brought up
 * to date.
 */
bool local_lost_frames(struct local_look *look, const struct sidecar *sidecar,
                       const struct wal_point *end, struct wal_salts end_salts);

#endif
