/* SPDX-License-Identifier: Apache-2.0 */
/*
 * position: where a state of the database lies in its history.
 *
 * generation = an unbroken history; its id is "<number, 8 digits>-<16 hex digits>".
 * position   = (generation, wal_no, frame_no): wal_no counts WAL resets that carried frames, from 1;
 *              frame_no counts frames in that WAL, from 1; (1, 0) is the state before the first frame.
 * point      = a position together with the WAL's rolling checksum at its last frame. Only a point
 *              names a state: after a power loss the same numbers can hold another commit.
 *
 * Thread: any (pure functions). Format: docs/archive-format.md, "Keys".
 */
#ifndef HARVEY_ARCHIVE_POSITION_H
#define HARVEY_ARCHIVE_POSITION_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define GENERATION_ID_BYTES 26 /* 8 digits, '-', 16 hex digits, NUL */
#define POSITION_TEXT_BYTES 64 /* GENERATION/WAL_NO/FRAME_NO and NUL */
#define GENERATION_NUMBER_MAX 99999999u

struct generation_id {
    char text[GENERATION_ID_BYTES]; /* "" = none */
};

struct position {
    uint32_t wal_no;
    uint32_t frame_no;
};

struct wal_checksum {
    uint32_t sum1;
    uint32_t sum2;
};

struct wal_point {
    struct position position;
    struct wal_checksum checksum; /* zero at (1, 0) */
};

/* number 1..GENERATION_NUMBER_MAX and 8 bytes of randomness -> id. */
struct generation_id generation_id_make(uint32_t number, const uint8_t random[8]);

/* True for a well-formed id, and then *number (may be NULL) is its number. */
bool generation_id_parse(const char *text, struct generation_id *id, uint32_t *number);

bool generation_id_equal(const struct generation_id *a, const struct generation_id *b);
bool generation_id_is_none(const struct generation_id *id);
uint32_t generation_id_number(const struct generation_id *id); /* 0 for none */

/* < 0, 0, > 0 inside one generation. */
int position_compare(struct position a, struct position b);
bool wal_checksum_equal(struct wal_checksum a, struct wal_checksum b);
bool wal_point_equal(struct wal_point a, struct wal_point b);

/* "00000003-9f2c41d7a6b0e355/3/164" */
void position_format(const struct generation_id *id, struct position position,
                     char text[POSITION_TEXT_BYTES]);

/* The reverse; RC_INVALID with the expected form in the text. */
RC_MUST_CHECK enum rc position_parse(const char *text, struct generation_id *id,
                                     struct position *position, struct err *err);

#endif
