/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uuid: version 4 UUIDs (RFC 9562, 5.4) from the kernel's random source, which is asked for a few
 * hundred of them at a time: no system call per row.
 *
 * Thread: the owner's; embedded by value. Not for a process that forks and goes on drawing.
 */
#ifndef HARVEY_SERVER_UUID_H
#define HARVEY_SERVER_UUID_H

#include <stddef.h>
#include <stdint.h>

#define UUID_TEXT_BYTES 37 /* 36 characters and the NUL */
#define UUID_RANDOM_BYTES 16
#define UUID_STOCK_BYTES                                                                           \
    (256 * UUID_RANDOM_BYTES) /* getrandom gives up to 256 whole at once; more
                                                      may be cut, and bytes_random asks again */

struct uuid_source {
    size_t left_bytes; /* unused ones, at the end of `stock` */
    uint8_t stock[UUID_STOCK_BYTES];
};

void uuid_source_init(struct uuid_source *source);

/* Writes the next one, "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx". */
void uuid_next(struct uuid_source *source, char text[UUID_TEXT_BYTES]);

#endif
