/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_wal: bytes as a -wal file: as they are, and then with salts and checksums made right, so that
 * the loop over frames gets to see them. Right frames must all be found, up to one for page 0.
 */
#include "archive/wal_format.h"
#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_wal(const uint8_t *data, size_t size, size_t wanted_good)
{
    struct err err = ERR_INIT;
    struct wal_header header;
    if (size < WAL_HEADER_BYTES || wal_header_decode(data, &header, &err) != RC_OK) {
        ASSERT(wanted_good == 0);
        return;
    }
    ASSERT(wal_page_size_is_valid(header.page_size_bytes));
    size_t count = (size - WAL_HEADER_BYTES) / (WAL_FRAME_HEADER_BYTES + header.page_size_bytes);
    struct wal_run run = {
        .salts = header.salts,
        .big_endian_checksums = header.big_endian_checksums,
        .page_size_bytes = header.page_size_bytes,
        .sum = header.checksum,
    };
    enum rc rc = wal_run_check(&run, data + WAL_HEADER_BYTES, count, &err);
    ASSERT((rc == RC_OK) == (run.good_count == count));
    ASSERT(run.good_count >= wanted_good);
    ASSERT(run.last_commit_index == SIZE_MAX || run.last_commit_index < run.good_count);
    ASSERT((run.commit_pages == 0) == (run.last_commit_index == SIZE_MAX));
}

static void put_checksum(uint8_t *at, struct wal_checksum sum)
{
    bytes_put_u32(at, sum.sum1);
    bytes_put_u32(at + 4, sum.sum2);
}

/* Makes a valid WAL of it; how many frames from the first on are for a page that exists. */
static size_t repair(uint8_t *data, size_t size)
{
    bool big_endian = (data[0] & 1) != 0;
    uint32_t page_bytes = WAL_PAGE_BYTES_MIN << (data[1] % 8);
    bytes_put_u32(data, big_endian ? 0x377f0683u : 0x377f0682u);
    bytes_put_u32(data + 4, 3007000);
    bytes_put_u32(data + 8, page_bytes);
    struct wal_checksum sum = wal_checksum_add((struct wal_checksum){0, 0}, big_endian, data, 24);
    put_checksum(data + 24, sum);
    size_t good = 0;
    bool open = true;
    size_t frame_bytes = WAL_FRAME_HEADER_BYTES + page_bytes;
    for (size_t at = WAL_HEADER_BYTES; at + frame_bytes <= size; at += frame_bytes) {
        memcpy(data + at + 8, data + 16, 8);
        sum = wal_checksum_add(sum, big_endian, data + at, 8);
        sum = wal_checksum_add(sum, big_endian, data + at + WAL_FRAME_HEADER_BYTES, page_bytes);
        put_checksum(data + at + 16, sum);
        open = open && bytes_get_u32(data + at) != 0;
        good += open;
    }
    return good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_wal(data, size, 0);
    if (size < WAL_HEADER_BYTES) {
        return 0;
    }
    uint8_t *copy = malloc(size);
    ASSERT(copy != NULL);
    memcpy(copy, data, size);
    size_t good = repair(copy, size);
    check_wal(copy, size, good);
    free(copy);
    return 0;
}
