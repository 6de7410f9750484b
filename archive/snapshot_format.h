/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_format: complete.json, the object that makes a snapshot exist: written last, it lists the
 * parts with their sizes and SHA-256 and says at which point the database was taken.
 *
 * Parts: the database file cut every SNAPSHOT_PART_CONTENT_BYTES_MAX bytes, each one zstd frame.
 * Layout: docs/archive-format.md, "Snapshot". Thread: any.
 */
#ifndef HARVEY_ARCHIVE_SNAPSHOT_FORMAT_H
#define HARVEY_ARCHIVE_SNAPSHOT_FORMAT_H

#include "archive/object_key.h"
#include "archive/position.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"

#include <stddef.h>
#include <stdint.h>

#define SNAPSHOT_PART_CONTENT_BYTES_MAX (16u << 20)
#define SNAPSHOT_PARTS_MAX 1000000u
#define SNAPSHOT_JSON_BYTES_MAX (256u << 20)

struct snapshot_part {
    uint64_t content_bytes; /* of the database file */
    uint64_t object_bytes;  /* as stored */
    uint8_t object_sha256[HASH_SHA256_BYTES];
};

struct snapshot_manifest {
    struct generation_id generation;
    struct wal_point point; /* the state that the parts hold */
    char tag[OBJECT_TAG_BYTES];
    uint32_t page_size_bytes;
    uint32_t database_pages;
    int64_t unix_ms;           /* when the read transaction was opened */
    int64_t completed_unix_ms; /* when the parts were made */
    uint32_t part_count;
    struct snapshot_part *parts; /* owned */
};

/*
 * The most bytes that the complete.json of a snapshot has of which so many parts were listed. All were
 * put before it, so no reader needs more; and read as JSON it takes some 20 times its bytes.
 */
size_t snapshot_json_bytes_max(uint32_t listed_part_count);

void snapshot_manifest_init(struct snapshot_manifest *manifest);
void snapshot_manifest_deinit(struct snapshot_manifest *manifest);

/* Appends a part; RC_NOMEM, RC_LIMIT. */
RC_MUST_CHECK enum rc snapshot_manifest_add(struct snapshot_manifest *manifest,
                                            const struct snapshot_part *part, struct err *err);

/* Appends the JSON text. RC_NOMEM, RC_LIMIT; RC_INVALID: a reader would refuse it, `json` is as before. */
RC_MUST_CHECK enum rc snapshot_manifest_encode(const struct snapshot_manifest *manifest,
                                               struct buf *json, struct err *err);

/*
 * Every field checked, also that the parts add up to page size * pages. `manifest` was initialised;
 * it is replaced (its parts freed) on RC_OK and untouched otherwise. RC_CORRUPT, RC_NOMEM.
 */
RC_MUST_CHECK enum rc snapshot_manifest_decode(const uint8_t *json, size_t count,
                                               struct snapshot_manifest *manifest, struct err *err);

/* Keys of its objects. part_no from 1. */
void snapshot_complete_key(const struct snapshot_manifest *manifest, char key[OBJECT_KEY_BYTES]);
void snapshot_part_key(const struct snapshot_manifest *manifest, uint32_t part_no,
                       char key[OBJECT_KEY_BYTES]);

#endif
