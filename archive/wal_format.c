/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wal_format: see wal_format.h. Format and algorithm: https://www.sqlite.org/fileformat2.html, 4.1 to
 * 4.3. Nothing here trusts its input.
 */
#include "archive/wal_format.h"

#include "base/bytes.h"

#include <string.h>

#define WAL_MAGIC 0x377f0682u /* its lowest bit set: checksums over big-endian words */
#define WAL_VERSION 3007000u
#define WAL_HEADER_SUMMED_BYTES 24u
#define WAL_FRAME_SUMMED_BYTES 8u

bool wal_salts_equal(struct wal_salts a, struct wal_salts b)
{
    return a.salt1 == b.salt1 && a.salt2 == b.salt2;
}

bool wal_page_size_is_valid(uint32_t page_size_bytes)
{
    return page_size_bytes >= WAL_PAGE_BYTES_MIN && page_size_bytes <= WAL_PAGE_BYTES_MAX &&
           (page_size_bytes & (page_size_bytes - 1)) == 0;
}

enum rc wal_header_decode(const uint8_t bytes[WAL_HEADER_BYTES], struct wal_header *header,
                          struct err *err)
{
    uint32_t magic = bytes_get_u32(bytes);
    uint32_t version = bytes_get_u32(bytes + 4);
    uint32_t page_size_bytes = bytes_get_u32(bytes + 8);
    if ((magic & ~1u) != WAL_MAGIC) {
        return err_set(err, RC_CORRUPT, "the WAL header begins with 0x%08x, not with 0x%08x or +1",
                       magic, WAL_MAGIC);
    }
    if (version != WAL_VERSION) {
        return err_set(err, RC_CORRUPT, "the WAL header's version is %u, known is %u", version,
                       WAL_VERSION);
    }
    if (!wal_page_size_is_valid(page_size_bytes)) {
        return err_set(err, RC_CORRUPT, "the WAL header's page size is %u bytes", page_size_bytes);
    }
    struct wal_checksum stored = {bytes_get_u32(bytes + 24), bytes_get_u32(bytes + 28)};
    struct wal_checksum sum = {0, 0};
    sum = wal_checksum_add(sum, (magic & 1u) != 0, bytes, WAL_HEADER_SUMMED_BYTES);
    if (!wal_checksum_equal(sum, stored)) {
        return err_set(err, RC_CORRUPT, "the WAL header's checksum is wrong");
    }
    *header = (struct wal_header){
        .big_endian_checksums = (magic & 1u) != 0,
        .page_size_bytes = page_size_bytes,
        .salts = {bytes_get_u32(bytes + 16), bytes_get_u32(bytes + 20)},
        .checksum = stored,
    };
    return RC_OK;
}

void wal_frame_header_decode(const uint8_t bytes[WAL_FRAME_HEADER_BYTES],
                             struct wal_frame_header *header)
{
    *header = (struct wal_frame_header){
        .page_no = bytes_get_u32(bytes),
        .commit_pages = bytes_get_u32(bytes + 4),
        .salts = {bytes_get_u32(bytes + 8), bytes_get_u32(bytes + 12)},
        .checksum = {bytes_get_u32(bytes + 16), bytes_get_u32(bytes + 20)},
    };
}

/* One loop per byte order: the test stays outside, and memcpy becomes a plain load. */
static struct wal_checksum wal_sum_native(struct wal_checksum sum, const uint8_t *bytes,
                                          size_t count)
{
    uint32_t sum1 = sum.sum1;
    uint32_t sum2 = sum.sum2;
    for (size_t i = 0; i < count; i += 8) {
        uint32_t words[2];
        memcpy(words, bytes + i, sizeof words);
        sum1 += words[0] + sum2;
        sum2 += words[1] + sum1;
    }
    return (struct wal_checksum){sum1, sum2};
}

static struct wal_checksum wal_sum_swapped(struct wal_checksum sum, const uint8_t *bytes,
                                           size_t count)
{
    uint32_t sum1 = sum.sum1;
    uint32_t sum2 = sum.sum2;
    for (size_t i = 0; i < count; i += 8) {
        uint32_t words[2];
        memcpy(words, bytes + i, sizeof words);
        sum1 += __builtin_bswap32(words[0]) + sum2;
        sum2 += __builtin_bswap32(words[1]) + sum1;
    }
    return (struct wal_checksum){sum1, sum2};
}

struct wal_checksum wal_checksum_add(struct wal_checksum sum, bool big_endian, const uint8_t *bytes,
                                     size_t count)
{
    ASSERT(count % 8 == 0);
    bool host_is_big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
    return big_endian == host_is_big_endian ? wal_sum_native(sum, bytes, count)
                                            : wal_sum_swapped(sum, bytes, count);
}

uint64_t wal_frame_offset(uint32_t page_size_bytes, uint32_t frame_no)
{
    ASSERT(frame_no >= 1);
    return WAL_HEADER_BYTES +
           (uint64_t)(frame_no - 1) * (WAL_FRAME_HEADER_BYTES + (uint64_t)page_size_bytes);
}

enum rc wal_run_check(struct wal_run *run, const uint8_t *frames, size_t frame_count,
                      struct err *err)
{
    ASSERT(wal_page_size_is_valid(run->page_size_bytes));
    size_t frame_bytes = WAL_FRAME_HEADER_BYTES + (size_t)run->page_size_bytes;
    run->last_commit_index = SIZE_MAX;
    run->good_count = 0;
    for (size_t i = 0; i < frame_count; i++) {
        const uint8_t *frame = frames + i * frame_bytes;
        struct wal_frame_header header;
        wal_frame_header_decode(frame, &header);
        if (!wal_salts_equal(header.salts, run->salts)) {
            return err_set(err, RC_CORRUPT, "frame %zu of the run has other salts", i);
        }
        struct wal_checksum sum =
            wal_checksum_add(run->sum, run->big_endian_checksums, frame, WAL_FRAME_SUMMED_BYTES);
        sum = wal_checksum_add(sum, run->big_endian_checksums, frame + WAL_FRAME_HEADER_BYTES,
                               run->page_size_bytes);
        if (!wal_checksum_equal(sum, header.checksum)) {
            return err_set(err, RC_CORRUPT,
                           "frame %zu of the run: its checksum does not follow from the one before",
                           i);
        }
        if (header.page_no == 0) { /* SQLite's walDecodeFrame refuses it too */
            return err_set(err, RC_CORRUPT, "frame %zu of the run is for page 0", i);
        }
        run->sum = sum;
        run->good_count = i + 1;
        if (header.commit_pages != 0) {
            run->commit_pages = header.commit_pages;
            run->last_commit_index = i;
        }
    }
    return RC_OK;
}
