/* SPDX-License-Identifier: Apache-2.0 */
/* bytes: see bytes.h. */
#include "base/bytes.h"

#include "base/err.h"

#include <errno.h>
#include <sys/random.h>

void bytes_to_hex(const uint8_t *bytes, size_t count, char *hex)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < count; i++) {
        hex[2 * i] = digits[bytes[i] >> 4];
        hex[2 * i + 1] = digits[bytes[i] & 15];
    }
    hex[2 * count] = '\0';
}

static int bytes_hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return -1;
}

bool bytes_from_hex(const char *hex, size_t count, uint8_t *bytes)
{
    for (size_t i = 0; i < count; i++) {
        int high = bytes_hex_value(hex[2 * i]);
        int low = high < 0 ? -1 : bytes_hex_value(hex[2 * i + 1]); /* never past a NUL */
        if (low < 0) {
            return false;
        }
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

bool bytes_from_decimal(const char *text, size_t digits, uint64_t *value)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < digits; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        if (__builtin_mul_overflow(sum, UINT64_C(10), &sum) ||
            __builtin_add_overflow(sum, (uint64_t)(text[i] - '0'), &sum)) {
            return false;
        }
    }
    *value = sum;
    return digits > 0;
}

void bytes_to_decimal(int64_t value, char text[BYTES_DECIMAL_BYTES])
{
    char digits[BYTES_DECIMAL_BYTES];
    size_t count = 0;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do {
        digits[count++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (value < 0) {
        *text++ = '-';
    }
    while (count > 0) {
        *text++ = digits[--count];
    }
    *text = '\0';
}

/* The length of the UTF-8 sequence at `bytes`, 0 when it is none; `count` > 0 bytes are there. */
static size_t utf8_sequence_bytes(const unsigned char *bytes, size_t count)
{
    unsigned char first = bytes[0];
    size_t length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (first == 0 || (first >= 0x80 && first < 0xc2) || first > 0xf4 || length > count) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (first == 0xe0 && bytes[1] < 0xa0) || (first == 0xf0 && bytes[1] < 0x90);
    bool surrogate = first == 0xed && bytes[1] > 0x9f;
    bool above = first == 0xf4 && bytes[1] > 0x8f;
    return overlong || surrogate || above ? 0 : length;
}

bool bytes_is_text(const char *bytes, size_t count)
{
    const unsigned char *at = (const unsigned char *)bytes;
    while (count > 0) {
        size_t length = utf8_sequence_bytes(at, count);
        if (length == 0) {
            return false;
        }
        at += length;
        count -= length;
    }
    return true;
}

void bytes_random(uint8_t *bytes, size_t count)
{
    size_t got = 0;
    while (got < count) {
        ssize_t n = getrandom(bytes + got, count - got, 0);
        ASSERT(n > 0 || errno == EINTR);
        got += n > 0 ? (size_t)n : 0;
    }
}
