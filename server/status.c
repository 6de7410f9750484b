/* SPDX-License-Identifier: Apache-2.0 */
/* status: see status.h. */
#include "server/status.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define STATUS_LINE_BYTES 1024

/* ---- text ---- */

struct text_writer {
    struct buf *out;
    enum rc rc; /* the first failure ends it */
    struct err *err;
};

static void line(struct text_writer *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void line(struct text_writer *text, const char *format, ...)
{
    char bytes[STATUS_LINE_BYTES];
    va_list args;
    va_start(args, format);
    int count = vsnprintf(bytes, sizeof bytes - 1, format, args);
    va_end(args);
    if (text->rc == RC_OK && count >= 0) {
        size_t used = (size_t)count < sizeof bytes - 2 ? (size_t)count : sizeof bytes - 2;
        bytes[used++] = '\n';
        text->rc = buf_append(text->out, bytes, used, text->err);
    }
}

static const char *plural(int64_t count)
{
    return count == 1 ? "" : "s";
}

static void position_line(struct text_writer *text, const char *name, bool known,
                          struct position position)
{
    if (known) {
        line(text, "%s: %" PRIu32 "/%" PRIu32, name, position.wal_no, position.frame_no);
    } else {
        line(text, "%s: none", name);
    }
}

static void lag_line(struct text_writer *text, const struct replicator_status *status)
{
    const struct replicator_lag_stats *recent = &status->lag_recent;
    line(text,
         "Lag: %" PRId64 " frame%s, %" PRId64 " bytes, %" PRId64 " ms  (lag of the last %" PRId64
         " s: p50 %" PRId64 " ms, p99 %" PRId64 " ms, max %" PRId64 " ms)",
         status->lag_frames, plural(status->lag_frames), status->lag_bytes, status->lag_ms,
         recent->seconds, recent->p50_ms, recent->p99_ms, recent->max_ms);
}

static void store_lines(struct text_writer *text, const struct replicator_status *status)
{
    if (status->store_state == STORE_OFF) {
        line(text, "Store: off. NOTHING IS BACKED UP (HARVEY_ARCHIVE=none)");
        return;
    }
    line(text, "Store: %s  %s%s  (PUT p50 %.1f ms, p99 %.1f ms)", status->store_url,
         replicator_store_state_name(status->store_state),
         status->same_filesystem ? ", on the database's own filesystem: not safe from a dead disk"
                                 : "",
         status->put_p50_ms, status->put_p99_ms);
    if (status->store_error[0] != '\0') {
        line(text, "Store error: %s", status->store_error);
    }
}

static void snapshot_line(struct text_writer *text, const struct replicator_status *status)
{
    if (status->has_snapshot) {
        line(text, "Snapshot: %" PRIu32 "/%" PRIu32 ", %" PRId64 " s ago", status->snapshot.wal_no,
             status->snapshot.frame_no, status->snapshot_age_ms / 1000);
    } else {
        line(text, "Snapshot: none");
    }
}

enum rc status_render_text(const struct status_facts *facts, struct buf *out, struct err *err)
{
    const struct replicator_status *status = &facts->replicator;
    struct text_writer text = {out, RC_OK, err};
    if (facts->has_rows) {
        line(&text, "Total rows: %" PRId64, facts->rows);
    } else {
        line(&text, "Total rows: unknown (the database is not open)");
    }
    line(&text, "Role: %s", replicator_role_name(status->role));
    line(&text, "Ready: %s", facts->ready ? "yes" : "no");
    if (facts->reason[0] != '\0') {
        line(&text, "%s: %s", status->alarm || facts->refuses_rows ? "ALARM" : "Reason",
             facts->reason);
    }
    if (facts->unsafe_filesystem) {
        line(&text, "ALARM: the database lies on %s (HARVEY_UNSAFE_FS=1)", facts->filesystem);
    }
    line(&text, "Generation: %s",
         generation_id_is_none(&status->generation) ? "none" : status->generation.text);
    position_line(&text, "Local position", status->has_local, status->local);
    position_line(&text, "Archived position", status->has_archived, status->archived);
    lag_line(&text, status);
    line(&text, "Spool: %" PRId64 " segment%s, %" PRId64 " of %" PRId64 " bytes",
         status->spool_segments, plural(status->spool_segments), status->spool_bytes,
         status->spool_bytes_max);
    store_lines(&text, status);
    snapshot_line(&text, status);
    line(&text, "SQLite: %s, synchronous %s", facts->sqlite_version, facts->synchronous);
    line(&text, "Connections: %u", facts->connections);
    line(&text, "Version: %s, up %.1f s", facts->version, facts->uptime_s);
    return text.rc;
}

/* ---- JSON ---- */

/* jansson's json_string refuses what is not UTF-8; a path or a store's error may be that. */
static json_t *text_or_null(const char *text)
{
    if (text[0] == '\0') {
        return json_null();
    }
    json_t *value = json_string(text);
    if (value != NULL) {
        return value;
    }
    char ascii[STATUS_REASON_BYTES];
    size_t i = 0;
    for (; i < sizeof ascii - 1 && text[i] != '\0'; i++) {
        ascii[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
    }
    ascii[i] = '\0';
    return json_string(ascii);
}

static json_t *position_json(bool known, struct position position)
{
    return known ? json_pack("{s:I, s:I}", "wal_no", (json_int_t)position.wal_no, "frame_no",
                             (json_int_t)position.frame_no)
                 : json_null();
}

static json_t *archived_json(const struct replicator_status *status)
{
    json_t *archived = position_json(status->has_archived, status->archived);
    if (status->has_archived &&
        json_object_set_new(archived, "unix_ms", json_integer(status->archived_unix_ms)) != 0) {
        json_decref(archived);
        return NULL;
    }
    return archived;
}

static json_t *snapshot_json(const struct replicator_status *status)
{
    json_t *snapshot = position_json(status->has_snapshot, status->snapshot);
    if (status->has_snapshot &&
        json_object_set_new(snapshot, "age_s", json_real((double)status->snapshot_age_ms / 1000)) !=
            0) {
        json_decref(snapshot);
        return NULL;
    }
    return snapshot;
}

static json_t *lag_json(const struct replicator_status *status)
{
    const struct replicator_lag_stats *recent = &status->lag_recent;
    return json_pack("{s:I, s:I, s:I, s:{s:I, s:I, s:I, s:I}}", "frames",
                     (json_int_t)status->lag_frames, "bytes", (json_int_t)status->lag_bytes, "ms",
                     (json_int_t)status->lag_ms, "recent_ms", "seconds",
                     (json_int_t)recent->seconds, "p50", (json_int_t)recent->p50_ms, "p99",
                     (json_int_t)recent->p99_ms, "max", (json_int_t)recent->max_ms);
}

static json_t *store_json(const struct replicator_status *status)
{
    return json_pack("{s:o, s:s, s:o, s:b, s:{s:f, s:f, s:I}}", "url",
                     text_or_null(status->store_url), "state",
                     replicator_store_state_name(status->store_state), "error",
                     text_or_null(status->store_error), "same_filesystem",
                     (int)status->same_filesystem, "put_ms", "p50", status->put_p50_ms, "p99",
                     status->put_p99_ms, "count", (json_int_t)status->put_count);
}

static json_t *counters_json(const struct status_facts *facts)
{
    const struct replicator_status *status = &facts->replicator;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "inserted_rows",
                     (json_int_t)facts->inserted_rows, "batches", (json_int_t)facts->batches,
                     "failed_batches", (json_int_t)facts->failed_batches, "generations_begun",
                     (json_int_t)status->generations_begun, "wal_resets",
                     (json_int_t)status->wal_resets, "checkpoints", (json_int_t)status->checkpoints,
                     "segments_made", (json_int_t)status->segments_made, "store_requests",
                     (json_int_t)status->requests, "freeze_max_us",
                     (json_int_t)status->freeze_max_us, "writer_pause_p999_us",
                     (json_int_t)facts->writer_pause_p999_us, "writer_pause_max_us",
                     (json_int_t)facts->writer_pause_max_us);
}

static json_t *document(const struct status_facts *facts)
{
    const struct replicator_status *status = &facts->replicator;
    return json_pack(
        "{s:o, s:s, s:b, s:o, s:b, s:s, s:f, s:o, s:o, s:o, s:o, s:{s:I, s:I, s:I}, s:o, s:o, "
        "s:{s:s, s:s}, s:{s:s, s:b}, s:i, s:o}",
        "rows", facts->has_rows ? json_integer(facts->rows) : json_null(), "role",
        replicator_role_name(status->role), "ready", (int)facts->ready, "reason",
        text_or_null(facts->reason), "alarm",
        (int)(status->alarm || facts->refuses_rows || facts->unsafe_filesystem), "version",
        facts->version, "uptime_s", facts->uptime_s, "generation",
        text_or_null(status->generation.text), "local",
        position_json(status->has_local, status->local), "archived", archived_json(status), "lag",
        lag_json(status), "spool", "segments", (json_int_t)status->spool_segments, "bytes",
        (json_int_t)status->spool_bytes, "max_bytes", (json_int_t)status->spool_bytes_max, "store",
        store_json(status), "snapshot", snapshot_json(status), "sqlite", "version",
        facts->sqlite_version, "synchronous", facts->synchronous, "filesystem", "kind",
        facts->filesystem, "unsafe", (int)facts->unsafe_filesystem, "connections",
        (int)facts->connections, "counters", counters_json(facts));
}

enum rc status_render_json(const struct status_facts *facts, struct buf *out, struct err *err)
{
    json_t *root = document(facts);
    size_t flags = JSON_REAL_PRECISION(6);
    size_t bytes = root == NULL ? 0 : json_dumpb(root, NULL, 0, flags);
    enum rc rc = bytes == 0 ? err_set(err, RC_NOMEM, "no memory for the status")
                            : buf_reserve(out, bytes + 1, err);
    if (rc == RC_OK) {
        (void)json_dumpb(root, (char *)out->data + out->size, bytes, flags);
        out->size += bytes;
        out->data[out->size++] = '\n';
    }
    json_decref(root);
    return rc;
}
