/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec: see codec.h. The only file that calls libzstd; its stable API alone, so that any libzstd 1.4
 * or later serves. Frames: RFC 8878, 3.1.1 (magic, descriptor, window descriptor, content size).
 *
 * Trusts nothing that it decodes: one frame, with a content checksum, without a dictionary, with a
 * window of at most 8 MiB, or RC_CORRUPT.
 */
#include "archive/codec.h"

#include "base/bytes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define CODEC_LEVEL_MIN 1
#define CODEC_LEVEL_MAX 19
#define CODEC_WINDOW_LOG_MAX 23    /* 8 MiB: what a reader must be ready to hold */
#define CODEC_WIDE_WINDOW_LEVEL 16 /* from here on zstd's own tables come near that */
#define CODEC_FRAME_HEAD_BYTES 6u  /* magic, descriptor, window descriptor or content size */
#define CODEC_DESCRIPTOR_SINGLE 0x20u
#define CODEC_DESCRIPTOR_RESERVED 0x08u
#define CODEC_DESCRIPTOR_CHECKSUM 0x04u
#define CODEC_DESCRIPTOR_DICTIONARY 0x03u

struct codec_encoder {
    ZSTD_CCtx *context;
    uint8_t *piece; /* output of the streaming calls */
    size_t piece_bytes;
};

struct codec_decoder {
    ZSTD_DCtx *context;
    uint8_t *piece;
    size_t piece_bytes;
    uint8_t head[CODEC_FRAME_HEAD_BYTES]; /* the frame's first bytes, gathered over pieces */
    size_t head_count;
    bool complete;
};

/* zstd's size_t results: `what` says which step, the name comes from zstd. */
static enum rc codec_fail(size_t result, enum rc otherwise, const char *what, struct err *err)
{
    enum rc rc = ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation ? RC_NOMEM : otherwise;
    return err_set(err, rc, "zstd cannot %s: %s", what, ZSTD_getErrorName(result));
}

/* ---- encoder ---- */

static enum rc codec_encoder_configure(struct codec_encoder *encoder, int level, struct err *err)
{
    const struct {
        ZSTD_cParameter name;
        int value;
    } parameters[] = {
        {ZSTD_c_compressionLevel, level},
        {ZSTD_c_checksumFlag, 1},
        {ZSTD_c_contentSizeFlag, 1},
        /* 0 = zstd's choice, which is far smaller at the low levels */
        {ZSTD_c_windowLog, level >= CODEC_WIDE_WINDOW_LEVEL ? CODEC_WINDOW_LOG_MAX : 0},
    };
    for (size_t i = 0; i < sizeof parameters / sizeof parameters[0]; i++) {
        size_t result =
            ZSTD_CCtx_setParameter(encoder->context, parameters[i].name, parameters[i].value);
        if (ZSTD_isError(result)) {
            return codec_fail(result, RC_INTERNAL, "take a parameter", err);
        }
    }
    return RC_OK;
}

enum rc codec_encoder_create(int level, struct codec_encoder **encoder, struct err *err)
{
    if (level < CODEC_LEVEL_MIN || level > CODEC_LEVEL_MAX) {
        return err_set(err, RC_INVALID, "the compression level is %d; possible are %d to %d", level,
                       CODEC_LEVEL_MIN, CODEC_LEVEL_MAX);
    }
    enum rc rc = RC_OK;
    struct codec_encoder *made = calloc(1, sizeof *made);
    if (made != NULL) {
        made->piece_bytes = ZSTD_CStreamOutSize();
        made->piece = malloc(made->piece_bytes);
        made->context = ZSTD_createCCtx();
    }
    if (made == NULL || made->piece == NULL || made->context == NULL) {
        rc = err_set(err, RC_NOMEM, "no memory for a zstd encoder");
    } else {
        rc = codec_encoder_configure(made, level, err);
    }
    if (rc == RC_OK) {
        *encoder = made;
        made = NULL;
    }
    codec_encoder_destroy(made);
    return rc;
}

void codec_encoder_destroy(struct codec_encoder *encoder)
{
    if (encoder != NULL) {
        (void)ZSTD_freeCCtx(encoder->context);
        free(encoder->piece);
        free(encoder);
    }
}

enum rc codec_encode(struct codec_encoder *encoder, const void *bytes, size_t count,
                     struct buf *out, struct err *err)
{
    /* The bound is more than most contents need: a cap between the two is for zstd to find too small. */
    size_t room = ZSTD_compressBound(count);
    size_t room_max = out->capacity_max - out->size;
    room = room < room_max ? room : room_max;
    enum rc rc = buf_reserve(out, room, err);
    if (rc != RC_OK) {
        return rc;
    }
    size_t result = ZSTD_CCtx_reset(encoder->context, ZSTD_reset_session_only);
    if (!ZSTD_isError(result) && room > 0) {
        result = ZSTD_compress2(encoder->context, out->data + out->size, room, bytes, count);
    }
    if (room == 0 || ZSTD_getErrorCode(result) == ZSTD_error_dstSize_tooSmall) {
        return err_set(err, RC_LIMIT, "%zu bytes do not compress into a buffer of %zu", count,
                       out->capacity_max);
    }
    if (ZSTD_isError(result)) {
        return codec_fail(result, RC_INTERNAL, "compress", err);
    }
    out->size += result;
    return RC_OK;
}

enum rc codec_encode_begin(struct codec_encoder *encoder, uint64_t content_bytes, struct err *err)
{
    size_t result = ZSTD_CCtx_reset(encoder->context, ZSTD_reset_session_only);
    if (!ZSTD_isError(result)) {
        result = ZSTD_CCtx_setPledgedSrcSize(encoder->context, content_bytes);
    }
    return ZSTD_isError(result) ? codec_fail(result, RC_INTERNAL, "begin a frame", err) : RC_OK;
}

/* Feeds one piece; with ZSTD_e_end goes on until the frame is closed. */
static enum rc codec_encode_feed(struct codec_encoder *encoder, ZSTD_inBuffer *in,
                                 ZSTD_EndDirective directive, codec_sink_fn *sink, void *arg,
                                 struct err *err)
{
    for (;;) {
        ZSTD_outBuffer out = {encoder->piece, encoder->piece_bytes, 0};
        size_t result = ZSTD_compressStream2(encoder->context, &out, in, directive);
        if (ZSTD_isError(result)) {
            return codec_fail(result, RC_INTERNAL, "compress", err);
        }
        if (out.pos > 0) {
            enum rc rc = sink(arg, encoder->piece, out.pos, err);
            if (rc != RC_OK) {
                return rc;
            }
        }
        if (directive == ZSTD_e_end ? result == 0 : in->pos == in->size) {
            return RC_OK;
        }
    }
}

enum rc codec_encode_piece(struct codec_encoder *encoder, const void *bytes, size_t count,
                           codec_sink_fn *sink, void *arg, struct err *err)
{
    ZSTD_inBuffer in = {bytes, count, 0};
    return codec_encode_feed(encoder, &in, ZSTD_e_continue, sink, arg, err);
}

enum rc codec_encode_end(struct codec_encoder *encoder, codec_sink_fn *sink, void *arg,
                         struct err *err)
{
    ZSTD_inBuffer in = {NULL, 0, 0};
    return codec_encode_feed(encoder, &in, ZSTD_e_end, sink, arg, err);
}

/* ---- decoder ---- */

enum rc codec_decoder_create(struct codec_decoder **decoder, struct err *err)
{
    enum rc rc = RC_OK;
    struct codec_decoder *made = calloc(1, sizeof *made);
    if (made != NULL) {
        made->piece_bytes = ZSTD_DStreamOutSize();
        made->piece = malloc(made->piece_bytes);
        made->context = ZSTD_createDCtx();
    }
    if (made == NULL || made->piece == NULL || made->context == NULL) {
        rc = err_set(err, RC_NOMEM, "no memory for a zstd decoder");
    } else {
        size_t result =
            ZSTD_DCtx_setParameter(made->context, ZSTD_d_windowLogMax, CODEC_WINDOW_LOG_MAX);
        if (ZSTD_isError(result)) {
            rc = codec_fail(result, RC_INTERNAL, "take a parameter", err);
        }
    }
    if (rc == RC_OK) {
        *decoder = made;
        made = NULL;
    }
    codec_decoder_destroy(made);
    return rc;
}

void codec_decoder_destroy(struct codec_decoder *decoder)
{
    if (decoder != NULL) {
        (void)ZSTD_freeDCtx(decoder->context);
        free(decoder->piece);
        free(decoder);
    }
}

/*
 * RFC 8878, 3.1.1.1, of the frame's first bytes: what libzstd would let pass (a skippable frame, a
 * frame without checksum, in one-piece decoding any window) is refused here.
 */
static enum rc codec_check_head(const uint8_t head[CODEC_FRAME_HEAD_BYTES], struct err *err)
{
    if (bytes_get_u32_le(head) != ZSTD_MAGICNUMBER) {
        return err_set(err, RC_CORRUPT, "not a zstd frame");
    }
    uint8_t descriptor = head[4];
    if ((descriptor & CODEC_DESCRIPTOR_CHECKSUM) == 0) {
        return err_set(err, RC_CORRUPT, "a zstd frame without content checksum");
    }
    if ((descriptor & (CODEC_DESCRIPTOR_RESERVED | CODEC_DESCRIPTOR_DICTIONARY)) != 0) {
        return err_set(err, RC_CORRUPT, "a zstd frame with a dictionary or a reserved bit");
    }
    if ((descriptor & CODEC_DESCRIPTOR_SINGLE) == 0) {
        uint64_t base = UINT64_C(1) << (10 + (head[5] >> 3));
        if (base + base / 8 * (head[5] & 7u) > UINT64_C(1) << CODEC_WINDOW_LOG_MAX) {
            return err_set(err, RC_CORRUPT, "a zstd window of more than 8 MiB");
        }
    } /* else the window is the content's size, which the caller or libzstd bounds */
    return RC_OK;
}

enum rc codec_decode(struct codec_decoder *decoder, const void *bytes, size_t count,
                     size_t content_bytes, struct buf *out, struct err *err)
{
    if (count < CODEC_FRAME_HEAD_BYTES) {
        return err_set(err, RC_CORRUPT, "a zstd frame of %zu bytes", count);
    }
    enum rc rc = codec_check_head(bytes, err);
    if (rc != RC_OK) {
        return rc;
    }
    size_t frame_bytes = ZSTD_findFrameCompressedSize(bytes, count);
    if (ZSTD_isError(frame_bytes) || frame_bytes != count) {
        return err_set(err, RC_CORRUPT, "the zstd frame is cut off, or bytes follow it");
    }
    if (ZSTD_getFrameContentSize(bytes, count) != content_bytes) {
        return err_set(err, RC_CORRUPT, "the zstd frame does not say that it holds %zu bytes",
                       content_bytes);
    }
    rc = buf_reserve(out, content_bytes, err);
    if (rc != RC_OK) {
        return rc;
    }
    uint8_t nothing = 0; /* an empty buffer may have no memory at all */
    uint8_t *to = out->data == NULL ? &nothing : out->data + out->size;
    size_t result = ZSTD_decompressDCtx(decoder->context, to, content_bytes, bytes, count);
    if (ZSTD_isError(result)) {
        return codec_fail(result, RC_CORRUPT, "decompress", err);
    }
    if (result != content_bytes) {
        return err_set(err, RC_CORRUPT, "the zstd frame holds %zu bytes, not %zu", result,
                       content_bytes);
    }
    out->size += content_bytes;
    return RC_OK;
}

void codec_decode_begin(struct codec_decoder *decoder)
{
    size_t result = ZSTD_DCtx_reset(decoder->context, ZSTD_reset_session_only);
    ASSERT(!ZSTD_isError(result)); /* fails only for parameters, which stay */
    decoder->head_count = 0;
    decoder->complete = false;
}

/* Keeps the first bytes of the frame and checks them once they are all there. */
static enum rc codec_gather_head(struct codec_decoder *decoder, const uint8_t *bytes, size_t count,
                                 struct err *err)
{
    if (decoder->head_count == CODEC_FRAME_HEAD_BYTES) {
        return RC_OK;
    }
    for (size_t i = 0; i < count && decoder->head_count < CODEC_FRAME_HEAD_BYTES; i++) {
        decoder->head[decoder->head_count++] = bytes[i];
    }
    return decoder->head_count == CODEC_FRAME_HEAD_BYTES ? codec_check_head(decoder->head, err)
                                                         : RC_OK;
}

enum rc codec_decode_piece(struct codec_decoder *decoder, const void *bytes, size_t count,
                           codec_sink_fn *sink, void *arg, struct err *err)
{
    enum rc rc = codec_gather_head(decoder, bytes, count, err);
    if (rc != RC_OK) {
        return rc;
    }
    ZSTD_inBuffer in = {bytes, count, 0};
    bool full = false; /* a full output piece: libzstd may hold more without new input */
    while (in.pos < in.size || full) {
        if (decoder->complete) {
            return in.pos < in.size ? err_set(err, RC_CORRUPT, "bytes follow the zstd frame")
                                    : RC_OK;
        }
        ZSTD_outBuffer out = {decoder->piece, decoder->piece_bytes, 0};
        size_t result = ZSTD_decompressStream(decoder->context, &out, &in);
        if (ZSTD_isError(result)) {
            return codec_fail(result, RC_CORRUPT, "decompress", err);
        }
        decoder->complete = result == 0;
        full = out.pos == out.size;
        rc = out.pos > 0 ? sink(arg, decoder->piece, out.pos, err) : RC_OK;
        if (rc != RC_OK) {
            return rc;
        }
    }
    return RC_OK;
}

enum rc codec_decode_end(struct codec_decoder *decoder, struct err *err)
{
    if (!decoder->complete) {
        return err_set(err, RC_CORRUPT, "the zstd frame is cut off");
    }
    return RC_OK;
}
