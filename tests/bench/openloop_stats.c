/* SPDX-License-Identifier: Apache-2.0 */
/* Counters of the open-loop client: see openloop_stats.h. */
#include "tests/bench/openloop_stats.h"

#include <stdlib.h>
#include <string.h>

#define SLOW_US INT64_C(250000)
#define VERY_SLOW_US INT64_C(1000000)

static const char *const outcome_labels[] = {
#define OUTCOME_LABEL(name, label, text) label,
    OPENLOOP_OUTCOMES(OUTCOME_LABEL)
#undef OUTCOME_LABEL
};

static const char *const outcome_texts[] = {
#define OUTCOME_TEXT(name, label, text) text,
    OPENLOOP_OUTCOMES(OUTCOME_TEXT)
#undef OUTCOME_TEXT
};

static const char *const cause_labels[] = {
#define CAUSE_LABEL(name, label, text) label,
    OPENLOOP_CAUSES(CAUSE_LABEL)
#undef CAUSE_LABEL
};

static const char *const cause_texts[] = {
#define CAUSE_TEXT(name, label, text) text,
    OPENLOOP_CAUSES(CAUSE_TEXT)
#undef CAUSE_TEXT
};

enum rc openloop_stats_init(struct openloop_stats *stats, int64_t plan_us, struct err *err)
{
    ASSERT(plan_us >= 0);
    memset(stats, 0, sizeof *stats);
    stats->bin_count = (size_t)(plan_us / OPENLOOP_BIN_US) + 1;
    stats->bins = calloc(stats->bin_count, sizeof *stats->bins);
    if (stats->bins == NULL) {
        return err_set(err, RC_NOMEM, "no memory for %zu timeline bins", stats->bin_count);
    }
    return RC_OK;
}

void openloop_stats_deinit(struct openloop_stats *stats)
{
    free(stats->bins);
    stats->bins = NULL;
    stats->bin_count = 0;
}

void openloop_stats_start(struct openloop_stats *stats, int64_t start_us, int64_t start_unix_ms)
{
    stats->start_us = start_us;
    stats->start_unix_ms = start_unix_ms;
}

static int64_t latency_of(const struct openloop_result *result)
{
    return result->finished_us > result->planned_us ? result->finished_us - result->planned_us : 0;
}

static size_t fastest_of_slowest(const struct openloop_stats *stats)
{
    size_t fastest = 0;

    for (size_t i = 1; i < OPENLOOP_SLOWEST_COUNT; i++) {
        if (latency_of(&stats->slowest[i]) < latency_of(&stats->slowest[fastest])) {
            fastest = i;
        }
    }
    return fastest;
}

static void keep_slowest(struct openloop_stats *stats, const struct openloop_result *result)
{
    if (stats->slowest_count < OPENLOOP_SLOWEST_COUNT) {
        stats->slowest[stats->slowest_count++] = *result;
    } else if (latency_of(result) > stats->slowest_floor_us) {
        stats->slowest[fastest_of_slowest(stats)] = *result;
    } else {
        return;
    }
    if (stats->slowest_count == OPENLOOP_SLOWEST_COUNT) {
        stats->slowest_floor_us = latency_of(&stats->slowest[fastest_of_slowest(stats)]);
    }
}

static void close_gap(struct openloop_stats *stats, int64_t until_us)
{
    if (until_us - stats->last_ok_us > stats->gap_us_max) {
        stats->gap_us_max = until_us - stats->last_ok_us;
        stats->gap_end_us = until_us;
    }
    if (until_us > stats->last_ok_us) {
        stats->last_ok_us = until_us;
    }
}

static void add_ok(struct openloop_stats *stats, const struct openloop_result *result)
{
    int64_t latency_us = latency_of(result);

    openloop_histogram_add(&stats->ok_us, (uint64_t)latency_us);
    stats->over_250ms_count += latency_us >= SLOW_US ? 1 : 0;
    stats->over_1s_count += latency_us >= VERY_SLOW_US ? 1 : 0;
    stats->status_200_count += result->status == 200 ? 1 : 0;
    keep_slowest(stats, result);
    close_gap(stats, result->finished_us);
}

void openloop_stats_add(struct openloop_stats *stats, const struct openloop_result *result)
{
    size_t index = (size_t)(result->planned_us / OPENLOOP_BIN_US);

    ASSERT(result->planned_us >= 0 && index < stats->bin_count);
    struct openloop_bin *bin = &stats->bins[index];
    stats->outcomes[result->outcome]++;
    openloop_histogram_add(&stats->all_us, (uint64_t)latency_of(result));
    if (result->outcome == OPENLOOP_OUTCOME_OK) {
        add_ok(stats, result);
        bin->ok_count++;
        if (latency_of(result) > bin->latency_us_max) {
            bin->latency_us_max = latency_of(result);
        }
        return;
    }
    bin->failed_count++;
    if (stats->failures_kept < OPENLOOP_FAILURES_KEPT) {
        stats->failures[stats->failures_kept++] = *result;
    }
}

static int compare_slower_first(const void *a, const void *b)
{
    int64_t left = latency_of(a);
    int64_t right = latency_of(b);

    return left < right ? 1 : left > right ? -1 : 0;
}

void openloop_stats_finish(struct openloop_stats *stats, int64_t end_us, int64_t plan_end_us)
{
    stats->end_us = end_us;
    /* A server that dies for good leaves no second success: its silence lasts to the plan's end. */
    close_gap(stats, plan_end_us < end_us ? plan_end_us : end_us);
    qsort(stats->slowest, stats->slowest_count, sizeof stats->slowest[0], compare_slower_first);
}

uint64_t openloop_stats_failed(const struct openloop_stats *stats)
{
    uint64_t failed = 0;

    for (size_t i = OPENLOOP_OUTCOME_OK + 1; i < OPENLOOP_OUTCOME_COUNT; i++) {
        failed += stats->outcomes[i];
    }
    return failed;
}

uint64_t openloop_stats_reconnects(const struct openloop_stats *stats)
{
    uint64_t reconnects = 0;

    for (size_t i = 0; i < OPENLOOP_CAUSE_COUNT; i++) {
        reconnects += stats->causes[i];
    }
    return reconnects;
}

const char *openloop_stats_outcome_label(enum openloop_outcome outcome)
{
    return outcome_labels[outcome];
}

const char *openloop_stats_outcome_text(enum openloop_outcome outcome)
{
    return outcome_texts[outcome];
}

const char *openloop_stats_cause_label(enum openloop_cause cause)
{
    return cause_labels[cause];
}

const char *openloop_stats_cause_text(enum openloop_cause cause)
{
    return cause_texts[cause];
}

enum openloop_outcome openloop_stats_outcome_of_status(int status)
{
    if (status == 503) {
        return OPENLOOP_OUTCOME_503;
    }
    switch (status / 100) {
    case 2:
        return OPENLOOP_OUTCOME_OK;
    case 4:
        return OPENLOOP_OUTCOME_4XX;
    case 5:
        return OPENLOOP_OUTCOME_5XX;
    default:
        return OPENLOOP_OUTCOME_STATUS;
    }
}
