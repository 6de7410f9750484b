/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One run of the open-loop client: the plan (request i is due i / rate seconds after the start),
 * the connections, and the epoll loop that brings them together. One thread.
 *
 * A request that is due takes the connection that has rested longest; where none is free it waits
 * its turn, and its latency grows meanwhile. It fails when it has waited `timeout_ms` for a
 * connection, or, once it has one, when it is not answered in that time: one that was late already
 * is not sent only to be given up. The run ends when every planned request is over: at most twice
 * timeout_ms after the plan's end. SIGINT or SIGTERM cuts the plan short and waits for what is in
 * flight, a second one does not wait.
 */
#ifndef OPENLOOP_RUN_H
#define OPENLOOP_RUN_H

#include "base/err.h"
#include "tests/bench/openloop_options.h"
#include "tests/bench/openloop_stats.h"

/*
 * Runs the plan; `stats` must be initialised for it and is complete afterwards, also when the
 * plan was cut short. Blocks SIGINT and SIGTERM and ignores SIGPIPE for good. RC_NOMEM, RC_IO (a
 * system call of the loop itself), RC_LIMIT (too few descriptors allowed for the connections).
 */
RC_MUST_CHECK enum rc openloop_run(const struct openloop_options *options,
                                   struct openloop_stats *stats, struct err *err);

/* Length of the plan in microseconds. */
int64_t openloop_run_plan_us(const struct openloop_options *options);

#endif
