/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segmenter: gathers captured frames in memory and cuts them into segments: whole transactions, at
 * most SEGMENT_CONTENT_BYTES_MAX each, one WAL per segment. A transaction that is larger is cut
 * inside (flags CONTINUED and CONTINUES).
 *
 * Frames that wait here are still in the -wal: the leader keeps that WAL from being reset until
 * they are cut and spooled. Thread: the leader's.
 */
#ifndef HARVEY_REPLICATOR_SEGMENTER_H
#define HARVEY_REPLICATOR_SEGMENTER_H

#include "archive/segment.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Takes a cut segment: header without content fields, its content. Borrowed for the call. */
typedef enum rc segmenter_emit_fn(void *arg, struct segment_header *header, const uint8_t *content,
                                  size_t content_bytes, struct err *err);

struct segmenter {
    segmenter_emit_fn *emit;
    void *emit_arg;
    uint8_t *content; /* SEGMENT_CONTENT_BYTES_MAX + one frame, made once */
    size_t content_bytes;
    struct segment_header *header; /* of the segment that is being gathered */
    bool first_of_generation;
    bool inside_transaction;  /* the segment before was CONTINUED */
    struct wal_point link;    /* end of the segment before */
    uint32_t frame_count;     /* gathered */
    uint32_t commit_frame_no; /* last commit frame gathered; 0 = none */
    uint32_t commit_pages;
    struct wal_checksum commit_checksum;
    int64_t pass_unix_ms;
};

RC_MUST_CHECK enum rc segmenter_init(struct segmenter *segmenter, segmenter_emit_fn *emit,
                                     void *emit_arg, struct err *err);
void segmenter_deinit(struct segmenter *segmenter);

/*
 * Forgets what was gathered and goes on behind `link` (zero for a generation's first object).
 * generation, term and tag go into each header.
 */
void segmenter_begin(struct segmenter *segmenter, const struct generation_id *generation,
                     uint32_t term, const char *tag, const struct wal_point *link,
                     bool first_of_generation);

/* A capture pass begins; its time is never below the one before (asserted by the caller's clock). */
void segmenter_begin_pass(struct segmenter *segmenter, int64_t unix_ms);

/* What a run of frames belongs to. */
struct segmenter_wal {
    uint32_t wal_no;
    uint32_t page_size_bytes;
    bool big_endian_checksums;
    struct wal_salts salts;
    const uint8_t *header_bytes; /* the 32 bytes of the WAL header, used when frame 1 comes */
};

/*
 * Room for at least one frame of frame `first_frame_no` and on: *frames is where to read them, the
 * return value how many fit (cuts what is there when it is full, or is of another WAL). 0 on error.
 */
size_t segmenter_reserve(struct segmenter *segmenter, const struct segmenter_wal *wal,
                         uint32_t first_frame_no, struct wal_checksum before, uint8_t **frames,
                         struct err *err);

/* `count` checked frames were read to where reserve said. `after` = rolling checksum after the last. */
void segmenter_add(struct segmenter *segmenter, size_t count, struct wal_checksum after);

/* The pass ends at the last gathered frame, which is a commit frame: a row for the time table. */
void segmenter_end_pass(struct segmenter *segmenter);

/* Cuts what is gathered (nothing: RC_OK). It must end on a commit frame. Errors of emit. */
RC_MUST_CHECK enum rc segmenter_cut(struct segmenter *segmenter, struct err *err);

/* Drops the frames behind the last gathered commit frame (a bad frame was met). */
void segmenter_drop_open_transaction(struct segmenter *segmenter);

bool segmenter_is_empty(const struct segmenter *segmenter);

#endif
