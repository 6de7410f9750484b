/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress_bar: one line on a terminal that says how far a restore is, how fast, and for how long
 * still. Drawn over itself, gone at the end.
 *
 * Thread: the owner's.
 */
#ifndef HARVEY_RESTORER_PROGRESS_BAR_H
#define HARVEY_RESTORER_PROGRESS_BAR_H

#include "restorer/restorer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress_bar {
    const char *phase; /* NULL before the first call */
    int64_t phase_start_ms;
    bool is_drawn;
};

#define PROGRESS_BAR_LINE_BYTES 160

/* A struct restore_request's `progress`; arg = struct progress_bar, all zeros at first. */
void progress_bar_draw(void *arg, const struct restore_progress *progress);

/* Wipes the line. */
void progress_bar_clear(struct progress_bar *bar);

/* The line's text after so many ms of its phase, e.g. "snapshot [#####     ]  52 %  310 MB/s  ETA 2 s". */
void progress_bar_format(const struct restore_progress *progress, int64_t elapsed_ms,
                         char line[PROGRESS_BAR_LINE_BYTES]);

/* "1.2 GB", "310 MB", "17 kB", "5 B": powers of 1000. */
#define PROGRESS_BAR_SIZE_BYTES 24
void progress_bar_format_size(uint64_t bytes, char text[PROGRESS_BAR_SIZE_BYTES]);

#endif
