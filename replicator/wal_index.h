/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wal_index: the wal-index (the -shm file) of an open connection: its header, nBackfill, and the
 * WAL locks. The only file that calls SQLite's VFS methods xShmMap and xShmLock.
 *
 * Layout: https://www.sqlite.org/walformat.html, 2.1 (header, native byte order, two copies) and
 * 2.2 (locks). Tried with SQLite 3.40.1 and 3.46.1; a test pins the layout, so another version that
 * changes it fails loudly (tests/unit/test_wal_index.c).
 *
 * Thread: that of the connection.
 */
#ifndef HARVEY_REPLICATOR_WAL_INDEX_H
#define HARVEY_REPLICATOR_WAL_INDEX_H

#include "archive/position.h"
#include "archive/wal_format.h"
#include "base/err.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

struct wal_index {
    sqlite3_file *file;          /* borrowed from the connection */
    const volatile uint8_t *map; /* first 32 KiB; valid while the connection is open */
};

struct wal_index_header {
    uint32_t change_count;
    bool big_endian_checksums;
    uint32_t page_size_bytes;
    uint32_t mx_frame;            /* last committed frame; 0 = none */
    uint32_t page_count;          /* database size in pages */
    struct wal_checksum checksum; /* of frame mx_frame */
    struct wal_salts salts;
};

/* WAL lock numbers, walformat.html 2.2. */
enum wal_lock { WAL_LOCK_WRITE = 0, WAL_LOCK_CHECKPOINT = 1, WAL_LOCK_READ0 = 3 };
#define WAL_READ_LOCK_COUNT 5

/*
 * Maps the index of a connection that has read once in WAL mode. RC_INTERNAL when the VFS lacks
 * shared memory, RC_UNAVAILABLE while there is no index.
 */
RC_MUST_CHECK enum rc wal_index_open(struct wal_index *index, sqlite3 *db, struct err *err);

/* Both copies equal and their checksum right; tries for a few ms. RC_BUSY when it stays unreadable. */
RC_MUST_CHECK enum rc wal_index_read(const struct wal_index *index, struct wal_index_header *header,
                                     struct err *err);

/* nBackfill: frames already copied into the database file. */
uint32_t wal_index_backfilled(const struct wal_index *index);

/* Takes the lock exclusively, at once or RC_BUSY. Release before the connection does anything else. */
RC_MUST_CHECK enum rc wal_index_lock(const struct wal_index *index, enum wal_lock lock,
                                     struct err *err);
void wal_index_unlock(const struct wal_index *index, enum wal_lock lock);

/* True when nobody, in any process, holds READ(1) to READ(4). Takes and frees each for a moment. */
bool wal_index_readers_gone(const struct wal_index *index);

#endif
