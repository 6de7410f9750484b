/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Histogram of microseconds in fixed memory, log-linear as HdrHistogram does it: exact below
 * 256 us, above that 128 steps per power of two, so a percentile is at most 0.8 % too high.
 * One thread; no allocation; the struct is embedded by its user.
 */
#ifndef OPENLOOP_HISTOGRAM_H
#define OPENLOOP_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

/* Values are clamped to 2^36 us, about 19 hours: longer than any run may last. */
#define OPENLOOP_HISTOGRAM_VALUE_BITS 36
#define OPENLOOP_HISTOGRAM_STEP_BITS 7
#define OPENLOOP_HISTOGRAM_BUCKETS                                                                 \
    ((OPENLOOP_HISTOGRAM_VALUE_BITS - OPENLOOP_HISTOGRAM_STEP_BITS + 1)                            \
     << OPENLOOP_HISTOGRAM_STEP_BITS)

struct openloop_histogram {
    uint64_t counts[OPENLOOP_HISTOGRAM_BUCKETS];
    uint64_t count;
    uint64_t sum_us;
    uint64_t max_us; /* exact */
};

/* Empties the histogram. */
void openloop_histogram_init(struct openloop_histogram *histogram);

/* Counts one value. */
void openloop_histogram_add(struct openloop_histogram *histogram, uint64_t value_us);

/*
 * The smallest recorded value (rounded up to its bucket's edge, never above the exact maximum)
 * such that at least `per_million` of all values are not larger: 999900 is p99.99, 1000000 the
 * maximum. 0 when nothing was recorded.
 */
uint64_t openloop_histogram_quantile(const struct openloop_histogram *histogram,
                                     uint32_t per_million);

/* Mean in microseconds, 0 when nothing was recorded. */
uint64_t openloop_histogram_mean(const struct openloop_histogram *histogram);

#endif
