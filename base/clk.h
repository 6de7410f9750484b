/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clk: the two clocks. Wall clock values are called `_unix_ms` and are only ever shown, stored or
 * compared with other wall clock values; every wait and every duration uses the monotonic clock.
 *
 * Thread: any. Tests may replace the wall clock with clk_set_unix_offset_ms.
 */
#ifndef HARVEY_BASE_CLK_H
#define HARVEY_BASE_CLK_H

#include "base/err.h"

#include <stdint.h>
#include <time.h>

#define CLK_RFC3339_BYTES 40 /* "2026-11-24T18:00:00.123Z" and the NUL, with room for odd years */

int64_t clk_monotonic_ms(void);
int64_t clk_monotonic_us(void);
int64_t clk_unix_ms(void);

/* The coarse wall clock in nanoseconds: what the kernel stamps a file's mtime with. */
int64_t clk_coarse_unix_ns(void);

/* CLOCK_BOOTTIME in ms: shared by all processes and containers of one kernel since its boot. */
int64_t clk_boottime_ms(void);

/* "2026-11-24T18:00:00.123Z" (RFC 3339, UTC). */
void clk_format_rfc3339(int64_t unix_ms, char text[CLK_RFC3339_BYTES]);

/*
 * Parses RFC 3339 with "Z" or an offset, with or without fractional seconds (cut to ms).
 * RC_INVALID with a text that shows the expected form.
 */
RC_MUST_CHECK enum rc clk_parse_rfc3339(const char *text, int64_t *unix_ms, struct err *err);

/* Tests only: adds this to what clk_unix_ms returns. */
void clk_set_unix_offset_ms(int64_t offset_ms);

/* Sleeps that long by the monotonic clock (used by back-off and polling loops of the tools). */
void clk_pause_ms(int64_t pause_ms);
void clk_pause_us(int64_t pause_us);

/* The absolute CLOCK_MONOTONIC deadline that lies `after_ms` from now, for pthread_cond_clockwait. */
struct timespec clk_deadline(int64_t after_ms);

#endif
