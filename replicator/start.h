/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start: what a start makes of what it finds: database, local side and archive are looked at, the
 * rows of the start table (docs/archive-format.md) are tried from the top, the first that fits acts.
 * The database is not changed, and opened only for row 16; the spool is made to agree with the archive.
 *
 * The last word on continuity is the lead's, under SQLite's locks: plan->continues says only that
 * the archive and the local notes allow it.
 *
 * Thread: the replicator's, with leader.lock held.
 */
#ifndef HARVEY_REPLICATOR_START_H
#define HARVEY_REPLICATOR_START_H

#include "archive/catalog.h"
#include "archive/history_format.h"
#include "archive/sidecar.h"
#include "base/err.h"
#include "replicator/replicator.h"
#include "replicator/shipper.h"
#include "replicator/spool.h"
#include "replicator/state.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum start_action {
    START_WAIT,             /* not ready; look again later */
    START_WAIT_FOR_RESTORE, /* the same, and a restore is the cure */
    START_RESTORE,          /* restore now, then look again */
    START_SERVE,
};

struct start_plan {
    enum start_action action;
    int row;          /* of the start table, for the log */
    char reason[512]; /* why it waits and the cure, or what a person should know */
    bool alarm;       /* with START_SERVE: reason is red */
    bool
        is_ordinary; /* nothing that a person should notice: a continuation, or a restore's first start */
    bool replace; /* START_RESTORE: move what is there aside */

    /* START_SERVE */
    bool create_database;
    bool verified;         /* compared with the archive */
    bool continues;        /* the generation may go on, if the WAL does */
    bool identity_differs; /* row 16: somebody wrote the database file since our last checkpoint */
    struct shipper_begin begin; /* the generation that goes on, or that ends as the parent */
    struct wal_point end;       /* end of its chain over archive and spool */
    struct wal_salts end_salts;
    int64_t end_unix_ms;
    uint32_t term_next;              /* for a claim in begin.generation */
    char tag_next[OBJECT_TAG_BYTES]; /* of a claim that was noted and not put; "" = make one */
    uint32_t generation_number_next; /* for a new generation */
    struct generation_id
        pending; /* noted by a start before, perhaps born: a new one takes this id */
    enum generation_cause cause; /* of a new generation */
    char cause_detail[HISTORY_TEXT_BYTES];
    bool has_parent; /* of a new generation: begin.generation at `end`, or the marker's */
    struct generation_id parent;
    struct wal_point parent_point;
    uint32_t supersedes_count;
    struct generation_id supersedes[HISTORY_SUPERSEDES_MAX];
    size_t spool_count;
    struct shipper_segment *spool; /* owned: segments of begin.generation to ship, in order */
    char witness
        [OBJECT_KEY_BYTES]; /* a spooled segment that goes once the record has begin.confirmed */
};

struct start_input {
    const struct replicator_config *config;
    const struct sidecar *sidecar;
    struct spool *spool;
    struct state *state;
    struct store *store; /* a handle of this thread; NULL when replication is off */
};

void start_plan_init(struct start_plan *plan);
void start_plan_deinit(struct start_plan *plan);

/* Looks and decides. RC_OK: plan->action says what to do. RC_IO, RC_NOMEM: local trouble; try again. */
RC_MUST_CHECK enum rc start_decide(const struct start_input *input, struct start_plan *plan,
                                   struct err *err);

/* The database file as stat(2) sees it now; inode 0 when there is none. */
RC_MUST_CHECK enum rc start_identify(const char *path, struct file_identity *identity,
                                     struct err *err);

#endif
