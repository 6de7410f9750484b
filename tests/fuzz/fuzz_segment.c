/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_segment: WAL objects, in three ways, since hashes would stop nearly every input at once:
 * as they are; with the header's hash made right; and with the bytes behind the header taken as the
 * plain content of an object that is compressed and hashed for them.
 *
 * Whatever is accepted must be written back to the same header bytes.
 */
#include "archive/codec.h"
#include "archive/segment.h"
#include "archive/segment_internal.h"
#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

#define FRAME_HEAD_BYTES 8u
#define AT_CONTENT_BYTES 120u /* docs/archive-format.md, "WAL object" */
#define AT_CONTENT_SHA256 128u
#define HEADER_BYTES_MIN 212u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct segment_reader *reader;
static struct codec_encoder *encoder;
static struct segment_header *header;
static struct buf object;
static struct buf content;

static void prepare(void)
{
    if (reader != NULL) {
        return;
    }
    struct err err = ERR_INIT;
    header = calloc(1, sizeof *header);
    ASSERT(header != NULL);
    ASSERT(segment_reader_create(&reader, &err) == RC_OK);
    ASSERT(codec_encoder_create(1, &encoder, &err) == RC_OK);
    buf_init(&object, SEGMENT_OBJECT_BYTES_MAX);
    buf_init(&content, SEGMENT_CONTENT_BYTES_MAX + (64u << 10));
}

static void check_object(const uint8_t *bytes, size_t count)
{
    struct err err = ERR_INIT;
    enum rc rc = segment_read(reader, NULL, bytes, count, header, &content, &err);
    if (rc != RC_OK) {
        ASSERT(rc == RC_CORRUPT);
        ASSERT(content.size == 0);
        return;
    }
    size_t header_bytes = segment_header_frame_bytes(header->time_count);
    uint8_t *again = malloc(header_bytes);
    ASSERT(again != NULL);
    ASSERT(segment_header_problem(header) == NULL);
    ASSERT(segment_header_encode(header, again, &err) == RC_OK);
    ASSERT(memcmp(again, bytes, header_bytes) == 0);
    ASSERT(content.size == header->content_bytes);
    free(again);
}

/* The length of the header, or 0 when the input cannot hold one. */
static size_t header_length(const uint8_t *data, size_t size)
{
    if (size < FRAME_HEAD_BYTES + HEADER_BYTES_MIN) {
        return 0;
    }
    size_t length = bytes_get_u32_le(data + 4);
    return length >= HEADER_BYTES_MIN && length <= size - FRAME_HEAD_BYTES ? length : 0;
}

static void seal(uint8_t *bytes, size_t length)
{
    uint8_t *p = bytes + FRAME_HEAD_BYTES;
    struct err err;
    ASSERT(hash_sha256(p, length - HASH_SHA256_BYTES, p + length - HASH_SHA256_BYTES, &err) ==
           RC_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;
    prepare();
    check_object(data, size);
    size_t length = header_length(data, size);
    if (length == 0) {
        return 0;
    }
    buf_clear(&object);
    if (buf_append(&object, data, size, &err) != RC_OK) {
        return 0;
    }
    seal(object.data, length);
    check_object(object.data, object.size);

    const uint8_t *plain = data + FRAME_HEAD_BYTES + length;
    size_t plain_bytes = size - FRAME_HEAD_BYTES - length;
    uint8_t *p = object.data + FRAME_HEAD_BYTES;
    bytes_put_u64(p + AT_CONTENT_BYTES, plain_bytes);
    ASSERT(hash_sha256(plain, plain_bytes, p + AT_CONTENT_SHA256, &err) == RC_OK);
    seal(object.data, length);
    object.size = FRAME_HEAD_BYTES + length;
    if (codec_encode(encoder, plain, plain_bytes, &object, &err) == RC_OK) {
        check_object(object.data, object.size);
    }
    return 0;
}
