/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_request: one request from its headers to its answer; see http.h and http_internal.h.
 *
 * MHD calls http_handle at least twice per request. A response queued in the first call closes the
 * connection (0.9.75, even after a GET without body), so that is done only where closing is wanted.
 */
#include "server/http_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HTTP_SWALLOW_BYTES_MAX 65536u /* of a chunked body too large to be taken; then it is cut */
#define HTTP_TEXT_TYPE "text/plain; charset=utf-8"
#define HTTP_JSON_TYPE "application/json"
#define HTTP_RETRY_NOT_READY_S "2"
#define HTTP_RETRY_FAILED_S "1"
#define HTTP_DESCRIPTION_BYTES 700

static const char http_inserted[] = "inserted";

/* ---- responses ---- */

static bool add_header(struct MHD_Response *response, const char *name, const char *value)
{
    return value == NULL || MHD_add_response_header(response, name, value) == MHD_YES;
}

static struct MHD_Response *make_answer(const struct route_answer_text *text, bool last)
{
    /* PERSISTENT means that MHD may not write to it: the cast hides no change. */
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(text->body), (void *)(uintptr_t)text->body, MHD_RESPMEM_PERSISTENT);
    if (response != NULL && (!add_header(response, "Content-Type", HTTP_TEXT_TYPE) ||
                             !add_header(response, "Cache-Control", "no-store") ||
                             !add_header(response, "Allow", text->allow) ||
                             !add_header(response, "Retry-After", text->retry_after_s) ||
                             !add_header(response, "Connection", last ? "close" : NULL))) {
        MHD_destroy_response(response);
        response = NULL;
    }
    return response;
}

enum rc http_make_answers(struct http *http, struct err *err)
{
    for (size_t i = 0; i < ROUTE_ANSWER_COUNT; i++) {
        http->answers[i] = make_answer(&route_answers[i], false);
        http->last_answers[i] = make_answer(&route_answers[i], true);
        if (http->answers[i] == NULL || http->last_answers[i] == NULL) {
            return err_set(err, RC_NOMEM, "no memory for the fixed answers");
        }
    }
    return RC_OK;
}

void http_free_answers(struct http *http)
{
    for (size_t i = 0; i < ROUTE_ANSWER_COUNT; i++) {
        if (http->answers[i] != NULL) {
            MHD_destroy_response(http->answers[i]);
        }
        if (http->last_answers[i] != NULL) {
            MHD_destroy_response(http->last_answers[i]);
        }
    }
}

static enum MHD_Result queue(struct http_conn *conn, unsigned status, struct MHD_Response *response)
{
    if (response == NULL) {
        return MHD_NO; /* no memory: the connection is closed */
    }
    http_set_state(conn, HTTP_ANSWERED);
    return MHD_queue_response(conn->connection, status, response);
}

static enum MHD_Result queue_answer(struct http_conn *conn, enum route_answer answer, bool last)
{
    struct http *http = conn->http;
    return queue(conn, route_answers[answer].status,
                 last || http->draining ? http->last_answers[answer] : http->answers[answer]);
}

/* Queues a response made for this request; takes it. */
static enum MHD_Result queue_own(struct http_conn *conn, unsigned status,
                                 struct MHD_Response *response, const char *type)
{
    if (response == NULL) {
        return MHD_NO;
    }
    enum MHD_Result result = MHD_NO;
    if (add_header(response, "Content-Type", type) &&
        add_header(response, "Cache-Control", "no-store") &&
        add_header(response, "Connection", conn->http->draining ? "close" : NULL)) {
        result = queue(conn, status, response);
    }
    MHD_destroy_response(response);
    return result;
}

static struct MHD_Response *text_response(const char *text, const char *retry_after_s)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    if (response != NULL && !add_header(response, "Retry-After", retry_after_s)) {
        MHD_destroy_response(response);
        response = NULL;
    }
    return response;
}

static enum MHD_Result answer_not_ready(struct http_conn *conn)
{
    char text[HTTP_DESCRIPTION_BYTES];
    const struct http_backend *backend = &conn->http->config.backend;
    backend->describe(backend->arg, false, text, sizeof text - 1);
    size_t bytes = strlen(text);
    text[bytes] = '\n';
    text[bytes + 1] = '\0';
    return queue_own(conn, MHD_HTTP_SERVICE_UNAVAILABLE,
                     text_response(text, HTTP_RETRY_NOT_READY_S), HTTP_TEXT_TYPE);
}

static enum MHD_Result answer_status(struct http_conn *conn, bool json)
{
    struct err err = ERR_INIT;
    struct buf out;
    const struct http_backend *backend = &conn->http->config.backend;
    enum MHD_Result result = MHD_NO;
    buf_init(&out, 1u << 16);
    if (backend->status(backend->arg, json, conn->http->connections, &out, &err) == RC_OK) {
        result =
            queue_own(conn, MHD_HTTP_OK,
                      MHD_create_response_from_buffer(out.size, out.data, MHD_RESPMEM_MUST_COPY),
                      json ? HTTP_JSON_TYPE : HTTP_TEXT_TYPE);
    } else {
        result = queue_own(conn, MHD_HTTP_INTERNAL_SERVER_ERROR, text_response(err.text, NULL),
                           HTTP_TEXT_TYPE);
    }
    buf_deinit(&out);
    return result;
}

/* ---- inserts ---- */

void http_hold_timeout(struct http_conn *conn)
{
    if (!conn->no_timeout) {
        conn->no_timeout = true;
        (void)MHD_set_connection_option(conn->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
    }
}

static enum MHD_Result gather(struct http_conn *conn)
{
    struct http *http = conn->http;
    const struct http_backend *backend = &http->config.backend;
    if (conn->body_bytes > 0 && !bytes_is_text(conn->body, conn->body_bytes)) {
        return queue_answer(conn, ROUTE_BAD_TEXT, false);
    }
    if (http->inserts_ended || !backend->may_insert(backend->arg)) {
        return answer_not_ready(conn);
    }
    conn->job = (struct writer_job){
        .next = http->newest,
        .text = conn->body_bytes > 0 ? conn->body : NULL,
        .text_bytes = conn->body_bytes,
    };
    conn->job_done = false;
    if (http->newest == NULL) {
        http->oldest = &conn->job;
    }
    http->newest = &conn->job;
    http->gathered++;
    unsigned pending = http->gathered + http->away;
    if (pending > http->peak_now) {
        http->peak_now = pending;
    }
    http_set_state(conn, HTTP_WAITING);
    /* not for each insert with longer ones: MHD walks the list of those without a time-out */
    if (http->config.idle_timeout_s <= HTTP_SHORT_IDLE_S) {
        http_hold_timeout(conn);
    }
    return MHD_YES;
}

/* "GENERATION/WAL_NO/FRAME_NO"; one batch has one position, so the text is mostly made already. */
static const char *position_text(struct http *http, const struct replicator_commit *commit)
{
    if (position_compare(commit->position, http->told_position) != 0 ||
        !generation_id_equal(&commit->generation, &http->told_generation)) {
        http->told_position = commit->position;
        http->told_generation = commit->generation;
        position_format(&commit->generation, commit->position, http->position_text);
    }
    return http->position_text;
}

static struct MHD_Response *make_inserted(void)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        sizeof http_inserted - 1, (void *)(uintptr_t)http_inserted, MHD_RESPMEM_PERSISTENT);
    if (response != NULL && (!add_header(response, "Content-Type", HTTP_TEXT_TYPE) ||
                             !add_header(response, "Cache-Control", "no-store"))) {
        MHD_destroy_response(response);
        response = NULL;
    }
    return response;
}

/* The response's header `name` says `told` ("": there is none); lets both say `text`. */
static bool change_header(struct MHD_Response *response, const char *name, char *told,
                          const char *text)
{
    if (strcmp(told, text) == 0) {
        return true;
    }
    if (told[0] != '\0' && MHD_del_response_header(response, name, told) != MHD_YES) {
        return false;
    }
    told[0] = '\0';
    if (text[0] != '\0' && !add_header(response, name, text)) {
        return false;
    }
    memcpy(told, text, strlen(text) + 1);
    return true;
}

/*
 * A connection has one response for all its inserts, and only what varies is changed: making one costs
 * 10 to 13 allocations. It is free again: MHD asks us only after the answer before has been sent.
 */
static enum MHD_Result answer_inserted(struct http_conn *conn)
{
    char row[BYTES_DECIMAL_BYTES];
    const struct writer_job *job = &conn->job;
    bytes_to_decimal(job->row_id, row);
    if (conn->inserted == NULL && (conn->inserted = make_inserted()) == NULL) {
        return MHD_NO;
    }
    if (!change_header(conn->inserted, "Harvey-Row", conn->told_row, row) ||
        !change_header(conn->inserted, "Harvey-Position", conn->told_position,
                       job->commit.known ? position_text(conn->http, &job->commit) : "") ||
        !add_header(conn->inserted, "Connection", conn->http->draining ? "close" : NULL)) {
        return MHD_NO;
    }
    return queue(conn, MHD_HTTP_OK, conn->inserted);
}

static unsigned status_of_failure(enum rc rc)
{
    switch (rc) {
    case RC_BUSY:
    case RC_UNAVAILABLE:
    case RC_TIMEOUT:
    case RC_STOPPED:
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    case RC_LIMIT:
        return MHD_HTTP_INSUFFICIENT_STORAGE;
    case RC_OK:
    case RC_IO:
    case RC_CORRUPT:
    case RC_DENIED:
    case RC_INVALID:
    case RC_NOMEM:
    case RC_INTERNAL:
    case RC_NOT_FOUND:
    case RC_EXISTS:
        break;
    }
    return MHD_HTTP_INTERNAL_SERVER_ERROR;
}

static enum MHD_Result answer_failed(struct http_conn *conn)
{
    char reason[HTTP_DESCRIPTION_BYTES];
    char text[HTTP_DESCRIPTION_BYTES + 64];
    const struct http_backend *backend = &conn->http->config.backend;
    backend->describe(backend->arg, true, reason, sizeof reason);
    (void)snprintf(text, sizeof text, "not acknowledged: %s\n", reason);
    return queue_own(conn, status_of_failure(conn->job.rc),
                     text_response(text, HTTP_RETRY_FAILED_S), HTTP_TEXT_TYPE);
}

static enum MHD_Result answer_job(struct http_conn *conn)
{
    if (conn->no_timeout) {
        conn->no_timeout = false;
        (void)MHD_set_connection_option(conn->connection, MHD_CONNECTION_OPTION_TIMEOUT,
                                        conn->http->config.idle_timeout_s);
    }
    return conn->job.rc == RC_OK ? answer_inserted(conn) : answer_failed(conn);
}

/* ---- the handler ---- */

static enum MHD_Result note_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    struct route_request *request = cls;
    if (value == NULL) {
        value = "";
    }
    if (kind == MHD_HEADER_KIND) {
        route_note_header(request, name, value);
    } else {
        route_note_argument(request, name, value);
    }
    return MHD_YES;
}

/* First call: the headers are complete. */
static enum MHD_Result start_request(struct http_conn *conn, const char *url, const char *method,
                                     const char *version)
{
    struct http *http = conn->http;
    struct MHD_Connection *connection = conn->connection;
    const union MHD_ConnectionInfo *header_size =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    struct route_request request = {.method = method,
                                    .path = url,
                                    .needs_host = strcmp(version, MHD_HTTP_VERSION_1_1) == 0,
                                    .knows_no_chunks = strcmp(version, MHD_HTTP_VERSION_1_0) == 0,
                                    .header_bytes = header_size->header_size,
                                    .memory_bytes_max = HTTP_HEADER_BYTES_MAX};
    (void)MHD_get_connection_values(connection, MHD_HEADER_KIND, note_header, &request);
    (void)MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, note_header, &request);
    conn->route = route_decide(&request);
    conn->bytes_used += header_size->header_size;
    conn->unsure = conn->unsure || request.chunked; /* the framing of its body is not counted */
    conn->body_bytes = 0;
    conn->body_bad = false;
    conn->swallowed_bytes = 0;
    http->last_request_ms = http->now_ms;
    if (route_is_crammed(&request)) {
        http_answer_raw(conn,
                        conn->route.answer); /* no room for a response's headers in MHD's memory */
        return MHD_NO;
    }
    conn->refused = conn->surplus || conn->route.at_once;
    if (conn->surplus) {
        return queue_answer(conn, ROUTE_CROWDED, true);
    }
    if (conn->route.at_once) {
        return queue_answer(conn, conn->route.answer, true);
    }
    if (conn->route.has_body && conn->body == NULL) {
        conn->body = malloc(ROUTE_BODY_BYTES_MAX);
        if (conn->body == NULL) {
            return MHD_NO;
        }
    }
    http_set_state(conn, conn->route.has_body ? HTTP_RECEIVING : HTTP_READY);
    return MHD_YES;
}

/* A piece of the body. It must be taken whole: queueing an answer here closes without sending it. */
static enum MHD_Result take_body(struct http_conn *conn, const char *bytes, size_t *bytes_count)
{
    size_t count = *bytes_count;
    *bytes_count = 0;
    conn->bytes_used += count;
    if (conn->body == NULL || count > ROUTE_BODY_BYTES_MAX - conn->body_bytes) {
        conn->body_bad = true; /* only a chunked one gets here: its size was not announced */
        conn->swallowed_bytes += count;
        if (conn->swallowed_bytes > HTTP_SWALLOW_BYTES_MAX) {
            http_answer_raw(conn, ROUTE_BODY_TOO_LARGE);
            return MHD_NO;
        }
        return MHD_YES;
    }
    memcpy(conn->body + conn->body_bytes, bytes, count);
    conn->body_bytes += count;
    return MHD_YES;
}

static enum MHD_Result answer_request(struct http_conn *conn)
{
    const struct http_backend *backend = &conn->http->config.backend;
    if (conn->body_bad) {
        conn->refused = true;
        return queue_answer(conn, ROUTE_BODY_TOO_LARGE, true);
    }
    switch (conn->route.action) {
    case ROUTE_DO_INSERT:
        return gather(conn);
    case ROUTE_DO_STATUS:
        return answer_status(conn, false);
    case ROUTE_DO_STATUS_JSON:
        return answer_status(conn, true);
    case ROUTE_DO_READYZ:
        return backend->is_ready(backend->arg) ? queue_answer(conn, ROUTE_READY, false)
                                               : answer_not_ready(conn);
    case ROUTE_DO_ANSWER:
        return queue_answer(conn, conn->route.answer, false);
    }
    return MHD_NO;
}

enum MHD_Result http_handle(void *cls, struct MHD_Connection *connection, const char *url,
                            const char *method, const char *version, const char *upload_data,
                            size_t *upload_data_size, void **con_cls)
{
    struct http *http = cls;
    struct http_conn *conn = *con_cls;
    if (conn == NULL) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
        conn = info == NULL ? NULL : info->socket_context;
        if (conn == NULL) {
            return MHD_NO; /* there was no memory for its record */
        }
        *con_cls = conn;
        http->progress++;
        return start_request(conn, url, method, version);
    }
    if (*upload_data_size > 0) {
        http->progress++;
        return take_body(conn, upload_data, upload_data_size);
    }
    if (conn->state == HTTP_WAITING) {
        if (!conn->job_done) {
            return MHD_YES; /* asked again in the next round */
        }
        http->progress++;
        return answer_job(conn);
    }
    if (conn->state == HTTP_ANSWERED) {
        return MHD_YES;
    }
    http->progress++;
    return answer_request(conn);
}

void http_answer_raw(struct http_conn *conn, enum route_answer answer)
{
    const struct route_answer_text *text = &route_answers[answer];
    const char *retry_s = text->retry_after_s;
    char bytes[512];
    int count = snprintf(bytes, sizeof bytes,
                         "HTTP/1.1 %u %s\r\nConnection: close\r\nContent-Type: " HTTP_TEXT_TYPE
                         "\r\nContent-Length: %zu%s%s\r\n\r\n%s",
                         text->status, MHD_get_reason_phrase_for(text->status), strlen(text->body),
                         retry_s == NULL ? "" : "\r\nRetry-After: ", retry_s == NULL ? "" : retry_s,
                         text->body);
    if (count > 0 && (size_t)count < sizeof bytes) {
        ssize_t sent = send(conn->fd, bytes, (size_t)count, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)sent; /* the client may be gone */
    }
}
