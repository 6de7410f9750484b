/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openloop: sends requests at a fixed rate to a server on loopback and says what became of each.
 *
 * An open loop: request i is planned i / rate seconds after the start, whatever became of the
 * ones before, and its latency counts from then. A closed loop (hey, wrk) stops asking while a
 * server stalls, and so hides the stall. Nothing is ever retried: what a user would have seen as
 * an error counts as one. One thread; see openloop.md beside this file.
 */
#include "base/err.h"
#include "tests/bench/openloop_kernel.h"
#include "tests/bench/openloop_options.h"
#include "tests/bench/openloop_plot.h"
#include "tests/bench/openloop_report.h"
#include "tests/bench/openloop_run.h"
#include "tests/bench/openloop_stats.h"
#include "tests/bench/openloop_status.h"

#include <stdio.h>
#include <stdlib.h>

#define EXIT_RUN 1 /* the run itself failed */
#define EXIT_USAGE 2
#define EXIT_UNCLEAN 3 /* the run is complete, and found failures */

static struct openloop_stats stats; /* 100 KiB of histograms: too much for a stack */

static void print_report(const struct openloop_report *report)
{
    if (report->options->quiet) {
        return;
    }
    if (report->options->json) {
        openloop_report_print_json(report, stdout);
    } else {
        openloop_report_print_text(report, stdout);
    }
}

static enum rc run_and_report(const struct openloop_options *options, bool *clean, struct err *err)
{
    struct openloop_report report = {.options = options, .stats = &stats};
    struct err rows_err = ERR_INIT;
    enum rc rc = RC_OK;

    if (options->rows_from_status) {
        rc = openloop_status_get_rows(options, &report.rows_before, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    report.kernel_before = openloop_kernel_read();
    rc = openloop_run(options, &stats, err);
    report.kernel_after = openloop_kernel_read();
    if (rc != RC_OK) {
        return rc;
    }
    if (options->rows_from_status) {
        /* The run is not lost because this fails: the report says "unknown". */
        report.rows_known =
            openloop_status_get_rows(options, &report.rows_after, &rows_err) == RC_OK;
    }
    print_report(&report);
    *clean = openloop_report_is_clean(&report);
    return options->svg_file != NULL ? openloop_plot_write(options, &stats, err) : RC_OK;
}

int main(int argc, char **argv)
{
    struct openloop_options options;
    struct err err = ERR_INIT;
    bool clean = false;

    if (openloop_options_parse(&options, argc, argv, &err) != RC_OK) {
        (void)fprintf(stderr, "openloop: %s\n", err.text);
        return EXIT_USAGE;
    }
    if (options.help) {
        openloop_options_print_help(stdout);
        return EXIT_SUCCESS;
    }
    enum rc rc = openloop_stats_init(&stats, openloop_run_plan_us(&options), &err);
    if (rc == RC_OK) {
        rc = run_and_report(&options, &clean, &err);
    }
    openloop_stats_deinit(&stats);
    if (rc != RC_OK) {
        (void)fprintf(stderr, "openloop: %s\n", err.text);
        return EXIT_RUN;
    }
    return clean ? EXIT_SUCCESS : EXIT_UNCLEAN;
}
