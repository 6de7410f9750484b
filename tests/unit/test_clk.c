/* SPDX-License-Identifier: Apache-2.0 */
/* clk: RFC 3339 both ways against known values; clocks that go the right way. */
#include "base/clk.h"

#include "tests/unit/checks.h"

static void test_clk__formats_known_times(void **state)
{
    (void)state;
    static const struct {
        int64_t unix_ms;
        const char *text;
    } rows[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1795543200123, "2026-11-24T18:00:00.123Z"},
        {951782400000, "2000-02-29T00:00:00.000Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {9999999999999, "2286-11-20T17:46:39.999Z"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[CLK_RFC3339_BYTES];
        clk_format_rfc3339(rows[i].unix_ms, text);
        assert_string_equal(text, rows[i].text);
    }
}

static void test_clk__formats_any_value_without_overrun(void **state)
{
    (void)state;
    char text[CLK_RFC3339_BYTES];
    clk_format_rfc3339(INT64_MAX, text);
    assert_true(strlen(text) < sizeof text);
    assert_string_equal(text, "(unix_ms 9223372036854775807)");
    clk_format_rfc3339(INT64_MIN, text);
    assert_string_equal(text, "(unix_ms -9223372036854775808)");
    clk_format_rfc3339(INT64_C(253402300800000), text);
    assert_string_equal(text, "10000-01-01T00:00:00.000Z");
}

static void test_clk__parses_known_times(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t unix_ms;
    } rows[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2026-11-24T18:00:00.123Z", 1795543200123},
        {"2026-11-24T19:00:00.123+01:00", 1795543200123},
        {"2026-11-24T12:30:00.1-05:30", 1795543200100},
        {"2026-11-24 18:00:00.123456789z", 1795543200123},
        {"2026-11-24t18:00:00.12Z", 1795543200120},
        {"2000-02-29T00:00:00Z", 951782400000},
        {"2016-12-31T23:59:60Z", 1483228800000},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct err err = ERR_INIT;
        int64_t unix_ms = -1;
        check_ok(clk_parse_rfc3339(rows[i].text, &unix_ms, &err));
        assert_int_equal(unix_ms, rows[i].unix_ms);
    }
}

static void test_clk__refuses_what_is_no_time(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "now",
        "2026-11-24",
        "2026-11-24T18:00:00",
        "2026-11-24T18:00Z",
        "2026-13-24T18:00:00Z",
        "2026-02-29T18:00:00Z",
        "2026-11-24T24:00:00Z",
        "2026-11-24T18:61:00Z",
        "2026-11-24T18:00:00.Z",
        "2026-11-24T18:00:00.1234567890Z",
        "2026-11-24T18:00:00+1:00",
        "2026-11-24T18:00:00+24:00",
        "2026-11-24T18:00:00+01:60",
        "2026-11-24T18:00:00Zx",
        "2026-11-24X18:00:00Z",
        " 2026-11-24T18:00:00Z",
        "2026-11-24T18:00:00 Z",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct err err = ERR_INIT;
        int64_t unix_ms = -1;
        if (clk_parse_rfc3339(texts[i], &unix_ms, &err) != RC_INVALID) {
            fail_msg("\"%s\" was taken for %lld", texts[i], (long long)unix_ms);
        }
        check_text("2026-11-24T18:00:00Z"); /* the text shows what is expected */
    }
}

static void test_clk__round_trips(void **state)
{
    (void)state;
    for (int64_t unix_ms = 0; unix_ms < 4000000000000; unix_ms += 86399999991) {
        struct err err = ERR_INIT;
        char text[CLK_RFC3339_BYTES];
        int64_t again = -1;
        clk_format_rfc3339(unix_ms, text);
        check_ok(clk_parse_rfc3339(text, &again, &err));
        assert_int_equal(again, unix_ms);
    }
}

static void test_clk__offset_moves_only_the_wall_clock(void **state)
{
    (void)state;
    int64_t wall = clk_unix_ms();
    int64_t monotonic = clk_monotonic_ms();
    clk_set_unix_offset_ms(3600000);
    assert_true(clk_unix_ms() >= wall + 3600000);
    assert_true(clk_monotonic_ms() < monotonic + 3600000);
    clk_set_unix_offset_ms(0);
    assert_true(clk_unix_ms() < wall + 3600000);
}

static void test_clk__deadline_lies_ahead(void **state)
{
    (void)state;
    int64_t before_us = clk_monotonic_us();
    struct timespec when = clk_deadline(1999);
    int64_t after_us = clk_monotonic_us();
    int64_t when_us = (int64_t)when.tv_sec * 1000000 + when.tv_nsec / 1000;
    assert_in_range(when.tv_nsec, 0, 999999999);
    assert_true(when_us >= before_us + 1999000);
    assert_true(when_us <= after_us + 1999000);
}

static void test_clk__pause_lasts_at_least_that_long(void **state)
{
    (void)state;
    int64_t before_us = clk_monotonic_us();
    clk_pause_ms(3);
    assert_true(clk_monotonic_us() - before_us >= 3000);
    assert_true(clk_boottime_ms() >= clk_monotonic_ms() - 1);
    assert_true(clk_coarse_unix_ns() > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clk__formats_known_times),
        cmocka_unit_test(test_clk__formats_any_value_without_overrun),
        cmocka_unit_test(test_clk__parses_known_times),
        cmocka_unit_test(test_clk__refuses_what_is_no_time),
        cmocka_unit_test(test_clk__round_trips),
        cmocka_unit_test(test_clk__offset_moves_only_the_wall_clock),
        cmocka_unit_test(test_clk__deadline_lies_ahead),
        cmocka_unit_test(test_clk__pause_lasts_at_least_that_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
