/* SPDX-License-Identifier: Apache-2.0 */
/* sample_wal: see sample_wal.h. */
#include "tests/unit/sample_wal.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

static uint32_t sample_word(const uint8_t *bytes, bool big_endian)
{
    return big_endian ? bytes_get_u32(bytes) : bytes_get_u32_le(bytes);
}

struct wal_checksum sample_checksum(struct wal_checksum sum, bool big_endian, const uint8_t *bytes,
                                    size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        sum.sum1 += sample_word(bytes + i, big_endian) + sum.sum2;
        sum.sum2 += sample_word(bytes + i + 4, big_endian) + sum.sum1;
    }
    return sum;
}

static void sample_put_checksum(uint8_t *at, struct wal_checksum sum)
{
    bytes_put_u32(at, sum.sum1);
    bytes_put_u32(at + 4, sum.sum2);
}

static size_t sample_frame_bytes(const struct sample_wal *wal)
{
    return WAL_FRAME_HEADER_BYTES + (size_t)wal->page_size_bytes;
}

/* xorshift32: noise that is the same everywhere. */
static void sample_fill_page(uint8_t *page, size_t count, uint32_t seed)
{
    uint32_t x = seed * 2654435761u | 1u;
    for (size_t i = 0; i < count / 2; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        page[i] = (uint8_t)x;
    }
}

void sample_wal_init(struct sample_wal *wal, uint32_t page_size_bytes, bool big_endian_checksums,
                     uint32_t seed, const struct sample_frame *frames, uint32_t frame_count)
{
    *wal = (struct sample_wal){
        .page_size_bytes = page_size_bytes,
        .big_endian_checksums = big_endian_checksums,
        .salts = {0xba5ae404u + seed, 0xc997d474u ^ seed},
        .frame_count = frame_count,
    };
    wal->count = WAL_HEADER_BYTES + frame_count * sample_frame_bytes(wal);
    wal->bytes = calloc(1, wal->count);
    ASSERT(wal->bytes != NULL);
    uint8_t *p = wal->bytes;
    bytes_put_u32(p, big_endian_checksums ? 0x377f0683u : 0x377f0682u);
    bytes_put_u32(p + 4, 3007000);
    bytes_put_u32(p + 8, page_size_bytes);
    bytes_put_u32(p + 12, 5);
    bytes_put_u32(p + 16, wal->salts.salt1);
    bytes_put_u32(p + 20, wal->salts.salt2);
    struct wal_checksum sum =
        sample_checksum((struct wal_checksum){0, 0}, big_endian_checksums, p, 24);
    sample_put_checksum(p + 24, sum);
    p += WAL_HEADER_BYTES;
    for (uint32_t i = 0; i < frame_count; i++, p += sample_frame_bytes(wal)) {
        bytes_put_u32(p, frames[i].page_no);
        bytes_put_u32(p + 4, frames[i].commit_pages);
        bytes_put_u32(p + 8, wal->salts.salt1);
        bytes_put_u32(p + 12, wal->salts.salt2);
        sample_fill_page(p + WAL_FRAME_HEADER_BYTES, page_size_bytes, seed + i + 1);
        sum = sample_checksum(sum, big_endian_checksums, p, 8);
        sum =
            sample_checksum(sum, big_endian_checksums, p + WAL_FRAME_HEADER_BYTES, page_size_bytes);
        sample_put_checksum(p + 16, sum);
    }
}

void sample_wal_deinit(struct sample_wal *wal)
{
    free(wal->bytes);
    wal->bytes = NULL;
}

static const uint8_t *sample_frame_at(const struct sample_wal *wal, uint32_t frame_no)
{
    ASSERT(frame_no >= 1);
    ASSERT(frame_no <= wal->frame_count);
    return wal->bytes + WAL_HEADER_BYTES + (frame_no - 1) * sample_frame_bytes(wal);
}

struct wal_checksum sample_wal_checksum(const struct sample_wal *wal, uint32_t frame_no)
{
    const uint8_t *at = frame_no == 0 ? wal->bytes + 24 : sample_frame_at(wal, frame_no) + 16;
    return (struct wal_checksum){bytes_get_u32(at), bytes_get_u32(at + 4)};
}

const uint8_t *sample_wal_content(const struct sample_wal *wal, uint32_t first_frame_no,
                                  uint32_t last_frame_no, size_t *count)
{
    const uint8_t *from = first_frame_no == 1 ? wal->bytes : sample_frame_at(wal, first_frame_no);
    const uint8_t *to = sample_frame_at(wal, last_frame_no) + sample_frame_bytes(wal);
    *count = (size_t)(to - from);
    return from;
}

void sample_header(const struct sample_wal *wal, uint32_t wal_no, uint32_t first_frame_no,
                   uint32_t last_frame_no, struct segment_header *header)
{
    memset(header, 0, sizeof *header);
    ASSERT(generation_id_parse(SAMPLE_GENERATION, &header->generation, NULL));
    memcpy(header->lead_tag, "5e1ec7ed", OBJECT_TAG_BYTES);
    header->page_size_bytes = wal->page_size_bytes;
    header->term = 2;
    header->wal_no = wal_no;
    header->first_frame_no = first_frame_no;
    header->last_frame_no = last_frame_no;
    header->big_endian_checksums = wal->big_endian_checksums;
    header->salts = wal->salts;
    header->before = sample_wal_checksum(wal, first_frame_no - 1);
    header->after = sample_wal_checksum(wal, last_frame_no);
    for (uint32_t i = first_frame_no; i <= last_frame_no; i++) {
        uint32_t commit_pages = bytes_get_u32(sample_frame_at(wal, i) + 4);
        header->commit_pages = commit_pages != 0 ? commit_pages : header->commit_pages;
    }
    if (bytes_get_u32(sample_frame_at(wal, last_frame_no) + 4) == 0) {
        header->flags |= SEGMENT_CONTINUED;
    }
    if (first_frame_no > 1) {
        header->link = (struct wal_point){{wal_no, first_frame_no - 1}, header->before};
        if (bytes_get_u32(sample_frame_at(wal, first_frame_no - 1) + 4) == 0) {
            header->flags |= SEGMENT_CONTINUES;
        }
    } else if (wal_no > 1) {
        header->link = (struct wal_point){{wal_no - 1, 7}, {0x11111111, 0x22222222}};
    } else {
        header->flags |= SEGMENT_FIRST;
    }
    header->time_count = 1;
    header->times[0] = (struct segment_time){last_frame_no, SAMPLE_UNIX_MS};
}
