/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment: see segment.h. Format: docs/archive-format.md, "WAL object"; the order of the checks: "The
 * reader's checks" there. What comes from an archive is checked and answered with RC_CORRUPT; what
 * our own writer hands over is asserted by the same rules.
 */
#include "archive/segment.h"

#include "archive/codec.h"
#include "archive/segment_internal.h"

#include <stdlib.h>
#include <string.h>

struct segment_writer {
    struct codec_encoder *encoder;
};

struct segment_reader {
    struct codec_decoder *decoder;
};

/* ---- writing ---- */

enum rc segment_writer_create(int level, struct segment_writer **writer, struct err *err)
{
    struct segment_writer *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a segment writer");
    }
    enum rc rc = codec_encoder_create(level, &made->encoder, err);
    if (rc != RC_OK) {
        segment_writer_destroy(made);
        return rc;
    }
    *writer = made;
    return RC_OK;
}

void segment_writer_destroy(struct segment_writer *writer)
{
    if (writer != NULL) {
        codec_encoder_destroy(writer->encoder);
        free(writer);
    }
}

/*
 * The cheap half of the reader's checks, before a wrong object can be written: the ends of the
 * content are what the header says. (The frames between were checked when they were captured.)
 */
static void segment_assert_ends(const struct segment_header *header, const uint8_t *content,
                                size_t content_bytes)
{
    struct wal_frame_header last;
    wal_frame_header_decode(
        content + content_bytes - header->page_size_bytes - WAL_FRAME_HEADER_BYTES, &last);
    ASSERT(wal_salts_equal(last.salts, header->salts));
    ASSERT(wal_checksum_equal(last.checksum, header->after));
    ASSERT((last.commit_pages == 0) == ((header->flags & SEGMENT_CONTINUED) != 0));
    ASSERT(last.commit_pages == 0 || last.commit_pages == header->commit_pages);
    if (header->first_frame_no == 1) {
        struct wal_header wal;
        ASSERT(wal_header_decode(content, &wal, NULL) == RC_OK);
        ASSERT(wal.page_size_bytes == header->page_size_bytes);
        ASSERT(wal.big_endian_checksums == header->big_endian_checksums);
        ASSERT(wal_salts_equal(wal.salts, header->salts));
        ASSERT(wal_checksum_equal(wal.checksum, header->before));
    }
}

enum rc segment_write(struct segment_writer *writer, struct segment_header *header,
                      const uint8_t *content, size_t content_bytes, struct buf *object,
                      struct err *err)
{
    header->content_bytes = content_bytes;
    const char *problem = segment_header_problem(header);
    if (problem != NULL) {
        err_assert_failed(problem, __FILE__, __LINE__);
    }
    segment_assert_ends(header, content, content_bytes);
    size_t header_bytes = segment_header_frame_bytes(header->time_count);
    size_t start = object->size;
    enum rc rc = hash_sha256(content, content_bytes, header->content_sha256, err);
    if (rc == RC_OK) {
        rc = buf_reserve(object, header_bytes, err);
    }
    if (rc == RC_OK) {
        rc = segment_header_encode(header, object->data + start, err);
    }
    if (rc == RC_OK) {
        object->size = start + header_bytes;
        rc = codec_encode(writer->encoder, content, content_bytes, object, err);
    }
    if (rc != RC_OK) {
        object->size = start; /* half an object is none */
    }
    return rc;
}

/* ---- reading ---- */

enum rc segment_reader_create(struct segment_reader **reader, struct err *err)
{
    struct segment_reader *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a segment reader");
    }
    enum rc rc = codec_decoder_create(&made->decoder, err);
    if (rc != RC_OK) {
        segment_reader_destroy(made);
        return rc;
    }
    *reader = made;
    return RC_OK;
}

void segment_reader_destroy(struct segment_reader *reader)
{
    if (reader != NULL) {
        codec_decoder_destroy(reader->decoder);
        free(reader);
    }
}

static enum rc segment_check_name(const struct segment_header *header, const struct object_key *key,
                                  struct err *err)
{
    struct object_key own;
    char own_text[OBJECT_KEY_BYTES];
    char text[OBJECT_KEY_BYTES];
    segment_key(header, &own);
    object_key_format(&own, own_text);
    object_key_format(key, text);
    if (strcmp(text, own_text) != 0) {
        return err_set(err, RC_CORRUPT, "its header says that it is %s", own_text);
    }
    return RC_OK;
}

static enum rc segment_check_wal_header(const struct segment_header *header, const uint8_t *content,
                                        struct err *err)
{
    struct wal_header wal;
    enum rc rc = wal_header_decode(content, &wal, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (wal.page_size_bytes != header->page_size_bytes ||
        wal.big_endian_checksums != header->big_endian_checksums ||
        !wal_salts_equal(wal.salts, header->salts) ||
        !wal_checksum_equal(wal.checksum, header->before)) {
        return err_set(err, RC_CORRUPT, "the WAL header inside is not what the header says");
    }
    return RC_OK;
}

static enum rc segment_check_frames(const struct segment_header *header, const uint8_t *content,
                                    struct err *err)
{
    size_t frame_count = (size_t)header->last_frame_no - header->first_frame_no + 1;
    struct wal_run run = {
        .salts = header->salts,
        .big_endian_checksums = header->big_endian_checksums,
        .page_size_bytes = header->page_size_bytes,
        .sum = header->before,
        .commit_pages = 0,
    };
    enum rc rc = wal_run_check(&run, segment_frames(header, content), frame_count, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (!wal_checksum_equal(run.sum, header->after)) {
        return err_set(err, RC_CORRUPT, "the last frame's checksum is not what the header says");
    }
    bool ends_with_commit = run.last_commit_index == frame_count - 1;
    if (ends_with_commit == ((header->flags & SEGMENT_CONTINUED) != 0) ||
        run.commit_pages != header->commit_pages) {
        return err_set(err, RC_CORRUPT, "the last commit inside is not what the header says");
    }
    return RC_OK;
}

static enum rc segment_read_content(struct segment_reader *reader, const uint8_t *frame,
                                    size_t frame_bytes, const struct segment_header *header,
                                    struct buf *content, struct err *err)
{
    enum rc rc = codec_decode(reader->decoder, frame, frame_bytes, (size_t)header->content_bytes,
                              content, err);
    uint8_t digest[HASH_SHA256_BYTES];
    if (rc == RC_OK) {
        rc = hash_sha256(content->data, content->size, digest, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    if (memcmp(digest, header->content_sha256, sizeof digest) != 0) {
        return err_set(err, RC_CORRUPT, "the content has another SHA-256");
    }
    if (header->first_frame_no == 1) {
        rc = segment_check_wal_header(header, content->data, err);
    }
    return rc == RC_OK ? segment_check_frames(header, content->data, err) : rc;
}

enum rc segment_read(struct segment_reader *reader, const struct object_key *key,
                     const uint8_t *object, size_t count, struct segment_header *header,
                     struct buf *content, struct err *err)
{
    size_t header_bytes = 0;
    size_t need_bytes = 0;
    buf_clear(content);
    enum rc rc = segment_header_decode(object, count, header, &header_bytes, &need_bytes, err);
    if (rc == RC_LIMIT) {
        return err_set(err, RC_CORRUPT, "the WAL object is cut off inside its header");
    }
    if (rc == RC_OK && key != NULL) {
        rc = segment_check_name(header, key, err);
    }
    if (rc == RC_OK) {
        rc = segment_read_content(reader, object + header_bytes, count - header_bytes, header,
                                  content, err);
    }
    if (rc != RC_OK) {
        buf_clear(content); /* nobody may use bytes that failed a check */
    }
    return rc;
}

const uint8_t *segment_frames(const struct segment_header *header, const uint8_t *content)
{
    return content + (header->first_frame_no == 1 ? WAL_HEADER_BYTES : 0);
}
