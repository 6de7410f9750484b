/* SPDX-License-Identifier: Apache-2.0 */
/* progress_bar: the line's text, and sizes as people read them. */
#include "restorer/progress_bar.h"

#include "tests/unit/checks.h"

static void test_progress_bar__sizes(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},       {999, "999 B"},        {1000, "1.0 kB"},       {9999, "9.9 kB"},
        {17000, "17 kB"}, {310000000, "310 MB"}, {1200000000, "1.2 GB"}, {UINT64_MAX, "18 EB"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[PROGRESS_BAR_SIZE_BYTES];
        progress_bar_format_size(cases[i].bytes, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void check_line(uint64_t done, uint64_t total, int64_t elapsed_ms, const char *wanted)
{
    struct restore_progress progress = {
        .phase = "snapshot", .done_bytes = done, .total_bytes = total};
    char line[PROGRESS_BAR_LINE_BYTES];
    progress_bar_format(&progress, elapsed_ms, line);
    assert_string_equal(line, wanted);
}

static void test_progress_bar__lines(void **state)
{
    (void)state;
    check_line(0, 1000, 0, "snapshot  [                        ]   0 %");
    check_line(0, 1000, 5000, "snapshot  [                        ]   0 %");
    check_line(500, 1000, 100, "snapshot  [############            ]  50 %");
    check_line(500000000, 2000000000, 1000,
               "snapshot  [######                  ]  25 %  500 MB/s  ETA 3 s");
    check_line(1000, 1000, 1000, "snapshot  [########################] 100 %  1.0 kB/s  ETA 0 s");
    check_line(5000, 1000, 1000, "snapshot  [########################] 100 %  1.0 kB/s  ETA 0 s");
    check_line(0, 0, 2500, "snapshot  … 2 s");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_progress_bar__sizes),
        cmocka_unit_test(test_progress_bar__lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
