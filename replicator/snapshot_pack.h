/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_pack: a copy of the database becomes the objects of a snapshot, as files in the sidecar's
 * snapshot folder, under the names of their keys; and such a set is found there again. What is
 * without its complete.json was cut short and is no snapshot. The format: archive/snapshot_format.h.
 *
 * Thread: one at a time for a folder.
 */
#ifndef HARVEY_REPLICATOR_SNAPSHOT_PACK_H
#define HARVEY_REPLICATOR_SNAPSHOT_PACK_H

#include "archive/object_key.h"
#include "archive/snapshot_format.h"
#include "base/err.h"
#include "base/fsio.h"
#include "base/stop.h"

#include <stdbool.h>

/* Where the copy is expected. RC_LIMIT. */
RC_MUST_CHECK enum rc snapshot_pack_copy_path(const char *folder, char path[FSIO_PATH_BYTES],
                                              struct err *err);

/*
 * Makes parts and complete.json, synced, of the copy, and removes the copy. The manifest names
 * generation, point, page size, pages and unix_ms; it gets the tag, the parts and completed_unix_ms.
 * in_background: on a thread of its own whose low priority leaves the CPU to others; waited for.
 * RC_STOPPED within a piece of 256 KiB; RC_IO, RC_NOMEM, RC_LIMIT.
 */
RC_MUST_CHECK enum rc snapshot_pack(const char *folder, bool in_background, struct stop *stop,
                                    struct snapshot_manifest *manifest, struct err *err);

/*
 * A whole packed snapshot of this generation, if there is one: complete.json decodes and every part
 * has its size. `manifest` was initialised and is the found one's where *found. RC_IO, RC_NOMEM.
 */
RC_MUST_CHECK enum rc snapshot_pack_find(const char *folder, const struct generation_id *generation,
                                         struct snapshot_manifest *manifest, bool *found,
                                         struct err *err);

#endif
