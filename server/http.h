/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http: HTTP/1.1 on a listening socket; the one owner of libmicrohttpd (MHD). It has no thread and
 * no loop of its own: http_loop.c waits on http_epoll_fd and calls http_run.
 *
 * Group commit without suspending connections ("gc-retry"): for a request that is complete but not
 * answered yet MHD calls its handler again in each round until a response is queued. So an insert is
 * put on a list, the handler returns, and one round after the job came back (http_return) the same
 * handler answers it. This costs no system call per request, where suspend and resume cost three.
 * tests/integration/test_http.py pins it, for MHD says little about it.
 *
 * A connection's record holds its job, and outlives the connection while the job is away.
 *
 * Connections come by http_accept or, with a past in another process, by http_adopt; at a stop they are
 * passed on (http_begin_passing) or drained (http_drain).
 *
 * What else is done here and not by MHD: a deadline for slow requests (408), 431 before MHD's memory
 * pool runs out, an answer to surplus connections (503), a drain at stop in which every answer says
 * "Connection: close".
 *
 * Thread: one, the http thread, for everything after http_create.
 */
#ifndef HARVEY_SERVER_HTTP_H
#define HARVEY_SERVER_HTTP_H

#include "base/buf.h"
#include "base/err.h"
#include "server/listener.h"
#include "server/writer.h"

#include <stdbool.h>
#include <stdint.h>

/* What answers depend on; backend.c, or a stand-in in tests. */
struct http_backend {
    void *arg;
    bool (*is_ready)(void *arg);   /* what /readyz says: false once a stop has begun */
    bool (*may_insert)(void *arg); /* cheap: asked for each insert; true during a stop's drain */
    /* Why not, or why the last batch failed, as one line of text. */
    void (*describe)(void *arg, bool failed_batch, char *text, size_t text_bytes);
    enum rc (*status)(void *arg, bool json, unsigned connections, struct buf *out, struct err *err);
    void (*submit)(void *arg, struct writer_job *newest, struct writer_job *oldest);
};

struct http_config {
    struct listener *listener; /* borrowed until http_destroy; may be without a socket */
    struct http_backend backend;
    unsigned connections_max;
    unsigned idle_timeout_s;
    unsigned request_timeout_s;
};

struct http;

/* Starts MHD. RC_NOMEM, RC_IO, RC_LIMIT (too few descriptors). */
RC_MUST_CHECK enum rc http_create(const struct http_config *config, struct http **http,
                                  struct err *err);

/* Closes every connection. No job may be away. NULL is legal. */
void http_destroy(struct http *http);

int http_epoll_fd(const struct http *http);

/*
 * Serves what is ready now; never blocks. True: call again at once, there is more to do without
 * waiting for the descriptor. Jobs of new requests gather until http_flush.
 */
bool http_run(struct http *http, int64_t now_ms);

/* At the limit of connections: who comes now is answered 503. */
bool http_is_full(const struct http *http);

/* Far enough below the limit to have siblings send clients here again. */
bool http_has_room(const struct http *http);

/* Whether to wait for the listening socket now; false: at a limit, or a stop has begun. */
bool http_may_accept(const struct http *http);

/*
 * Takes in some of those who wait at the listening socket; never blocks. Goes beyond the limit only if
 * http_is_full has said so before: the others may be a sibling's.
 */
void http_accept(struct http *http, int64_t now_ms);

/*
 * Takes in a live connection of another process, at a request boundary; takes `fd`. It is served beyond the
 * limit too, up to a second one, and closed beyond that: ask http_is_full before.
 */
void http_adopt(struct http *http, int fd, int64_t now_ms);

/* How many inserts wait for http_flush, are away at the writer, and were so at most of late. */
struct http_load {
    unsigned gathered;
    unsigned away;
    unsigned recent_peak; /* of gathered + away */
};
struct http_load http_get_load(const struct http *http);

/* Hands the gathered jobs to backend.submit. */
void http_flush(struct http *http);

/* Takes answered jobs back (a list from writer_collect); the next http_run answers them. */
void http_return(struct http *http, struct writer_job *jobs);

/* Milliseconds until http_run must be called though nothing happens. */
int http_timeout_ms(struct http *http);

/* Ends requests past their deadline; to be called about once per second. */
void http_sweep(struct http *http, int64_t now_ms);

/*
 * Stops listening, and passes on each connection that is at a request boundary: now, and after each
 * http_run. Requests under way are answered as ever. `pass` sends the socket (borrowed) elsewhere and
 * says whether it could; false: call http_pass_idle when it can again.
 */
struct http_passer {
    void *arg;
    bool (*pass)(void *arg, int fd);
};
void http_begin_passing(struct http *http, const struct http_passer *passer, int64_t now_ms);
void http_pass_idle(struct http *http);

unsigned http_count_passed(const struct http *http);

/*
 * Stops listening, takes in what waits in the accept queue (unless the socket is shared), and makes
 * every further answer the last of its connection.
 */
void http_drain(struct http *http, int64_t now_ms);

/* From here on inserts are refused (503), so that nothing is gathered any more. */
void http_end_inserts(struct http *http);

/*
 * While draining or passing: true once no connection is left, or nothing is under way and idle ones (of
 * those passed: the ones that cannot be, whatever the door does) have had `linger_ms` for a last request.
 */
bool http_is_drained(const struct http *http, int64_t now_ms, int64_t linger_ms);

/*
 * The end of the drain, after the last http_run: whoever has begun a request is told that it comes too late
 * (503), and the clients of all connections hear now that they end. http_destroy closes them.
 */
void http_cut_rest(struct http *http);

unsigned http_connections(const struct http *http);

#endif
