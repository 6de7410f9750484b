/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start_plan: what the rows of the start table (start.c) make their plans of: what was looked at, a new
 * generation, what HARVEY_ON_STALE says, the generation that may go on.
 *
 * Thread: the replicator's, with leader.lock held.
 */
#ifndef HARVEY_REPLICATOR_START_PLAN_H
#define HARVEY_REPLICATOR_START_PLAN_H

#include "replicator/start.h"
#include "replicator/start_look.h"
#include "replicator/start_spool.h"

/* Everything that a row's condition may look at. */
struct start_case {
    const struct start_input *input;
    struct start_plan *plan;
    struct local_look local;
    struct archive_look archive;
    struct spool_chain chain; /* of the generation that is ours, or of the archive's newest */
    /*
     * A start before this one noted that a generation begins, and no birth of it is known: it had judged
     * that the database does not go on in the old one, and the evidence (the file's identity, the end that
     * the -wal held) was noted anew with it.
     */
    bool leaves_old;
};

/* The row that acts, and its reason: why it waits and the cure, or what a person should know. */
__attribute__((format(printf, 3, 4))) void start_say(struct start_plan *plan, int row,
                                                     const char *format, ...);

/* Serve, and begin a generation for that cause. `detail`: for its birth. */
void start_new_generation(struct start_case *c, enum generation_cause cause, const char *detail);

/* The new generation overrides every generation of the archive with a number above `above`. */
void start_supersede(struct start_case *c, uint32_t above);

/* Id of the generation that lost something, of the archive's newest, of ours where nobody knows one, or "". */
const char *start_newest_id(const struct start_case *c);

/* Where the archive ends, as text. */
void start_archive_position(const struct start_case *c, char text[POSITION_TEXT_BYTES]);

/* Not proven to continue the archive: what the setting HARVEY_ON_STALE says (rows 7, 10, 12, 13, 16). */
void start_stale(struct start_case *c, int row, const char *why);

/* The chain of the generation that is ours, over archive and spool, into c->chain. RC_IO, RC_NOMEM. */
RC_MUST_CHECK enum rc start_read_chain(struct start_case *c, struct err *err);

/*
 * Our generation may go on, or is the parent of what comes: fills the plan from the archive's run and the
 * chain (row 11: from the record and the chain), which loses its segments to it. Those of store_get_buf.
 */
RC_MUST_CHECK enum rc start_fill_begin(struct start_case *c, struct err *err);

/* The parent of whatever comes next is the generation that is ours, at the end of its chain. */
void start_set_parent(struct start_case *c);

#endif
