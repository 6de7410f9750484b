/* SPDX-License-Identifier: Apache-2.0 */
/* report: see report.h. The JSON's keys are a contract: docs/configuration.md, "restore". */
#include "restorer/report.h"

#include "base/clk.h"
#include "restorer/progress_bar.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define REPORT_COMMAND_BYTES (POSITION_TEXT_BYTES + 40)

static const char *report_integrity_name(enum restore_integrity integrity)
{
    return integrity == RESTORE_INTEGRITY_FULL    ? "full"
           : integrity == RESTORE_INTEGRITY_QUICK ? "quick"
                                                  : "none";
}

/* A text that need not be UTF-8 (a path, a message cut short): then its bytes above 127 become "?". */
static json_t *report_text(const char *text)
{
    json_t *string = json_string(text);
    char ascii[ERR_TEXT_BYTES];
    if (string != NULL) {
        return string;
    }
    size_t used = 0;
    for (; text[used] != '\0' && used + 1 < sizeof ascii; used++) {
        ascii[used] = (signed char)text[used] < 0 ? '?' : text[used];
    }
    ascii[used] = '\0';
    return json_string(ascii);
}

static json_t *report_text_or_null(const char *text)
{
    return text[0] != '\0' ? report_text(text) : json_null();
}

/* Prints and frees. */
static int report_json(json_t *object)
{
    int failed = object == NULL || json_dumpf(object, stdout, JSON_INDENT(2)) != 0 ||
                 fputc('\n', stdout) == EOF || fflush(stdout) != 0;
    json_decref(object);
    return failed ? 1 : 0;
}

static json_t *report_result_object(const struct options *options,
                                    const struct restore_result *result)
{
    char position[POSITION_TEXT_BYTES];
    char time[CLK_RFC3339_BYTES];
    position_format(&result->generation, result->point.position, position);
    clk_format_rfc3339(result->commit_unix_ms, time);
    return json_pack(
        "{s:b, s:b, s:o, s:s, s:s, s:I, s:I, s:s, s:I, s:{s:I, s:I}, s:I, s:I, s:I, "
        "s:I, s:I, s:s, s:o, s:o, s:o}",
        "ok", 1, "dry_run", options->request.dry_run ? 1 : 0, "file",
        report_text_or_null(options->request.output_path), "position", position, "generation",
        result->generation.text, "wal_no", (json_int_t)result->point.position.wal_no, "frame_no",
        (json_int_t)result->point.position.frame_no, "commit_time", time, "commit_unix_ms",
        (json_int_t)result->commit_unix_ms, "snapshot", "wal_no",
        (json_int_t)result->snapshot.wal_no, "frame_no", (json_int_t)result->snapshot.frame_no,
        "objects", (json_int_t)result->object_count, "object_bytes",
        (json_int_t)result->object_bytes, "database_bytes", (json_int_t)result->database_bytes,
        "requests", (json_int_t)result->request_count, "elapsed_ms", (json_int_t)result->elapsed_ms,
        "integrity", report_integrity_name(options->request.integrity), "left_out",
        report_text_or_null(result->left_out ? result->left_out_detail : ""), "note",
        report_text_or_null(result->note), "moved_aside", report_text_or_null(result->moved_aside));
}

static int report_summary(const struct options *options, const struct restore_result *result)
{
    char position[POSITION_TEXT_BYTES];
    char time[CLK_RFC3339_BYTES];
    char read[PROGRESS_BAR_SIZE_BYTES];
    char size[PROGRESS_BAR_SIZE_BYTES];
    position_format(&result->generation, result->point.position, position);
    clk_format_rfc3339(result->commit_unix_ms, time);
    progress_bar_format_size(result->object_bytes, read);
    progress_bar_format_size(result->database_bytes, size);
    printf("%s %s\n", options->request.dry_run ? "would restore" : "restored",
           options->request.output_path);
    printf("  position   %s\n", position);
    printf("  committed  %s at the latest\n", time);
    printf("  from       snapshot %" PRIu32 "/%" PRIu32 ", %" PRIu64 " objects, %s\n",
           result->snapshot.wal_no, result->snapshot.frame_no, result->object_count, read);
    if (options->request.dry_run) {
        printf("  database   %s\n", size);
    } else {
        printf("  database   %s in %" PRId64 ".%02" PRId64 " s, %s\n", size,
               result->elapsed_ms / 1000, result->elapsed_ms % 1000 / 10,
               options->request.integrity == RESTORE_INTEGRITY_NONE
                   ? "hashes and checksums verified"
                   : "hashes, checksums and integrity verified");
    }
    if (result->moved_aside[0] != '\0') {
        printf("  moved      what was there to %s\n", result->moved_aside);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}

int report_result(const struct options *options, const struct restore_result *result)
{
    int status = 0;
    if (options->json) {
        status = report_json(report_result_object(options, result));
    } else if (!options->quiet) {
        status = report_summary(options, result);
    }
    if (result->left_out) { /* never kept quiet */
        (void)fprintf(stderr, "restore: left out: %s\n", result->left_out_detail);
    }
    if (result->note[0] != '\0') {
        (void)fprintf(stderr, "restore: note: %s\n", result->note);
    }
    return status;
}

/* The words behind an error: what can be reached instead. */
static void report_cure(const struct restore_result *result, const struct err *err, char *text,
                        size_t text_bytes)
{
    text[0] = '\0';
    if (result == NULL || err->rc != RC_CORRUPT || result->needs_choice) {
        return;
    }
    if (!result->has_last_good) {
        (void)snprintf(text, text_bytes,
                       "; nothing was restored, no good position before it is known");
        return;
    }
    char position[POSITION_TEXT_BYTES];
    position_format(&result->last_good_generation, result->last_good, position);
    (void)snprintf(text, text_bytes,
                   "; nothing was restored, the last good position before it: restore "
                   "--to-position %s",
                   position);
}

static json_t *report_error_object(const struct restore_result *result, const struct err *err,
                                   int status)
{
    json_t *last_good = json_null();
    if (result != NULL && err->rc == RC_CORRUPT && result->has_last_good) {
        char position[POSITION_TEXT_BYTES];
        char command[REPORT_COMMAND_BYTES];
        position_format(&result->last_good_generation, result->last_good, position);
        (void)snprintf(command, sizeof command, "restore --to-position %s", position);
        last_good = json_pack("{s:s, s:s}", "position", position, "command", command);
    }
    return json_pack("{s:b, s:i, s:{s:s, s:o}, s:b, s:o}", "ok", 0, "exit_status", status, "error",
                     "code", rc_name(err->rc), "message", report_text(err->text), "needs_choice",
                     result != NULL && result->needs_choice ? 1 : 0, "last_good", last_good);
}

int report_error(const struct options *options, const struct restore_result *result,
                 const struct err *err)
{
    char cure[REPORT_COMMAND_BYTES + 120];
    int status = restorer_exit_status(err->rc);
    report_cure(result, err, cure, sizeof cure);
    (void)fprintf(stderr, "restore: %s%s\n", err->text, cure);
    if (options->json && report_json(report_error_object(result, err, status)) != 0) {
        (void)fprintf(stderr, "restore: cannot write to stdout\n");
    }
    return status;
}
