/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_loop: the http thread. One epoll over libmicrohttpd's own descriptor, the listening socket, the
 * door, the writer's and the replicator's events, the health socket and the stop request; between two waits it runs HTTP, hands
 * gathered inserts to the writer and takes answered ones back.
 *
 * Stop behind a door: no longer ready; no longer listening; connections are passed on as they come to a
 * request's end. What cannot be passed is drained.
 *
 * Drain, in this order: no longer ready; no longer listening; what waits in the accept queue and what
 * is under way is answered, each with "Connection: close"; connections without a request get
 * a moment for one that is on its way; then a request of which only a part has come is answered 503,
 * everything is shut down and the thread ends.
 *
 * Threads: create, start, join, destroy: main. stop: any.
 */
#ifndef HARVEY_SERVER_HTTP_LOOP_H
#define HARVEY_SERVER_HTTP_LOOP_H

#include "base/err.h"
#include "replicator/replicator.h"
#include "server/backend.h"
#include "server/handover.h"
#include "server/http.h"
#include "server/listener.h"
#include "server/writer.h"

#include <stdbool.h>

struct http_loop_config { /* all borrowed */
    struct http *http;
    struct listener *listener;
    struct handover *handover; /* NULL: no door */
    struct backend *backend;
    struct writer *writer;
    struct replicator *replicator;
    const char *database_path; /* of the health socket */
    int64_t drain_delay_ms;    /* between "not ready" and the stop */
};

struct http_loop;

RC_MUST_CHECK enum rc http_loop_create(const struct http_loop_config *config,
                                       struct http_loop **loop, struct err *err);
void http_loop_destroy(struct http_loop *loop); /* joined or never started; NULL is legal */

RC_MUST_CHECK enum rc http_loop_start(struct http_loop *loop, struct err *err);

/* Begins the drain; with `now` the drain is cut short. */
void http_loop_stop(struct http_loop *loop, bool now);

/* Returns when the thread has ended. */
void http_loop_join(struct http_loop *loop);

#endif
