/* SPDX-License-Identifier: Apache-2.0 */
/* What a run found, as text for people and as one JSON object for scripts. */
#ifndef OPENLOOP_REPORT_H
#define OPENLOOP_REPORT_H

#include "tests/bench/openloop_kernel.h"
#include "tests/bench/openloop_options.h"
#include "tests/bench/openloop_stats.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* All borrowed; complete (openloop_stats_finish was called). */
struct openloop_report {
    const struct openloop_options *options;
    const struct openloop_stats *stats;
    struct openloop_kernel kernel_before;
    struct openloop_kernel kernel_after;
    bool rows_known; /* asked for, and both answers came */
    int64_t rows_before;
    int64_t rows_after;
};

void openloop_report_print_text(const struct openloop_report *report, FILE *out);
void openloop_report_print_json(const struct openloop_report *report, FILE *out);

/* Rows written minus answers 200: 0 is right; more is a row whose 200 was lost; less is a lie. */
int64_t openloop_report_rows_minus_200s(const struct openloop_report *report);

/* True when every planned request was answered 2xx and the rows, if asked for, match. */
bool openloop_report_is_clean(const struct openloop_report *report);

#endif
