/* SPDX-License-Identifier: Apache-2.0 */
/* durations: see durations.h. Below DURATIONS_PER_OCTAVE us a bucket is one value. */
#include "server/durations.h"

#include "base/err.h"

#include <stddef.h>

#define PER_OCTAVE_BITS 3u /* log2 of DURATIONS_PER_OCTAVE */

_Static_assert(1u << PER_OCTAVE_BITS == DURATIONS_PER_OCTAVE, "the two must agree");

static const size_t bucket_count = (size_t)DURATIONS_OCTAVES * DURATIONS_PER_OCTAVE;

static size_t bucket_of(uint64_t us)
{
    if (us < DURATIONS_PER_OCTAVE) {
        return (size_t)us;
    }
    unsigned shift = 63u - (unsigned)__builtin_clzll(us) - PER_OCTAVE_BITS;
    size_t index = (size_t)shift * DURATIONS_PER_OCTAVE + (size_t)(us >> shift);
    return index < bucket_count ? index : bucket_count - 1;
}

/* The longest time that falls into it. */
static int64_t bucket_end_us(size_t index)
{
    if (index < DURATIONS_PER_OCTAVE) {
        return (int64_t)index;
    }
    unsigned shift = (unsigned)(index / DURATIONS_PER_OCTAVE) - 1u;
    uint64_t first = (uint64_t)(index % DURATIONS_PER_OCTAVE) + DURATIONS_PER_OCTAVE;
    return (int64_t)(((first + 1) << shift) - 1);
}

void durations_add(struct durations *durations, int64_t us)
{
    ASSERT(us >= 0);
    durations->buckets[bucket_of((uint64_t)us)]++;
    durations->count++;
    durations->max_us = us > durations->max_us ? us : durations->max_us;
}

int64_t durations_percentile(const struct durations *durations, unsigned permille)
{
    ASSERT(permille <= 1000);
    uint64_t wanted = (durations->count * permille + 999) / 1000;
    uint64_t seen = 0;
    for (size_t i = 0; i < bucket_count; i++) {
        seen += durations->buckets[i];
        if (seen >= wanted && seen > 0) {
            int64_t end_us = bucket_end_us(i);
            return end_us < durations->max_us ? end_us : durations->max_us;
        }
    }
    return durations->max_us;
}
