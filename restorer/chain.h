/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chain: whether one WAL object goes on exactly where the one before it ended. Names only say that
 * the numbers fit; the checksums say that it is the same history (docs/archive-format.md, "WAL
 * object", `before`, `after`, `link`).
 *
 * It trusts that each object was checked by segment_read: its frames lead from `before` to `after`.
 * Thread: any (pure functions).
 */
#ifndef HARVEY_RESTORER_CHAIN_H
#define HARVEY_RESTORER_CHAIN_H

#include "archive/segment.h"
#include "base/err.h"

/* What of a header the neighbours need: a header with its time table is 16 KiB. */
struct chain_ends {
    uint32_t wal_no;
    uint32_t first_frame_no;
    uint32_t last_frame_no;
    uint32_t flags;
    uint32_t page_size_bytes;
    bool big_endian_checksums;
    struct wal_salts salts;
    struct wal_checksum before;
    struct wal_checksum after;
    struct wal_point link;
};

void chain_ends_of(const struct segment_header *header, struct chain_ends *ends);

/* The last frame of it, as a point. */
struct wal_point chain_last_point(const struct chain_ends *ends);

/* RC_CORRUPT, with words, when `later` does not go on where `earlier` ends. */
RC_MUST_CHECK enum rc chain_check_next(const struct chain_ends *earlier,
                                       const struct chain_ends *later, struct err *err);

#endif
