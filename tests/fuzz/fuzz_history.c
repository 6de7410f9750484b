/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_history: births, claims and markers; each input is tried as all three. What is accepted must be
 * writable, and what was written must read back as the same.
 */
#include "archive/history_format.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The text holds the same thing twice. */
static void check_twice(const struct buf *json, size_t first)
{
    ASSERT(json->size == 2 * first);
    ASSERT(memcmp(json->data, json->data + first, first) == 0);
}

static void check_birth(const uint8_t *data, size_t size, struct buf *json)
{
    struct err err = ERR_INIT;
    struct generation_birth birth;
    struct generation_birth again;
    enum rc rc = generation_birth_decode(data, size, &birth, &err);
    if (rc != RC_OK) {
        ASSERT(rc == RC_CORRUPT);
        return;
    }
    buf_clear(json);
    ASSERT(generation_birth_encode(&birth, json, &err) == RC_OK);
    ASSERT(generation_birth_decode(json->data, json->size, &again, &err) == RC_OK);
    size_t first = json->size;
    ASSERT(generation_birth_encode(&again, json, &err) == RC_OK);
    check_twice(json, first);
}

static void check_claim(const uint8_t *data, size_t size, struct buf *json)
{
    struct err err = ERR_INIT;
    struct lead_claim claim;
    struct lead_claim again;
    enum rc rc = lead_claim_decode(data, size, &claim, &err);
    if (rc != RC_OK) {
        ASSERT(rc == RC_CORRUPT);
        return;
    }
    buf_clear(json);
    ASSERT(lead_claim_encode(&claim, json, &err) == RC_OK);
    ASSERT(lead_claim_decode(json->data, json->size, &again, &err) == RC_OK);
    size_t first = json->size;
    ASSERT(lead_claim_encode(&again, json, &err) == RC_OK);
    check_twice(json, first);
}

static void check_marker(const uint8_t *data, size_t size, struct buf *json)
{
    struct err err = ERR_INIT;
    struct restored_marker marker;
    struct restored_marker again;
    enum rc rc = restored_marker_decode(data, size, &marker, &err);
    if (rc != RC_OK) {
        ASSERT(rc == RC_CORRUPT);
        return;
    }
    buf_clear(json);
    ASSERT(restored_marker_encode(&marker, json, &err) == RC_OK);
    ASSERT(restored_marker_decode(json->data, json->size, &again, &err) == RC_OK);
    size_t first = json->size;
    ASSERT(restored_marker_encode(&again, json, &err) == RC_OK);
    check_twice(json, first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf json;
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    check_birth(data, size, &json);
    check_claim(data, size, &json);
    check_marker(data, size, &json);
    buf_deinit(&json);
    return 0;
}
