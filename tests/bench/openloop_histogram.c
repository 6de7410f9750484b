/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log-linear histogram. A value v is shifted right until 8 bits remain: the shift chooses the
 * power of two, the remaining bits the step inside it. Shift 0 covers 0..255 exactly.
 */
#include "tests/bench/openloop_histogram.h"

#include <string.h>

#define STEPS (UINT64_C(1) << OPENLOOP_HISTOGRAM_STEP_BITS)
#define VALUE_MAX ((UINT64_C(1) << OPENLOOP_HISTOGRAM_VALUE_BITS) - 1)

static unsigned shift_of(uint64_t value)
{
    unsigned bits;

    if (value < 2 * STEPS) {
        return 0;
    }
    bits = 64U - (unsigned)__builtin_clzll(value);
    return bits - (OPENLOOP_HISTOGRAM_STEP_BITS + 1);
}

static size_t index_of(uint64_t value)
{
    unsigned shift = shift_of(value);

    return (size_t)(shift * STEPS + (value >> shift));
}

/* Largest value that falls into the bucket. */
static uint64_t upper_edge(size_t index)
{
    uint64_t shift = index < 2 * STEPS ? 0 : index / STEPS - 1;
    uint64_t step = index - shift * STEPS;

    return ((step + 1) << shift) - 1;
}

void openloop_histogram_init(struct openloop_histogram *histogram)
{
    memset(histogram, 0, sizeof(*histogram));
}

void openloop_histogram_add(struct openloop_histogram *histogram, uint64_t value_us)
{
    if (value_us > VALUE_MAX) {
        value_us = VALUE_MAX;
    }
    histogram->counts[index_of(value_us)]++;
    histogram->count++;
    histogram->sum_us += value_us;
    if (value_us > histogram->max_us) {
        histogram->max_us = value_us;
    }
}

uint64_t openloop_histogram_quantile(const struct openloop_histogram *histogram,
                                     uint32_t per_million)
{
    uint64_t wanted;
    uint64_t seen = 0;

    if (histogram->count == 0) {
        return 0;
    }
    /* Rounded up: the p99.99 of 100 values is the largest of them. */
    wanted = (histogram->count * per_million + 999999) / 1000000;
    for (size_t i = 0; i < OPENLOOP_HISTOGRAM_BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen >= wanted && seen > 0) {
            uint64_t edge = upper_edge(i);

            return edge < histogram->max_us ? edge : histogram->max_us;
        }
    }
    return histogram->max_us;
}

uint64_t openloop_histogram_mean(const struct openloop_histogram *histogram)
{
    return histogram->count == 0 ? 0 : histogram->sum_us / histogram->count;
}
