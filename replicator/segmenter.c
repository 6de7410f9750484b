/* SPDX-License-Identifier: Apache-2.0 */
/* segmenter: see segmenter.h. */
#include "replicator/segmenter.h"

#include <stdlib.h>
#include <string.h>

#define SEGMENTER_BYTES (SEGMENT_CONTENT_BYTES_MAX + WAL_PAGE_BYTES_MAX + WAL_FRAME_HEADER_BYTES)

enum rc segmenter_init(struct segmenter *s, segmenter_emit_fn *emit, void *emit_arg,
                       struct err *err)
{
    *s = (struct segmenter){.emit = emit, .emit_arg = emit_arg};
    s->content = malloc(SEGMENTER_BYTES);
    s->header = calloc(1, sizeof *s->header);
    if (s->content == NULL || s->header == NULL) {
        segmenter_deinit(s);
        return err_set(err, RC_NOMEM, "no memory for a segment of %u bytes", SEGMENTER_BYTES);
    }
    return RC_OK;
}

void segmenter_deinit(struct segmenter *s)
{
    free(s->content);
    free(s->header);
    s->content = NULL;
    s->header = NULL;
}

void segmenter_begin(struct segmenter *s, const struct generation_id *generation, uint32_t term,
                     const char *tag, const struct wal_point *link, bool first_of_generation)
{
    s->header->generation = *generation;
    s->header->term = term;
    ASSERT(strlen(tag) == OBJECT_TAG_BYTES - 1);
    memcpy(s->header->lead_tag, tag, OBJECT_TAG_BYTES);
    s->link = *link;
    s->first_of_generation = first_of_generation;
    s->inside_transaction = false;
    s->content_bytes = 0;
    s->frame_count = 0;
    s->commit_frame_no = 0;
    s->header->time_count = 0;
}

void segmenter_begin_pass(struct segmenter *s, int64_t unix_ms)
{
    s->pass_unix_ms = unix_ms;
}

bool segmenter_is_empty(const struct segmenter *s)
{
    return s->frame_count == 0;
}

static size_t segmenter_frame_bytes(const struct segmenter *s)
{
    return s->header->page_size_bytes + WAL_FRAME_HEADER_BYTES;
}

static uint8_t *segmenter_frames(const struct segmenter *s)
{
    return s->content + (s->header->first_frame_no == 1 ? WAL_HEADER_BYTES : 0);
}

/* A row of the time table; when it is full, every second row goes: the later of two stays true. */
static void segmenter_add_time(struct segmenter *s, uint32_t frame_no)
{
    struct segment_header *h = s->header;
    if (h->time_count > 0 && h->times[h->time_count - 1].frame_no == frame_no) {
        h->times[h->time_count - 1].unix_ms = s->pass_unix_ms;
        return;
    }
    if (h->time_count == SEGMENT_TIMES_MAX) {
        for (uint32_t i = 0; i < SEGMENT_TIMES_MAX / 2; i++) {
            h->times[i] = h->times[2 * i + 1];
        }
        h->time_count = SEGMENT_TIMES_MAX / 2;
    }
    h->times[h->time_count++] = (struct segment_time){frame_no, s->pass_unix_ms};
}

/* Emits the first `count` gathered frames, whose last has checksum `after`. */
static enum rc segmenter_emit(struct segmenter *s, uint32_t count, struct wal_checksum after,
                              struct err *err)
{
    struct segment_header *h = s->header;
    size_t frame_bytes = segmenter_frame_bytes(s);
    size_t head = h->first_frame_no == 1 ? WAL_HEADER_BYTES : 0;
    bool ends_on_commit = s->commit_frame_no == h->first_frame_no + count - 1;
    h->last_frame_no = h->first_frame_no + count - 1;
    h->after = after;
    h->link = s->first_of_generation ? (struct wal_point){{0, 0}, {0, 0}} : s->link;
    h->commit_pages = s->commit_frame_no != 0 ? s->commit_pages : 0;
    h->flags = (s->first_of_generation ? SEGMENT_FIRST : 0u) |
               (s->inside_transaction ? SEGMENT_CONTINUES : 0u) |
               (ends_on_commit ? 0u : SEGMENT_CONTINUED);
    segmenter_add_time(s, h->last_frame_no);
    enum rc rc = s->emit(s->emit_arg, h, s->content, head + count * frame_bytes, err);
    if (rc != RC_OK) {
        return rc;
    }
    /* the rest moves to the front and becomes the next segment */
    uint32_t rest = s->frame_count - count;
    memmove(s->content, s->content + head + count * frame_bytes, rest * frame_bytes);
    s->content_bytes = rest * frame_bytes;
    s->frame_count = rest;
    s->link = (struct wal_point){{h->wal_no, h->last_frame_no}, after};
    s->first_of_generation = false;
    s->inside_transaction = !ends_on_commit;
    s->commit_frame_no = 0;
    h->first_frame_no = h->last_frame_no + 1;
    h->before = after;
    h->time_count = 0;
    return RC_OK;
}

static enum rc segmenter_make_room(struct segmenter *s, struct err *err)
{
    if (s->commit_frame_no != 0) {
        uint32_t whole = s->commit_frame_no - s->header->first_frame_no + 1;
        return segmenter_emit(s, whole, s->commit_checksum, err);
    }
    return segmenter_emit(s, s->frame_count, s->header->after, err);
}

size_t segmenter_reserve(struct segmenter *s, const struct segmenter_wal *wal,
                         uint32_t first_frame_no, struct wal_checksum before, uint8_t **frames,
                         struct err *err)
{
    struct segment_header *h = s->header;
    if (s->frame_count > 0 && h->wal_no != wal->wal_no) {
        if (segmenter_cut(s, err) != RC_OK) {
            return 0;
        }
    }
    if (s->frame_count > 0) {
        ASSERT(h->first_frame_no + s->frame_count == first_frame_no);
        size_t frame_bytes = segmenter_frame_bytes(s);
        if (s->content_bytes + frame_bytes > SEGMENT_CONTENT_BYTES_MAX &&
            segmenter_make_room(s, err) != RC_OK) {
            return 0;
        }
    }
    if (s->frame_count == 0) {
        h->wal_no = wal->wal_no;
        h->page_size_bytes = wal->page_size_bytes;
        h->big_endian_checksums = wal->big_endian_checksums;
        h->salts = wal->salts;
        h->first_frame_no = first_frame_no;
        h->before = before;
        h->time_count = 0;
        s->commit_frame_no = 0;
        s->content_bytes = 0;
        if (first_frame_no == 1) {
            memcpy(s->content, wal->header_bytes, WAL_HEADER_BYTES);
            s->content_bytes = WAL_HEADER_BYTES;
        }
    }
    *frames = s->content + s->content_bytes;
    size_t frame_bytes = segmenter_frame_bytes(s);
    size_t room = SEGMENT_CONTENT_BYTES_MAX > s->content_bytes
                      ? (SEGMENT_CONTENT_BYTES_MAX - s->content_bytes) / frame_bytes
                      : 0;
    return room > 0 ? room : 1; /* the buffer has one frame to spare */
}

void segmenter_add(struct segmenter *s, size_t count, struct wal_checksum after)
{
    size_t frame_bytes = segmenter_frame_bytes(s);
    const uint8_t *frame = s->content + s->content_bytes;
    for (size_t i = 0; i < count; i++, frame += frame_bytes) {
        struct wal_frame_header frame_header;
        wal_frame_header_decode(frame, &frame_header);
        if (frame_header.commit_pages != 0) {
            s->commit_frame_no = s->header->first_frame_no + s->frame_count + (uint32_t)i;
            s->commit_pages = frame_header.commit_pages;
            s->commit_checksum = frame_header.checksum;
        }
    }
    s->content_bytes += count * frame_bytes;
    s->frame_count += (uint32_t)count;
    s->header->after = after;
    ASSERT(s->content_bytes <= SEGMENTER_BYTES);
}

void segmenter_end_pass(struct segmenter *s)
{
    if (s->frame_count > 0) {
        uint32_t last = s->header->first_frame_no + s->frame_count - 1;
        ASSERT(s->commit_frame_no == last);
        segmenter_add_time(s, last);
    }
}

enum rc segmenter_cut(struct segmenter *s, struct err *err)
{
    if (s->frame_count == 0) {
        return RC_OK;
    }
    ASSERT(s->commit_frame_no == s->header->first_frame_no + s->frame_count - 1);
    return segmenter_emit(s, s->frame_count, s->header->after, err);
}

void segmenter_drop_open_transaction(struct segmenter *s)
{
    if (s->frame_count == 0) {
        return;
    }
    size_t whole =
        s->commit_frame_no == 0 ? 0 : (size_t)s->commit_frame_no - s->header->first_frame_no + 1;
    s->content_bytes =
        whole == 0 ? 0
                   : (size_t)(segmenter_frames(s) - s->content) + whole * segmenter_frame_bytes(s);
    s->frame_count = (uint32_t)whole;
    if (whole > 0) {
        s->header->after = s->commit_checksum;
    }
}
