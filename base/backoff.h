/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backoff: the one retry pause of the project: exponential from `first_ms` to `cap_ms`, with full
 * jitter (a value between half the step and the step), reset by a success.
 *
 * Thread: the owner's.
 */
#ifndef HARVEY_BASE_BACKOFF_H
#define HARVEY_BASE_BACKOFF_H

#include <stdint.h>

struct backoff {
    int64_t first_ms;
    int64_t cap_ms;
    int64_t step_ms;
    uint64_t random; /* state of the jitter; any value */
};

void backoff_init(struct backoff *backoff, int64_t first_ms, int64_t cap_ms);

/* The pause before the next try, in ms; each call doubles the step up to the cap. */
int64_t backoff_next_ms(struct backoff *backoff);

void backoff_reset(struct backoff *backoff);

#endif
