/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample_wal: -wal files and segments made up for tests, byte for byte the same every time. It builds
 * checksums with an algorithm of its own (bytes, one after the other), so that it can serve as the
 * oracle of the fast one.
 */
#ifndef HARVEY_TESTS_UNIT_SAMPLE_WAL_H
#define HARVEY_TESTS_UNIT_SAMPLE_WAL_H

#include "archive/segment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sample_frame {
    uint32_t page_no;
    uint32_t commit_pages; /* 0 = no commit frame */
};

struct sample_wal {
    uint32_t page_size_bytes;
    bool big_endian_checksums;
    struct wal_salts salts;
    uint32_t frame_count;
    uint8_t *bytes; /* WAL header and frames; owned */
    size_t count;
};

/* The algorithm of fileformat2.html, 4.2, as it is written there. */
struct wal_checksum sample_checksum(struct wal_checksum sum, bool big_endian, const uint8_t *bytes,
                                    size_t count);

/* `seed` goes into salts and pages. Every page is half noise, half zeros. */
void sample_wal_init(struct sample_wal *wal, uint32_t page_size_bytes, bool big_endian_checksums,
                     uint32_t seed, const struct sample_frame *frames, uint32_t frame_count);
void sample_wal_deinit(struct sample_wal *wal);

/* The checksum after a frame; 0 = of the WAL header. */
struct wal_checksum sample_wal_checksum(const struct sample_wal *wal, uint32_t frame_no);

/* The content of a segment first..last: inside `bytes`, no copy. */
const uint8_t *sample_wal_content(const struct sample_wal *wal, uint32_t first_frame_no,
                                  uint32_t last_frame_no, size_t *count);

/*
 * A header for frames first..last of this WAL as WAL `wal_no` of generation
 * 00000003-9f2c41d7a6b0e355: flags, checksums, link and commit size as they must be; one time row;
 * archived: none. The link of a WAL's first frame is frame 7 of the WAL before, some checksum.
 */
void sample_header(const struct sample_wal *wal, uint32_t wal_no, uint32_t first_frame_no,
                   uint32_t last_frame_no, struct segment_header *header);

#define SAMPLE_GENERATION "00000003-9f2c41d7a6b0e355"
#define SAMPLE_UNIX_MS INT64_C(1795543200123) /* 2026-11-24T18:00:00.123Z */

#endif
