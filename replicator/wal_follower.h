/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wal_follower: reads committed frames of the -wal file, checks salts and rolling checksum of each,
 * and hands them to the segmenter. It knows how far it has come: S, the last captured frame.
 *
 * It opens the -wal (never the database or -shm) and reads only frames that the wal-index says are
 * committed, while the leader's read transaction keeps that WAL from being reset.
 *
 * Thread: the leader's.
 */
#ifndef HARVEY_REPLICATOR_WAL_FOLLOWER_H
#define HARVEY_REPLICATOR_WAL_FOLLOWER_H

#include "archive/wal_format.h"
#include "base/err.h"
#include "base/fsio.h"
#include "replicator/segmenter.h"
#include "replicator/wal_index.h"

#include <stdbool.h>
#include <stdint.h>

struct wal_follower {
    char path[FSIO_PATH_BYTES];
    int fd;
    uint64_t inode;
    struct wal_point end;     /* S: the last captured frame; (1, 0) before a generation's first */
    struct wal_salts salts;   /* of the WAL that is being read; zero while none has begun */
    uint32_t wal_no;          /* its number */
    uint32_t frame_no;        /* frames of it that are captured */
    struct wal_checksum sum;  /* rolling, after frame_no */
    uint32_t page_size_bytes; /* 0 until the WAL header was read */
    bool big_endian_checksums;
    uint8_t header_bytes[WAL_HEADER_BYTES];
};

void wal_follower_init(struct wal_follower *follower, const char *wal_path);
void wal_follower_deinit(struct wal_follower *follower);

/* Opens the -wal, or again after it was replaced. RC_NOT_FOUND, RC_IO. */
RC_MUST_CHECK enum rc wal_follower_open(struct wal_follower *follower, struct err *err);

/* Goes on behind `end` in the WAL with these salts (frame_no = end's). */
void wal_follower_continue(struct wal_follower *follower, const struct wal_point *end,
                           struct wal_salts salts);

/* A WAL begins with these salts: its number is that after `end`'s (1 behind (1, 0)). */
void wal_follower_begin_wal(struct wal_follower *follower, struct wal_salts salts);

/* A new generation begins: S = (1, 0), the WAL with these salts (zero: none yet) is its first. */
void wal_follower_begin_generation(struct wal_follower *follower, struct wal_salts salts);

/* The number that the WAL after the current one will have. */
uint32_t wal_follower_next_wal_no(const struct wal_follower *follower);

/*
 * Captures frames frame_no+1 .. header->mx_frame into the segmenter and checks that the rolling
 * checksum ends as the wal-index says. header->salts must be the follower's (asserted).
 * RC_CORRUPT: a frame that SQLite calls committed is wrong: frame_no stands at the last good one.
 * RC_IO, and the errors of the segmenter's emit.
 */
RC_MUST_CHECK enum rc wal_follower_capture(struct wal_follower *follower,
                                           const struct wal_index_header *header,
                                           struct segmenter *segmenter, struct err *err);

/*
 * Reads the checksum that stands in the header of frame `frame_no` of the -wal, whatever WAL that is
 * (frame 0: the WAL header's). RC_NOT_FOUND when the file is shorter; RC_IO.
 */
RC_MUST_CHECK enum rc wal_follower_checksum_at(const struct wal_follower *follower,
                                               uint32_t page_size_bytes, uint32_t frame_no,
                                               struct wal_salts *salts,
                                               struct wal_checksum *checksum, struct err *err);

/* RC_CORRUPT when the path no longer leads to the file that is open, or it is gone. RC_IO. */
RC_MUST_CHECK enum rc wal_follower_check_file(const struct wal_follower *follower, struct err *err);

#endif
