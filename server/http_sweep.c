/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_sweep: once per second, the connections that MHD alone would keep for too long; see http.h.
 *
 *   - a request past its deadline: MHD's time-out starts anew with every byte;
 *   - a client that closed its side in the same breath as it sent something: MHD 0.9.75 waits
 *     edge-triggered and takes a short read for the end of what is there, so it misses that;
 *   - an answer that its client does not read, a few bytes now and then apart, for as long;
 *   - an insert that takes longer than the time-out (a slow disk): it must not be closed before its
 *     answer (where the time-out is too short for a sweep, http_request.c sees to it).
 */
#include "server/http_internal.h"

#include <sys/socket.h>

#define SWEEP_PEEK_AGE_MS 500 /* younger ones are still in MHD's hands */
#define SWEEP_PEEKS_MAX 2048u /* system calls per ring and sweep */

/* Answers past MHD, and lets MHD see the end of the stream. */
static void cut(struct http_conn *conn)
{
    conn->cut = true;
    http_answer_raw(conn, ROUTE_TIMEOUT);
    (void)shutdown(conn->fd, SHUT_RDWR);
}

static void cut_if_left(struct http_conn *conn)
{
    char byte;
    if (recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
        conn->cut = true;
        (void)shutdown(conn->fd, SHUT_RDWR);
    }
}

/* A ring's oldest comes first. */
static void sweep_reading(struct http_ring *ring, int64_t now_ms, int64_t limit_ms)
{
    unsigned peeks = 0;
    for (struct http_ring *at = ring->next; at != ring && peeks < SWEEP_PEEKS_MAX; at = at->next) {
        struct http_conn *conn = http_ring_conn(at);
        int64_t age_ms = now_ms - conn->since_ms;
        if (age_ms < SWEEP_PEEK_AGE_MS) {
            break;
        }
        if (conn->cut) {
            continue;
        }
        if (age_ms > limit_ms) {
            cut(conn);
        } else {
            cut_if_left(conn);
            peeks++;
        }
    }
}

/* An answer fits into the kernel's buffer unless many before it have filled that. */
static void sweep_answered(struct http_ring *ring, int64_t now_ms, int64_t limit_ms)
{
    for (struct http_ring *at = ring->next; at != ring; at = at->next) {
        struct http_conn *conn = http_ring_conn(at);
        if (now_ms - conn->since_ms <= limit_ms) {
            break;
        }
        if (!conn->cut) {
            conn->cut = true;
            (void)shutdown(conn->fd, SHUT_RDWR);
        }
    }
}

static void sweep_waiting(struct http_ring *ring, int64_t now_ms, int64_t limit_ms)
{
    for (struct http_ring *at = ring->next; at != ring; at = at->next) {
        struct http_conn *conn = http_ring_conn(at);
        if (now_ms - conn->since_ms <= limit_ms) {
            break;
        }
        http_hold_timeout(conn);
    }
}

void http_sweep(struct http *http, int64_t now_ms)
{
    int64_t request_ms = (int64_t)http->config.request_timeout_s * 1000;
    int64_t idle_ms = (int64_t)http->config.idle_timeout_s * 1000;
    sweep_reading(&http->receiving, now_ms, request_ms);
    /* MHD closes what sends nothing; what outlives that sends its headers byte by byte. */
    sweep_reading(&http->idle, now_ms, idle_ms + request_ms);
    sweep_answered(&http->answered, now_ms, request_ms);
    sweep_waiting(&http->waiting, now_ms, idle_ms / 2);
}
