/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http: see http.h. This file has the daemon, the connections and the drain; http_accept.c and
 * http_pass.c have how connections come and go, http_request.c has one request's way. Known traits of
 * MHD 0.9.75 that shape them: no thread pool (quiesce with one aborts), no suspend, an explicit timeout
 * and connection limit, no listening socket.
 */
#include "server/http.h"

#include "base/log.h"
#include "server/http_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define HTTP_OTHER_FDS 256u     /* of the process: database, spool, store, log */
#define HTTP_EVICT_IDLE_MS 5000 /* at the limit, connections idle for longer make room */
#define HTTP_PEAK_ROUNDS 32u    /* flushes until a peak of waiting requests is forgotten */
#define HTTP_WAIT_MS 10000
#define HTTP_LINGERING_WAIT_MS 10
#if MHD_VERSION >= 0x00097707
#define HTTP_MHD_ONE_THREAD MHD_USE_NO_THREAD_SAFETY
#else
#define HTTP_MHD_ONE_THREAD 0 /* an external loop implies it */
#endif

/* ---- rings ---- */

void http_ring_init(struct http_ring *ring)
{
    ring->prev = ring;
    ring->next = ring;
}

void http_ring_leave(struct http_ring *ring)
{
    ring->prev->next = ring->next;
    ring->next->prev = ring->prev;
    http_ring_init(ring);
}

void http_ring_enter(struct http_ring *ring, struct http_conn *conn)
{
    conn->ring.prev = ring->prev;
    conn->ring.next = ring;
    ring->prev->next = &conn->ring;
    ring->prev = &conn->ring;
}

struct http_conn *http_ring_conn(struct http_ring *at)
{
    _Static_assert(offsetof(struct http_conn, ring) == 0, "a ring's address is its connection's");
    return (struct http_conn *)(void *)at;
}

/* The connection that has been in the ring for longest, or NULL. */
static struct http_conn *ring_oldest(struct http_ring *ring)
{
    return ring->next == ring ? NULL : http_ring_conn(ring->next);
}

static struct http_ring *ring_of(struct http *http, enum http_state state)
{
    switch (state) {
    case HTTP_IDLE:
        return &http->idle;
    case HTTP_RECEIVING:
        return &http->receiving;
    case HTTP_WAITING:
        return &http->waiting;
    case HTTP_ANSWERED:
        return &http->answered;
    case HTTP_READY:
        break;
    }
    return NULL;
}

static void leave_state(struct http_conn *conn)
{
    http_ring_leave(&conn->ring);
    if (conn->state == HTTP_IDLE) {
        conn->http->idle_count--;
    }
}

static void enter_state(struct http_conn *conn, enum http_state state)
{
    struct http_ring *ring = ring_of(conn->http, state);
    conn->state = state;
    conn->since_ms = conn->http->now_ms;
    if (ring != NULL) {
        http_ring_enter(ring, conn);
    }
    if (state == HTTP_IDLE) {
        conn->http->idle_count++;
    }
}

void http_set_state(struct http_conn *conn, enum http_state state)
{
    leave_state(conn);
    enter_state(conn, state);
}

/* ---- connections ---- */

static void free_conn(struct http_conn *conn)
{
    if (conn->inserted != NULL) {
        MHD_destroy_response(conn->inserted);
    }
    free(conn->body);
    free(conn);
}

/* At the limit: shuts down the connection that has been idle for longest, if that is long. */
static void evict_idle(struct http *http)
{
    struct http_conn *oldest = ring_oldest(&http->idle);
    if (oldest != NULL && !oldest->cut && http->now_ms - oldest->since_ms >= HTTP_EVICT_IDLE_MS) {
        oldest->cut = true;
        (void)shutdown(oldest->fd, SHUT_RDWR);
        http_ring_leave(&oldest->ring); /* to the end: the next one is another */
        http_ring_enter(&http->idle, oldest);
    }
}

static void *open_conn(struct http *http, struct MHD_Connection *connection)
{
    struct http_conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL) {
        return NULL;
    }
    conn->http = http;
    conn->connection = connection;
    conn->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    http_ring_init(&conn->ring);
    conn->unsure = http->adopting && !http_bytes_taken(conn->fd, &conn->bytes_used);
    http->connections++;
    if (http->connections > http->config.connections_max && !http->adopting) {
        conn->surplus = true;
        evict_idle(http);
    }
    enter_state(conn, HTTP_IDLE);
    return conn;
}

void http_leave(struct http_conn *conn)
{
    leave_state(conn);
    conn->http->connections--;
}

static void close_conn(struct http_conn *conn)
{
    struct http *http = conn->http;
    if (conn->passed) {
        free_conn(conn);
        return;
    }
    /* Closing right after an answer is the plain case; all others may meet a client that sends. */
    if (conn->completed_round != http->round || conn->refused || http->draining) {
        http_linger_keep(&http->linger, conn->fd, http->now_ms);
    }
    http_leave(conn);
    conn->connection = NULL;
    if (conn->state == HTTP_WAITING && !conn->job_done) {
        return; /* http_return frees it */
    }
    free_conn(conn);
}

static void notify_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
                              enum MHD_ConnectionNotificationCode code)
{
    struct http *http = cls;
    http->progress++;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *socket_context = open_conn(http, connection);
    } else if (*socket_context != NULL) {
        close_conn(*socket_context);
        *socket_context = NULL;
    }
}

static void notify_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                             enum MHD_RequestTerminationCode code)
{
    struct http *http = cls;
    struct http_conn *conn = *con_cls;
    (void)connection;
    http->progress++;
    *con_cls = NULL;
    if (conn != NULL && code == MHD_REQUEST_TERMINATED_COMPLETED_OK) {
        conn->completed_round = http->round;
        http_set_state(conn, HTTP_IDLE);
    }
    /* else the connection is being closed: notify_connection follows */
}

/* ---- the daemon ---- */

static void log_mhd(void *cls, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

static void log_mhd(void *cls, const char *format, va_list args)
{
    char text[512];
    (void)cls;
    (void)vsnprintf(text, sizeof text, format, args);
    log_debug("mhd", "%s", text);
}

static void panic_mhd(void *cls, const char *file, unsigned line, const char *reason)
{
    (void)cls;
    log_error("mhd", "libmicrohttpd panics  file=%s line=%u reason=\"%s\"", file, line,
              reason == NULL ? "" : reason);
    abort();
}

/* Paths and arguments stay as they came: "/%00" is not "/". */
static size_t keep_escapes(void *cls, struct MHD_Connection *connection, char *text)
{
    (void)cls;
    (void)connection;
    return strlen(text);
}

/* Lets the process have a descriptor for each connection; cuts the limit where it may not. */
static enum rc raise_fd_limit(struct http_config *config, struct err *err)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)config->connections_max + HTTP_SURPLUS_CONNECTIONS + HTTP_OTHER_FDS;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return err_set_errno(err, RC_IO, "getrlimit");
    }
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            return err_set_errno(err, RC_IO, "setrlimit");
        }
    }
    if (limit.rlim_cur < wanted) {
        if (limit.rlim_cur <= HTTP_SURPLUS_CONNECTIONS + HTTP_OTHER_FDS) {
            return err_set(err, RC_LIMIT, "%llu open files allowed, %u needed (ulimit -n)",
                           (unsigned long long)limit.rlim_cur,
                           HTTP_SURPLUS_CONNECTIONS + HTTP_OTHER_FDS + 1);
        }
        config->connections_max =
            (unsigned)(limit.rlim_cur - HTTP_SURPLUS_CONNECTIONS - HTTP_OTHER_FDS);
        log_warn("http", "fewer connections: the limit of open files is low  connections_max=%u",
                 config->connections_max);
    }
    return RC_OK;
}

static enum rc start_daemon(struct http *http, struct err *err)
{
    const struct http_config *config = &http->config;
    MHD_set_panic_func(panic_mhd, NULL);
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_TURBO | MHD_USE_ERROR_LOG | MHD_USE_NO_LISTEN_SOCKET |
            HTTP_MHD_ONE_THREAD,
        0, NULL, NULL, http_handle, http, MHD_OPTION_EXTERNAL_LOGGER, log_mhd, NULL,
        MHD_OPTION_CONNECTION_LIMIT, config->connections_max + HTTP_SURPLUS_CONNECTIONS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_POOL_BYTES, MHD_OPTION_CONNECTION_TIMEOUT,
        config->idle_timeout_s, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
        MHD_OPTION_NOTIFY_CONNECTION, notify_connection, http, MHD_OPTION_NOTIFY_COMPLETED,
        notify_completed, http, MHD_OPTION_END);
    if (http->daemon == NULL) {
        return err_set_errno(err, RC_IO, "libmicrohttpd does not start");
    }
    http->epoll_fd = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    return RC_OK;
}

enum rc http_create(const struct http_config *config, struct http **http, struct err *err)
{
    struct http *made = calloc(1, sizeof *made);
    *http = NULL;
    if (made == NULL) {
        return err_set(err, RC_NOMEM, "no memory for HTTP");
    }
    made->config = *config;
    http_ring_init(&made->idle);
    http_ring_init(&made->receiving);
    http_ring_init(&made->waiting);
    http_ring_init(&made->answered);
    enum rc rc = raise_fd_limit(&made->config, err);
    if (rc == RC_OK) {
        rc = http_make_answers(made, err);
    }
    if (rc == RC_OK) {
        rc = start_daemon(made, err);
    }
    if (rc != RC_OK) {
        http_destroy(made);
        made = NULL;
    }
    *http = made;
    return rc;
}

void http_destroy(struct http *http)
{
    if (http != NULL) {
        ASSERT(http->gathered == 0 && http->away == 0);
        if (http->daemon != NULL) {
            MHD_stop_daemon(http->daemon);
        }
        http_linger_close_all(&http->linger);
        http_free_answers(http);
        free(http);
    }
}

int http_epoll_fd(const struct http *http)
{
    return http->epoll_fd;
}

bool http_run(struct http *http, int64_t now_ms)
{
    uint64_t before = http->progress;
    unsigned long long timeout_ms = 0;
    http->now_ms = now_ms;
    http->round++;
    http_linger_run(&http->linger, now_ms);
    if (MHD_run(http->daemon) != MHD_YES) {
        log_error("http", "libmicrohttpd does not run  errno=%d", errno);
    }
    if (http->passing) {
        http_pass_idle(http);
    }
    if (MHD_get_timeout(http->daemon, &timeout_ms) != MHD_YES || timeout_ms > 0) {
        return false;
    }
    /* With a request waiting the timeout is always 0: it says nothing unless something moved. */
    return http->progress != before || ring_oldest(&http->waiting) == NULL;
}

struct http_load http_get_load(const struct http *http)
{
    unsigned peak = http->peak_now > http->peak_last ? http->peak_now : http->peak_last;
    return (struct http_load){http->gathered, http->away, peak};
}

void http_flush(struct http *http)
{
    if (http->gathered > 0) {
        const struct http_backend *backend = &http->config.backend;
        struct writer_job *newest = http->newest;
        struct writer_job *oldest = http->oldest;
        http->away += http->gathered;
        http->gathered = 0;
        http->newest = NULL;
        http->oldest = NULL;
        if (++http->peak_rounds >= HTTP_PEAK_ROUNDS) {
            http->peak_rounds = 0;
            http->peak_last = http->peak_now;
            http->peak_now = 0;
        }
        backend->submit(backend->arg, newest, oldest);
    }
}

void http_return(struct http *http, struct writer_job *jobs)
{
    while (jobs != NULL) {
        struct writer_job *next = jobs->next;
        struct http_conn *conn =
            (struct http_conn *)(void *)((char *)jobs - offsetof(struct http_conn, job));
        ASSERT(http->away > 0 && conn->state == HTTP_WAITING);
        http->away--;
        conn->job_done = true;
        if (conn->connection == NULL) {
            free_conn(conn);
        }
        jobs = next;
    }
}

int http_timeout_ms(struct http *http)
{
    unsigned long long timeout_ms = 0;
    if (MHD_get_timeout(http->daemon, &timeout_ms) != MHD_YES) {
        timeout_ms = HTTP_WAIT_MS;
    }
    int most_ms = http->linger.count > 0 ? HTTP_LINGERING_WAIT_MS : HTTP_WAIT_MS;
    return timeout_ms > (unsigned)most_ms ? most_ms : (int)timeout_ms;
}

/* ---- drain ---- */

void http_drain(struct http *http, int64_t now_ms)
{
    if (http->draining) {
        return;
    }
    http->draining = true;
    http->passing = false;
    http->pass_waits = false;
    http->now_ms = now_ms;
    http->drain_since_ms = now_ms;
    const struct listener *listener = http->config.listener;
    unsigned taken = listener->fd < 0 || listener->shared ? 0 : http_accept_rest(http);
    listener_close(http->config.listener);
    log_info("http", "draining  connections=%u idle=%u from_queue=%u", http->connections,
             http->idle_count, taken);
}

void http_end_inserts(struct http *http)
{
    http->inserts_ended = true;
}

bool http_is_drained(const struct http *http, int64_t now_ms, int64_t linger_ms)
{
    if (http->gathered > 0 || http->away > 0 || http->idle_count < http->connections ||
        http->pass_waits) {
        return false;
    }
    int64_t quiet_since_ms =
        http->last_request_ms > http->drain_since_ms ? http->last_request_ms : http->drain_since_ms;
    return http->connections == 0 || now_ms - quiet_since_ms >= linger_ms;
}

/* A request is on its way, of which not enough has come, or not in time, to answer it. */
static bool has_begun_request(const struct http_conn *conn)
{
    uint64_t taken = 0;
    char byte;
    if (conn->state != HTTP_IDLE) {
        return conn->state == HTTP_RECEIVING;
    }
    return recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0 ||
           (!conn->unsure && http_bytes_taken(conn->fd, &taken) && taken != conn->bytes_used);
}

static void cut_ring(struct http_ring *ring)
{
    for (struct http_ring *at = ring->next; at != ring; at = at->next) {
        struct http_conn *conn = http_ring_conn(at);
        if (!conn->cut && has_begun_request(conn)) {
            http_answer_raw(conn, ROUTE_STOPPING);
        }
        conn->cut = true;
        (void)shutdown(conn->fd, SHUT_RDWR);
    }
}

void http_cut_rest(struct http *http)
{
    cut_ring(&http->idle);
    cut_ring(&http->receiving);
    cut_ring(&http->answered); /* what the kernel has of the answer still leaves */
}

unsigned http_count_passed(const struct http *http)
{
    return http->passed;
}

unsigned http_connections(const struct http *http)
{
    return http->connections;
}
