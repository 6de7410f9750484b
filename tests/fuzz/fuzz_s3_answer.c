/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_s3_answer: any bytes as a store's answer: header lines up to an empty one, then a body in
 * pieces. No byte outside may be read (the input is placed by the fuzzer), all that is kept must
 * end in time, and what is neither whole nor a success must never count as one.
 */
#include "archive/s3_answer.h"

#include <stdint.h>
#include <string.h>

static void check_text(const char *text, size_t bytes_max)
{
    size_t count = strnlen(text, bytes_max);
    ASSERT(count < bytes_max);
    for (size_t i = 0; i < count; i++) {
        ASSERT(text[i] >= ' ' && text[i] <= '~');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct s3_answer answer;
    struct err err = ERR_INIT;
    const char *p = (const char *)data;
    const char *end = p + size;
    bool headers = true;
    size_t body_bytes = 0;
    s3_answer_init(&answer);
    while (p < end && headers) {
        const char *line_end = memchr(p, '\n', (size_t)(end - p));
        size_t count = line_end != NULL ? (size_t)(line_end - p) + 1 : (size_t)(end - p);
        headers = count > 2;
        s3_answer_add_header(&answer, p, count);
        p += count;
    }
    answer.transport = S3_TRANSPORT_OK;
    while (p < end) {
        size_t left = (size_t)(end - p);
        size_t piece = (size_t)(uint8_t)*p + 1;
        piece = piece < left ? piece : left;
        s3_answer_add_body(&answer, p, piece);
        body_bytes += piece;
        p += piece;
    }
    s3_answer_finish(&answer);
    check_text(answer.etag, sizeof answer.etag);
    check_text(answer.code, sizeof answer.code);
    check_text(answer.message, sizeof answer.message);
    check_text(answer.location, sizeof answer.location);
    ASSERT(answer.body_bytes == body_bytes);
    ASSERT(!s3_answer_is_listing(&answer) || s3_answer_is_whole(&answer));
    ASSERT(!s3_answer_is_whole(&answer) || s3_answer_is_success(&answer));
    ASSERT(!s3_answer_is_success(&answer) || answer.http_status / 100 == 2);
    ASSERT(!answer.has_range || answer.range_first <= answer.range_last);
    ASSERT(s3_answer_fail(&answer, "GET", "key", &err) == err.rc && err.rc != RC_OK);
    return 0;
}
