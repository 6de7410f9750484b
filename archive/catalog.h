/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog: what lies in an archive, read from listings and small objects: the generations with their
 * births, and of one generation its claims, complete snapshots and segments; and what follows from
 * them: the contiguous run behind a snapshot, holes, forks. The server's start and the restore tool
 * read the archive through this one module; the spool (same names, a directory) too.
 *
 * It trusts names only to plan: what is used is checked by the reader of each object.
 * Memory grows with the number of objects listed (about 64 bytes each).
 *
 * Errors: those of the store; RC_CORRUPT for a birth, claim or manifest that cannot be read.
 * Thread: the owner's.
 */
#ifndef HARVEY_ARCHIVE_CATALOG_H
#define HARVEY_ARCHIVE_CATALOG_H

#include "archive/history_format.h"
#include "archive/object_key.h"
#include "archive/position.h"
#include "archive/segment.h"
#include "archive/store.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct catalog_segment {
    uint32_t wal_no;
    uint32_t first_frame_no;
    uint32_t last_frame_no;
    uint32_t term;
    int64_t unix_ms;
    char lead_tag[OBJECT_TAG_BYTES];
    uint64_t object_bytes;
};

struct catalog_snapshot {
    struct position position;
    char tag[OBJECT_TAG_BYTES];
    bool complete;         /* complete.json is there */
    uint32_t part_count;   /* parts listed */
    uint64_t object_bytes; /* of the parts listed */
};

struct catalog_generation {
    struct generation_birth birth; /* has only `id` when the listing found objects but no birth */
    bool loaded;                   /* the lists below are filled */
    uint32_t term_highest;         /* of its claims; 0 = none */
    char term_highest_tag[OBJECT_TAG_BYTES]; /* its lead's, from the claim's JSON */
    size_t snapshot_count;
    struct catalog_snapshot *snapshots; /* owned, by position */
    size_t segment_count;
    struct catalog_segment *segments; /* owned, by (wal_no, first, term) */
};

struct catalog {
    size_t generation_count;
    struct catalog_generation *generations; /* owned, by number, then id */
    size_t damaged_count;                   /* births that catalog_read_births left out */
    char damaged[256];                      /* words for a person: what is wrong with the first */
};

void catalog_init(struct catalog *catalog);
void catalog_deinit(struct catalog *catalog);

/* LIST generations/ and GET each birth. An empty archive is RC_OK with count 0. */
RC_MUST_CHECK enum rc catalog_read_generations(struct catalog *catalog, struct store *store,
                                               struct err *err);

/*
 * The same for a reader that can do without some: a birth that cannot be read is left out and counted.
 * A restore must not depend on an object that it does not need.
 */
RC_MUST_CHECK enum rc catalog_read_births(struct catalog *catalog, struct store *store,
                                          struct err *err);

/*
 * Fills the lists of one generation: claims, snapshots, and segments from WAL `wal_no_from` on
 * (1 = all). Calling it again replaces them.
 */
RC_MUST_CHECK enum rc catalog_load_generation(struct catalog_generation *generation,
                                              struct store *store, uint32_t wal_no_from,
                                              struct err *err);

/* The same without the highest claim's JSON: term_highest_tag is "". For readers, whom no lead concerns. */
RC_MUST_CHECK enum rc catalog_load_lists(struct catalog_generation *generation, struct store *store,
                                         uint32_t wal_no_from, struct err *err);

/* The generation with that id, or NULL. */
struct catalog_generation *catalog_find(const struct catalog *catalog,
                                        const struct generation_id *id);

/* The generation that `one` (of the catalog) goes on from; NULL when that is none, or not in the catalog. */
const struct catalog_generation *catalog_parent(const struct catalog *catalog,
                                                const struct catalog_generation *one);

/* The newest generation that holds a complete snapshot (loads snapshot lists as needed), or NULL in *found. */
RC_MUST_CHECK enum rc catalog_find_latest(struct catalog *catalog, struct store *store,
                                          struct catalog_generation **found, struct err *err);

/*
 * The first generation behind `behind` (none = of all) that left objects, its number within a hundred thousand of
 * that one's; none when there is nothing. A birth is put before anything else of its generation, so one that is
 * missing is lost. One LIST, which sees nothing but generations, whatever else lies in the archive's directory.
 */
RC_MUST_CHECK enum rc catalog_find_orphan(struct store *store, const struct generation_id *behind,
                                          struct generation_id *orphan, struct err *err);

/*
 * *lost: the generation holds no complete snapshot, and did: one of its newest segments says that something was
 * archived, which no lead says before complete.json is confirmed. (Without a later segment nobody can tell.)
 */
RC_MUST_CHECK enum rc catalog_lost_snapshot(const struct generation_id *id, struct store *store,
                                            bool *lost, struct err *err);

/* The latest complete snapshot of a loaded generation, or the latest at or before `limit`; NULL when none. */
const struct catalog_snapshot *catalog_latest_snapshot(const struct catalog_generation *generation,
                                                       const struct position *limit);

/*
 * Reads the header of one segment (ranged GET). RC_CORRUPT when header and name disagree.
 */
RC_MUST_CHECK enum rc catalog_read_header(const struct generation_id *generation,
                                          const struct catalog_segment *segment,
                                          struct store *store, struct segment_header *header,
                                          struct err *err);

/*
 * The contiguous run that starts at (from.wal_no, frame 1) [the WAL of a snapshot, or WAL 1] and
 * goes on as long as each object follows the one before: by name inside a WAL, by the `link` of its
 * first header across WALs. What lies beyond its end:
 */
enum catalog_end {
    CATALOG_END_CLEAN,  /* nothing beyond */
    CATALOG_END_CRASH,  /* fewer than W objects beyond, none says `archived` at or past the hole */
    CATALOG_END_DAMAGE, /* any other hole */
    CATALOG_END_FORK,   /* objects that overlap the run with other bytes (another lead's) */
};

struct catalog_run {
    size_t segment_count;
    const struct catalog_segment **segments; /* owned array, borrowed pointers, in order */
    struct wal_point end; /* point after the last; zero position when the run is empty */
    struct wal_salts end_salts;
    int64_t end_unix_ms;
    enum catalog_end end_kind;
    size_t beyond_count;        /* objects beyond the end */
    struct position hole_first; /* first missing (or doubled) frame, when not CLEAN */
    char detail[256];           /* words for a person, when not CLEAN */
};

void catalog_run_init(struct catalog_run *run);
void catalog_run_deinit(struct catalog_run *run);

/*
 * `from_wal_no`: where to begin; headers are fetched at each WAL boundary, of the last object and of
 * all beyond the end. `window` = W of the generation's birth.
 */
RC_MUST_CHECK enum rc catalog_find_run(const struct catalog_generation *generation,
                                       struct store *store, uint32_t from_wal_no, uint32_t window,
                                       struct catalog_run *run, struct err *err);

/*
 * Where two generations have the same parent generation and neither supersedes the other (nor
 * does a later one supersede either) *a, *b get them, else NULL. Looks at the newest ones only as far
 * as a choice would matter for "latest". RC_NOMEM.
 */
RC_MUST_CHECK enum rc catalog_find_fork(const struct catalog *catalog,
                                        const struct catalog_generation **a,
                                        const struct catalog_generation **b, struct err *err);

#endif
