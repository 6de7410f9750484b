/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SVG timeline: see openloop_plot.h. Long runs are drawn in columns of several bins: counts are
 * added, latencies keep their maximum, so no failure and no spike disappears.
 */
#include "tests/bench/openloop_plot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 1200
#define HEIGHT 470
#define LEFT 70
#define RIGHT 20
#define COUNT_TOP 50
#define COUNT_HEIGHT 150
#define LATENCY_TOP 250
#define LATENCY_HEIGHT 170
#define PLOT_WIDTH (WIDTH - LEFT - RIGHT)
#define COLUMNS_MAX 1110 /* one pixel each */
#define MARK_COUNT_MAX 10000
#define MARK_LABEL_BYTES 24
#define TICKS_ACROSS 10

struct columns {
    struct openloop_bin bins[COLUMNS_MAX];
    size_t count;
    size_t bins_each;
    uint32_t count_max; /* ok + failed */
    int64_t latency_us_max;
};

static void gather(struct columns *columns, const struct openloop_stats *stats)
{
    memset(columns, 0, sizeof *columns);
    columns->bins_each = (stats->bin_count + COLUMNS_MAX - 1) / COLUMNS_MAX;
    columns->count = (stats->bin_count + columns->bins_each - 1) / columns->bins_each;
    for (size_t i = 0; i < stats->bin_count; i++) {
        struct openloop_bin *column = &columns->bins[i / columns->bins_each];
        const struct openloop_bin *bin = &stats->bins[i];
        column->ok_count += bin->ok_count;
        column->failed_count += bin->failed_count;
        if (bin->latency_us_max > column->latency_us_max) {
            column->latency_us_max = bin->latency_us_max;
        }
    }
    columns->count_max = 1;
    columns->latency_us_max = 1000;
    for (size_t i = 0; i < columns->count; i++) {
        uint32_t count = columns->bins[i].ok_count + columns->bins[i].failed_count;
        if (count > columns->count_max) {
            columns->count_max = count;
        }
        if (columns->bins[i].latency_us_max > columns->latency_us_max) {
            columns->latency_us_max = columns->bins[i].latency_us_max;
        }
    }
}

static double span_us(const struct columns *columns)
{
    return (double)(columns->count * columns->bins_each) * (double)OPENLOOP_BIN_US;
}

static double x_of(const struct columns *columns, double at_us)
{
    return LEFT + PLOT_WIDTH * at_us / span_us(columns);
}

static void print_escaped(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '<':
            (void)fputs("&lt;", out);
            break;
        case '&':
            (void)fputs("&amp;", out);
            break;
        default:
            (void)fputc(*text >= ' ' && *text <= '~' ? *text : '?', out);
        }
    }
}

static void draw_bar(FILE *out, const char *colour, double x, double width, double bottom,
                     double height)
{
    if (height > 0) {
        (void)fprintf(out,
                      "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\"/>\n",
                      x, bottom - height, width, height, colour);
    }
}

static void draw_columns(FILE *out, const struct columns *columns)
{
    double width = (double)PLOT_WIDTH / (double)columns->count;
    double count_scale = (double)COUNT_HEIGHT / columns->count_max;
    double latency_scale = (double)LATENCY_HEIGHT / (double)columns->latency_us_max;

    for (size_t i = 0; i < columns->count; i++) {
        const struct openloop_bin *column = &columns->bins[i];
        double x = LEFT + width * (double)i;
        double ok = column->ok_count * count_scale;
        double failed = column->failed_count * count_scale;
        /* One failure among thousands must still be seen. */
        if (column->failed_count > 0 && failed < 3) {
            failed = 3;
        }
        draw_bar(out, "#4a9d5b", x, width, COUNT_TOP + COUNT_HEIGHT, ok);
        draw_bar(out, "#d03030", x, width, COUNT_TOP + COUNT_HEIGHT - ok, failed);
        draw_bar(out, "#3b6fb5", x, width, LATENCY_TOP + LATENCY_HEIGHT,
                 (double)column->latency_us_max * latency_scale);
    }
}

static void draw_axes(FILE *out, const struct columns *columns)
{
    const int bottoms[] = {COUNT_TOP + COUNT_HEIGHT, LATENCY_TOP + LATENCY_HEIGHT};

    for (size_t i = 0; i < sizeof bottoms / sizeof bottoms[0]; i++) {
        (void)fprintf(out, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"#444\"/>\n",
                      LEFT, bottoms[i], WIDTH - RIGHT, bottoms[i]);
    }
    (void)fprintf(out,
                  "<text x=\"%d\" y=\"%d\">requests per %zu ms: green ok, red failed</text>\n"
                  "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%" PRIu32 "</text>\n"
                  "<text x=\"%d\" y=\"%d\">highest latency</text>\n"
                  "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%.1f ms</text>\n",
                  LEFT, COUNT_TOP - 6, columns->bins_each * 100, LEFT - 6, COUNT_TOP + 10,
                  columns->count_max, LEFT, LATENCY_TOP - 6, LEFT - 6, LATENCY_TOP + 10,
                  (double)columns->latency_us_max / 1000.0);
    for (int i = 0; i <= TICKS_ACROSS; i++) {
        double at_us = span_us(columns) * i / TICKS_ACROSS;
        (void)fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.1f s</text>\n",
                      x_of(columns, at_us), LATENCY_TOP + LATENCY_HEIGHT + 18, at_us / 1e6);
    }
}

/* "UNIX_MS [LABEL]". False when it is no mark. */
static bool parse_mark(char *line, int64_t *unix_ms, const char **label)
{
    char *end = NULL;

    line[strcspn(line, "\r\n")] = '\0';
    errno = 0;
    *unix_ms = strtoll(line, &end, 10);
    if (errno != 0 || end == line || (*end != '\0' && *end != ' ' && *end != '\t')) {
        return false;
    }
    *label = end + strspn(end, " \t");
    return true;
}

static void draw_mark(FILE *out, const struct columns *columns, int64_t at_us, const char *label)
{
    double x = x_of(columns, (double)at_us);

    if (at_us < 0 || (double)at_us > span_us(columns)) {
        return; /* before or after the run */
    }
    (void)fprintf(out,
                  "<line x1=\"%.2f\" y1=\"%d\" x2=\"%.2f\" y2=\"%d\" stroke=\"#c08000\" "
                  "stroke-dasharray=\"4 3\"/>\n",
                  x, COUNT_TOP, x, LATENCY_TOP + LATENCY_HEIGHT);
    if (label[0] != '\0') {
        char cut[MARK_LABEL_BYTES];
        (void)snprintf(cut, sizeof cut, "%s", label);
        (void)fprintf(out, "<text x=\"%.2f\" y=\"%d\" fill=\"#c08000\">", x + 2, LATENCY_TOP - 24);
        print_escaped(out, cut);
        (void)fputs("</text>\n", out);
    }
}

static enum rc draw_marks(FILE *out, const struct columns *columns, const char *name,
                          int64_t start_unix_ms, struct err *err)
{
    char line[256];
    FILE *marks = fopen(name, "re");
    enum rc rc = RC_OK;

    if (marks == NULL) {
        return err_set_errno(err, RC_IO, "--marks %s", name);
    }
    for (int line_no = 1; rc == RC_OK && fgets(line, sizeof line, marks) != NULL; line_no++) {
        const char *label = NULL;
        int64_t unix_ms = 0;
        if (line[0] == '#' || line[strspn(line, " \t\r\n")] == '\0') {
            continue;
        }
        if (line_no > MARK_COUNT_MAX) {
            rc = err_set(err, RC_LIMIT, "--marks %s: more than %d lines", name, MARK_COUNT_MAX);
        } else if (!parse_mark(line, &unix_ms, &label)) {
            rc = err_set(err, RC_INVALID, "--marks %s, line %d: want 'UNIX_MS [LABEL]'", name,
                         line_no);
        } else {
            draw_mark(out, columns, (unix_ms - start_unix_ms) * 1000, label);
        }
    }
    (void)fclose(marks);
    return rc;
}

static void draw_head(FILE *out, const struct openloop_options *options,
                      const struct openloop_stats *stats)
{
    (void)fprintf(out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
                  "font-family=\"sans-serif\" font-size=\"12\">\n"
                  "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n"
                  "<text x=\"%d\" y=\"20\" font-size=\"14\">%s ",
                  WIDTH, HEIGHT, WIDTH, HEIGHT, LEFT, options->post ? "POST" : "GET");
    print_escaped(out, options->path);
    (void)fprintf(out,
                  ", %s, %" PRId64 " connections, %" PRId64 "/s: %" PRIu64 " ok, %" PRIu64
                  " failed, p99.9 %.1f ms, max %.1f ms, longest gap %.1f ms</text>\n",
                  openloop_options_mode_name(options->mode), options->connection_count,
                  options->rate, stats->outcomes[OPENLOOP_OUTCOME_OK], openloop_stats_failed(stats),
                  (double)openloop_histogram_quantile(&stats->ok_us, 999000) / 1000.0,
                  (double)stats->ok_us.max_us / 1000.0, (double)stats->gap_us_max / 1000.0);
}

enum rc openloop_plot_write(const struct openloop_options *options,
                            const struct openloop_stats *stats, struct err *err)
{
    struct columns *columns = malloc(sizeof *columns);
    FILE *out = NULL;
    enum rc rc = RC_OK;

    if (columns == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the picture");
    }
    gather(columns, stats);
    out = fopen(options->svg_file, "we");
    if (out == NULL) {
        rc = err_set_errno(err, RC_IO, "--svg %s", options->svg_file);
        goto done;
    }
    draw_head(out, options, stats);
    draw_columns(out, columns);
    draw_axes(out, columns);
    if (options->marks_file != NULL) {
        rc = draw_marks(out, columns, options->marks_file, stats->start_unix_ms, err);
    }
    (void)fputs("</svg>\n", out);
done:
    if (out != NULL && fclose(out) != 0 && rc == RC_OK) {
        rc = err_set_errno(err, RC_IO, "--svg %s", options->svg_file);
    }
    free(columns);
    return rc;
}
