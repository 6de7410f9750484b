/* SPDX-License-Identifier: Apache-2.0 */
/* progress_bar: see progress_bar.h. */
#include "restorer/progress_bar.h"

#include "base/clk.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_BAR_CELLS 24
#define PROGRESS_BAR_RATE_AFTER_MS 300 /* before that a rate is noise */
#define PROGRESS_BAR_WIPE "\r\033[K"

void progress_bar_format_size(uint64_t bytes, char text[PROGRESS_BAR_SIZE_BYTES])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    size_t unit = 0;
    uint64_t whole = bytes;
    uint64_t tenths = 0;
    while (whole >= 1000 && unit + 1 < sizeof units / sizeof units[0]) {
        tenths = whole % 1000 / 100;
        whole /= 1000;
        unit++;
    }
    if (unit > 0 && whole < 10) {
        (void)snprintf(text, PROGRESS_BAR_SIZE_BYTES, "%" PRIu64 ".%" PRIu64 " %s", whole, tenths,
                       units[unit]);
    } else {
        (void)snprintf(text, PROGRESS_BAR_SIZE_BYTES, "%" PRIu64 " %s", whole, units[unit]);
    }
}

void progress_bar_format(const struct restore_progress *progress, int64_t elapsed_ms,
                         char line[PROGRESS_BAR_LINE_BYTES])
{
    if (progress->total_bytes == 0) {
        (void)snprintf(line, PROGRESS_BAR_LINE_BYTES, "%-9s … %" PRId64 " s", progress->phase,
                       elapsed_ms / 1000);
        return;
    }
    char cells[PROGRESS_BAR_CELLS + 1];
    uint64_t done =
        progress->done_bytes < progress->total_bytes ? progress->done_bytes : progress->total_bytes;
    double share = (double)done / (double)progress->total_bytes;
    int filled = (int)(share * PROGRESS_BAR_CELLS);
    memset(cells, ' ', PROGRESS_BAR_CELLS);
    memset(cells, '#', (size_t)filled);
    cells[PROGRESS_BAR_CELLS] = '\0';
    int used = snprintf(line, PROGRESS_BAR_LINE_BYTES, "%-9s [%s] %3d %%", progress->phase, cells,
                        (int)(share * 100));
    if (elapsed_ms >= PROGRESS_BAR_RATE_AFTER_MS && done > 0 && used > 0) {
        char rate[PROGRESS_BAR_SIZE_BYTES];
        uint64_t bytes_per_s = done * 1000 / (uint64_t)elapsed_ms;
        uint64_t left_ms =
            (uint64_t)((double)(progress->total_bytes - done) * (double)elapsed_ms / (double)done);
        progress_bar_format_size(bytes_per_s, rate);
        (void)snprintf(line + used, PROGRESS_BAR_LINE_BYTES - (size_t)used,
                       "  %s/s  ETA %" PRIu64 " s", rate, (left_ms + 999) / 1000);
    }
}

void progress_bar_draw(void *arg, const struct restore_progress *progress)
{
    struct progress_bar *bar = arg;
    char line[PROGRESS_BAR_LINE_BYTES];
    int64_t now_ms = clk_monotonic_ms();
    if (bar->phase == NULL || strcmp(bar->phase, progress->phase) != 0) {
        bar->phase = progress->phase;
        bar->phase_start_ms = now_ms;
    }
    progress_bar_format(progress, now_ms - bar->phase_start_ms, line);
    (void)fprintf(stderr, PROGRESS_BAR_WIPE "%s", line);
    (void)fflush(stderr);
    bar->is_drawn = true;
}

void progress_bar_clear(struct progress_bar *bar)
{
    if (bar->is_drawn) {
        (void)fputs(PROGRESS_BAR_WIPE, stderr);
        (void)fflush(stderr);
        bar->is_drawn = false;
    }
}
