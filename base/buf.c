/* SPDX-License-Identifier: Apache-2.0 */
/* buf: see buf.h. */
#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

#define BUF_FIRST_BYTES 256

void buf_init(struct buf *buf, size_t capacity_max)
{
    ASSERT(capacity_max > 0);
    *buf = (struct buf){.capacity_max = capacity_max};
}

void buf_deinit(struct buf *buf)
{
    free(buf->data);
    buf->data = NULL;
    buf->size = 0;
    buf->capacity = 0;
}

enum rc buf_reserve(struct buf *buf, size_t more, struct err *err)
{
    if (more > buf->capacity_max - buf->size) {
        return err_set(err, RC_LIMIT, "a buffer would pass its cap of %zu bytes",
                       buf->capacity_max);
    }
    size_t need = buf->size + more;
    if (need <= buf->capacity) {
        return RC_OK;
    }
    size_t capacity = buf->capacity == 0 ? BUF_FIRST_BYTES : buf->capacity;
    while (capacity < need) {
        capacity = capacity > buf->capacity_max / 2 ? buf->capacity_max : capacity * 2;
    }
    if (capacity > buf->capacity_max) {
        capacity = buf->capacity_max;
    }
    uint8_t *data = realloc(buf->data, capacity);
    if (data == NULL) {
        return err_set(err, RC_NOMEM, "no memory for %zu bytes", capacity);
    }
    buf->data = data;
    buf->capacity = capacity;
    return RC_OK;
}

enum rc buf_append(struct buf *buf, const void *bytes, size_t count, struct err *err)
{
    if (count == 0) {
        return RC_OK;
    }
    enum rc rc = buf_reserve(buf, count, err);
    if (rc == RC_OK) {
        memcpy(buf->data + buf->size, bytes, count);
        buf->size += count;
    }
    return rc;
}

void buf_clear(struct buf *buf)
{
    buf->size = 0;
}
