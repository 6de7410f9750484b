/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan: what a restore will read and where it will end, from listings, manifests and headers: the
 * generation, the snapshot, the run of WAL objects behind it, and the commit frame at which it is
 * cut. Nothing is written. `--dry-run` shows it, restorer.c carries it out.
 *
 * The WAL of a snapshot is in the archive from frame 1; of those objects only the ones that reach
 * the snapshot's frame are read: the first of them proves that the snapshot lies on this chain.
 *
 * Thread: the owner's.
 */
#ifndef HARVEY_RESTORER_PLAN_H
#define HARVEY_RESTORER_PLAN_H

#include "archive/catalog.h"
#include "archive/position.h"
#include "archive/snapshot_format.h"
#include "archive/store.h"
#include "base/err.h"
#include "base/stop.h"
#include "restorer/cut.h"
#include "restorer/restorer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAN_DETAIL_BYTES 256

struct plan {
    struct catalog catalog;                /* owned */
    struct catalog_generation *generation; /* borrowed from the catalog */
    struct snapshot_manifest manifest;     /* owned */
    struct catalog_run run;                /* owned */
    struct cut cut;                        /* where it ends */
    size_t first_index;                    /* run.segments[first_index, + segment_count) are read */
    size_t segment_count;
    uint64_t part_object_bytes;
    uint64_t segment_object_bytes;
    bool left_out;
    char left_out_detail[PLAN_DETAIL_BYTES];
    char remark[PLAN_DETAIL_BYTES]; /* worth saying, though nothing is left out */
    /* What a later start compares the archive with (restored.json). */
    struct generation_id newest_generation;
    struct wal_point newest_end;
    uint32_t newest_term;
};

/* After RC_CORRUPT: what can be reached instead. */
struct plan_failure {
    bool needs_choice; /* the text names the generations to choose from */
    bool
        snapshot_is_damaged; /* or behind a fork: with a larger `skip_snapshots` an older may serve */
    bool has_last_good;
    struct position last_good;
    size_t last_good_end; /* it needs run.segments[first_index, this); they are not verified yet */
    bool has_damaged_index; /* an object of plan->run is damaged: what lies before may be good */
    size_t damaged_index;
};

void plan_init(struct plan *plan);
void plan_deinit(struct plan *plan);

/*
 * `skip_snapshots`: how many of the latest usable snapshots to pass over, as damaged. After
 * RC_CORRUPT `failure` is filled, and plan->generation, manifest and run stand as far as they were
 * found. RC_NOT_FOUND, RC_CORRUPT as in restorer.h; errors of the store.
 */
RC_MUST_CHECK enum rc plan_make(struct plan *plan, const struct restore_request *request,
                                struct store *store, struct stop *stop, size_t skip_snapshots,
                                struct plan_failure *failure, struct err *err);

/* The commits of the run before run.segments[index], for naming the last good position. */
RC_MUST_CHECK enum rc plan_last_commit_before(const struct plan *plan, struct store *store,
                                              struct stop *stop, size_t index,
                                              struct position *position, struct err *err);

/* Adds words to what is left out, or to the remarks. */
void plan_leave_out(struct plan *plan, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void plan_remark(struct plan *plan, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
