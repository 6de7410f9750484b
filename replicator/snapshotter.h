/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshotter: the whole database at one exact position, into the archive. One at a time, on a
 * thread of its own.
 *
 *   copy    sqlite3 backup API into <database>-harvey/snapshot/copy.db, inside the read transaction
 *           that the leader opened at that position (https://www.sqlite.org/backup.html); without
 *           one the backup starts over at every foreign write and never ends. Then it is ended.
 *   pack    the copy, cut into parts, each a zstd frame; a local complete.json, synced, ends it.
 *   upload  the parts, then, when the confirmed run covers the position, complete.json.
 *
 * A kill before the end of pack starts over with another snapshot; later the upload is resumed. A packed one
 * is synced, and the frames up to its position need not be: a start drops it where a power cut took them.
 * Threads: all calls by the leader's.
 */
#ifndef HARVEY_REPLICATOR_SNAPSHOTTER_H
#define HARVEY_REPLICATOR_SNAPSHOTTER_H

#include "archive/position.h"
#include "archive/sidecar.h"
#include "archive/store.h"
#include "base/err.h"
#include "replicator/shipper.h"
#include "replicator/state.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

struct snapshot_job {
    struct generation_id generation;
    struct wal_point point; /* the state that the source's read transaction sees */
    uint32_t page_size_bytes;
    uint32_t database_pages;
    int64_t unix_ms;
    bool
        in_background; /* nobody waits for it: packing leaves the CPU to whoever answers requests */
};

struct snapshotter;

/* Everything is borrowed for its life. RC_NOMEM. */
RC_MUST_CHECK enum rc snapshotter_create(const struct store_config *store,
                                         const struct sidecar *sidecar, struct shipper *shipper,
                                         struct state *state, struct snapshotter **snapshotter,
                                         struct err *err);

/* Stops and frees. What is packed stays, to be resumed. NULL is legal. */
void snapshotter_destroy(struct snapshotter *snapshotter);

/* `source` is taken: a connection inside a read transaction at job->point. Only when not busy. RC_NOMEM. */
RC_MUST_CHECK enum rc snapshotter_begin(struct snapshotter *snapshotter, sqlite3 *source,
                                        const struct snapshot_job *job, struct err *err);

/* The point of a packed snapshot of this generation, if there is one. Only when not busy. RC_IO, RC_NOMEM. */
RC_MUST_CHECK enum rc snapshotter_packed_point(const struct snapshotter *snapshotter,
                                               const struct generation_id *generation, bool *found,
                                               struct wal_point *point, struct err *err);

/* Resumes the upload of a packed snapshot of this generation, if there is one; removes all else that lies there. RC_IO. */
RC_MUST_CHECK enum rc snapshotter_resume(struct snapshotter *snapshotter,
                                         const struct generation_id *generation, bool *resumed,
                                         struct err *err);

/* A thread is at work. Joins one that has ended; *failed_ms: when the last one failed (0 = it did not). */
bool snapshotter_is_busy(struct snapshotter *snapshotter, int64_t *failed_ms);

/* Why the last one failed; only while it is not busy. Borrowed. */
const char *snapshotter_failure(const struct snapshotter *snapshotter);

/* At work, and the store has been refusing it for a while: why. Any thread. */
bool snapshotter_is_in_trouble(struct snapshotter *snapshotter, char text[ERR_TEXT_BYTES]);

/* It holds its read transaction: the WAL cannot be reset. */
bool snapshotter_holds_transaction(struct snapshotter *snapshotter);

/* Gives the snapshot under way, or a packed one, up (another generation begins, or it is of lost frames). */
void snapshotter_abandon(struct snapshotter *snapshotter);

#endif
