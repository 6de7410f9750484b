/* SPDX-License-Identifier: Apache-2.0 */
/* bytes: byte order, hexadecimal, decimal and UTF-8; texts end at an unreadable page. */
#include "base/bytes.h"

#include "tests/unit/checks.h"
#include "tests/unit/guarded.h"

#include <inttypes.h>
#include <stdio.h>

static void test_bytes__big_endian_is_most_significant_first(void **state)
{
    (void)state;
    uint8_t bytes[8];
    bytes_put_u16(bytes, 0x0102);
    assert_memory_equal(bytes, "\x01\x02", 2);
    assert_int_equal(bytes_get_u16(bytes), 0x0102);
    bytes_put_u32(bytes, 0x81020304u);
    assert_memory_equal(bytes, "\x81\x02\x03\x04", 4);
    assert_int_equal(bytes_get_u32(bytes), 0x81020304u);
    bytes_put_u64(bytes, UINT64_C(0x8102030405060708));
    assert_memory_equal(bytes, "\x81\x02\x03\x04\x05\x06\x07\x08", 8);
    assert_true(bytes_get_u64(bytes) == UINT64_C(0x8102030405060708));
}

static void test_bytes__little_endian_is_least_significant_first(void **state)
{
    (void)state;
    uint8_t bytes[4];
    bytes_put_u32_le(bytes, 0x81020304u);
    assert_memory_equal(bytes, "\x04\x03\x02\x81", 4);
    assert_int_equal(bytes_get_u32_le(bytes), 0x81020304u);
}

static void test_bytes__hex_round_trips(void **state)
{
    (void)state;
    uint8_t all[256];
    uint8_t again[256];
    char hex[2 * sizeof all + 1];
    for (size_t i = 0; i < sizeof all; i++) {
        all[i] = (uint8_t)i;
    }
    bytes_to_hex(all, sizeof all, hex);
    assert_int_equal(strlen(hex), 2 * sizeof all);
    assert_memory_equal(hex, "000102", 6);
    assert_string_equal(hex + 2 * sizeof all - 4, "feff");
    assert_true(bytes_from_hex(hex, sizeof all, again));
    assert_memory_equal(again, all, sizeof all);
}

static void test_bytes__hex_refuses_other_characters(void **state)
{
    (void)state;
    uint8_t bytes[2];
    assert_false(bytes_from_hex("0A00", 2, bytes)); /* capitals would be a second spelling */
    assert_false(bytes_from_hex("0g00", 2, bytes));
    assert_false(bytes_from_hex("00 0", 2, bytes));
    struct guarded guarded;
    guarded_init(&guarded, 16);
    assert_false(bytes_from_hex((const char *)guarded_place(&guarded, "000", 4), 2, bytes));
    assert_false(bytes_from_hex((const char *)guarded_place(&guarded, "00", 3), 2, bytes));
    assert_false(bytes_from_hex((const char *)guarded_place(&guarded, "", 1), 2, bytes));
    assert_true(bytes_from_hex((const char *)guarded_place(&guarded, "0102", 4), 2, bytes));
    guarded_deinit(&guarded);
}

static void test_bytes__decimal_takes_digits_only(void **state)
{
    (void)state;
    uint64_t value = 0;
    assert_true(bytes_from_decimal("0000000012", 10, &value));
    assert_true(value == 12);
    assert_true(bytes_from_decimal("18446744073709551615", 20, &value));
    assert_true(value == UINT64_MAX);
    assert_false(bytes_from_decimal("18446744073709551616", 20, &value));
    assert_false(bytes_from_decimal("99999999999999999999", 20, &value));
    assert_false(bytes_from_decimal("", 0, &value));
    assert_false(bytes_from_decimal("+1", 2, &value));
    assert_false(bytes_from_decimal("-1", 2, &value));
    assert_false(bytes_from_decimal(" 1", 2, &value));
    assert_false(bytes_from_decimal("1a", 2, &value));
    struct guarded guarded;
    guarded_init(&guarded, 16);
    assert_false(bytes_from_decimal((const char *)guarded_place(&guarded, "12", 3), 8, &value));
    assert_true(bytes_from_decimal((const char *)guarded_place(&guarded, "12", 2), 2, &value));
    guarded_deinit(&guarded);
}

static void check_decimal(int64_t value, const char *expected)
{
    char text[BYTES_DECIMAL_BYTES];
    bytes_to_decimal(value, text);
    assert_string_equal(text, expected);
}

static void test_bytes__to_decimal(void **state)
{
    (void)state;
    check_decimal(0, "0");
    check_decimal(7, "7");
    check_decimal(10, "10");
    check_decimal(-1, "-1");
    check_decimal(1203, "1203");
    check_decimal(INT64_MAX, "9223372036854775807");
    check_decimal(INT64_MIN, "-9223372036854775808");
    int64_t value = 1;
    for (int i = 0; value < INT64_MAX / 2 - 1; i++, value = value * 2 + i % 3) {
        char expected[32];
        (void)snprintf(expected, sizeof expected, "%" PRId64, value);
        check_decimal(value, expected);
    }
}

static void test_bytes__random_fills_all(void **state)
{
    (void)state;
    uint8_t bytes[1000] = {0};
    uint8_t other[1000] = {0};
    bytes_random(bytes, sizeof bytes);
    bytes_random(other, sizeof other);
    assert_memory_not_equal(bytes, other, sizeof bytes);
    size_t zeros = 0;
    for (size_t i = 0; i < sizeof bytes; i++) {
        zeros += bytes[i] == 0;
    }
    assert_true(zeros < 50); /* about 4 are to be expected */
}

static struct guarded guarded; /* a read past the end of the input faults */

static void check_utf8(const char *bytes, size_t count, bool expected)
{
    const char *placed = (const char *)guarded_place(&guarded, bytes, count);
    assert_int_equal(bytes_is_text(placed, count), expected);
}

#define TEXT(literal) check_utf8(literal, sizeof(literal) - 1, true)
#define NO_TEXT(literal) check_utf8(literal, sizeof(literal) - 1, false)

static void test_bytes__utf8(void **state)
{
    (void)state;
    guarded_init(&guarded, 64);
    TEXT("");
    TEXT("plain");
    TEXT("\x01\x7f\t\r\n");
    TEXT("\xc2\x80\xdf\xbf");
    TEXT("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf");
    TEXT("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf");
    NO_TEXT("\x00");
    NO_TEXT("a\x00"
            "b");
    NO_TEXT("\x80");
    NO_TEXT("\xbf");
    NO_TEXT("\xc0\x80"); /* overlong */
    NO_TEXT("\xc1\xbf");
    NO_TEXT("\xe0\x9f\xbf");
    NO_TEXT("\xf0\x8f\xbf\xbf");
    NO_TEXT("\xed\xa0\x80");     /* a surrogate */
    NO_TEXT("\xf4\x90\x80\x80"); /* above U+10FFFF */
    NO_TEXT("\xf5\x80\x80\x80");
    NO_TEXT("\xff");
    NO_TEXT("\xc2"); /* cut */
    NO_TEXT("\xe2\x82");
    NO_TEXT("\xf0\x9f\x8e");
    NO_TEXT("\xc2 ");
    NO_TEXT("\xe2\x82 ");
    guarded_deinit(&guarded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes__big_endian_is_most_significant_first),
        cmocka_unit_test(test_bytes__little_endian_is_least_significant_first),
        cmocka_unit_test(test_bytes__hex_round_trips),
        cmocka_unit_test(test_bytes__hex_refuses_other_characters),
        cmocka_unit_test(test_bytes__decimal_takes_digits_only),
        cmocka_unit_test(test_bytes__to_decimal),
        cmocka_unit_test(test_bytes__random_fills_all),
        cmocka_unit_test(test_bytes__utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
