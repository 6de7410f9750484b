/* SPDX-License-Identifier: Apache-2.0 */
/* Text and JSON report: see openloop_report.h. */
#include "tests/bench/openloop_report.h"

#include <inttypes.h>

static const struct {
    const char *label;
    const char *json_key;
    uint32_t per_million;
} quantiles[] = {
    {"p50", "p50", 500000},     {"p90", "p90", 900000},       {"p99", "p99", 990000},
    {"p99.9", "p99_9", 999000}, {"p99.99", "p99_99", 999900}, {"max", "max", 1000000},
};

#define QUANTILE_COUNT (sizeof quantiles / sizeof quantiles[0])

static double ms_of(int64_t us)
{
    return (double)us / 1000.0;
}

int64_t openloop_report_rows_minus_200s(const struct openloop_report *report)
{
    return report->rows_after - report->rows_before - (int64_t)report->stats->status_200_count;
}

bool openloop_report_is_clean(const struct openloop_report *report)
{
    bool rows_match = !report->options->rows_from_status ||
                      (report->rows_known && openloop_report_rows_minus_200s(report) == 0);

    return openloop_stats_failed(report->stats) == 0 && rows_match;
}

/* Planned requests that are over; fewer than planned when the run was cut short. */
static uint64_t total_of(const struct openloop_stats *stats)
{
    return stats->outcomes[OPENLOOP_OUTCOME_OK] + openloop_stats_failed(stats);
}

static void print_latency_line(FILE *out, const char *label,
                               const struct openloop_histogram *histogram)
{
    (void)fprintf(out, "  %-12s", label);
    for (size_t i = 0; i < QUANTILE_COUNT; i++) {
        uint64_t us = openloop_histogram_quantile(histogram, quantiles[i].per_million);
        (void)fprintf(out, " %9.3f", ms_of((int64_t)us));
    }
    (void)fputc('\n', out);
}

static void print_latencies(const struct openloop_stats *stats, FILE *out)
{
    (void)fprintf(out, "latency, ms   ");
    for (size_t i = 0; i < QUANTILE_COUNT; i++) {
        (void)fprintf(out, " %9s", quantiles[i].label);
    }
    (void)fputs("   (from the planned moment)\n", out);
    print_latency_line(out, "ok", &stats->ok_us);
    print_latency_line(out, "ok + failed", &stats->all_us);
    print_latency_line(out, "client late", &stats->late_us);
    (void)fprintf(out, "ok, but late   %" PRIu64 " at 250 ms or more, %" PRIu64 " at 1 s or more\n",
                  stats->over_250ms_count, stats->over_1s_count);
}

static void print_outcomes(const struct openloop_stats *stats, FILE *out)
{
    (void)fprintf(out, "sent           %" PRIu64 " of %" PRIu64 " due\n", stats->sent_count,
                  total_of(stats));
    (void)fprintf(out, "ok             %" PRIu64 "\n", stats->outcomes[OPENLOOP_OUTCOME_OK]);
    (void)fprintf(out, "failed         %" PRIu64 "\n", openloop_stats_failed(stats));
    for (size_t i = OPENLOOP_OUTCOME_OK + 1; i < OPENLOOP_OUTCOME_COUNT; i++) {
        if (stats->outcomes[i] > 0) {
            (void)fprintf(out, "  %-12s %" PRIu64 "  (%s)\n",
                          openloop_stats_outcome_label((enum openloop_outcome)i),
                          stats->outcomes[i],
                          openloop_stats_outcome_text((enum openloop_outcome)i));
        }
    }
}

static void print_connections(const struct openloop_report *report, FILE *out)
{
    const struct openloop_stats *stats = report->stats;

    (void)fprintf(out, "connections    %" PRIu64 " opened, %" PRIu64 " reconnects\n",
                  stats->opened_count, openloop_stats_reconnects(stats));
    for (size_t i = 0; i < OPENLOOP_CAUSE_COUNT; i++) {
        if (stats->causes[i] > 0) {
            (void)fprintf(out, "  %-12s %" PRIu64 "  (%s)\n",
                          openloop_stats_cause_label((enum openloop_cause)i), stats->causes[i],
                          openloop_stats_cause_text((enum openloop_cause)i));
        }
    }
    if (report->kernel_before.known && report->kernel_after.known) {
        (void)fprintf(out,
                      "kernel         %" PRId64 " SYN retransmits, %" PRId64
                      " listen overflows (whole namespace)\n",
                      report->kernel_after.syn_retrans_count -
                          report->kernel_before.syn_retrans_count,
                      report->kernel_after.listen_overflows_count -
                          report->kernel_before.listen_overflows_count);
    }
}

static void print_rows(const struct openloop_report *report, FILE *out)
{
    if (!report->options->rows_from_status) {
        return;
    }
    if (!report->rows_known) {
        (void)fputs("rows           unknown: /status did not answer\n", out);
        return;
    }
    (void)fprintf(out, "rows           %" PRId64 " before, %" PRId64 " after\n",
                  report->rows_before, report->rows_after);
    (void)fprintf(out, "rows - 200s    %" PRId64 "\n", openloop_report_rows_minus_200s(report));
}

static void print_result(const struct openloop_stats *stats, const struct openloop_result *result,
                         FILE *out)
{
    (void)fprintf(out, "  %10.3f s  unix_ms=%" PRId64 "  %s after %.3f ms\n",
                  ms_of(result->planned_us) / 1000.0,
                  stats->start_unix_ms + result->planned_us / 1000,
                  openloop_stats_outcome_label(result->outcome),
                  ms_of(result->finished_us - result->planned_us));
}

static void print_single_results(const struct openloop_stats *stats, FILE *out)
{
    if (stats->slowest_count > 0) {
        (void)fputs("slowest answers, by planned moment\n", out);
    }
    for (size_t i = 0; i < stats->slowest_count; i++) {
        print_result(stats, &stats->slowest[i], out);
    }
    if (stats->failures_kept > 0) {
        (void)fputs("first failures, by planned moment\n", out);
    }
    for (size_t i = 0; i < stats->failures_kept; i++) {
        print_result(stats, &stats->failures[i], out);
    }
}

void openloop_report_print_text(const struct openloop_report *report, FILE *out)
{
    const struct openloop_options *options = report->options;
    const struct openloop_stats *stats = report->stats;

    (void)fprintf(out,
                  "%s http://%s%s, %s, %" PRId64 " connections, %" PRId64 " requests at %" PRId64
                  "/s, time-out %" PRId64 " ms\n",
                  options->post ? "POST" : "GET", options->host, options->path,
                  openloop_options_mode_name(options->mode), options->connection_count,
                  options->request_count, options->rate, options->timeout_ms);
    print_outcomes(stats, out);
    print_latencies(stats, out);
    (void)fprintf(out, "longest gap    %.3f ms between two successes, over at %.3f s of %.3f s\n",
                  ms_of(stats->gap_us_max), ms_of(stats->gap_end_us) / 1000.0,
                  ms_of(stats->end_us) / 1000.0);
    print_connections(report, out);
    print_rows(report, out);
    print_single_results(stats, out);
}

/* Only printable ASCII reaches it (openloop_options checks); two of those need an escape. */
static void print_json_string(const char *text, FILE *out)
{
    (void)fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') {
            (void)fputc('\\', out);
        }
        (void)fputc(*text, out);
    }
    (void)fputc('"', out);
}

static void print_json_histogram(const char *key, const struct openloop_histogram *histogram,
                                 FILE *out)
{
    (void)fprintf(out, "  \"%s\": {\"count\": %" PRIu64, key, histogram->count);
    for (size_t i = 0; i < QUANTILE_COUNT; i++) {
        uint64_t us = openloop_histogram_quantile(histogram, quantiles[i].per_million);
        (void)fprintf(out, ", \"%s\": %" PRIu64, quantiles[i].json_key, us);
    }
    (void)fprintf(out, ", \"mean\": %" PRIu64 "},\n", openloop_histogram_mean(histogram));
}

static void print_json_results(const char *key, const struct openloop_stats *stats,
                               const struct openloop_result *results, size_t count, FILE *out)
{
    (void)fprintf(out, "  \"%s\": [", key);
    for (size_t i = 0; i < count; i++) {
        (void)fprintf(out,
                      "%s{\"at_us\": %" PRId64 ", \"unix_ms\": %" PRId64
                      ", \"latency_us\": %" PRId64 ", \"outcome\": \"%s\", \"status\": %d}",
                      i == 0 ? "" : ", ", results[i].planned_us,
                      stats->start_unix_ms + results[i].planned_us / 1000,
                      results[i].finished_us - results[i].planned_us,
                      openloop_stats_outcome_label(results[i].outcome), results[i].status);
    }
    (void)fputs("],\n", out);
}

static void print_json_counts(const struct openloop_stats *stats, FILE *out)
{
    (void)fprintf(out,
                  "  \"due\": %" PRIu64 ", \"sent\": %" PRIu64 ", \"ok\": %" PRIu64
                  ", \"status_200\": %" PRIu64 ", \"failed\": %" PRIu64 ",\n  \"failed_by\": {",
                  total_of(stats), stats->sent_count, stats->outcomes[OPENLOOP_OUTCOME_OK],
                  stats->status_200_count, openloop_stats_failed(stats));
    for (size_t i = OPENLOOP_OUTCOME_OK + 1; i < OPENLOOP_OUTCOME_COUNT; i++) {
        (void)fprintf(out, "%s\"%s\": %" PRIu64, i == OPENLOOP_OUTCOME_OK + 1 ? "" : ", ",
                      openloop_stats_outcome_label((enum openloop_outcome)i), stats->outcomes[i]);
    }
    (void)fprintf(
        out, "},\n  \"opened\": %" PRIu64 ", \"reconnects\": %" PRIu64 ",\n  \"reconnects_by\": {",
        stats->opened_count, openloop_stats_reconnects(stats));
    for (size_t i = 0; i < OPENLOOP_CAUSE_COUNT; i++) {
        (void)fprintf(out, "%s\"%s\": %" PRIu64, i == 0 ? "" : ", ",
                      openloop_stats_cause_label((enum openloop_cause)i), stats->causes[i]);
    }
    (void)fputs("},\n", out);
}

static void print_json_surroundings(const struct openloop_report *report, FILE *out)
{
    if (report->kernel_before.known && report->kernel_after.known) {
        (void)fprintf(
            out,
            "  \"kernel\": {\"syn_retrans\": %" PRId64 ", \"listen_overflows\": %" PRId64 "},\n",
            report->kernel_after.syn_retrans_count - report->kernel_before.syn_retrans_count,
            report->kernel_after.listen_overflows_count -
                report->kernel_before.listen_overflows_count);
    } else {
        (void)fputs("  \"kernel\": null,\n", out);
    }
    if (report->rows_known) {
        (void)fprintf(out,
                      "  \"rows\": {\"before\": %" PRId64 ", \"after\": %" PRId64
                      ", \"minus_200s\": %" PRId64 "},\n",
                      report->rows_before, report->rows_after,
                      openloop_report_rows_minus_200s(report));
    } else {
        (void)fputs("  \"rows\": null,\n", out);
    }
}

void openloop_report_print_json(const struct openloop_report *report, FILE *out)
{
    const struct openloop_options *options = report->options;
    const struct openloop_stats *stats = report->stats;

    (void)fprintf(out, "{\n  \"method\": \"%s\", \"host\": \"%s\", \"path\": ",
                  options->post ? "POST" : "GET", options->host);
    print_json_string(options->path, out);
    (void)fprintf(out,
                  ", \"mode\": \"%s\",\n  \"connections\": %" PRId64 ", \"rate\": %" PRId64
                  ", \"planned\": %" PRId64 ", \"timeout_ms\": %" PRId64 ",\n",
                  openloop_options_mode_name(options->mode), options->connection_count,
                  options->rate, options->request_count, options->timeout_ms);
    (void)fprintf(out, "  \"start_unix_ms\": %" PRId64 ", \"elapsed_us\": %" PRId64 ",\n",
                  stats->start_unix_ms, stats->end_us);
    print_json_counts(stats, out);
    print_json_histogram("ok_us", &stats->ok_us, out);
    print_json_histogram("all_us", &stats->all_us, out);
    print_json_histogram("client_late_us", &stats->late_us, out);
    (void)fprintf(out,
                  "  \"over_250ms\": %" PRIu64 ", \"over_1s\": %" PRIu64 ", \"gap_us\": %" PRId64
                  ", \"gap_end_us\": %" PRId64 ",\n",
                  stats->over_250ms_count, stats->over_1s_count, stats->gap_us_max,
                  stats->gap_end_us);
    print_json_surroundings(report, out);
    print_json_results("slowest", stats, stats->slowest, stats->slowest_count, out);
    print_json_results("first_failures", stats, stats->failures, stats->failures_kept, out);
    (void)fprintf(out, "  \"clean\": %s\n}\n", openloop_report_is_clean(report) ? "true" : "false");
}
