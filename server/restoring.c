/* SPDX-License-Identifier: Apache-2.0 */
/* restoring: see restoring.h. */
#include "server/restoring.h"

#include "base/clk.h"
#include "base/log.h"
#include "restorer/restorer.h"

#include <inttypes.h>

#define RESTORING_CLOSE_WAIT_MS 15000 /* writer and reader close within a round of theirs */
#define RESTORING_LOOK_MS 10
#define RESTORING_LOG_MS 5000 /* between two lines about progress */

struct restoring_log {
    int64_t next_ms;
};

static void log_progress(void *arg, const struct restore_progress *progress)
{
    struct restoring_log *state = arg;
    int64_t now_ms = clk_monotonic_ms();
    if (now_ms >= state->next_ms) {
        state->next_ms = now_ms + RESTORING_LOG_MS;
        log_info("restore", "going on  phase=%s done_bytes=%" PRIu64 " total_bytes=%" PRIu64,
                 progress->phase, progress->done_bytes, progress->total_bytes);
    }
}

static bool is_closed(const struct restoring *restoring)
{
    return writer_state(restoring->writer) != WRITER_OPEN &&
           !backend_reader_is_open(restoring->backend);
}

static enum rc wait_closed(const struct restoring *restoring, struct err *err)
{
    int64_t deadline_ms = clk_monotonic_ms() + RESTORING_CLOSE_WAIT_MS;
    while (!is_closed(restoring)) {
        if (clk_monotonic_ms() >= deadline_ms) {
            return err_set(err, RC_BUSY, "the database is still open in this process");
        }
        if (stop_wait_ms(restoring->stop, STOP_SOON, RESTORING_LOOK_MS)) {
            return err_set(err, RC_STOPPED, "stopped");
        }
    }
    return RC_OK;
}

enum rc restoring_run(void *arg, bool replace, struct err *err)
{
    const struct restoring *restoring = arg;
    struct restoring_log state = {clk_monotonic_ms() + RESTORING_LOG_MS};
    struct restore_result result = {0};
    const struct restore_request request = {.target = RESTORE_TO_LATEST,
                                            .output_path = restoring->database_path,
                                            .integrity = RESTORE_INTEGRITY_FULL,
                                            .replace = replace,
                                            .progress = log_progress,
                                            .progress_arg = &state,
                                            .stop = restoring->stop};
    char position[POSITION_TEXT_BYTES];
    enum rc rc = wait_closed(restoring, err);
    if (rc == RC_OK) {
        rc = restorer_run(restoring->store, &request, &result, err);
    }
    if (rc == RC_OK) {
        position_format(&result.generation, result.point.position, position);
        log_info("restore",
                 "restored  position=%s database_bytes=%" PRIu64 " elapsed_ms=%" PRId64 "%s%s",
                 position, result.database_bytes, result.elapsed_ms,
                 result.moved_aside[0] != '\0' ? " moved_aside=" : "", result.moved_aside);
    }
    if (rc == RC_OK && result.left_out) {
        log_warn("restore", "left out: %s", result.left_out_detail);
    }
    if (rc == RC_OK && result.note[0] != '\0') {
        log_warn("restore", "note: %s", result.note);
    }
    return rc;
}
