/* SPDX-License-Identifier: Apache-2.0 */
/* backend: see backend.h. */
#include "server/backend.h"

#include "base/clk.h"
#include "base/log.h"
#include "server/app.h"
#include "server/db.h"
#include "server/status.h"

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct backend {
    struct backend_config config;
    int64_t started_ms;
    atomic_bool stopping;
    atomic_bool reader_open;
    /* the http thread's own */
    struct db reader;
    struct app_reader *app;
    uint64_t reader_open_no; /* writer_view.open_no when it was opened */
    enum replicator_role role;
    bool may_serve;
    char reason[sizeof((struct replicator_status *)0)->reason]; /* as last logged */
};

enum rc backend_create(const struct backend_config *config, struct backend **backend,
                       struct err *err)
{
    struct backend *made = calloc(1, sizeof *made);
    *backend = made;
    if (made == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the backend");
    }
    made->config = *config;
    made->started_ms = clk_monotonic_ms();
    made->role = ROLE_STOPPED;
    return RC_OK;
}

void backend_destroy(struct backend *backend)
{
    if (backend != NULL) {
        backend_close_reader(backend);
        free(backend);
    }
}

/* ---- the reader ---- */

void backend_close_reader(struct backend *backend)
{
    app_reader_close(backend->app);
    backend->app = NULL;
    db_close(&backend->reader);
    atomic_store(&backend->reader_open, false);
}

bool backend_reader_is_open(const struct backend *backend)
{
    return atomic_load(&backend->reader_open);
}

/* Has a reader of the file that the writer has open now. */
static enum rc have_reader(struct backend *backend, const struct writer_view *view, struct err *err)
{
    if (backend->app != NULL && backend->reader_open_no == view->open_no) {
        return RC_OK;
    }
    backend_close_reader(backend);
    atomic_store(&backend->reader_open, true); /* before it is: nobody restores under it */
    enum rc rc = db_open(&backend->reader, backend->config.database_path, DB_READS,
                         backend->config.synchronous_normal, err);
    if (rc == RC_OK) {
        rc = app_reader_open(backend->reader.handle, &backend->app, err);
    }
    if (rc != RC_OK) {
        backend_close_reader(backend);
        return rc;
    }
    backend->reader_open_no = view->open_no;
    return RC_OK;
}

static bool is_open(const struct backend *backend)
{
    return replicator_may_serve(backend->config.replicator) &&
           writer_state(backend->config.writer) == WRITER_OPEN;
}

static enum rc count_rows(struct backend *backend, const struct writer_view *view, int64_t *rows,
                          struct err *err)
{
    enum rc rc = have_reader(backend, view, err);
    if (rc == RC_OK) {
        rc = app_count_rows(backend->app, rows, err);
        if (rc != RC_OK) {
            backend_close_reader(backend);
        }
    }
    return rc;
}

/* ---- readiness ---- */

bool backend_is_ready(struct backend *backend)
{
    return !atomic_load(&backend->stopping) && is_open(backend);
}

bool backend_can_serve(const struct backend *backend)
{
    return is_open(backend);
}

bool backend_is_settled(struct backend *backend)
{
    struct replicator_status status;
    if (backend_is_ready(backend)) {
        return true;
    }
    replicator_get_status(backend->config.replicator, &status);
    return status.role == ROLE_WAITING || status.role == ROLE_WAITING_FOR_RESTORE ||
           status.role == ROLE_RESTORING;
}

void backend_begin_stop(struct backend *backend)
{
    atomic_store(&backend->stopping, true);
}

static void describe(struct backend *backend, const struct replicator_status *status,
                     const struct writer_view *view, char *text, size_t text_bytes)
{
    if (atomic_load(&backend->stopping)) {
        (void)snprintf(text, text_bytes, "stopping");
    } else if (!status->may_serve) {
        (void)snprintf(text, text_bytes, "%s",
                       status->reason[0] != '\0' ? status->reason
                                                 : replicator_role_name(status->role));
    } else if (view->state != WRITER_OPEN) {
        (void)snprintf(text, text_bytes, "%s",
                       view->reason[0] != '\0' ? view->reason : "opening the database");
    } else {
        (void)snprintf(text, text_bytes, "%s", status->reason);
    }
}

void backend_describe(struct backend *backend, char *text, size_t text_bytes)
{
    struct replicator_status status;
    struct writer_view view;
    replicator_get_status(backend->config.replicator, &status);
    writer_get_view(backend->config.writer, &view);
    describe(backend, &status, &view, text, text_bytes);
    if (text[0] == '\0') { /* it has become ready between two looks */
        (void)snprintf(text, text_bytes, "starting");
    }
}

void backend_follow(struct backend *backend)
{
    struct replicator_status status;
    replicator_get_status(backend->config.replicator, &status);
    if (!is_open(backend)) {
        backend_close_reader(backend);
    }
    if (status.role != backend->role || status.may_serve != backend->may_serve ||
        strcmp(status.reason, backend->reason) != 0) {
        backend->role = status.role;
        backend->may_serve = status.may_serve;
        memcpy(backend->reason, status.reason, sizeof backend->reason);
        log_line(status.may_serve && !status.alarm ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, "server",
                 "role  role=\"%s\" may_serve=%d reason=\"%s\"", replicator_role_name(status.role),
                 status.may_serve, status.reason);
    }
}

/* ---- for http.c ---- */

static bool http_is_ready(void *arg)
{
    return backend_is_ready(arg);
}

static bool http_may_insert(void *arg)
{
    return is_open(arg); /* while draining too: what has arrived is served */
}

static void http_describe(void *arg, bool failed_batch, char *text, size_t text_bytes)
{
    struct backend *backend = arg;
    if (!failed_batch) {
        backend_describe(backend, text, text_bytes);
        return;
    }
    struct writer_view view;
    writer_get_view(backend->config.writer, &view);
    (void)snprintf(text, text_bytes, "%s",
                   view.last_error[0] != '\0' ? view.last_error : "the database is not open");
}

static enum rc http_status(void *arg, bool json, unsigned connections, struct buf *out,
                           struct err *err)
{
    struct backend *backend = arg;
    struct writer_view view;
    struct err count_err = ERR_INIT;
    struct status_facts facts = {
        .uptime_s = (double)(clk_monotonic_ms() - backend->started_ms) / 1000,
        .version = HARVEY_VERSION,
        .sqlite_version = sqlite3_libversion(),
        .synchronous = backend->config.synchronous_normal ? "NORMAL" : "FULL",
        .filesystem = backend->config.filesystem,
        .unsafe_filesystem = backend->config.unsafe_filesystem,
        .connections = connections,
    };
    replicator_get_status(backend->config.replicator, &facts.replicator);
    writer_get_view(backend->config.writer, &view);
    facts.ready = backend_is_ready(backend);
    describe(backend, &facts.replicator, &view, facts.reason, sizeof facts.reason);
    facts.inserted_rows = view.rows;
    facts.batches = view.batches;
    facts.failed_batches = view.failed_batches;
    facts.writer_pause_p999_us = view.pause_p999_us;
    facts.writer_pause_max_us = view.pause_max_us;
    facts.refuses_rows = view.state == WRITER_OPEN && view.refuses;
    if (facts.refuses_rows && facts.reason[0] == '\0') {
        (void)snprintf(facts.reason, sizeof facts.reason, "the last rows were refused: %s",
                       view.last_error);
    }
    if (is_open(backend)) {
        facts.has_rows = count_rows(backend, &view, &facts.rows, &count_err) == RC_OK;
        if (!facts.has_rows && facts.reason[0] == '\0') {
            (void)snprintf(facts.reason, sizeof facts.reason, "%s", count_err.text);
        }
    }
    return json ? status_render_json(&facts, out, err) : status_render_text(&facts, out, err);
}

static void http_submit(void *arg, struct writer_job *newest, struct writer_job *oldest)
{
    struct backend *backend = arg;
    writer_submit(backend->config.writer, newest, oldest);
}

struct http_backend backend_for_http(struct backend *backend)
{
    return (struct http_backend){.arg = backend,
                                 .is_ready = http_is_ready,
                                 .may_insert = http_may_insert,
                                 .describe = http_describe,
                                 .status = http_status,
                                 .submit = http_submit};
}
