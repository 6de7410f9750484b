/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wal_format: SQLite's -wal file as bytes: https://www.sqlite.org/fileformat2.html, section 4
 * (4.1 WAL header, 4.2 frame header and checksum algorithm).
 *
 * WAL header, 32 bytes, big-endian: magic 0x377f0682 (checksums over little-endian words) or
 * 0x377f0683 (big-endian words) @0, version 3007000 @4, page size @8, checkpoint sequence @12,
 * salt-1 @16, salt-2 @20, checksum-1 @24, checksum-2 @28 (over bytes 0..23).
 * Frame header, 24 bytes: page number @0, database size in pages after the commit (0 = not a commit
 * frame) @4, salt-1 @8, salt-2 @12, checksum-1 @16, checksum-2 @20; then the page. A frame's checksum
 * goes on from the one before (the WAL header's for frame 1) over bytes 0..7 of the frame header and
 * then the page.
 *
 * Thread: any (pure functions).
 */
#ifndef HARVEY_ARCHIVE_WAL_FORMAT_H
#define HARVEY_ARCHIVE_WAL_FORMAT_H

#include "archive/position.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WAL_HEADER_BYTES 32u
#define WAL_FRAME_HEADER_BYTES 24u
#define WAL_PAGE_BYTES_MIN 512u
#define WAL_PAGE_BYTES_MAX 65536u

struct wal_salts {
    uint32_t salt1;
    uint32_t salt2;
};

struct wal_header {
    bool big_endian_checksums;
    uint32_t page_size_bytes;
    struct wal_salts salts;
    struct wal_checksum checksum; /* of the header itself: what frame 1 goes on from */
};

struct wal_frame_header {
    uint32_t page_no;
    uint32_t commit_pages; /* database size in pages after this commit; 0 = no commit frame */
    struct wal_salts salts;
    struct wal_checksum checksum;
};

bool wal_salts_equal(struct wal_salts a, struct wal_salts b);

/* True for a power of two from 512 to 65536. */
bool wal_page_size_is_valid(uint32_t page_size_bytes);

/* Checks magic, version, page size and checksum. RC_CORRUPT. */
RC_MUST_CHECK enum rc wal_header_decode(const uint8_t bytes[WAL_HEADER_BYTES],
                                        struct wal_header *header, struct err *err);

void wal_frame_header_decode(const uint8_t bytes[WAL_FRAME_HEADER_BYTES],
                             struct wal_frame_header *header);

/* The checksum algorithm of 4.2 over `count` bytes (a multiple of 8), going on from `sum`. */
struct wal_checksum wal_checksum_add(struct wal_checksum sum, bool big_endian, const uint8_t *bytes,
                                     size_t count);

/* Offset of frame `frame_no` (from 1) in the -wal file. */
uint64_t wal_frame_offset(uint32_t page_size_bytes, uint32_t frame_no);

/*
 * Checks a run of whole frames that lie one behind the other: salts equal `salts`, each checksum
 * goes on from *sum (in: before the first frame; out: after the last good one). *commit_pages gets
 * the size of the last commit frame (unchanged when there is none), *last_commit_index the index of
 * that frame in the run (SIZE_MAX when none), *good_count how many frames were right.
 * RC_CORRUPT names the index of the first bad frame.
 */
struct wal_run {
    struct wal_salts salts;
    bool big_endian_checksums;
    uint32_t page_size_bytes;
    struct wal_checksum sum;  /* in and out */
    uint32_t commit_pages;    /* in and out */
    size_t last_commit_index; /* out */
    size_t good_count;        /* out */
};
RC_MUST_CHECK enum rc wal_run_check(struct wal_run *run, const uint8_t *frames, size_t frame_count,
                                    struct err *err);

#endif
