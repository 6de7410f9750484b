/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guarded: places test input so that its last byte lies right before a page that nobody may touch.
 * A parser that reads one byte too far dies at once, under any compiler and without a sanitizer
 * (the idea is picohttpparser's).
 */
#ifndef HARVEY_TESTS_UNIT_GUARDED_H
#define HARVEY_TESTS_UNIT_GUARDED_H

#include <stddef.h>
#include <stdint.h>

struct guarded {
    uint8_t *map;
    size_t map_bytes;
    size_t room_bytes; /* before the forbidden page */
};

/* Room for inputs of up to `count_max` bytes. */
void guarded_init(struct guarded *guarded, size_t count_max);
void guarded_deinit(struct guarded *guarded);

/* Copies the bytes to the end of the room and answers where they are; valid until the next call. */
uint8_t *guarded_place(struct guarded *guarded, const void *bytes, size_t count);

#endif
