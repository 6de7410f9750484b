/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The open-loop client's numbers: histogram and percentiles against a sorted list, and what a run
 * counts of its results. Random values come from a printed seed.
 *
 * The bench is no room that test programs are linked with, so its sources are taken in here.
 */
#include "tests/bench/openloop_histogram.c"
#include "tests/bench/openloop_stats.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <time.h>

#define SAMPLE_COUNT 20000

static struct openloop_histogram histogram;

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;

    return left < right ? -1 : left > right ? 1 : 0;
}

static void test_openloop_histogram__empty_is_zero(void **state)
{
    (void)state;
    openloop_histogram_init(&histogram);
    assert_int_equal(openloop_histogram_quantile(&histogram, 500000), 0);
    assert_int_equal(openloop_histogram_quantile(&histogram, 1000000), 0);
    assert_int_equal(openloop_histogram_mean(&histogram), 0);
}

static void test_openloop_histogram__small_values_are_exact(void **state)
{
    (void)state;
    openloop_histogram_init(&histogram);
    for (uint64_t value = 1; value <= 100; value++) {
        openloop_histogram_add(&histogram, value);
    }
    assert_int_equal(openloop_histogram_quantile(&histogram, 0), 1);
    assert_int_equal(openloop_histogram_quantile(&histogram, 500000), 50);
    assert_int_equal(openloop_histogram_quantile(&histogram, 990000), 99);
    assert_int_equal(openloop_histogram_quantile(&histogram, 990001), 100);
    assert_int_equal(openloop_histogram_quantile(&histogram, 999900), 100);
    assert_int_equal(openloop_histogram_quantile(&histogram, 1000000), 100);
    assert_int_equal(openloop_histogram_mean(&histogram), 50);
}

/* Every bucket begins right after the one before ends, and holds its own edge. */
static void test_openloop_histogram__buckets_leave_no_hole(void **state)
{
    (void)state;
    for (size_t i = 0; i + 1 < OPENLOOP_HISTOGRAM_BUCKETS; i++) {
        assert_int_equal(index_of(upper_edge(i)), i);
        assert_int_equal(index_of(upper_edge(i) + 1), i + 1);
    }
    assert_int_equal(upper_edge(OPENLOOP_HISTOGRAM_BUCKETS - 1), VALUE_MAX);
}

static void test_openloop_histogram__huge_values_are_clamped(void **state)
{
    (void)state;
    openloop_histogram_init(&histogram);
    openloop_histogram_add(&histogram, UINT64_MAX);
    openloop_histogram_add(&histogram, VALUE_MAX);
    assert_int_equal(histogram.count, 2);
    assert_int_equal(openloop_histogram_quantile(&histogram, 500000), VALUE_MAX);
}

static void test_openloop_histogram__agrees_with_a_sorted_list(void **state)
{
    static uint64_t values[SAMPLE_COUNT];
    static const uint32_t asked[] = {1, 500000, 900000, 990000, 999000, 999900, 1000000};
    uint64_t seed = (uint64_t)time(NULL) | 1;

    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    openloop_histogram_init(&histogram);
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        uint64_t random = next_random(&seed);
        values[i] = (random >> 32) >> (random % 31); /* all orders of magnitude */
        openloop_histogram_add(&histogram, values[i]);
    }
    qsort(values, SAMPLE_COUNT, sizeof values[0], compare_u64);
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        uint64_t rank = ((uint64_t)SAMPLE_COUNT * asked[i] + 999999) / 1000000;
        uint64_t exact = values[rank - 1];
        uint64_t found = openloop_histogram_quantile(&histogram, asked[i]);
        assert_true(found >= exact);
        assert_true(found - exact <= exact / 128); /* 0.8 % */
    }
    assert_int_equal(openloop_histogram_quantile(&histogram, 1000000), values[SAMPLE_COUNT - 1]);
}

static void add(struct openloop_stats *stats, int64_t planned_us, int64_t finished_us,
                enum openloop_outcome outcome)
{
    struct openloop_result result = {.planned_us = planned_us,
                                     .finished_us = finished_us,
                                     .outcome = outcome,
                                     .status = outcome == OPENLOOP_OUTCOME_OK ? 200 : 0};

    openloop_stats_add(stats, &result);
}

static void test_openloop_stats__gap_is_the_longest_silence(void **state)
{
    static struct openloop_stats stats;
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(openloop_stats_init(&stats, 1000000, &err), RC_OK);
    add(&stats, 0, 1000, OPENLOOP_OUTCOME_OK);
    add(&stats, 100000, 101000, OPENLOOP_OUTCOME_OK);
    add(&stats, 200000, 201000, OPENLOOP_OUTCOME_REFUSED);
    add(&stats, 300000, 401000, OPENLOOP_OUTCOME_OK);
    add(&stats, 400000, 400500, OPENLOOP_OUTCOME_OK); /* reported late, finished early */
    openloop_stats_finish(&stats, 600000, 500000);
    assert_int_equal(stats.gap_us_max, 300000);
    assert_int_equal(stats.gap_end_us, 401000);
    assert_int_equal(openloop_stats_failed(&stats), 1);
    assert_int_equal(stats.status_200_count, 4);
    assert_int_equal(stats.bins[2].failed_count, 1);
    assert_int_equal(stats.bins[3].latency_us_max, 101000);
    openloop_stats_deinit(&stats);
}

/* A server that never comes back leaves no second success to measure to. */
static void test_openloop_stats__gap_reaches_to_the_end_of_the_plan(void **state)
{
    static struct openloop_stats stats;
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(openloop_stats_init(&stats, 1000000, &err), RC_OK);
    add(&stats, 0, 1000, OPENLOOP_OUTCOME_OK);
    openloop_stats_finish(&stats, 5000000, 1000000);
    assert_int_equal(stats.gap_us_max, 999000);
    openloop_stats_deinit(&stats);
}

static void test_openloop_stats__keeps_the_ten_slowest(void **state)
{
    static struct openloop_stats stats;
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(openloop_stats_init(&stats, 1000000, &err), RC_OK);
    for (int64_t i = 0; i < 1000; i++) {
        add(&stats, i, i + (i * 7919) % 1000, OPENLOOP_OUTCOME_OK); /* a permutation of 0..999 */
    }
    openloop_stats_finish(&stats, 1000000, 1000000);
    for (size_t i = 0; i < OPENLOOP_SLOWEST_COUNT; i++) {
        const struct openloop_result *slow = &stats.slowest[i];
        assert_int_equal(slow->finished_us - slow->planned_us, 999 - (int64_t)i);
    }
    openloop_stats_deinit(&stats);
}

static void test_openloop_stats__outcome_of_status(void **state)
{
    (void)state;
    assert_int_equal(openloop_stats_outcome_of_status(200), OPENLOOP_OUTCOME_OK);
    assert_int_equal(openloop_stats_outcome_of_status(204), OPENLOOP_OUTCOME_OK);
    assert_int_equal(openloop_stats_outcome_of_status(302), OPENLOOP_OUTCOME_STATUS);
    assert_int_equal(openloop_stats_outcome_of_status(404), OPENLOOP_OUTCOME_4XX);
    assert_int_equal(openloop_stats_outcome_of_status(500), OPENLOOP_OUTCOME_5XX);
    assert_int_equal(openloop_stats_outcome_of_status(503), OPENLOOP_OUTCOME_503);
    assert_string_equal(openloop_stats_outcome_label(OPENLOOP_OUTCOME_EOF), "eof");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_openloop_histogram__empty_is_zero),
        cmocka_unit_test(test_openloop_histogram__small_values_are_exact),
        cmocka_unit_test(test_openloop_histogram__buckets_leave_no_hole),
        cmocka_unit_test(test_openloop_histogram__huge_values_are_clamped),
        cmocka_unit_test(test_openloop_histogram__agrees_with_a_sorted_list),
        cmocka_unit_test(test_openloop_stats__gap_is_the_longest_silence),
        cmocka_unit_test(test_openloop_stats__gap_reaches_to_the_end_of_the_plan),
        cmocka_unit_test(test_openloop_stats__keeps_the_ten_slowest),
        cmocka_unit_test(test_openloop_stats__outcome_of_status),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
