/* SPDX-License-Identifier: Apache-2.0 */
/* recent: percentiles of values whose order is known, the window of time, the ring that overwrites. */
#include "replicator/recent.h"

#include "tests/unit/checks.h"

static struct recent recent;

static int setup(void **state)
{
    (void)state;
    recent = (struct recent){0};
    return 0;
}

static void check(int64_t now_ms, int64_t window_ms, struct recent_summary wanted)
{
    struct recent_summary summary = {99, 99, 99, 99};
    recent_summarize(&recent, now_ms, window_ms, &summary);
    assert_int_equal(summary.count, wanted.count);
    assert_int_equal(summary.p50, wanted.p50);
    assert_int_equal(summary.p99, wanted.p99);
    assert_int_equal(summary.max, wanted.max);
}

static void test_recent__nothing(void **state)
{
    (void)state;
    check(5000, 0, (struct recent_summary){0, 0, 0, 0});
    check(5000, 100, (struct recent_summary){0, 0, 0, 0});
    recent_add(&recent, 10, 7);
    check(5000, 100, (struct recent_summary){0, 0, 0, 0}); /* it is too old */
}

static void test_recent__one_two_three(void **state)
{
    (void)state;
    recent_add(&recent, 1, 30);
    check(1, 0, (struct recent_summary){1, 30, 30, 30});
    recent_add(&recent, 1, 10);
    check(1, 0, (struct recent_summary){2, 10, 10, 30});
    recent_add(&recent, 1, -20);
    check(1, 0, (struct recent_summary){3, 10, 10, 30});
}

/* 1..100 in an order of its own: the 50th, the 99th, the 100th. */
static void test_recent__hundred(void **state)
{
    (void)state;
    for (int64_t i = 0; i < 100; i++) {
        recent_add(&recent, 1, i * 37 % 100 + 1);
    }
    check(1, 0, (struct recent_summary){100, 50, 99, 100});
}

static void test_recent__window(void **state)
{
    (void)state;
    recent_add(&recent, 1000, 500);
    recent_add(&recent, 2000, 5);
    recent_add(&recent, 3000, 6);
    check(3000, 1000, (struct recent_summary){2, 5, 5, 6}); /* 2000 is just inside */
    check(3001, 1000, (struct recent_summary){1, 6, 6, 6});
    check(3001, 0, (struct recent_summary){3, 6, 6, 500});
}

/* The oldest go, one for one, and the count of what is kept stays. */
static void test_recent__the_ring(void **state)
{
    (void)state;
    for (int64_t i = 0; i < RECENT_MAX; i++) {
        recent_add(&recent, i, 1000);
    }
    check(0, 0, (struct recent_summary){RECENT_MAX, 1000, 1000, 1000});
    for (int64_t i = 0; i < RECENT_MAX - 1; i++) {
        recent_add(&recent, RECENT_MAX + i, 1);
    }
    check(0, 0, (struct recent_summary){RECENT_MAX, 1, 1, 1000});
    recent_add(&recent, 5000, 2);
    check(0, 0, (struct recent_summary){RECENT_MAX, 1, 1, 2});
    check(5000, 1, (struct recent_summary){1, 2, 2, 2});
    assert_int_equal(recent.count, 2 * RECENT_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup(name, setup)
        CASE(test_recent__nothing), CASE(test_recent__one_two_three), CASE(test_recent__hundred),
        CASE(test_recent__window),  CASE(test_recent__the_ring),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
