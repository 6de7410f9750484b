/* SPDX-License-Identifier: Apache-2.0 */
/* backoff: see backoff.h. */
#include "base/backoff.h"

#include "base/bytes.h"
#include "base/err.h"

void backoff_init(struct backoff *backoff, int64_t first_ms, int64_t cap_ms)
{
    ASSERT(first_ms > 0 && cap_ms >= first_ms);
    uint8_t seed[8];
    bytes_random(seed, sizeof seed);
    *backoff = (struct backoff){.first_ms = first_ms,
                                .cap_ms = cap_ms,
                                .step_ms = first_ms,
                                .random = bytes_get_u64(seed) | 1};
}

int64_t backoff_next_ms(struct backoff *backoff)
{
    backoff->random ^= backoff->random << 13; /* xorshift64: jitter needs no better */
    backoff->random ^= backoff->random >> 7;
    backoff->random ^= backoff->random << 17;
    int64_t half = backoff->step_ms / 2;
    int64_t pause = half + (int64_t)(backoff->random % (uint64_t)(backoff->step_ms - half + 1));
    backoff->step_ms =
        backoff->step_ms > backoff->cap_ms / 2 ? backoff->cap_ms : backoff->step_ms * 2;
    return pause > 0 ? pause : 1;
}

void backoff_reset(struct backoff *backoff)
{
    backoff->step_ms = backoff->first_ms;
}
