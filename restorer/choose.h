/* SPDX-License-Identifier: Apache-2.0 */
/*
 * choose: which generation a restore takes, and which snapshot of it (docs/archive-format.md, "Forks,
 * and what is latest"). Nothing is guessed: where two qualify the error names both.
 *
 * Errors: those of the store; RC_NOT_FOUND: nothing to restore (the archive is empty, holds no
 * complete snapshot, or not that generation); RC_CORRUPT: a choice is needed, or nothing is old
 * enough; the text says what to type.
 * Thread: the owner's.
 */
#ifndef HARVEY_RESTORER_CHOOSE_H
#define HARVEY_RESTORER_CHOOSE_H

#include "archive/catalog.h"
#include "archive/snapshot_format.h"
#include "archive/store.h"
#include "base/err.h"
#include "base/stop.h"
#include "restorer/restorer.h"

#include <stdbool.h>
#include <stddef.h>

#define CHOOSE_NOTE_BYTES 256

struct choose_source {
    struct catalog *catalog; /* births are read */
    struct store *store;
    struct stop *stop;                     /* may be NULL */
    const struct restore_request *request; /* borrowed, all of them */
    const struct position *limit;          /* may be NULL; no commit behind it is wanted */
};

/* What was chosen, and what to say about it. */
struct choose_result {
    struct catalog_generation *generation; /* borrowed from the catalog; its snapshots are loaded */
    char note[CHOOSE_NOTE_BYTES];          /* words for a person, or "" */
    bool leaves_out;                       /* they say that something newer was passed over */
    bool needs_choice;                     /* RC_CORRUPT because two qualify */
    bool has_limit; /* by time: a generation passed over goes on from `limit` in this one */
    struct position limit;
};

/*
 * The generation: the request's own; for "latest" the newest with a complete snapshot; for a time
 * the one that was live then.
 */
RC_MUST_CHECK enum rc choose_generation(const struct choose_source *source,
                                        struct choose_result *result, struct err *err);

/*
 * The latest complete snapshot at or before the target (and the source's limit), passing over the `skip`
 * latest of them (they turned out to be damaged); its manifest is read and compared with its name and
 * listing.
 * RC_CORRUPT with *damaged = true: that snapshot is damaged, another may serve.
 */
RC_MUST_CHECK enum rc choose_snapshot(const struct choose_source *source,
                                      const struct catalog_generation *generation, size_t skip,
                                      struct snapshot_manifest *manifest, bool *damaged,
                                      struct err *err);

/* GET and check of one complete.json; a manifest that does not fit its name is RC_CORRUPT. */
RC_MUST_CHECK enum rc choose_read_manifest(const struct choose_source *source,
                                           const struct generation_id *generation,
                                           const struct catalog_snapshot *snapshot,
                                           struct snapshot_manifest *manifest, struct err *err);

#endif
