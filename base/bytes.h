/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bytes: fixed-width integers in byte strings, hexadecimal, UTF-8. Everything on disk and in the
 * bucket is big-endian, as in SQLite's own files, and goes through here: never by casting a struct.
 *
 * Thread: any (pure functions).
 */
#ifndef HARVEY_BASE_BYTES_H
#define HARVEY_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline uint16_t bytes_get_u16(const uint8_t *p)
{
    return (uint16_t)((uint16_t)p[0] << 8 | p[1]);
}

static inline uint32_t bytes_get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t bytes_get_u64(const uint8_t *p)
{
    return (uint64_t)bytes_get_u32(p) << 32 | bytes_get_u32(p + 4);
}

static inline uint32_t bytes_get_u32_le(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static inline void bytes_put_u16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static inline void bytes_put_u32(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 24);
    p[1] = (uint8_t)(value >> 16);
    p[2] = (uint8_t)(value >> 8);
    p[3] = (uint8_t)value;
}

static inline void bytes_put_u64(uint8_t *p, uint64_t value)
{
    bytes_put_u32(p, (uint32_t)(value >> 32));
    bytes_put_u32(p + 4, (uint32_t)value);
}

static inline void bytes_put_u32_le(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
    p[2] = (uint8_t)(value >> 16);
    p[3] = (uint8_t)(value >> 24);
}

/* Writes 2 * count lower-case digits and a NUL. */
void bytes_to_hex(const uint8_t *bytes, size_t count, char *hex);

/* Reads exactly 2 * count lower-case digits; false when one is something else. */
bool bytes_from_hex(const char *hex, size_t count, uint8_t *bytes);

/* Reads `digits` decimal digits, all of them, no sign; false on anything else or above UINT64_MAX. */
bool bytes_from_decimal(const char *text, size_t digits, uint64_t *value);

/* What printf's PRId64 writes, at a tenth of the cost: an answer to each insert needs it. */
#define BYTES_DECIMAL_BYTES 21 /* the longest, "-9223372036854775808", and NUL */
void bytes_to_decimal(int64_t value, char text[BYTES_DECIMAL_BYTES]);

/* True for UTF-8 (RFC 3629) without NUL: what may be stored as text. */
bool bytes_is_text(const char *bytes, size_t count);

/* Fills from the kernel's random source; aborts when there is none (getrandom(2) cannot fail then). */
void bytes_random(uint8_t *bytes, size_t count);

#endif
