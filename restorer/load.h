/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load: the parts of a snapshot, streamed in parallel from the store into the file: GET, SHA-256,
 * zstd, and each piece written at its offset as it comes. A part is never whole in memory.
 *
 * A part's hash is known to be right only at its end: until all of them are, the file is worth
 * nothing and lies under its temporary name.
 *
 * Thread: the calling thread; fetch's workers do the work.
 */
#ifndef HARVEY_RESTORER_LOAD_H
#define HARVEY_RESTORER_LOAD_H

#include "archive/snapshot_format.h"
#include "base/err.h"
#include "restorer/apply.h"
#include "restorer/fetch.h"

/* After replay_run. RC_CORRUPT: a part is missing or damaged, so the snapshot is. */
RC_MUST_CHECK enum rc load_run(const struct snapshot_manifest *manifest, struct fetch *fetch,
                               struct apply *apply, void (*tick)(void *arg), void *tick_arg,
                               struct err *err);

#endif
