/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cut: where a restore ends: the last commit frame at or before a frame of the run. A restored
 * database holds whole transactions only, so every end is a commit frame, or the snapshot itself.
 *
 * Most ends are known from a header (an object that is not "continued" ends on a commit frame); else
 * the object is read and its frames are looked at.
 *
 * Thread: the owner's.
 */
#ifndef HARVEY_RESTORER_CUT_H
#define HARVEY_RESTORER_CUT_H

#include "archive/catalog.h"
#include "archive/segment.h"
#include "archive/snapshot_format.h"
#include "archive/store.h"
#include "base/err.h"
#include "base/stop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cut {
    bool is_snapshot; /* no frame behind the snapshot is wanted */
    size_t index;     /* of the segment in the run that holds the frame */
    struct wal_point point;
    uint32_t commit_pages; /* the database's size there */
    int64_t unix_ms;       /* when it was captured: it was committed at or before */
};

/* Where to look: all borrowed. */
struct cut_source {
    struct store *store;
    struct stop *stop; /* may be NULL */
    const struct generation_id *generation;
    const struct snapshot_manifest *manifest; /* nothing before its point is looked at */
    const struct catalog_run *run;
};

/*
 * The last commit at or before frame `frame_no_max` of run->segments[index]. A run without segments
 * (index is not looked at then) gives the snapshot. Errors of the store; RC_CORRUPT: an object on the
 * way is damaged, and *damaged_index (may be NULL) is its number.
 */
RC_MUST_CHECK enum rc cut_find(const struct cut_source *source, size_t index, uint32_t frame_no_max,
                               struct cut *cut, size_t *damaged_index, struct err *err);

/*
 * The same for a position: the last commit at or before it in the run.
 */
RC_MUST_CHECK enum rc cut_find_position(const struct cut_source *source, struct position position,
                                        struct cut *cut, size_t *damaged_index, struct err *err);

/* The same for a time: the last capture pass at or before it. */
RC_MUST_CHECK enum rc cut_find_time(const struct cut_source *source, int64_t unix_ms,
                                    struct cut *cut, size_t *damaged_index, struct err *err);

/* The name of a segment of the run. */
void cut_segment_key(const struct generation_id *generation, const struct catalog_segment *segment,
                     struct object_key *key);

#endif
