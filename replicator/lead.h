/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lead: one stay as leader: from START under SQLite's locks to HANDOVER (docs/concurrency.md has the
 * protocol and why each step is there). Whoever calls holds leader.lock.
 *
 * Invariant: outside of its beginning and of a freeze the lead sits in a read transaction on a mark
 * k > 0 and holds neither WRITE nor CKPT; while it is at mark 0 it holds CKPT, and WRITE too until
 * the moment it lets the one reset happen.
 *
 * Thread: the leader's.
 */
#ifndef HARVEY_REPLICATOR_LEAD_H
#define HARVEY_REPLICATOR_LEAD_H

#include "archive/sidecar.h"
#include "base/err.h"
#include "base/lockfile.h"
#include "base/stop.h"
#include "replicator/replicator.h"
#include "replicator/spool.h"
#include "replicator/start.h"
#include "replicator/state.h"

#include <stdbool.h>
#include <stdint.h>

/* What outlives a lead; borrowed. */
struct lead_context {
    const struct replicator_config *config;
    const struct sidecar *sidecar;
    struct spool *spool;
    struct state *state;
    struct stop *stop;
    struct lockfile *leader_lock;
    uint64_t lead_seq;
    /* Publishes role, reason and figures to every process. */
    void (*publish)(void *arg, const struct replicator_status *status,
                    const struct state_wal_map *map);
    void *publish_arg;
};

enum lead_end {
    LEAD_STOPPED, /* told to: everything captured; *unshipped says whether the archive has it all */
    LEAD_HANDED_OVER, /* told to, and a sibling was there: it ships what was captured */
    LEAD_RESTART,     /* start over with the start table: what was found does not fit any more */
    LEAD_FAILED,      /* could not begin, or local trouble: start over after a pause */
};

/* Runs until the stop flag or an end. `reason` (>= 512 bytes) says why, for logs and status. */
enum lead_end lead_run(const struct lead_context *context, struct start_plan *plan, char *reason,
                       size_t reason_bytes, bool *unshipped);

#endif
