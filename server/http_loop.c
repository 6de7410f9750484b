/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_loop: see http_loop.h.
 *
 * Linger: a commit costs nearly the same for one row as for fifty, so when fewer requests wait than
 * did at the same time of late, the loop sleeps up to LINGER_US for the others before it hands over.
 * A single client never waits: its peak is one.
 */
#include "server/http_loop.h"

#include "base/clk.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "server/health.h"
#include "server/status.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LOOP_EVENTS_MAX 8
#define LOOP_LINGER_US 100
#define LOOP_LINGER_STEP_US 25
#define LOOP_PENDING_WAIT_US 5000 /* with inserts under way: MHD's own timeout says nothing then */
#define LOOP_CLOSED_WAIT_US 50000 /* no client is let in now, or not by choice: looked at again */
#define LOOP_IDLE_WAIT_US 10000000
#define LOOP_SWEEP_MS 1000
#define LOOP_RUNS_MAX 64         /* of HTTP without looking at other events */
#define LOOP_DRAIN_LINGER_MS 250 /* for a last request on an idle connection */
#define LOOP_DRAIN_MAX_MS 2000
#define LOOP_OPEN_MS 3000       /* so long may a start take before clients are told that it does */
#define LOOP_OPEN_DOOR_MS 10000 /* behind a door, where they can wait: nobody else asks this port */
#define LOOP_PASS_QUIET_MS 1000 /* then what is left cannot be passed on */
#define LOOP_PASS_MAX_MS 5000   /* with the drain below Docker's 10 s */

enum loop_source {
    LOOP_HTTP,
    LOOP_LISTENER,
    LOOP_DOOR,
    LOOP_WRITER,
    LOOP_REPLICATOR,
    LOOP_HEALTH,
    LOOP_STOP,
};

enum loop_phase { LOOP_SERVES, LOOP_LINGERS, LOOP_PASSES, LOOP_DRAINS };

struct http_loop {
    struct http_loop_config config;
    pthread_t thread;
    bool started;
    int epoll_fd;
    int stop_fd; /* eventfd */
    atomic_bool cut_short;
    /* the thread's own */
    struct health health;
    int64_t begun_ms;
    bool settled;     /* it can serve, or clients have waited long enough to be told why not */
    bool able;        /* behind a door: it can serve, and has room */
    bool open;        /* clients are let in */
    bool crowded;     /* the limit of connections was reached, and there is not yet room enough */
    int listening_fd; /* in the epoll set; -1: none */
    bool clients_wait;
    bool stop_asked;
    enum loop_phase phase;
    int64_t phase_deadline_ms;
    int64_t next_sweep_ms;
    int64_t gathered_since_us; /* 0: nothing is gathered */
    enum writer_state writer_state;
};

static enum rc watch(struct http_loop *loop, int fd, enum loop_source source, struct err *err)
{
    /* each write to the writer's eventfd is an edge, whether the one before was read or not: nobody reads */
    uint32_t events = source == LOOP_WRITER ? EPOLLIN | EPOLLET : EPOLLIN;
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)source};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0
               ? RC_OK
               : err_set_errno(err, RC_IO, "epoll");
}

static void clear_event(int fd)
{
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof count);
    (void)got; /* EAGAIN: somebody cleared it */
}

/* ---- the listening socket, and the door that brings it ---- */

static void stop_listening(struct http_loop *loop)
{
    if (loop->listening_fd >= 0) {
        /* a number that was closed may be another's by now */
        ASSERT(epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, loop->listening_fd, NULL) == 0);
        loop->listening_fd = -1;
    }
}

/* Waits for clients while they may come. */
static void keep_listening(struct http_loop *loop)
{
    const struct listener *listener = loop->config.listener;
    int wanted = loop->open && http_may_accept(loop->config.http) ? listener->fd : -1;
    if (wanted == loop->listening_fd) {
        return;
    }
    stop_listening(loop);
    if (wanted >= 0) {
        /* siblings wait for the same socket: one of us is woken per client, not all */
        struct epoll_event event = {.events = EPOLLIN | (listener->shared ? EPOLLEXCLUSIVE : 0u),
                                    .data.u32 = LOOP_LISTENER};
        if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, wanted, &event) == 0) {
            loop->listening_fd = wanted;
        } else {
            log_error("http", "cannot listen  errno=%d", errno);
        }
    }
}

/* Whether to answer clients, be it with a 503: until then they wait in the kernel's queue. */
static bool settle(struct http_loop *loop, int64_t now_ms)
{
    int64_t patience_ms = loop->config.handover == NULL ? LOOP_OPEN_MS : LOOP_OPEN_DOOR_MS;
    if (FAILPOINT_SWITCH("NO_PATIENCE")) {
        patience_ms = 0; /* a test wants a start that takes "long" */
    }
    if (!loop->settled) {
        loop->settled =
            backend_is_settled(loop->config.backend) || now_ms >= loop->begun_ms + patience_ms;
    }
    return loop->settled;
}

static void join_door(struct http_loop *loop, int64_t now_ms)
{
    struct handover *handover = loop->config.handover;
    struct err err = ERR_INIT;
    if (handover_join(handover, now_ms, &err) != RC_OK ||
        watch(loop, handover_fd(handover), LOOP_DOOR, &err) != RC_OK) {
        log_error("door", "%s", err.text);
    }
}

/*
 * Lets clients in while we can serve, or it is known why not, or it takes long: else they had better wait
 * for the tenths of a second of a start than get a 503. Behind a door one that cannot serve, or is full,
 * leaves them to a sibling who can; where there is none it says why.
 */
static void decide_to_open(struct http_loop *loop, int64_t now_ms)
{
    struct handover *handover = loop->config.handover;
    if (loop->phase != LOOP_SERVES && loop->phase != LOOP_LINGERS) {
        return;
    }
    if (handover == NULL) {
        loop->open = settle(loop, now_ms);
        return;
    }
    loop->crowded =
        http_is_full(loop->config.http) || (loop->crowded && !http_has_room(loop->config.http));
    loop->able = !loop->crowded && backend_can_serve(loop->config.backend);
    /* before the look at siblings: who tells it sees none */
    handover_tell_open(handover, loop->able && loop->config.listener->fd >= 0);
    loop->open =
        loop->able || (settle(loop, now_ms) && !handover_sibling_is_open(handover, now_ms));
    if (loop->open && handover_fd(handover) < 0) {
        join_door(loop, now_ms);
    }
    handover_attend(handover, loop->open && !loop->crowded);
}

/* ---- health ---- */

/* The socket may be missing at first (no directory yet) and be moved aside by a restore. */
static void keep_health_socket(struct http_loop *loop)
{
    struct err err = ERR_INIT;
    if (loop->phase != LOOP_SERVES || health_is_in_place(&loop->health)) {
        return;
    }
    if (loop->health.fd >= 0) {
        log_debug("health", "socket moved away, made again");
        health_close(&loop->health); /* leaves the epoll set with its last descriptor */
    }
    if (health_open(&loop->health, loop->config.database_path, &err) != RC_OK ||
        watch(loop, loop->health.fd, LOOP_HEALTH, &err) != RC_OK) {
        log_debug("health", "no socket  error=\"%s\"", err.text);
    }
}

static void answer_health(struct http_loop *loop)
{
    char reason[STATUS_REASON_BYTES];
    bool ready = backend_is_ready(loop->config.backend);
    reason[0] = '\0';
    if (!ready) {
        backend_describe(loop->config.backend, reason, sizeof reason);
    }
    health_answer(&loop->health, ready, reason);
}

/* ---- events ---- */

static void begin_drain(struct http_loop *loop)
{
    int64_t now_ms = clk_monotonic_ms();
    loop->phase = LOOP_DRAINS;
    loop->phase_deadline_ms =
        FAILPOINT_SWITCH("LEAVE_FOR_EVER") ? INT64_MAX : now_ms + LOOP_DRAIN_MAX_MS;
    stop_listening(loop); /* the drain closes the socket */
    http_drain(loop->config.http, now_ms);
}

static void begin_leaving(struct http_loop *loop)
{
    int64_t now_ms = clk_monotonic_ms();
    if (loop->clients_wait && loop->config.listener->shared) {
        http_accept(loop->config.http, now_ms); /* only we were woken for them */
        loop->clients_wait = false;
    }
    if (loop->config.handover == NULL || !handover_leave(loop->config.handover, now_ms)) {
        begin_drain(loop);
        return;
    }
    loop->phase = LOOP_PASSES;
    loop->phase_deadline_ms =
        FAILPOINT_SWITCH("LEAVE_FOR_EVER") ? INT64_MAX : now_ms + LOOP_PASS_MAX_MS;
}

/* A balancer that asks /readyz takes a while to learn that it says no: until then we serve as ever. */
static void begin_stop(struct http_loop *loop)
{
    if (loop->phase != LOOP_SERVES) {
        return;
    }
    if (loop->config.drain_delay_ms == 0) {
        begin_leaving(loop);
        return;
    }
    loop->phase = LOOP_LINGERS;
    loop->phase_deadline_ms = clk_monotonic_ms() + loop->config.drain_delay_ms;
    log_info("http", "not ready, serving on for the balancer  drain_delay_ms=%" PRId64,
             loop->config.drain_delay_ms);
}

static void handle_event(struct http_loop *loop, enum loop_source source)
{
    const struct http_loop_config *config = &loop->config;
    switch (source) {
    case LOOP_HTTP:
        break; /* http_run follows in any case */
    case LOOP_LISTENER:
        FAILPOINT("http_clients_wait");
        loop->clients_wait = true; /* after http_run: who has left makes room for them */
        break;
    case LOOP_DOOR:
        /* it may replace the socket; closing a shared one would leave it in our set */
        stop_listening(loop);
        handover_run(config->handover, clk_monotonic_ms());
        break;
    case LOOP_WRITER:
        http_return(config->http, writer_collect(config->writer));
        if (writer_state(config->writer) != loop->writer_state) {
            loop->writer_state = writer_state(config->writer);
            backend_follow(config->backend);
        }
        break;
    case LOOP_REPLICATOR:
        clear_event(replicator_event_fd(config->replicator));
        writer_poke(config->writer);
        backend_follow(config->backend);
        break;
    case LOOP_HEALTH:
        answer_health(loop);
        break;
    case LOOP_STOP:
        clear_event(loop->stop_fd);
        loop->stop_asked = true;
        break;
    }
}

/* ---- one round ---- */

/* Hands over what was gathered, or says how long (us) to wait for more before that. */
static int64_t flush_or_linger(struct http_loop *loop)
{
    struct http_load load = http_get_load(loop->config.http);
    if (load.gathered == 0) {
        loop->gathered_since_us = 0;
        return -1;
    }
    int64_t now_us = clk_monotonic_us();
    if (loop->gathered_since_us == 0) {
        loop->gathered_since_us = now_us;
    }
    int64_t left_us = loop->gathered_since_us + LOOP_LINGER_US - now_us;
    if (load.away == 0 && load.gathered < load.recent_peak && left_us > 0 &&
        loop->phase == LOOP_SERVES) {
        return left_us;
    }
    http_flush(loop->config.http);
    loop->gathered_since_us = 0;
    return -1;
}

/*
 * Of those who wait for a shared socket one is woken per client; if that one stands still or dies before it
 * accepts, nobody else hears of the client. So we also look without being woken, once per sweep.
 */
static bool looks_unasked(const struct http_loop *loop)
{
    return loop->listening_fd >= 0 && loop->config.listener->shared;
}

/* How long to sleep until something happens, in us. */
static int64_t wait_us(struct http_loop *loop, bool more, int64_t now_ms)
{
    if (more) {
        return 0;
    }
    if (http_get_load(loop->config.http).away > 0) {
        return LOOP_PENDING_WAIT_US;
    }
    int64_t wait = LOOP_IDLE_WAIT_US;
    int timeout_ms = http_timeout_ms(loop->config.http);
    if ((int64_t)timeout_ms * 1000 < wait) {
        wait = (int64_t)timeout_ms * 1000;
    }
    if ((http_connections(loop->config.http) > 0 || looks_unasked(loop)) &&
        (loop->next_sweep_ms - now_ms) * 1000 < wait) {
        wait = loop->next_sweep_ms > now_ms ? (loop->next_sweep_ms - now_ms) * 1000 : 0;
    }
    if (loop->phase != LOOP_SERVES && wait > 10000) {
        wait = 10000;
    }
    if (!loop->settled && wait > LOOP_PENDING_WAIT_US) {
        wait = LOOP_PENDING_WAIT_US;
    } else if (wait > LOOP_CLOSED_WAIT_US &&
               (loop->listening_fd < 0 || (loop->config.handover != NULL && !loop->able))) {
        wait = LOOP_CLOSED_WAIT_US;
    }
    return wait;
}

static void wait_for_events(struct http_loop *loop, int64_t for_us)
{
    struct epoll_event events[LOOP_EVENTS_MAX];
    struct timespec timeout = {for_us / 1000000, (long)(for_us % 1000000) * 1000L};
    int count = epoll_pwait2(loop->epoll_fd, events, LOOP_EVENTS_MAX, &timeout, NULL);
    if (count < 0 && errno == ENOSYS) { /* Linux before 5.11: no waits below a millisecond */
        count = epoll_wait(loop->epoll_fd, events, LOOP_EVENTS_MAX, (int)(for_us / 1000));
    }
    for (int i = 0; i < count; i++) {
        handle_event(loop, (enum loop_source)events[i].data.u32);
    }
    if (loop->stop_asked) {
        loop->stop_asked = false;
        begin_stop(loop);
    }
}

/* Runs HTTP until it has nothing to do at once, or for a while; true: there is more to do at once. */
static bool run_http(struct http_loop *loop, int64_t now_ms)
{
    bool more = true;
    for (unsigned i = 0; more && i < LOOP_RUNS_MAX; i++) {
        more = http_run(loop->config.http, now_ms);
    }
    if (loop->clients_wait && loop->open && http_may_accept(loop->config.http)) {
        http_accept(loop->config.http, now_ms);
        more = true;
    }
    loop->clients_wait = false;
    return more;
}

/* Also goes on from one phase of the stop to the next. */
static bool is_finished(struct http_loop *loop, int64_t now_ms)
{
    if (loop->phase == LOOP_SERVES) {
        return false;
    }
    if (loop->phase == LOOP_LINGERS) {
        if (now_ms >= loop->phase_deadline_ms || atomic_load(&loop->cut_short)) {
            begin_leaving(loop);
        }
        return false;
    }
    int64_t quiet_ms = loop->phase == LOOP_PASSES ? LOOP_PASS_QUIET_MS : LOOP_DRAIN_LINGER_MS;
    bool over = http_is_drained(loop->config.http, now_ms, quiet_ms) ||
                now_ms >= loop->phase_deadline_ms || atomic_load(&loop->cut_short);
    if (over && loop->phase == LOOP_PASSES && http_connections(loop->config.http) > 0) {
        begin_drain(loop); /* the rest cannot be passed */
        over = atomic_load(&loop->cut_short);
    }
    return over;
}

/* What is still away at the writer must come back: its jobs live in our records. */
static void collect_rest(struct http_loop *loop)
{
    http_end_inserts(loop->config.http);
    http_flush(loop->config.http);
    while (http_get_load(loop->config.http).away > 0) {
        wait_for_events(loop, LOOP_PENDING_WAIT_US);
    }
    (void)run_http(loop, clk_monotonic_ms()); /* and is answered where the client still listens */
    http_cut_rest(loop->config.http);
}

static void *http_thread_main(void *arg)
{
    struct http_loop *loop = arg;
    (void)pthread_setname_np(pthread_self(), "http");
    loop->begun_ms = clk_monotonic_ms();
    backend_follow(loop->config.backend);
    keep_health_socket(loop);
    for (;;) {
        int64_t now_ms = clk_monotonic_ms();
        decide_to_open(loop, now_ms);
        bool more = run_http(loop, now_ms);
        keep_listening(loop);
        int64_t linger_us = flush_or_linger(loop);
        if (is_finished(loop, now_ms)) {
            break;
        }
        if (now_ms >= loop->next_sweep_ms) {
            loop->next_sweep_ms = now_ms + LOOP_SWEEP_MS;
            http_sweep(loop->config.http, now_ms);
            keep_health_socket(loop);
            loop->clients_wait = looks_unasked(loop);
            more = more || loop->clients_wait;
            backend_follow(loop->config.backend);
        }
        if (linger_us > 0 && !more) {
            /* blind: to be woken for each request costs more than what the requests gain by it */
            clk_pause_us(linger_us < LOOP_LINGER_STEP_US ? linger_us : LOOP_LINGER_STEP_US);
            more = true;
        }
        wait_for_events(loop, wait_us(loop, more, now_ms));
    }
    collect_rest(loop);
    log_info("http", "drained  connections_passed=%u connections_cut=%u",
             http_count_passed(loop->config.http), http_connections(loop->config.http));
    backend_close_reader(loop->config.backend);
    health_close(&loop->health);
    return NULL;
}

/* ---- public ---- */

enum rc http_loop_create(const struct http_loop_config *config, struct http_loop **loop,
                         struct err *err)
{
    struct http_loop *made = calloc(1, sizeof *made);
    *loop = NULL;
    if (made == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the http thread");
    }
    made->config = *config;
    made->health = (struct health)HEALTH_INIT;
    made->listening_fd = -1;
    made->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    made->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    enum rc rc = RC_OK;
    if (made->epoll_fd < 0 || made->stop_fd < 0) {
        rc = err_set_errno(err, RC_IO, "epoll or eventfd");
    }
    if (rc == RC_OK) {
        rc = watch(made, http_epoll_fd(config->http), LOOP_HTTP, err);
    }
    if (rc == RC_OK) {
        rc = watch(made, writer_event_fd(config->writer), LOOP_WRITER, err);
    }
    if (rc == RC_OK) {
        rc = watch(made, replicator_event_fd(config->replicator), LOOP_REPLICATOR, err);
    }
    if (rc == RC_OK) {
        rc = watch(made, made->stop_fd, LOOP_STOP, err);
    }
    if (rc != RC_OK) {
        http_loop_destroy(made);
        made = NULL;
    }
    *loop = made;
    return rc;
}

void http_loop_destroy(struct http_loop *loop)
{
    if (loop != NULL) {
        ASSERT(!loop->started);
        if (loop->epoll_fd >= 0) {
            (void)close(loop->epoll_fd);
        }
        if (loop->stop_fd >= 0) {
            (void)close(loop->stop_fd);
        }
        free(loop);
    }
}

enum rc http_loop_start(struct http_loop *loop, struct err *err)
{
    int failure = pthread_create(&loop->thread, NULL, http_thread_main, loop);
    if (failure != 0) {
        errno = failure;
        return err_set_errno(err, RC_NOMEM,
                             "cannot start the http thread (a limit of memory or threads?)");
    }
    loop->started = true;
    return RC_OK;
}

void http_loop_stop(struct http_loop *loop, bool now)
{
    const uint64_t one = 1;
    backend_begin_stop(loop->config.backend);
    writer_be_brief(loop->config.writer);
    if (now) {
        atomic_store(&loop->cut_short, true);
    }
    ssize_t written = write(loop->stop_fd, &one, sizeof one);
    ASSERT(written == sizeof one || errno == EAGAIN);
}

void http_loop_join(struct http_loop *loop)
{
    if (loop->started) {
        (void)pthread_join(loop->thread, NULL);
        loop->started = false;
    }
}
