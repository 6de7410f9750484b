/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment: a WAL object of the archive: a zstd skippable frame (RFC 8878, 3.1.2) that holds our
 * header, then one zstd frame with content checksum. Its content is the bytes of the -wal file as
 * SQLite wrote them: frames first..last, preceded by the 32-byte WAL header when first is 1. So
 * `zstd -dc` over the objects of a WAL in name order is that WAL file.
 *
 * A segment holds whole transactions, except where one is larger than SEGMENT_CONTENT_BYTES_MAX: it
 * is cut, flag SEGMENT_CONTINUED says that the object ends inside a transaction, and then
 * commit_pages is that of the last commit frame inside, or 0.
 *
 * Layout: docs/archive-format.md, "WAL object" (this file and that page say the same).
 * Thread: a writer or reader object belongs to one thread.
 */
#ifndef HARVEY_ARCHIVE_SEGMENT_H
#define HARVEY_ARCHIVE_SEGMENT_H

#include "archive/object_key.h"
#include "archive/position.h"
#include "archive/wal_format.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"

#include <stdbool.h>
#include <stdint.h>

#define SEGMENT_CONTENT_BYTES_MAX (4u << 20)
#define SEGMENT_TIMES_MAX 1024u /* rows of the time table; a writer merges beyond it */
#define SEGMENT_HEADER_BYTES_MAX (64u << 10)
#define SEGMENT_OBJECT_BYTES_MAX (SEGMENT_CONTENT_BYTES_MAX + (256u << 10))

enum segment_flags {
    SEGMENT_CONTINUED = 1u << 0, /* the object ends inside a transaction */
    SEGMENT_CONTINUES = 1u << 1, /* it begins inside a transaction */
    SEGMENT_FIRST = 1u << 2,     /* the first object of its generation: no link */
};

struct segment_time {
    uint32_t frame_no; /* last frame of a capture pass */
    int64_t unix_ms;   /* when that pass ran; never below the row before */
};

struct segment_header {
    uint32_t flags;
    uint32_t page_size_bytes;
    struct generation_id generation;
    uint32_t term;
    char lead_tag[OBJECT_TAG_BYTES];
    uint32_t wal_no;
    uint32_t first_frame_no;
    uint32_t last_frame_no;
    uint32_t commit_pages; /* size after the last commit frame in it; 0 = it holds none */
    bool big_endian_checksums;
    struct wal_salts salts;
    struct wal_checksum before; /* rolling checksum before first (frame 1: the WAL header's) */
    struct wal_checksum after;  /* and after last */
    struct wal_point link;      /* the frame before first, across a reset too; zero when FIRST */
    struct wal_point archived;  /* the archived position when this object was made; zero = none */
    uint32_t time_count;        /* 1..SEGMENT_TIMES_MAX */
    struct segment_time times[SEGMENT_TIMES_MAX];
    uint64_t content_bytes;
    uint8_t content_sha256[HASH_SHA256_BYTES];
};

/* The name under which this header's object lies (unix_ms = its last time). */
void segment_key(const struct segment_header *header, struct object_key *key);

struct segment_writer;

/* Holds a zstd context at `level` (1..19). RC_NOMEM. */
RC_MUST_CHECK enum rc segment_writer_create(int level, struct segment_writer **writer,
                                            struct err *err);
void segment_writer_destroy(struct segment_writer *writer);

/*
 * Appends the whole object to `object`. Fills header->content_bytes and content_sha256; everything
 * else is the caller's. content = the -wal bytes as said above; its size must fit the header's
 * range (asserted), and it must be at most SEGMENT_CONTENT_BYTES_MAX or hold a single frame.
 * RC_LIMIT (object's cap), RC_NOMEM, RC_INTERNAL.
 */
RC_MUST_CHECK enum rc segment_write(struct segment_writer *writer, struct segment_header *header,
                                    const uint8_t *content, size_t content_bytes,
                                    struct buf *object, struct err *err);

/*
 * Reads the header at the beginning of an object (`count` may be only its first bytes).
 * RC_LIMIT: `count` is too little; at least the object's first *need_bytes bytes are wanted (a second
 * call may want more once, never a third). RC_CORRUPT: not a WAL object, a version we do not know
 * (the text says so), a wrong hash, a field out of range.
 * *header_bytes gets the size of the skippable frame. The header is large: keep it off small stacks.
 */
RC_MUST_CHECK enum rc segment_header_decode(const uint8_t *object, size_t count,
                                            struct segment_header *header, size_t *header_bytes,
                                            size_t *need_bytes, struct err *err);

/*
 * Reads and checks a whole object: header (above), content length and SHA-256, WAL header when
 * first is 1, salts and rolling checksum of every frame from `before` to `after`, commit_pages.
 * `content` is cleared and filled; its cap must be >= SEGMENT_CONTENT_BYTES_MAX + 64 KiB.
 * key (may be NULL): the name it was fetched by; must say the same as the header.
 * RC_CORRUPT, RC_LIMIT, RC_NOMEM.
 */
struct segment_reader;
RC_MUST_CHECK enum rc segment_reader_create(struct segment_reader **reader, struct err *err);
void segment_reader_destroy(struct segment_reader *reader);
RC_MUST_CHECK enum rc segment_read(struct segment_reader *reader, const struct object_key *key,
                                   const uint8_t *object, size_t count,
                                   struct segment_header *header, struct buf *content,
                                   struct err *err);

/* The frames inside a content (behind the WAL header when first is 1). */
const uint8_t *segment_frames(const struct segment_header *header, const uint8_t *content);

#endif
