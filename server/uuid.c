/* SPDX-License-Identifier: Apache-2.0 */
/* uuid: see uuid.h. */
#include "server/uuid.h"

#include "base/bytes.h"

#include <string.h>

void uuid_source_init(struct uuid_source *source)
{
    source->left_bytes = 0;
}

void uuid_next(struct uuid_source *source, char text[UUID_TEXT_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    if (source->left_bytes == 0) {
        bytes_random(source->stock, sizeof source->stock);
        source->left_bytes = sizeof source->stock;
    }
    uint8_t *random = source->stock + sizeof source->stock - source->left_bytes;
    source->left_bytes -= UUID_RANDOM_BYTES;
    random[6] = (uint8_t)((random[6] & 0x0f) | 0x40); /* version 4 */
    random[8] = (uint8_t)((random[8] & 0x3f) | 0x80); /* variant of RFC 9562 */
    char *out = text;
    for (size_t i = 0; i < UUID_RANDOM_BYTES; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *out++ = '-';
        }
        *out++ = digits[random[i] >> 4];
        *out++ = digits[random[i] & 15];
    }
    *out = '\0';
    memset(random, 0, UUID_RANDOM_BYTES); /* what was given out is not kept */
}
