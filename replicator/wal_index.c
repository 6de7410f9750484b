/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wal_index: see wal_index.h.
 *
 * Header, 48 bytes, twice: version @0, change counter @8, isInit @12, bigEndCksum @13, page size @14
 * (16 bits, 1 = 65536), mxFrame @16, nPage @20, checksum of the last frame @24, salts @32 (bytes as
 * in the WAL header), checksum of bytes 0..39 @40. Then nBackfill @96, read marks @100.
 */
#include "replicator/wal_index.h"

#include "base/bytes.h"
#include "base/clk.h"

#include <string.h>

#define INDEX_HEADER_BYTES 48
#define INDEX_CHECKED_BYTES 40
#define INDEX_BACKFILL_OFFSET 96
#define INDEX_REGION_BYTES 32768
#define INDEX_VERSION 3007000u
#define INDEX_TRIES 50 /* a writer stores both copies within microseconds; 50 tries last some ms */

enum rc wal_index_open(struct wal_index *index, sqlite3 *db, struct err *err)
{
    sqlite3_file *file = NULL;
    int code = sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
    if (code != SQLITE_OK || file == NULL || file->pMethods == NULL) {
        return err_set(err, RC_INTERNAL, "SQLite gives no file of the database (code %d)", code);
    }
    if (file->pMethods->iVersion < 2 || file->pMethods->xShmMap == NULL) {
        return err_set(err, RC_INTERNAL, "this SQLite VFS has no shared memory for WAL mode");
    }
    volatile void *map = NULL;
    code = file->pMethods->xShmMap(file, 0, INDEX_REGION_BYTES, 0, &map);
    if (code != SQLITE_OK || map == NULL) {
        return err_set(err, RC_UNAVAILABLE, "the wal-index is not there (SQLite code %d)", code);
    }
    index->file = file;
    index->map = map;
    return RC_OK;
}

static void index_copy(const volatile uint8_t *from, uint8_t *to)
{
    for (size_t i = 0; i < INDEX_HEADER_BYTES; i++) {
        to[i] = from[i];
    }
}

static uint32_t index_native_u32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

/* True when the copy is a whole, initialised header of the version we know. */
static bool index_decode(const uint8_t *copy, struct wal_index_header *header)
{
    struct wal_checksum sum = {0, 0};
    bool host_is_big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
    sum = wal_checksum_add(sum, host_is_big_endian, copy, INDEX_CHECKED_BYTES);
    if (copy[12] == 0 || index_native_u32(copy) != INDEX_VERSION ||
        sum.sum1 != index_native_u32(copy + 40) || sum.sum2 != index_native_u32(copy + 44)) {
        return false;
    }
    uint16_t page_size;
    memcpy(&page_size, copy + 14, sizeof page_size);
    header->change_count = index_native_u32(copy + 8);
    header->big_endian_checksums = copy[13] != 0;
    header->page_size_bytes = (page_size & 0xfe00u) + ((page_size & 1u) << 16);
    header->mx_frame = index_native_u32(copy + 16);
    header->page_count = index_native_u32(copy + 20);
    header->checksum.sum1 = index_native_u32(copy + 24);
    header->checksum.sum2 = index_native_u32(copy + 28);
    header->salts.salt1 = bytes_get_u32(copy + 32);
    header->salts.salt2 = bytes_get_u32(copy + 36);
    return true;
}

enum rc wal_index_read(const struct wal_index *index, struct wal_index_header *header,
                       struct err *err)
{
    for (int attempt = 0; attempt < INDEX_TRIES; attempt++) {
        uint8_t first[INDEX_HEADER_BYTES];
        uint8_t second[INDEX_HEADER_BYTES];
        index_copy(index->map, first);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        index_copy(index->map + INDEX_HEADER_BYTES, second);
        if (memcmp(first, second, sizeof first) == 0 && index_decode(first, header)) {
            return RC_OK;
        }
        if (attempt > 10) { /* somebody is writing it, or died while doing so */
            clk_pause_ms(1);
        }
    }
    return err_set(err, RC_BUSY, "the wal-index header stays unreadable; it needs recovery");
}

uint32_t wal_index_backfilled(const struct wal_index *index)
{
    const volatile uint32_t *field =
        (const volatile uint32_t *)(const volatile void *)(index->map + INDEX_BACKFILL_OFFSET);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return *field;
}

enum rc wal_index_lock(const struct wal_index *index, enum wal_lock lock, struct err *err)
{
    int code = index->file->pMethods->xShmLock(index->file, (int)lock, 1,
                                               SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
    if (code == SQLITE_OK) {
        return RC_OK;
    }
    return err_set(err, code == SQLITE_BUSY ? RC_BUSY : RC_IO, "WAL lock %d: SQLite code %d",
                   (int)lock, code);
}

void wal_index_unlock(const struct wal_index *index, enum wal_lock lock)
{
    int code = index->file->pMethods->xShmLock(index->file, (int)lock, 1,
                                               SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
    /* A lock that stays would hang all writers until this process ends, so it ends: no local file
     * system refuses to give back what we hold. */
    ASSERT(code == SQLITE_OK);
}

bool wal_index_readers_gone(const struct wal_index *index)
{
    for (int i = 1; i < WAL_READ_LOCK_COUNT; i++) {
        struct err ignored;
        enum wal_lock lock = (enum wal_lock)(WAL_LOCK_READ0 + i);
        if (wal_index_lock(index, lock, &ignored) != RC_OK) {
            return false;
        }
        wal_index_unlock(index, lock);
    }
    return true;
}
