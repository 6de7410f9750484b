/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buf: a growing byte string with a cap. Growth past the cap is RC_LIMIT, never an abort.
 *
 * Thread: the owner's. Embedded by value; `buf_deinit` frees.
 */
#ifndef HARVEY_BASE_BUF_H
#define HARVEY_BASE_BUF_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data; /* NULL until the first growth */
    size_t size;   /* bytes in use */
    size_t capacity;
    size_t capacity_max; /* the cap, in bytes */
};

void buf_init(struct buf *buf, size_t capacity_max);
void buf_deinit(struct buf *buf);

/* Makes room for `more` bytes after the used ones: RC_LIMIT past the cap, RC_NOMEM. */
RC_MUST_CHECK enum rc buf_reserve(struct buf *buf, size_t more, struct err *err);

/* Appends; RC_LIMIT, RC_NOMEM. */
RC_MUST_CHECK enum rc buf_append(struct buf *buf, const void *bytes, size_t count, struct err *err);

/* Forgets the contents, keeps the memory. */
void buf_clear(struct buf *buf);

#endif
