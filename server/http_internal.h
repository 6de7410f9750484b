/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_internal: what http.c (daemon, connections, drain), http_accept.c and http_pass.c (how connections
 * come and go), http_request.c (one request from its headers to its answer) and http_sweep.c (deadlines)
 * share. Nobody else includes it.
 */
#ifndef HARVEY_SERVER_HTTP_INTERNAL_H
#define HARVEY_SERVER_HTTP_INTERNAL_H

#include "archive/position.h"
#include "base/bytes.h"
#include "server/http.h"
#include "server/http_linger.h"
#include "server/routes.h"

#include <microhttpd.h>

/*
 * One connection's memory in MHD: request headers and response headers come out of it, and all of it
 * is cleared after each request (measured: 4 KiB 8.4, 32 KiB 9.1 us per request).
 */
#define HTTP_POOL_BYTES 8192u
#define HTTP_SHORT_IDLE_S 2u /* with that, or less, a sweep may come too late for an insert */
#define HTTP_SURPLUS_CONNECTIONS 64u                    /* beyond the limit, to be told 503 */
#define HTTP_HEADER_BYTES_MAX (HTTP_POOL_BYTES - 1024u) /* the rest is for our answer's headers */

enum http_state {
    HTTP_IDLE,      /* no request, or one whose headers are not complete */
    HTTP_RECEIVING, /* its body is coming */
    HTTP_READY,     /* complete, to be answered in the next handler call */
    HTTP_WAITING,   /* its job is gathered or away */
    HTTP_ANSWERED,  /* a response is queued */
};

/* A ring of connections in the order in which they entered a state. */
struct http_ring {
    struct http_ring *prev;
    struct http_ring *next;
};

struct http_conn {
    struct http_ring
        ring; /* in http.idle, .receiving, .waiting or .answered, by state; else alone */
    struct http *http;
    struct MHD_Connection *connection; /* NULL: closed, the record waits for its job */
    int fd;
    enum http_state state;
    bool job_done;
    bool surplus;             /* beyond connections_max: answered 503 */
    bool refused;             /* answered before the request was read to its end */
    bool cut;                 /* shut down by us */
    bool passed;              /* lives on in another process; MHD has a silent socket instead */
    bool no_timeout;          /* MHD's is off while a job takes long */
    int64_t since_ms;         /* of `state` */
    uint64_t completed_round; /* http.round of its last complete answer */
    struct route route;
    bool body_bad; /* too large */
    size_t body_bytes;
    bool unsure;              /* bytes_used does not count from the start of the stream */
    uint64_t bytes_used;      /* of the stream: whole requests, see http_pass.c */
    uint64_t swallowed_bytes; /* of a body beyond its limit */
    char *body; /* ROUTE_BODY_BYTES_MAX bytes once a request had a body; NULL before */
    struct writer_job job;
    struct MHD_Response *inserted; /* the answer to its inserts, from the first on; NULL before */
    char told_row[BYTES_DECIMAL_BYTES]; /* what that says; "" nothing */
    char told_position[POSITION_TEXT_BYTES];
};

struct http {
    struct http_config config;
    struct MHD_Daemon *daemon;
    int epoll_fd;
    struct MHD_Response *answers[ROUTE_ANSWER_COUNT];
    struct MHD_Response *last_answers[ROUTE_ANSWER_COUNT]; /* with "Connection: close" */
    struct http_ring idle;
    struct http_ring receiving;
    struct http_ring waiting;
    struct http_ring answered; /* the answer is on its way */
    struct http_linger linger;
    uint64_t round;          /* counts http_run */
    int64_t now_ms;          /* of this round */
    uint64_t progress;       /* counts events in handlers: a round without one needs no second */
    int64_t accept_again_ms; /* not before */
    bool adopting;           /* while MHD_add_connection runs for a connection with a past */
    bool passing;
    bool pass_waits; /* some could be passed, but the door has no room, or is away */
    bool draining;
    bool inserts_ended;
    int64_t drain_since_ms;
    int64_t last_request_ms;
    unsigned connections;
    unsigned idle_count;
    struct http_passer passer;
    unsigned passed;
    struct writer_job *newest;
    struct writer_job *oldest;
    unsigned gathered;
    unsigned away;
    unsigned peak_now;  /* since the last change of window */
    unsigned peak_last; /* of the window before */
    unsigned peak_rounds;
    struct generation_id told_generation; /* what position_text says */
    struct position told_position;
    char position_text[POSITION_TEXT_BYTES];
};

void http_ring_init(struct http_ring *ring);
void http_ring_leave(struct http_ring *ring); /* legal when alone */
struct http_conn *http_ring_conn(struct http_ring *at);
void http_ring_enter(struct http_ring *ring, struct http_conn *conn);

/* Moves the connection to a state and its ring. */
void http_set_state(struct http_conn *conn, enum http_state state);

/* Takes the connection out of the count and of its ring. */
void http_leave(struct http_conn *conn);

/* Accepts all that the kernel has accepted for us (a bound apart); how many. */
unsigned http_accept_rest(struct http *http);

/* How many bytes of the stream were read. False: it cannot be told. */
bool http_bytes_taken(int fd, uint64_t *taken);

/* MHD's handler: called when headers are complete, for each piece of body, and then until answered. */
enum MHD_Result http_handle(void *cls, struct MHD_Connection *connection, const char *url,
                            const char *method, const char *version, const char *upload_data,
                            size_t *upload_data_size, void **con_cls);

/* MHD does not close the connection for its silence until its job is answered. */
void http_hold_timeout(struct http_conn *conn);

/* Writes a whole fixed answer past MHD, where MHD cannot; the connection must be closed then. */
void http_answer_raw(struct http_conn *conn, enum route_answer answer);

/* The persistent responses. RC_NOMEM. */
RC_MUST_CHECK enum rc http_make_answers(struct http *http, struct err *err);
void http_free_answers(struct http *http);

#endif
