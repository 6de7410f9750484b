/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of the open-loop client: connect, send one request, receive one answer, rest or
 * close. It knows nothing of plans and rates; openloop_run decides what happens next.
 *
 * The descriptor is registered edge-triggered for everything once, so every call reads or writes
 * until the kernel has no more. One thread.
 */
#ifndef OPENLOOP_CONN_H
#define OPENLOOP_CONN_H

#include "tests/bench/openloop_options.h"
#include "tests/bench/openloop_response.h"
#include "tests/bench/openloop_stats.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum openloop_conn_state {
    OPENLOOP_CONN_CLOSED,     /* no descriptor */
    OPENLOOP_CONN_CONNECTING, /* with or without a request that waits for it */
    OPENLOOP_CONN_RESTING,    /* connected, no request */
    OPENLOOP_CONN_SENDING,
    OPENLOOP_CONN_RECEIVING,
};

enum openloop_step {
    OPENLOOP_STEP_WAIT,   /* nothing to decide; go on at the next event */
    OPENLOOP_STEP_OPENED, /* connected without a request: now resting */
    OPENLOOP_STEP_DONE,   /* the request is over: see `outcome`; resting or closed now */
    OPENLOOP_STEP_LOST,   /* a connection without a request is closed now: see `cause` */
};

/* The bytes of a request, the same for all; borrowed by every connection. */
struct openloop_request {
    const char *bytes;
    size_t byte_count;
    bool close; /* asks the server to close; the connection is not used again */
};

struct openloop_conn {
    int fd; /* -1 when closed */
    enum openloop_conn_state state;
    bool has_request;
    bool send_failed; /* the peer went away while we sent: an answer may still lie in the queue */
    size_t sent_bytes;
    int64_t planned_us; /* of the request, since the run's start */
    int64_t started_us; /* openloop_run's: when this connection got it */
    int status;         /* of the last answer, 0 when there was none */
    bool replaced;      /* after DONE and LOST: a kept connection that is closed, for `cause` */
    bool opening;       /* openloop_run's: counted as being opened before the plan starts */
    enum openloop_outcome outcome;
    enum openloop_cause cause;
    struct openloop_response response;
    struct openloop_conn *previous; /* in one of openloop_run's lists */
    struct openloop_conn *next;
};

/* What all connections share; borrowed. */
struct openloop_target {
    int epoll_fd;
    const struct openloop_options *options;
    struct openloop_request request;
    uint64_t *opened_count; /* counts connections established */
};

/* Closed, no request. */
void openloop_conn_init(struct openloop_conn *conn);

/* Begins to connect, without a request. DONE never; LOST when it failed at once. */
enum openloop_step openloop_conn_open(struct openloop_conn *conn,
                                      const struct openloop_target *target);

/*
 * Gives a closed or resting connection a request, planned at `planned_us`: connects if need be,
 * sends what goes at once. WAIT or DONE.
 */
enum openloop_step openloop_conn_start(struct openloop_conn *conn,
                                       const struct openloop_target *target, int64_t planned_us);

/* epoll reported `events` for it. */
enum openloop_step openloop_conn_advance(struct openloop_conn *conn,
                                         const struct openloop_target *target, uint32_t events);

/* Gives up its request (or its connecting) and closes. */
void openloop_conn_abort(struct openloop_conn *conn);

#endif
