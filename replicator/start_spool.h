/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start_spool: makes the spool of one generation agree with the archive: a segment that the archive's
 * run holds in part is cut, and what continues the run, checked whole, is what will be shipped. What the
 * archive has under the same numbers (but for its last segment: the record may not know yet that this is
 * ours), and what does not continue the chain, is only noted: it goes (spool_chain_drop) when the start
 * serves, not while it waits for a person. The numbers may be all that is the same, and who waits may be
 * given back what a segment followed.
 *
 * Thread: the replicator's, with leader.lock held.
 */
#ifndef HARVEY_REPLICATOR_START_SPOOL_H
#define HARVEY_REPLICATOR_START_SPOOL_H

#include "archive/catalog.h"
#include "base/err.h"
#include "replicator/shipper.h"
#include "replicator/spool.h"

#include <stdbool.h>
#include <stddef.h>

/* A spooled segment that does not continue the chain. */
struct spool_misfit {
    struct object_key key;
    const char *why; /* static text */
};

/* The chain that lies in the spool, each segment read and checked. */
struct spool_chain {
    struct catalog_generation listed; /* owned lists */
    size_t count;
    struct shipper_segment *segments; /* owned; to be shipped, in order */
    size_t misfit_count;
    struct spool_misfit *misfits; /* owned */
    size_t held_count;
    struct object_key
        *held; /* owned; the chain holds their numbers, be it the archive's part of it */
    struct wal_point archive_end;
    struct wal_point end; /* of archive's run and spool together */
    struct wal_salts end_salts;
    int64_t end_unix_ms;
    char witness
        [OBJECT_KEY_BYTES]; /* still in the spool, and ends where the archive's run does; "" = none */
    bool knows_archive_end;       /* a segment holds, ends at or links to the archive's end */
    bool contradicts_archive_end; /* a segment holds that position with another checksum */
};

void spool_chain_init(struct spool_chain *chain);
void spool_chain_deinit(struct spool_chain *chain);

/*
 * `archive_end` (and its salts, time): where the archive's run ends; (1, 0) for an empty one. With
 * `trust_spool` (the archive was not reached) the chain begins where the first segment says, when
 * that lies at or behind archive_end.
 * RC_IO, RC_NOMEM.
 */
RC_MUST_CHECK enum rc spool_chain_read(struct spool_chain *chain, struct spool *spool,
                                       const struct generation_id *generation,
                                       const struct wal_point *archive_end,
                                       struct wal_salts archive_salts, int64_t archive_unix_ms,
                                       bool trust_spool, struct err *err);

/* Removes what the chain holds already, and the misfits, of which each gets a line in the log. RC_IO. */
RC_MUST_CHECK enum rc spool_chain_drop(const struct spool_chain *chain, const struct spool *spool,
                                       struct err *err);

/* Puts the chain's segments into the archive, in order. Errors of the store; RC_IO. */
RC_MUST_CHECK enum rc spool_chain_ship(const struct spool_chain *chain, const struct spool *spool,
                                       struct store *store, struct err *err);

/* Removes all of the spool but what belongs to `keep` (none: everything). RC_IO. */
RC_MUST_CHECK enum rc spool_chain_remove_others(const struct spool *spool,
                                                const struct generation_id *keep, struct err *err);

#endif
