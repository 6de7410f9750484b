/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec: both ways of encoding against both ways of decoding; then frames that a reader must refuse,
 * made with libzstd itself where our encoder cannot make them.
 */
#include "archive/codec.h"

#include "base/bytes.h"
#include "tests/unit/checks.h"
#include "tests/unit/guarded.h"

#include <stdbool.h>
#include <stdlib.h>
#include <zstd.h>

#define BIG_BYTES (20u << 20)

static struct err err;
static struct codec_encoder *encoder;
static struct codec_decoder *decoder;
static struct buf packed;
static struct buf plain;
static uint8_t *big;

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    buf_init(&packed, BIG_BYTES + (1u << 20));
    buf_init(&plain, BIG_BYTES + (1u << 20));
    big = malloc(BIG_BYTES);
    if (big == NULL || codec_encoder_create(3, &encoder, &err) != RC_OK ||
        codec_decoder_create(&decoder, &err) != RC_OK) {
        return -1;
    }
    for (size_t i = 0; i < BIG_BYTES; i++) { /* repeats at 7, 13 and 19 million bytes' distance */
        big[i] = (uint8_t)((i % 6999997) * 2654435761u >> 17) & (i % 3 == 0 ? 0xff : 0x0f);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    codec_encoder_destroy(encoder);
    codec_decoder_destroy(decoder);
    encoder = NULL;
    decoder = NULL;
    buf_deinit(&packed);
    buf_deinit(&plain);
    free(big);
    return 0;
}

static enum rc append_sink(void *arg, const uint8_t *bytes, size_t count, struct err *sink_err)
{
    return buf_append(arg, bytes, count, sink_err);
}

static void check_plain(size_t count)
{
    assert_int_equal(plain.size, count);
    assert_true(count == 0 || memcmp(plain.data, big, count) == 0);
}

static void encode_streaming(size_t count, size_t piece)
{
    buf_clear(&packed);
    check_ok(codec_encode_begin(encoder, count, &err));
    for (size_t at = 0; at < count; at += piece) {
        size_t left = count - at;
        check_ok(codec_encode_piece(encoder, big + at, left < piece ? left : piece, append_sink,
                                    &packed, &err));
    }
    check_ok(codec_encode_end(encoder, append_sink, &packed, &err));
}

/* The first failure of a streamed decoding, or RC_OK. */
static enum rc decode_streaming(const uint8_t *bytes, size_t count, size_t piece)
{
    enum rc rc = RC_OK;
    buf_clear(&plain);
    codec_decode_begin(decoder);
    for (size_t at = 0; at < count && rc == RC_OK; at += piece) {
        size_t left = count - at;
        rc = codec_decode_piece(decoder, bytes + at, left < piece ? left : piece, append_sink,
                                &plain, &err);
    }
    return rc == RC_OK ? codec_decode_end(decoder, &err) : rc;
}

static enum rc decode_whole(const uint8_t *bytes, size_t count, size_t content_bytes)
{
    buf_clear(&plain);
    return codec_decode(decoder, bytes, count, content_bytes, &plain, &err);
}

static void test_codec__all_ways_round_trip(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 7, 255, 256, 65535, 131072, 131073, 1000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t count = sizes[i];
        buf_clear(&packed);
        check_ok(codec_encode(encoder, big, count, &packed, &err));
        check_ok(decode_whole(packed.data, packed.size, count));
        check_plain(count);
        check_ok(decode_streaming(packed.data, packed.size, 4096));
        check_plain(count);
        encode_streaming(count, 5000);
        check_ok(decode_whole(packed.data, packed.size, count));
        check_plain(count);
        check_ok(decode_streaming(packed.data, packed.size, packed.size));
        check_plain(count);
    }
}

static void test_codec__streams_byte_by_byte(void **state)
{
    (void)state;
    encode_streaming(3000, 1);
    check_ok(decode_streaming(packed.data, packed.size, 1));
    check_plain(3000);
}

static void test_codec__encode_appends(void **state)
{
    (void)state;
    check_ok(buf_append(&packed, "head", 4, &err));
    check_ok(codec_encode(encoder, big, 500, &packed, &err));
    assert_memory_equal(packed.data, "head", 4);
    check_ok(decode_whole(packed.data + 4, packed.size - 4, 500));
    check_ok(codec_decode(decoder, packed.data + 4, packed.size - 4, 500, &plain, &err));
    assert_int_equal(plain.size, 1000);
    assert_memory_equal(plain.data + 500, big, 500);
}

static void test_codec__every_level_stays_readable(void **state)
{
    (void)state;
    for (int level = 1; level <= 19; level += 3) {
        codec_encoder_destroy(encoder);
        encoder = NULL;
        check_ok(codec_encoder_create(level, &encoder, &err));
        encode_streaming(BIG_BYTES, 1u << 20);
        check_ok(decode_streaming(packed.data, packed.size, 1u << 16));
        check_plain(BIG_BYTES);
    }
}

static void test_codec__level_out_of_range_is_invalid(void **state)
{
    (void)state;
    struct codec_encoder *none = NULL;
    check_fails(RC_INVALID, codec_encoder_create(0, &none, &err));
    check_fails(RC_INVALID, codec_encoder_create(20, &none, &err));
    check_fails(RC_INVALID, codec_encoder_create(-5, &none, &err));
    assert_null(none);
    codec_encoder_destroy(NULL);
    codec_decoder_destroy(NULL);
}

static void test_codec__same_input_gives_the_same_bytes(void **state)
{
    (void)state;
    struct codec_encoder *other = NULL;
    struct buf again;
    buf_init(&again, BIG_BYTES);
    check_ok(codec_encoder_create(3, &other, &err));
    check_ok(codec_encode(encoder, big, 4u << 20, &packed, &err));
    for (int round = 0; round < 10;
         round++) { /* a context that has worked before, on other sizes */
        buf_clear(&again);
        check_ok(codec_encode(other, big + (size_t)round * 1000, 100000, &again, &err));
        buf_clear(&again);
        check_ok(codec_encode(other, big, 4u << 20, &again, &err));
        assert_int_equal(again.size, packed.size);
        assert_memory_equal(again.data, packed.data, packed.size);
    }
    codec_encoder_destroy(other);
    buf_deinit(&again);
}

static void test_codec__cap_of_the_output_is_a_limit(void **state)
{
    (void)state;
    struct buf small;
    check_ok(codec_encode(encoder, big, 100000, &packed, &err));
    size_t enough = packed.size + 1000; /* far less than the bound */
    buf_init(&small, enough);
    check_ok(codec_encode(encoder, big, 100000, &small, &err));
    assert_int_equal(small.size, packed.size);
    check_fails(RC_LIMIT, codec_encode(encoder, big, 100000, &small, &err)); /* it is full */
    assert_int_equal(small.size, packed.size);
    buf_deinit(&small);
    buf_init(&small, packed.size / 2);
    check_fails(RC_LIMIT, codec_encode(encoder, big, 100000, &small, &err));
    assert_int_equal(small.size, 0);
    check_fails(RC_LIMIT, codec_decode(decoder, packed.data, packed.size, 100000, &small, &err));
    buf_deinit(&small);
    buf_clear(&packed);
    check_ok(codec_encode(encoder, big, 10, &packed, &err)); /* none of it did any harm */
    check_ok(decode_whole(packed.data, packed.size, 10));
}

static void test_codec__announced_size_must_come_true(void **state)
{
    (void)state;
    check_ok(codec_encode_begin(encoder, 100, &err));
    check_ok(codec_encode_piece(encoder, big, 99, append_sink, &packed, &err));
    check_fails(RC_INTERNAL, codec_encode_end(encoder, append_sink, &packed, &err));
    check_ok(codec_encode_begin(encoder, 100, &err));
    enum rc rc = codec_encode_piece(encoder, big, 101, append_sink, &packed, &err);
    if (rc == RC_OK) {
        rc = codec_encode_end(encoder, append_sink, &packed, &err);
    }
    assert_int_equal(rc, RC_INTERNAL);
    encode_streaming(5000, 100);
    check_ok(decode_streaming(packed.data, packed.size, 7));
}

static enum rc failing_sink(void *arg, const uint8_t *bytes, size_t count, struct err *sink_err)
{
    (void)bytes;
    (void)count;
    (*(int *)arg)++;
    return err_set(sink_err, RC_STOPPED, "the sink is shut");
}

static void test_codec__code_of_the_sink_is_returned(void **state)
{
    (void)state;
    int calls = 0;
    check_ok(codec_encode(encoder, big, 1000000, &packed, &err));
    codec_decode_begin(decoder);
    check_fails(RC_STOPPED,
                codec_decode_piece(decoder, packed.data, packed.size, failing_sink, &calls, &err));
    assert_int_equal(calls, 1);
    check_ok(codec_encode_begin(encoder, 1000, &err));
    check_ok(codec_encode_piece(encoder, big, 1000, failing_sink, &calls, &err)); /* kept inside */
    check_fails(RC_STOPPED, codec_encode_end(encoder, failing_sink, &calls, &err));
    assert_int_equal(calls, 2);
    encode_streaming(1000, 100);
    check_ok(decode_streaming(packed.data, packed.size, 100));
}

static void test_codec__every_prefix_is_corrupt(void **state)
{
    (void)state;
    struct guarded guarded;
    check_ok(codec_encode(encoder, big, 700, &packed, &err));
    guarded_init(&guarded, packed.size);
    for (size_t count = 0; count < packed.size; count++) {
        const uint8_t *bytes = guarded_place(&guarded, packed.data, count);
        check_fails(RC_CORRUPT, decode_whole(bytes, count, 700));
        check_fails(RC_CORRUPT, decode_streaming(bytes, count, 64));
    }
    check_ok(decode_whole(guarded_place(&guarded, packed.data, packed.size), packed.size, 700));
    guarded_deinit(&guarded);
}

static void test_codec__every_flip_is_corrupt_or_harmless(void **state)
{
    (void)state;
    struct guarded guarded;
    check_ok(codec_encode(encoder, big, 700, &packed, &err));
    guarded_init(&guarded, packed.size);
    for (size_t at = 0; at < packed.size; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            uint8_t *bytes = guarded_place(&guarded, packed.data, packed.size);
            bytes[at] ^= (uint8_t)(1u << bit);
            if (decode_whole(bytes, packed.size, 700) == RC_OK) {
                check_plain(700); /* bits that zstd does not use */
            }
            if (decode_streaming(bytes, packed.size, 50) == RC_OK) {
                check_plain(700);
            }
        }
    }
    guarded_deinit(&guarded);
}

static void test_codec__wrong_content_size_is_corrupt(void **state)
{
    (void)state;
    check_ok(codec_encode(encoder, big, 700, &packed, &err));
    check_fails(RC_CORRUPT, decode_whole(packed.data, packed.size, 699));
    check_fails(RC_CORRUPT, decode_whole(packed.data, packed.size, 701));
    check_fails(RC_CORRUPT, decode_whole(packed.data, packed.size, 0));
    assert_int_equal(plain.size, 0);
}

static void test_codec__bytes_behind_the_frame_are_corrupt(void **state)
{
    (void)state;
    check_ok(codec_encode(encoder, big, 700, &packed, &err));
    size_t frame_bytes = packed.size;
    check_ok(codec_encode(encoder, big, 700, &packed, &err)); /* a second frame */
    check_fails(RC_CORRUPT, decode_whole(packed.data, packed.size, 700));
    check_fails(RC_CORRUPT, decode_whole(packed.data, packed.size, 1400));
    check_fails(RC_CORRUPT, decode_whole(packed.data, frame_bytes + 1, 700));
    check_fails(RC_CORRUPT, decode_streaming(packed.data, packed.size, packed.size));
    check_fails(RC_CORRUPT, decode_streaming(packed.data, frame_bytes + 1, 1));
    check_fails(RC_CORRUPT, decode_streaming(packed.data, packed.size, frame_bytes));
    packed.size = frame_bytes;
    check_ok(
        codec_encode(encoder, big, 0, &packed, &err)); /* one that adds nothing is one too many */
    check_fails(RC_CORRUPT, decode_whole(packed.data, packed.size, 700));
    check_fails(RC_CORRUPT, decode_streaming(packed.data, packed.size, packed.size));
}

/* A frame by libzstd with these settings; streamed, so that the window is as set. */
static void make_foreign(bool checksum, int window_log, bool content_size)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    assert_non_null(context);
    buf_clear(&packed);
    check_ok(buf_reserve(&packed, 1u << 20, &err));
    (void)ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, checksum);
    (void)ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, content_size);
    (void)ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log);
    if (content_size) {
        (void)ZSTD_CCtx_setPledgedSrcSize(context, 1000);
    }
    ZSTD_inBuffer in = {big, 1000, 0};
    ZSTD_outBuffer out = {packed.data, packed.capacity, 0};
    (void)ZSTD_compressStream2(context, &out, &in, ZSTD_e_flush);
    assert_int_equal(ZSTD_compressStream2(context, &out, &in, ZSTD_e_end), 0);
    packed.size = out.pos;
    (void)ZSTD_freeCCtx(context);
}

static void test_codec__wide_windows_are_corrupt(void **state)
{
    (void)state;
    make_foreign(true, 23, false);
    check_ok(decode_streaming(packed.data, packed.size, 100));
    check_plain(1000);
    for (int window_log = 24; window_log <= 30; window_log++) {
        make_foreign(true, window_log, false);
        check_fails(RC_CORRUPT, decode_streaming(packed.data, packed.size, 100));
        check_text("8 MiB");
        check_fails(RC_CORRUPT, decode_whole(packed.data, packed.size, 1000));
    }
}

static void test_codec__frame_without_checksum_is_corrupt(void **state)
{
    (void)state;
    make_foreign(false, 20, false);
    check_fails(RC_CORRUPT, decode_streaming(packed.data, packed.size, 100));
    check_text("checksum");
    check_fails(RC_CORRUPT, decode_whole(packed.data, packed.size, 1000));
}

/* In one piece a frame must say what it holds (docs/archive-format.md). */
static void test_codec__frame_without_content_size_is_corrupt(void **state)
{
    (void)state;
    make_foreign(true, 20, false);
    check_ok(decode_streaming(packed.data, packed.size, 100));
    check_plain(1000);
    check_fails(RC_CORRUPT, decode_whole(packed.data, packed.size, 1000));
}

static void test_codec__skippable_frame_is_corrupt(void **state)
{
    (void)state;
    uint8_t bytes[16] = {0x5b, 0x2a, 0x4d, 0x18, 8};
    check_fails(RC_CORRUPT, decode_whole(bytes, sizeof bytes, 0));
    check_fails(RC_CORRUPT, decode_streaming(bytes, sizeof bytes, 16));
    check_fails(RC_CORRUPT, decode_streaming(bytes, sizeof bytes, 1));
    check_ok(codec_encode(encoder, big, 10, &packed, &err)); /* also not in front of one */
    uint8_t both[64];
    memcpy(both, bytes, sizeof bytes);
    memcpy(both + sizeof bytes, packed.data, packed.size);
    check_fails(RC_CORRUPT, decode_streaming(both, sizeof bytes + packed.size, 64));
    uint8_t like_a_frame[8 + 0x24] = {0x5b, 0x2a, 0x4d, 0x18,
                                      0x24}; /* its length as a descriptor */
    check_fails(RC_CORRUPT, decode_streaming(like_a_frame, sizeof like_a_frame, 64));
    check_text("not a zstd frame");
}

static void test_codec__single_segment_beyond_the_window_is_corrupt(void **state)
{
    (void)state;
    /* single segment, checksum, 8-byte content size of 2^40: a decoder that believed it would die */
    uint8_t bytes[32] = {0x28, 0xb5, 0x2f, 0xfd, 0xe4, 0, 0, 0, 0, 0, 1, 0, 0};
    check_fails(RC_CORRUPT, decode_streaming(bytes, sizeof bytes, 32));
    check_fails(RC_CORRUPT, decode_whole(bytes, sizeof bytes, 100));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_codec__all_ways_round_trip),
        TEST(test_codec__streams_byte_by_byte),
        TEST(test_codec__encode_appends),
        TEST(test_codec__every_level_stays_readable),
        TEST(test_codec__level_out_of_range_is_invalid),
        TEST(test_codec__same_input_gives_the_same_bytes),
        TEST(test_codec__cap_of_the_output_is_a_limit),
        TEST(test_codec__announced_size_must_come_true),
        TEST(test_codec__code_of_the_sink_is_returned),
        TEST(test_codec__every_prefix_is_corrupt),
        TEST(test_codec__every_flip_is_corrupt_or_harmless),
        TEST(test_codec__wrong_content_size_is_corrupt),
        TEST(test_codec__bytes_behind_the_frame_are_corrupt),
        TEST(test_codec__wide_windows_are_corrupt),
        TEST(test_codec__frame_without_checksum_is_corrupt),
        TEST(test_codec__frame_without_content_size_is_corrupt),
        TEST(test_codec__skippable_frame_is_corrupt),
        TEST(test_codec__single_segment_beyond_the_window_is_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
