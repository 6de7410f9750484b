/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The timeline as an SVG picture: above, answers ok and failed per 100 ms; below, the highest
 * latency of each bin; across both, marks from outside (releases). A bin holds the requests that
 * were planned in it, so a failure stands where it began.
 */
#ifndef OPENLOOP_PLOT_H
#define OPENLOOP_PLOT_H

#include "base/err.h"
#include "tests/bench/openloop_options.h"
#include "tests/bench/openloop_stats.h"

/*
 * Writes options->svg_file, with the marks of options->marks_file if there is one: lines
 * "UNIX_MS [LABEL]", empty lines and lines that begin with # are skipped. RC_IO, RC_INVALID (a
 * mark that is none, with its line number).
 */
RC_MUST_CHECK enum rc openloop_plot_write(const struct openloop_options *options,
                                          const struct openloop_stats *stats, struct err *err);

#endif
