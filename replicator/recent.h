/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recent: the last RECENT_MAX values of something measured, with percentiles over a window of time.
 *
 * Thread: the owner's, or under the owner's lock.
 */
#ifndef HARVEY_REPLICATOR_RECENT_H
#define HARVEY_REPLICATOR_RECENT_H

#include <stddef.h>
#include <stdint.h>

#define RECENT_MAX 1024

struct recent {
    int64_t when_ms[RECENT_MAX]; /* monotonic */
    int64_t values[RECENT_MAX];
    size_t next;
    uint64_t count; /* ever added */
};

struct recent_summary {
    size_t count; /* values in the window */
    int64_t p50;
    int64_t p99;
    int64_t max;
};

void recent_add(struct recent *recent, int64_t now_ms, int64_t value);

/* Over the values of the last window_ms (0 = all that are kept). All zero when there are none. */
void recent_summarize(const struct recent *recent, int64_t now_ms, int64_t window_ms,
                      struct recent_summary *summary);

#endif
