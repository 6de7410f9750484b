/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run counts: outcomes by kind, latencies, the longest silence, reconnects by cause, a
 * timeline of 100 ms bins, and the first failures and slowest answers one by one. All memory is
 * taken when the run is planned. One thread.
 */
#ifndef OPENLOOP_STATS_H
#define OPENLOOP_STATS_H

#include "base/err.h"
#include "tests/bench/openloop_histogram.h"

#include <stddef.h>
#include <stdint.h>

#define OPENLOOP_BIN_US INT64_C(100000)
#define OPENLOOP_SLOWEST_COUNT 10
#define OPENLOOP_FAILURES_KEPT 10

/* How a planned request can end. The first is success, everything else a failure. */
#define OPENLOOP_OUTCOMES(X)                                                                       \
    X(OK, "ok", "answered 2xx")                                                                    \
    X(REFUSED, "refused", "connection refused")                                                    \
    X(RESET, "reset", "connection reset (or broken pipe)")                                         \
    X(EOF, "eof", "closed before the answer was complete")                                         \
    X(TIMEOUT, "timeout", "sent or connecting, not answered in time")                              \
    X(4XX, "4xx", "answered 4xx")                                                                  \
    X(503, "503", "answered 503")                                                                  \
    X(5XX, "5xx", "answered 5xx, not 503")                                                         \
    X(STATUS, "status", "answered 1xx or 3xx")                                                     \
    X(MALFORMED, "malformed", "not an HTTP answer")                                                \
    X(UNSENT, "unsent", "no connection was free in time")                                          \
    X(UNANSWERED, "unanswered", "in flight when the run was cut short")                            \
    X(LOCAL, "local", "this client ran out of ports or descriptors")

enum openloop_outcome {
#define OPENLOOP_OUTCOME_ENUM(name, label, text) OPENLOOP_OUTCOME_##name,
    OPENLOOP_OUTCOMES(OPENLOOP_OUTCOME_ENUM)
#undef OPENLOOP_OUTCOME_ENUM
        OPENLOOP_OUTCOME_COUNT,
};

/* Why a kept connection had to be replaced. Only the last is also a failed request. */
#define OPENLOOP_CAUSES(X)                                                                         \
    X(ANNOUNCED, "announced", "closed after an answer that said so")                               \
    X(IDLE_CLOSE, "idle_close", "closed by the server while idle")                                 \
    X(IDLE_RESET, "idle_reset", "reset by the server while idle")                                  \
    X(STRAY, "stray", "bytes nobody asked for")                                                    \
    X(FAILED, "failed", "its request failed")

enum openloop_cause {
#define OPENLOOP_CAUSE_ENUM(name, label, text) OPENLOOP_CAUSE_##name,
    OPENLOOP_CAUSES(OPENLOOP_CAUSE_ENUM)
#undef OPENLOOP_CAUSE_ENUM
        OPENLOOP_CAUSE_COUNT,
};

/* One planned request that is over. */
struct openloop_result {
    int64_t planned_us; /* since the run's start, as finished_us */
    int64_t finished_us;
    enum openloop_outcome outcome;
    int status; /* of HTTP, 0 when there was none */
};

struct openloop_bin {
    uint32_t ok_count;
    uint32_t failed_count;
    int64_t latency_us_max; /* of the answers ok; requests are in the bin they were planned in */
};

struct openloop_stats {
    int64_t start_us; /* monotonic */
    int64_t start_unix_ms;
    int64_t end_us;
    uint64_t sent_count; /* handed to a connection */
    uint64_t status_200_count;
    uint64_t outcomes[OPENLOOP_OUTCOME_COUNT];
    uint64_t causes[OPENLOOP_CAUSE_COUNT];
    uint64_t opened_count;     /* connections established */
    uint64_t over_250ms_count; /* ok, but later than that */
    uint64_t over_1s_count;
    struct openloop_histogram ok_us;
    struct openloop_histogram all_us;  /* failures too: until the failure was known */
    struct openloop_histogram late_us; /* planned moment until this client looked at it */
    int64_t last_ok_us;                /* since start; the start itself counts as a success */
    int64_t gap_us_max;
    int64_t gap_end_us;
    struct openloop_bin *bins;
    size_t bin_count;
    struct openloop_result slowest[OPENLOOP_SLOWEST_COUNT]; /* unordered until finished */
    size_t slowest_count;
    int64_t slowest_floor_us; /* the fastest of them: what is not slower need not be compared */
    struct openloop_result failures[OPENLOOP_FAILURES_KEPT]; /* the first ones */
    size_t failures_kept;
};

/* Makes room for a plan of that length; RC_NOMEM. Undo with openloop_stats_deinit. */
RC_MUST_CHECK enum rc openloop_stats_init(struct openloop_stats *stats, int64_t plan_us,
                                          struct err *err);
void openloop_stats_deinit(struct openloop_stats *stats);

/* The plan begins at this monotonic moment. */
void openloop_stats_start(struct openloop_stats *stats, int64_t start_us, int64_t start_unix_ms);

/* Counts a request that is over. */
void openloop_stats_add(struct openloop_stats *stats, const struct openloop_result *result);

/* The run is over: closes the last gap, orders the slowest by latency. */
void openloop_stats_finish(struct openloop_stats *stats, int64_t end_us, int64_t plan_end_us);

/* Requests that failed, of all kinds. */
uint64_t openloop_stats_failed(const struct openloop_stats *stats);

/* Connections that had to be replaced, of all causes. */
uint64_t openloop_stats_reconnects(const struct openloop_stats *stats);

/* Label for reports ("eof") and one line of explanation. */
const char *openloop_stats_outcome_label(enum openloop_outcome outcome);
const char *openloop_stats_outcome_text(enum openloop_outcome outcome);
const char *openloop_stats_cause_label(enum openloop_cause cause);
const char *openloop_stats_cause_text(enum openloop_cause cause);

/* The outcome of an answer with that status code. */
enum openloop_outcome openloop_stats_outcome_of_status(int status);

#endif
