/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec: zstd (RFC 8878), streaming and in one piece. The one file that calls libzstd.
 * Every frame carries a content checksum.
 *
 * Thread: an object belongs to one thread. Memory: contexts are made at create and reused; a
 * decoder refuses windows above 8 MiB (RC_CORRUPT), so its memory is bounded.
 */
#ifndef HARVEY_ARCHIVE_CODEC_H
#define HARVEY_ARCHIVE_CODEC_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct codec_encoder;
struct codec_decoder;

RC_MUST_CHECK enum rc codec_encoder_create(int level, struct codec_encoder **encoder,
                                           struct err *err);
void codec_encoder_destroy(struct codec_encoder *encoder);

/* One whole frame from `bytes`, appended to `out`. RC_LIMIT, RC_NOMEM, RC_INTERNAL. */
RC_MUST_CHECK enum rc codec_encode(struct codec_encoder *encoder, const void *bytes, size_t count,
                                   struct buf *out, struct err *err);

/* Called with each piece of output; its code other than RC_OK ends the call and is returned. */
typedef enum rc codec_sink_fn(void *arg, const uint8_t *bytes, size_t count, struct err *err);

/* Streaming: begin (the frame will hold `content_bytes` in all), pieces, end. */
RC_MUST_CHECK enum rc codec_encode_begin(struct codec_encoder *encoder, uint64_t content_bytes,
                                         struct err *err);
RC_MUST_CHECK enum rc codec_encode_piece(struct codec_encoder *encoder, const void *bytes,
                                         size_t count, codec_sink_fn *sink, void *arg,
                                         struct err *err);
RC_MUST_CHECK enum rc codec_encode_end(struct codec_encoder *encoder, codec_sink_fn *sink,
                                       void *arg, struct err *err);

RC_MUST_CHECK enum rc codec_decoder_create(struct codec_decoder **decoder, struct err *err);
void codec_decoder_destroy(struct codec_decoder *decoder);

/* Exactly one frame of exactly `content_bytes`, appended to `out`; RC_CORRUPT otherwise. */
RC_MUST_CHECK enum rc codec_decode(struct codec_decoder *decoder, const void *bytes, size_t count,
                                   size_t content_bytes, struct buf *out, struct err *err);

/* Streaming: begin, pieces as they arrive, end (RC_CORRUPT when the frame is not complete, or bytes follow it). */
void codec_decode_begin(struct codec_decoder *decoder);
RC_MUST_CHECK enum rc codec_decode_piece(struct codec_decoder *decoder, const void *bytes,
                                         size_t count, codec_sink_fn *sink, void *arg,
                                         struct err *err);
RC_MUST_CHECK enum rc codec_decode_end(struct codec_decoder *decoder, struct err *err);

#endif
