/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot_format: see snapshot_format.h. Format: docs/archive-format.md, "Snapshot". */
#include "archive/snapshot_format.h"

#include "archive/json_fields.h"
#include "archive/wal_format.h"
#include "base/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARTS_FIRST 16u
#define PAGES_MAX 4294967294 /* SQLite's own limit: https://www.sqlite.org/limits.html */
/* More than zstd can make of a part's content (its bound adds less than one byte in 200). */
#define PART_OBJECT_BYTES_MAX (SNAPSHOT_PART_CONTENT_BYTES_MAX + (1u << 20))
#define TAG_RANDOM_BYTES 4
/* An entry has 161 bytes as we write it, the fields around them 500: the rest is room for more keys. */
#define JSON_BYTES_BASE ((size_t)64 << 10)
#define JSON_BYTES_PER_PART ((size_t)1 << 10)

size_t snapshot_json_bytes_max(uint32_t listed_part_count)
{
    const size_t most = (SNAPSHOT_JSON_BYTES_MAX - JSON_BYTES_BASE) / JSON_BYTES_PER_PART;
    return listed_part_count < most ? JSON_BYTES_BASE + JSON_BYTES_PER_PART * listed_part_count
                                    : SNAPSHOT_JSON_BYTES_MAX;
}

void snapshot_manifest_init(struct snapshot_manifest *manifest)
{
    memset(manifest, 0, sizeof *manifest);
}

void snapshot_manifest_deinit(struct snapshot_manifest *manifest)
{
    free(manifest->parts);
    snapshot_manifest_init(manifest);
}

enum rc snapshot_manifest_add(struct snapshot_manifest *manifest, const struct snapshot_part *part,
                              struct err *err)
{
    uint32_t count = manifest->part_count;
    if (count >= SNAPSHOT_PARTS_MAX) {
        return err_set(err, RC_LIMIT, "a snapshot has at most %u parts", SNAPSHOT_PARTS_MAX);
    }
    /* The room is not kept beside the count: it is the next power of two, at least PARTS_FIRST. */
    bool full = count == 0 || (count >= PARTS_FIRST && (count & (count - 1)) == 0);
    if (full) {
        size_t room = count == 0 ? PARTS_FIRST : (size_t)count * 2;
        struct snapshot_part *parts = realloc(manifest->parts, room * sizeof *parts);
        if (parts == NULL) {
            return err_set(err, RC_NOMEM, "no memory for %zu parts of a snapshot", room);
        }
        manifest->parts = parts;
    }
    manifest->parts[count] = *part;
    manifest->part_count = count + 1;
    return RC_OK;
}

static json_t *snapshot_parts_to_json(const struct snapshot_manifest *manifest)
{
    json_t *array = json_array();
    for (uint32_t i = 0; array != NULL && i < manifest->part_count; i++) {
        const struct snapshot_part *part = &manifest->parts[i];
        char hex[2 * HASH_SHA256_BYTES + 1];
        bytes_to_hex(part->object_sha256, HASH_SHA256_BYTES, hex);
        json_t *row = json_pack("{s:I, s:I, s:s}", "content_bytes", (json_int_t)part->content_bytes,
                                "object_bytes", (json_int_t)part->object_bytes, "sha256", hex);
        if (json_array_append_new(array, row) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

enum rc snapshot_manifest_encode(const struct snapshot_manifest *manifest, struct buf *json,
                                 struct err *err)
{
    size_t start = json->size;
    json_t *root =
        json_pack("{s:i, s:s, s:o, s:s, s:I, s:I, s:I, s:I, s:o}", "format", 1, "generation",
                  manifest->generation.text, "point", json_fields_new_point(&manifest->point),
                  "tag", manifest->tag, "page_size", (json_int_t)manifest->page_size_bytes, "pages",
                  (json_int_t)manifest->database_pages, "unix_ms", (json_int_t)manifest->unix_ms,
                  "completed_unix_ms", (json_int_t)manifest->completed_unix_ms, "parts",
                  snapshot_parts_to_json(manifest));
    enum rc rc = json_fields_write(root, json, err);
    if (rc != RC_OK) {
        return rc;
    }
    /* What a reader would refuse must not reach the archive: the reader's rules, before writing. */
    struct snapshot_manifest again;
    snapshot_manifest_init(&again);
    rc = snapshot_manifest_decode(json->data + start, json->size - start, &again, err);
    snapshot_manifest_deinit(&again);
    if (rc != RC_OK) {
        json->size = start;
        rc = rc == RC_CORRUPT ? RC_INVALID : rc;
        if (err != NULL) {
            err->rc = rc;
        }
    }
    return rc;
}

/* Adds all parts; returns their content's sum. */
static uint64_t snapshot_parts_from_json(struct json_fields *fields,
                                         struct snapshot_manifest *manifest)
{
    uint64_t sum_bytes = 0;
    json_t *array = json_fields_array(fields, "parts", 1, SNAPSHOT_PARTS_MAX);
    size_t count = json_array_size(array); /* 0 for NULL */
    for (size_t i = 0; i < count && fields->rc == RC_OK; i++) {
        struct snapshot_part part;
        char what[64];
        struct json_fields inner = *fields;
        (void)snprintf(what, sizeof what, "part %zu of a snapshot's manifest", i + 1);
        inner.object = json_array_get(array, i);
        inner.what = what;
        part.content_bytes =
            (uint64_t)json_fields_int(&inner, "content_bytes", 1, SNAPSHOT_PART_CONTENT_BYTES_MAX);
        part.object_bytes =
            (uint64_t)json_fields_int(&inner, "object_bytes", 1, PART_OBJECT_BYTES_MAX);
        json_fields_hex(&inner, "sha256", part.object_sha256, HASH_SHA256_BYTES);
        if (inner.rc == RC_OK) {
            inner.rc = snapshot_manifest_add(manifest, &part, inner.err);
            sum_bytes += part.content_bytes;
        }
        fields->rc = inner.rc;
    }
    return sum_bytes;
}

static void snapshot_manifest_from_json(struct json_fields *fields,
                                        struct snapshot_manifest *manifest)
{
    uint8_t random[TAG_RANDOM_BYTES];
    json_fields_generation(fields, "generation", &manifest->generation);
    json_fields_point(fields, "point", &manifest->point);
    json_fields_hex(fields, "tag", random, sizeof random);
    bytes_to_hex(random, sizeof random, manifest->tag);
    manifest->page_size_bytes =
        (uint32_t)json_fields_int(fields, "page_size", WAL_PAGE_BYTES_MIN, WAL_PAGE_BYTES_MAX);
    manifest->database_pages = (uint32_t)json_fields_int(fields, "pages", 1, PAGES_MAX);
    manifest->unix_ms = json_fields_int(fields, "unix_ms", 0, JSON_FIELDS_UNIX_MS_MAX);
    manifest->completed_unix_ms =
        json_fields_int(fields, "completed_unix_ms", 0, JSON_FIELDS_UNIX_MS_MAX);
    if (fields->rc == RC_OK && !wal_page_size_is_valid(manifest->page_size_bytes)) {
        json_fields_fail(fields, "page_size", "is no power of two");
    }
    uint64_t sum_bytes = snapshot_parts_from_json(fields, manifest);
    if (fields->rc == RC_OK &&
        sum_bytes != (uint64_t)manifest->page_size_bytes * manifest->database_pages) {
        json_fields_fail(fields, "parts", "do not add up to page_size * pages");
    }
}

enum rc snapshot_manifest_decode(const uint8_t *json, size_t count,
                                 struct snapshot_manifest *manifest, struct err *err)
{
    struct snapshot_manifest read;
    struct json_fields fields;
    snapshot_manifest_init(&read);
    enum rc rc = json_fields_open(&fields, json, count, SNAPSHOT_JSON_BYTES_MAX,
                                  "a snapshot's manifest", err);
    if (rc == RC_OK) {
        snapshot_manifest_from_json(&fields, &read);
        rc = fields.rc;
    }
    json_fields_close(&fields);
    if (rc != RC_OK) {
        snapshot_manifest_deinit(&read);
        return rc;
    }
    snapshot_manifest_deinit(manifest);
    *manifest = read;
    return RC_OK;
}

static void snapshot_key(const struct snapshot_manifest *manifest, enum object_kind kind,
                         uint32_t part_no, char text[OBJECT_KEY_BYTES])
{
    struct object_key key = {
        .kind = kind,
        .generation = manifest->generation,
        .position = manifest->point.position,
        .part_no = part_no,
    };
    memcpy(key.tag, manifest->tag, sizeof key.tag);
    object_key_format(&key, text);
}

void snapshot_complete_key(const struct snapshot_manifest *manifest, char key[OBJECT_KEY_BYTES])
{
    snapshot_key(manifest, OBJECT_SNAPSHOT_COMPLETE, 0, key);
}

void snapshot_part_key(const struct snapshot_manifest *manifest, uint32_t part_no,
                       char key[OBJECT_KEY_BYTES])
{
    snapshot_key(manifest, OBJECT_SNAPSHOT_PART, part_no, key);
}
