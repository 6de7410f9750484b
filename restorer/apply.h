/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apply: the database file under construction: pages of WAL frames and pieces of snapshot parts are
 * written where they belong, each page once.
 *
 * Order: first the WAL, its LAST object first and in each object the last frame first; then the
 * snapshot's parts. A bit per page remembers what is final, so an older image of a page (an earlier
 * frame, or the snapshot's) is passed over instead of being written and overwritten. Nothing above
 * the final size is written. The file is not a database before all parts are in: it lies under its
 * temporary name until then.
 *
 * Memory: one bit per page (32 KiB per GiB at 4 KiB pages).
 * Errors: RC_IO, RC_LIMIT (disk full, quota, file size), RC_CORRUPT (a page number of 0), RC_NOMEM.
 * Thread: apply_frames on one thread; apply_snapshot_bytes on many at once, after the last
 * apply_frames.
 */
#ifndef HARVEY_RESTORER_APPLY_H
#define HARVEY_RESTORER_APPLY_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct apply {
    int fd; /* borrowed */
    const char *path;
    uint32_t page_size_bytes;
    uint32_t page_count;  /* of the finished database */
    uint8_t *page_bits;   /* owned; bit page_no - 1: its final image is written */
    uint64_t frame_pages; /* pages that came from frames */
};

/* `fd` is open for writing and is emptied, `path` is for messages; both borrowed. RC_NOMEM, RC_IO. */
RC_MUST_CHECK enum rc apply_init(struct apply *apply, int fd, const char *path,
                                 uint32_t page_size_bytes, uint32_t page_count, struct err *err);
void apply_deinit(struct apply *apply);

/* Writes what is still missing of `frame_count` whole, checked frames that lie one behind the other. */
RC_MUST_CHECK enum rc apply_frames(struct apply *apply, const uint8_t *frames, size_t frame_count,
                                   struct err *err);

/* Writes a piece of the snapshot's database file, without the pages that frames have replaced. */
RC_MUST_CHECK enum rc apply_snapshot_bytes(struct apply *apply, uint64_t offset,
                                           const uint8_t *bytes, size_t count, struct err *err);

/* Asks the kernel to start writing a range to the disk, so that the fsync at the end is short. */
void apply_start_writeback(const struct apply *apply, uint64_t offset, uint64_t count);

/* Sets the exact size: pages that nothing wrote read as zeros. */
RC_MUST_CHECK enum rc apply_set_size(const struct apply *apply, struct err *err);

RC_MUST_CHECK enum rc apply_sync(const struct apply *apply, struct err *err);

/* The code for a failed local write: RC_LIMIT when the disk, a quota or a limit is full, else RC_IO. */
enum rc apply_fail(struct err *err, const char *what, const char *path);

#endif
