/* SPDX-License-Identifier: Apache-2.0 */
/*
 * durations: how long something took, counted since the start in fixed memory: eight buckets for each
 * power of two, so that a percentile is at most 12.5 % above the true one; the maximum is exact.
 *
 * Thread: the owner's, or under the owner's lock. Zero is its start.
 */
#ifndef HARVEY_SERVER_DURATIONS_H
#define HARVEY_SERVER_DURATIONS_H

#include <stdint.h>

#define DURATIONS_PER_OCTAVE 8u
#define DURATIONS_OCTAVES 29u /* up to 2^31 us, half an hour; what is longer counts as that */

struct durations {
    uint64_t count;
    int64_t max_us;
    uint64_t buckets[DURATIONS_OCTAVES * DURATIONS_PER_OCTAVE];
};

void durations_add(struct durations *durations, int64_t us);

/* The shortest time that at least `permille` of them did not exceed; 0 when there are none. */
int64_t durations_percentile(const struct durations *durations, unsigned permille);

#endif
