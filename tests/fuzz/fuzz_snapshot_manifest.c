/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_snapshot_manifest: complete.json. What is accepted adds up, has names that parse, and reads back
 * after writing as the same.
 */
#include "archive/snapshot_format.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_accepted(const struct snapshot_manifest *manifest)
{
    struct err err = ERR_INIT;
    struct snapshot_manifest again;
    struct object_key key;
    struct buf json;
    char text[OBJECT_KEY_BYTES];
    uint64_t sum_bytes = 0;
    for (uint32_t i = 0; i < manifest->part_count; i++) {
        sum_bytes += manifest->parts[i].content_bytes;
    }
    ASSERT(sum_bytes == (uint64_t)manifest->page_size_bytes * manifest->database_pages);
    snapshot_part_key(manifest, manifest->part_count, text);
    ASSERT(object_key_parse(text, &key));
    buf_init(&json, SNAPSHOT_JSON_BYTES_MAX);
    snapshot_manifest_init(&again);
    ASSERT(snapshot_manifest_encode(manifest, &json, &err) == RC_OK);
    ASSERT(snapshot_manifest_decode(json.data, json.size, &again, &err) == RC_OK);
    ASSERT(again.part_count == manifest->part_count);
    ASSERT(memcmp(again.parts, manifest->parts, again.part_count * sizeof *again.parts) == 0);
    ASSERT(wal_point_equal(again.point, manifest->point));
    snapshot_manifest_deinit(&again);
    buf_deinit(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;
    struct snapshot_manifest manifest;
    snapshot_manifest_init(&manifest);
    enum rc rc = snapshot_manifest_decode(data, size, &manifest, &err);
    if (rc == RC_OK) {
        check_accepted(&manifest);
    } else {
        ASSERT(rc == RC_CORRUPT);
        ASSERT(manifest.parts == NULL);
    }
    snapshot_manifest_deinit(&manifest);
    return 0;
}
