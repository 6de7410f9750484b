/* SPDX-License-Identifier: Apache-2.0 */
/* One connection of the open-loop client: see openloop_conn.h. */
#include "tests/bench/openloop_conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECEIVE_BYTES 16384

void openloop_conn_init(struct openloop_conn *conn)
{
    *conn = (struct openloop_conn){.fd = -1, .state = OPENLOOP_CONN_CLOSED};
}

static void close_fd(struct openloop_conn *conn)
{
    if (conn->fd >= 0) {
        close(conn->fd); /* leaves the epoll set with it: there is no second descriptor */
    }
    conn->fd = -1;
    conn->state = OPENLOOP_CONN_CLOSED;
}

void openloop_conn_abort(struct openloop_conn *conn)
{
    close_fd(conn);
    conn->has_request = false;
}

static enum openloop_outcome outcome_of_errno(int error)
{
    switch (error) {
    case ECONNREFUSED:
        return OPENLOOP_OUTCOME_REFUSED;
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
        return OPENLOOP_OUTCOME_RESET;
    case ETIMEDOUT:
        return OPENLOOP_OUTCOME_TIMEOUT;
    default: /* EADDRNOTAVAIL, EMFILE, ENOBUFS …: no word from the server */
        return OPENLOOP_OUTCOME_LOCAL;
    }
}

/* The connection is of no use any more: its request fails, or it is merely lost. */
static enum openloop_step fail(struct openloop_conn *conn, enum openloop_outcome outcome,
                               enum openloop_cause cause)
{
    bool was_open = conn->state != OPENLOOP_CONN_CONNECTING && conn->state != OPENLOOP_CONN_CLOSED;
    bool had_request = conn->has_request;

    close_fd(conn);
    conn->has_request = false;
    conn->outcome = outcome;
    conn->replaced = was_open;
    conn->cause = had_request ? OPENLOOP_CAUSE_FAILED : cause;
    return had_request ? OPENLOOP_STEP_DONE : OPENLOOP_STEP_LOST;
}

/* A complete answer arrived. `surplus`: more bytes came than belong to it. */
static enum openloop_step finish(struct openloop_conn *conn, const struct openloop_target *target,
                                 bool surplus)
{
    conn->has_request = false;
    conn->status = conn->response.status;
    conn->outcome = openloop_stats_outcome_of_status(conn->status);
    conn->replaced = false;
    conn->state = OPENLOOP_CONN_RESTING;
    if (target->request.close) {
        close_fd(conn);
    } else if (conn->response.close || surplus) {
        close_fd(conn);
        conn->replaced = true;
        conn->cause = surplus ? OPENLOOP_CAUSE_STRAY : OPENLOOP_CAUSE_ANNOUNCED;
    }
    return OPENLOOP_STEP_DONE;
}

/* recv() returned 0. */
static enum openloop_step take_eof(struct openloop_conn *conn, const struct openloop_target *target)
{
    if (!conn->has_request) {
        return fail(conn, OPENLOOP_OUTCOME_EOF, OPENLOOP_CAUSE_IDLE_CLOSE);
    }
    if (conn->response.started && openloop_response_eof(&conn->response) == OPENLOOP_VERDICT_DONE) {
        return finish(conn, target, false);
    }
    return fail(conn, conn->send_failed ? OPENLOOP_OUTCOME_RESET : OPENLOOP_OUTCOME_EOF,
                OPENLOOP_CAUSE_FAILED);
}

/*
 * Reads until the kernel has no more. An answer that completes is not the end of it: the server's
 * close may already lie behind it, and its edge would not be reported again.
 */
static enum openloop_step receive(struct openloop_conn *conn, const struct openloop_target *target)
{
    char bytes[RECEIVE_BYTES];
    enum openloop_step step = OPENLOOP_STEP_WAIT;

    while (conn->fd >= 0) {
        ssize_t count = recv(conn->fd, bytes, sizeof bytes, 0);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0 && errno == EAGAIN) {
            if (conn->has_request && conn->send_failed) {
                return fail(conn, OPENLOOP_OUTCOME_RESET, OPENLOOP_CAUSE_FAILED);
            }
            return step;
        }
        if (step == OPENLOOP_STEP_DONE) { /* the answer stands; what follows concerns the socket */
            close_fd(conn);
            conn->replaced = true;
            conn->cause = count > 0    ? OPENLOOP_CAUSE_STRAY
                          : count == 0 ? OPENLOOP_CAUSE_IDLE_CLOSE
                                       : OPENLOOP_CAUSE_IDLE_RESET;
            return step;
        }
        if (count < 0) {
            return fail(conn, outcome_of_errno(errno), OPENLOOP_CAUSE_IDLE_RESET);
        }
        if (count == 0) {
            return take_eof(conn, target);
        }
        if (!conn->has_request) {
            return fail(conn, OPENLOOP_OUTCOME_MALFORMED, OPENLOOP_CAUSE_STRAY);
        }
        size_t used = 0;
        enum openloop_verdict verdict =
            openloop_response_feed(&conn->response, bytes, (size_t)count, &used);
        if (verdict == OPENLOOP_VERDICT_MALFORMED) {
            return fail(conn, OPENLOOP_OUTCOME_MALFORMED, OPENLOOP_CAUSE_FAILED);
        }
        if (verdict == OPENLOOP_VERDICT_DONE) {
            step = finish(conn, target, used < (size_t)count);
        }
    }
    return step;
}

static enum openloop_step send_request(struct openloop_conn *conn,
                                       const struct openloop_target *target)
{
    const struct openloop_request *request = &target->request;

    conn->state = OPENLOOP_CONN_SENDING;
    while (conn->sent_bytes < request->byte_count) {
        ssize_t count = send(conn->fd, request->bytes + conn->sent_bytes,
                             request->byte_count - conn->sent_bytes, MSG_NOSIGNAL);
        if (count >= 0) {
            conn->sent_bytes += (size_t)count;
        } else if (errno == EAGAIN) {
            return OPENLOOP_STEP_WAIT;
        } else if (errno != EINTR) {
            /* A server may answer and close before it has read all: look for that answer. */
            conn->send_failed = true;
            conn->state = OPENLOOP_CONN_RECEIVING;
            return receive(conn, target);
        }
    }
    conn->state = OPENLOOP_CONN_RECEIVING;
    return OPENLOOP_STEP_WAIT;
}

enum openloop_step openloop_conn_open(struct openloop_conn *conn,
                                      const struct openloop_target *target)
{
    const struct openloop_options *options = target->options;
    int on = 1;

    conn->state = OPENLOOP_CONN_CONNECTING;
    conn->fd = socket(options->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd < 0) {
        return fail(conn, OPENLOOP_OUTCOME_LOCAL, OPENLOOP_CAUSE_IDLE_RESET);
    }
    (void)setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(conn->fd, (const struct sockaddr *)&options->address, options->address_bytes) < 0 &&
        errno != EINPROGRESS) {
        return fail(conn, outcome_of_errno(errno), OPENLOOP_CAUSE_IDLE_RESET);
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = conn};
    if (epoll_ctl(target->epoll_fd, EPOLL_CTL_ADD, conn->fd, &event) < 0) {
        return fail(conn, OPENLOOP_OUTCOME_LOCAL, OPENLOOP_CAUSE_IDLE_RESET);
    }
    return OPENLOOP_STEP_WAIT; /* connected or not: EPOLLOUT is reported either way */
}

enum openloop_step openloop_conn_start(struct openloop_conn *conn,
                                       const struct openloop_target *target, int64_t planned_us)
{
    ASSERT(!conn->has_request);
    conn->has_request = true;
    conn->send_failed = false;
    conn->sent_bytes = 0;
    conn->planned_us = planned_us;
    conn->status = 0;
    openloop_response_init(&conn->response);
    ASSERT(conn->state != OPENLOOP_CONN_SENDING && conn->state != OPENLOOP_CONN_RECEIVING);
    if (conn->state == OPENLOOP_CONN_CLOSED) {
        return openloop_conn_open(conn, target);
    }
    /* Still connecting: the request is sent when that is done. */
    return conn->state == OPENLOOP_CONN_RESTING ? send_request(conn, target) : OPENLOOP_STEP_WAIT;
}

static enum openloop_step finish_connecting(struct openloop_conn *conn,
                                            const struct openloop_target *target, uint32_t events)
{
    int error = 0;
    socklen_t size = sizeof error;

    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) {
        return OPENLOOP_STEP_WAIT;
    }
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) {
        error = errno;
    }
    if (error != 0) {
        return fail(conn, outcome_of_errno(error), OPENLOOP_CAUSE_IDLE_RESET);
    }
    conn->state = OPENLOOP_CONN_RESTING;
    ++*target->opened_count;
    return conn->has_request ? send_request(conn, target) : OPENLOOP_STEP_OPENED;
}

enum openloop_step openloop_conn_advance(struct openloop_conn *conn,
                                         const struct openloop_target *target, uint32_t events)
{
    enum openloop_step step = OPENLOOP_STEP_WAIT;

    if (conn->state == OPENLOOP_CONN_CONNECTING) {
        step = finish_connecting(conn, target, events);
    } else if (conn->state == OPENLOOP_CONN_SENDING && (events & EPOLLOUT) != 0) {
        step = send_request(conn, target);
    }
    if (conn->fd < 0 || step == OPENLOOP_STEP_DONE || step == OPENLOOP_STEP_LOST) {
        return step;
    }
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        enum openloop_step received = receive(conn, target);
        return received == OPENLOOP_STEP_WAIT ? step : received;
    }
    return step;
}
