/* SPDX-License-Identifier: Apache-2.0 */
/* recent: see recent.h. */
#include "replicator/recent.h"

#include <stdlib.h>

void recent_add(struct recent *recent, int64_t now_ms, int64_t value)
{
    recent->when_ms[recent->next] = now_ms;
    recent->values[recent->next] = value;
    recent->next = (recent->next + 1) % RECENT_MAX;
    recent->count++;
}

static int recent_order(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

void recent_summarize(const struct recent *recent, int64_t now_ms, int64_t window_ms,
                      struct recent_summary *summary)
{
    int64_t sorted[RECENT_MAX];
    size_t count = 0;
    size_t kept = recent->count < RECENT_MAX ? (size_t)recent->count : RECENT_MAX;
    for (size_t i = 0; i < kept; i++) {
        if (window_ms == 0 || recent->when_ms[i] >= now_ms - window_ms) {
            sorted[count++] = recent->values[i];
        }
    }
    *summary = (struct recent_summary){.count = count};
    if (count > 0) {
        qsort(sorted, count, sizeof sorted[0], recent_order);
        summary->p50 = sorted[(count - 1) / 2];
        summary->p99 = sorted[(count - 1) * 99 / 100];
        summary->max = sorted[count - 1];
    }
}
