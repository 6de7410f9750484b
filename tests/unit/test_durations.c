/* SPDX-License-Identifier: Apache-2.0 */
/*
 * durations: percentiles beside those of a sorted list of the same values, at most an eighth higher;
 * the exact maximum; what is longer than any bucket.
 */
#include "server/durations.h"

#include "tests/unit/checks.h"

#include <stdlib.h>

#define VALUES 2000

static struct durations durations;

static int setup(void **state)
{
    (void)state;
    durations = (struct durations){0};
    return 0;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void test_durations__nothing(void **state)
{
    (void)state;
    assert_int_equal(durations_percentile(&durations, 999), 0);
    assert_int_equal(durations.max_us, 0);
}

/* Every power of two and its neighbours, alone: never below the true one, at most an eighth above. */
static void test_durations__one(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 31; bit++) {
        for (int64_t off = -1; off <= 1; off++) {
            int64_t value = (INT64_C(1) << bit) + off;
            durations = (struct durations){0};
            durations_add(&durations, value);
            durations_add(&durations, INT64_C(1) << 40); /* else the maximum hides the bucket */
            int64_t told = durations_percentile(&durations, 500);
            assert_true(told >= value && told <= value + value / 8);
        }
    }
}

static void test_durations__like_a_sorted_list(void **state)
{
    (void)state;
    static int64_t values[VALUES];
    unsigned random = 12345;
    for (size_t i = 0; i < VALUES; i++) {
        random = random * 1103515245u + 12345u;
        values[i] = (int64_t)(random >> (8 + i % 20));
        durations_add(&durations, values[i]);
    }
    qsort(values, VALUES, sizeof values[0], compare);
    for (unsigned permille = 1; permille <= 1000; permille++) {
        int64_t wanted = values[VALUES * permille / 1000 - 1];
        int64_t told = durations_percentile(&durations, permille);
        if (told < wanted || told > wanted + wanted / 8) {
            fail_msg("%u permille: %lld, in the list %lld", permille, (long long)told,
                     (long long)wanted);
        }
    }
    assert_int_equal(durations_percentile(&durations, 1000), values[VALUES - 1]);
    assert_int_equal(durations.count, VALUES);
}

static void test_durations__longer_than_any_bucket(void **state)
{
    (void)state;
    durations_add(&durations, INT64_MAX);
    durations_add(&durations, 5);
    assert_int_equal(durations_percentile(&durations, 500), 5);
    assert_true(durations_percentile(&durations, 999) >= INT64_C(1) << 30);
    assert_true(durations.max_us == INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_durations__nothing, setup),
        cmocka_unit_test_setup(test_durations__one, setup),
        cmocka_unit_test_setup(test_durations__like_a_sorted_list, setup),
        cmocka_unit_test_setup(test_durations__longer_than_any_bucket, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
