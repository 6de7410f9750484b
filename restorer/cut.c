/* SPDX-License-Identifier: Apache-2.0 */
/* cut: see cut.h. */
#include "restorer/cut.h"

#include "archive/wal_format.h"
#include "base/buf.h"
#include "restorer/fetch.h"

#include <stdlib.h>
#include <string.h>

/* What reading whole objects needs; made at the first use. */
struct cut_reader {
    struct segment_reader *reader;
    struct segment_header *header; /* 16 KiB: off the stack */
    struct buf object;
    struct buf content;
};

static void cut_reader_init(struct cut_reader *reader)
{
    *reader = (struct cut_reader){.reader = NULL};
    buf_init(&reader->object, SEGMENT_OBJECT_BYTES_MAX);
    buf_init(&reader->content, SEGMENT_CONTENT_BYTES_MAX + (128u << 10));
}

static void cut_reader_deinit(struct cut_reader *reader)
{
    segment_reader_destroy(reader->reader);
    free(reader->header);
    buf_deinit(&reader->object);
    buf_deinit(&reader->content);
}

void cut_segment_key(const struct generation_id *generation, const struct catalog_segment *segment,
                     struct object_key *key)
{
    *key = (struct object_key){
        .kind = OBJECT_SEGMENT,
        .generation = *generation,
        .position = {segment->wal_no, segment->last_frame_no},
        .first_frame_no = segment->first_frame_no,
        .term = segment->term,
        .unix_ms = segment->unix_ms,
    };
    memcpy(key->tag, segment->lead_tag, sizeof key->tag);
}

static void cut_at_snapshot(const struct cut_source *source, struct cut *cut)
{
    *cut = (struct cut){
        .is_snapshot = true,
        .point = source->manifest->point,
        .commit_pages = source->manifest->database_pages,
        .unix_ms = source->manifest->unix_ms,
    };
}

/* The capture pass that took the frame: the first row that reaches it. */
static int64_t cut_time_of(const struct segment_header *header, uint32_t frame_no)
{
    for (uint32_t i = 0; i < header->time_count; i++) {
        if (header->times[i].frame_no >= frame_no) {
            return header->times[i].unix_ms;
        }
    }
    return header->times[header->time_count - 1].unix_ms;
}

struct cut_call {
    const struct cut_source *source;
    const struct catalog_segment *segment;
    struct cut_reader *reader;
};

static enum rc cut_header_attempt(void *arg, struct err *err)
{
    struct cut_call *call = arg;
    return catalog_read_header(call->source->generation, call->segment, call->source->store,
                               call->reader->header, err);
}

static enum rc cut_object_attempt(void *arg, struct err *err)
{
    struct cut_call *call = arg;
    struct object_key key;
    char name[OBJECT_KEY_BYTES];
    cut_segment_key(call->source->generation, call->segment, &key);
    object_key_format(&key, name);
    buf_clear(&call->reader->object);
    enum rc rc = store_get_buf(call->source->store, name, &call->reader->object, err);
    if (rc != RC_OK) {
        return rc;
    }
    rc = segment_read(call->reader->reader, &key, call->reader->object.data,
                      call->reader->object.size, call->reader->header, &call->reader->content, err);
    return rc == RC_CORRUPT ? err_prefix(err, "reading %s", name) : rc;
}

/* One GET with retries; an object that is gone although it was listed is damage. */
static enum rc cut_read(struct cut_call *call, fetch_attempt_fn *attempt, struct err *err)
{
    enum rc rc = fetch_retry(call->source->stop, attempt, call, err);
    if (rc == RC_NOT_FOUND) {
        return err_set(err, RC_CORRUPT, "frames %u-%u of WAL %u were listed, but are gone",
                       call->segment->first_frame_no, call->segment->last_frame_no,
                       call->segment->wal_no);
    }
    return rc;
}

/* The last commit frame at or before `frame_no_max` in a whole object; false when there is none. */
static bool cut_scan(const struct cut_reader *reader, uint32_t frame_no_max, struct cut *cut)
{
    const struct segment_header *header = reader->header;
    const uint8_t *frames = segment_frames(header, reader->content.data);
    size_t frame_bytes = (size_t)WAL_FRAME_HEADER_BYTES + header->page_size_bytes;
    ASSERT(frame_no_max <= header->last_frame_no);
    for (uint32_t no = frame_no_max; no >= header->first_frame_no; no--) {
        struct wal_frame_header frame;
        wal_frame_header_decode(frames + (size_t)(no - header->first_frame_no) * frame_bytes,
                                &frame);
        if (frame.commit_pages != 0) {
            cut->point = (struct wal_point){{header->wal_no, no}, frame.checksum};
            cut->commit_pages = frame.commit_pages;
            cut->unix_ms = cut_time_of(header, no);
            return true;
        }
    }
    return false;
}

/* Looks for a commit in one segment; *found says whether there was one. */
static enum rc cut_look_into(struct cut_call *call, uint32_t frame_no_max, struct cut *cut,
                             bool *found, struct err *err)
{
    struct segment_header *header = call->reader->header;
    *found = false;
    enum rc rc = cut_read(call, cut_header_attempt, err);
    if (rc != RC_OK || header->commit_pages == 0) {
        return rc;
    }
    bool ends_on_commit = (header->flags & SEGMENT_CONTINUED) == 0;
    if (ends_on_commit && frame_no_max == header->last_frame_no) {
        cut->point = (struct wal_point){{header->wal_no, header->last_frame_no}, header->after};
        cut->commit_pages = header->commit_pages;
        cut->unix_ms = cut_time_of(header, header->last_frame_no);
        *found = true;
        return RC_OK;
    }
    rc = cut_read(call, cut_object_attempt, err);
    if (rc == RC_OK) {
        *found = cut_scan(call->reader, frame_no_max, cut);
    }
    return rc;
}

static enum rc cut_reader_prepare(struct cut_reader *reader, struct err *err)
{
    reader->header = calloc(1, sizeof *reader->header);
    if (reader->header == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a header");
    }
    return segment_reader_create(&reader->reader, err);
}

enum rc cut_find(const struct cut_source *source, size_t index, uint32_t frame_no_max,
                 struct cut *cut, size_t *damaged_index, struct err *err)
{
    struct cut_reader reader;
    struct position snapshot = source->manifest->point.position;
    cut_reader_init(&reader);
    cut_at_snapshot(source, cut);
    enum rc rc = cut_reader_prepare(&reader, err);
    for (size_t i = index; rc == RC_OK && i < source->run->segment_count; i--) {
        const struct catalog_segment *segment = source->run->segments[i];
        uint32_t limit = i == index && frame_no_max < segment->last_frame_no
                             ? frame_no_max
                             : segment->last_frame_no;
        if (position_compare((struct position){segment->wal_no, limit}, snapshot) <= 0) {
            break;
        }
        bool found = false;
        struct cut_call call = {source, segment, &reader};
        struct cut here = {.index = i};
        rc = cut_look_into(&call, limit, &here, &found, err);
        if (rc == RC_CORRUPT && damaged_index != NULL) {
            *damaged_index = i;
        }
        if (found) {
            if (position_compare(here.point.position, snapshot) > 0) {
                *cut = here;
            }
            break;
        }
    }
    cut_reader_deinit(&reader);
    return rc;
}

enum rc cut_find_position(const struct cut_source *source, struct position position,
                          struct cut *cut, size_t *damaged_index, struct err *err)
{
    const struct catalog_run *run = source->run;
    size_t index = run->segment_count;
    while (index > 0 &&
           position_compare((struct position){run->segments[index - 1]->wal_no,
                                              run->segments[index - 1]->first_frame_no},
                            position) > 0) {
        index--;
    }
    if (index == 0) {
        cut_at_snapshot(source, cut);
        return RC_OK;
    }
    uint32_t frame_no_max =
        run->segments[index - 1]->wal_no == position.wal_no ? position.frame_no : UINT32_MAX;
    return cut_find(source, index - 1, frame_no_max, cut, damaged_index, err);
}

enum rc cut_find_time(const struct cut_source *source, int64_t unix_ms, struct cut *cut,
                      size_t *damaged_index, struct err *err)
{
    const struct catalog_run *run = source->run;
    size_t index = 0; /* the first object that was captured (in part) after the time */
    uint32_t frame_no_max = 0;
    while (index < run->segment_count && run->segments[index]->unix_ms <= unix_ms) {
        index++;
    }
    if (index < run->segment_count) {
        struct cut_reader reader;
        struct cut_call call = {source, run->segments[index], &reader};
        cut_reader_init(&reader);
        enum rc rc = cut_reader_prepare(&reader, err);
        if (rc == RC_OK) {
            rc = cut_read(&call, cut_header_attempt, err);
        }
        for (uint32_t i = 0; rc == RC_OK && i < reader.header->time_count; i++) {
            if (reader.header->times[i].unix_ms <= unix_ms) {
                frame_no_max = reader.header->times[i].frame_no;
            }
        }
        cut_reader_deinit(&reader);
        if (rc != RC_OK) {
            if (rc == RC_CORRUPT && damaged_index != NULL) {
                *damaged_index = index;
            }
            return rc;
        }
    }
    if (frame_no_max != 0) {
        return cut_find(source, index, frame_no_max, cut, damaged_index, err);
    }
    if (index == 0) {
        cut_at_snapshot(source, cut);
        return RC_OK;
    }
    return cut_find(source, index - 1, UINT32_MAX, cut, damaged_index, err);
}
