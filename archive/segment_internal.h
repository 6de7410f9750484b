/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment_internal: what segment.c (objects) and segment_header.c (their header) share.
 */
#ifndef HARVEY_ARCHIVE_SEGMENT_INTERNAL_H
#define HARVEY_ARCHIVE_SEGMENT_INTERNAL_H

#include "archive/segment.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes of the skippable frame, with its own head, that holds a header with so many times. */
size_t segment_header_frame_bytes(uint32_t time_count);

/* Writes that frame. The header must be free of problems. */
RC_MUST_CHECK enum rc segment_header_encode(const struct segment_header *header, uint8_t *frame,
                                            struct err *err);

/* What is wrong with a header, by the rules of docs/archive-format.md; NULL = nothing. */
const char *segment_header_problem(const struct segment_header *header);

#endif
