/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of the open-loop client: see openloop_run.h.
 *
 * Planned requests are numbers: those below next_start have had a connection (or were given up),
 * from there to next_due they wait for one, the rest is not due. They are started in the order planned, so both
 * queues are ordered by deadline and a look at their heads finds the next time-out.
 */
#include "tests/bench/openloop_run.h"

#include "base/clk.h"
#include "tests/bench/openloop_conn.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define US_PER_S INT64_C(1000000)
#define EVENTS_PER_ROUND 256
/* Epoll, timer, signals, standard streams, /status, and some to spare. */
#define OTHER_DESCRIPTORS 32
/* The idle mode opens its connections before the plan starts, for at most this long. */
#define OPENING_US_MAX (10 * US_PER_S)
/* So many connects are under way at a time then: a short backlog shall not be overrun. */
#define OPENING_AT_ONCE 64
/* Then they rest for a moment: the server has accepted them all before the first request. */
#define SETTLE_US (US_PER_S / 5)

struct conn_list {
    struct openloop_conn *head;
    struct openloop_conn *tail;
};

struct run {
    const struct openloop_options *options;
    struct openloop_stats *stats;
    struct openloop_target target;
    struct openloop_conn *conns;
    struct conn_list free;   /* longest rested first; closed ones too */
    struct conn_list flying; /* with a request; earliest started first */
    int timer_fd;
    int signal_fd;
    int64_t start_us;
    int64_t planned_count; /* shrinks when a signal cuts the plan short */
    int64_t next_due;      /* number of the next request whose moment has not come */
    int64_t next_start;    /* number of the next request that has no connection yet */
    int64_t opening;       /* connects under way before the plan starts */
    bool stopped;          /* a second signal: leave at once */
};

/* What epoll hands back for the two descriptors that are no connection. */
static char timer_tag;
static char signal_tag;

static void list_append(struct conn_list *list, struct openloop_conn *conn)
{
    conn->next = NULL;
    conn->previous = list->tail;
    if (list->tail != NULL) {
        list->tail->next = conn;
    } else {
        list->head = conn;
    }
    list->tail = conn;
}

static void list_remove(struct conn_list *list, struct openloop_conn *conn)
{
    if (conn->previous != NULL) {
        conn->previous->next = conn->next;
    } else {
        list->head = conn->next;
    }
    if (conn->next != NULL) {
        conn->next->previous = conn->previous;
    } else {
        list->tail = conn->previous;
    }
    conn->next = NULL;
    conn->previous = NULL;
}

static int64_t now_us(const struct run *run)
{
    return clk_monotonic_us() - run->start_us;
}

static int64_t planned_us(const struct run *run, int64_t number)
{
    return number * US_PER_S / run->options->rate;
}

int64_t openloop_run_plan_us(const struct openloop_options *options)
{
    return options->request_count * US_PER_S / options->rate;
}

static void add_result(struct run *run, int64_t planned, int64_t finished,
                       enum openloop_outcome outcome, int status)
{
    struct openloop_result result = {
        .planned_us = planned, .finished_us = finished, .outcome = outcome, .status = status};

    openloop_stats_add(run->stats, &result);
}

static void count_replaced(struct run *run, const struct openloop_conn *conn)
{
    if (conn->replaced && !run->target.request.close) {
        run->stats->causes[conn->cause]++;
    }
}

/* The connection, now in the flying list, has nothing in flight any more. */
static void land(struct run *run, struct openloop_conn *conn)
{
    count_replaced(run, conn);
    list_remove(&run->flying, conn);
    list_append(&run->free, conn);
}

static void take_step(struct run *run, struct openloop_conn *conn, enum openloop_step step)
{
    if (conn->opening && conn->state != OPENLOOP_CONN_CONNECTING) {
        conn->opening = false;
        run->opening--;
    }
    switch (step) {
    case OPENLOOP_STEP_WAIT:
    case OPENLOOP_STEP_OPENED:
        break;
    case OPENLOOP_STEP_DONE:
        add_result(run, conn->planned_us, now_us(run), conn->outcome, conn->status);
        land(run, conn);
        break;
    case OPENLOOP_STEP_LOST:
        count_replaced(run, conn);
        break;
    }
}

/* Moves the border between "not due" and "waits for a connection" to the present. */
static void notice_due(struct run *run, int64_t now)
{
    while (run->next_due < run->planned_count) {
        int64_t planned = planned_us(run, run->next_due);
        if (planned > now) {
            break;
        }
        openloop_histogram_add(&run->stats->late_us, (uint64_t)(now - planned));
        run->next_due++;
    }
}

static void start_due(struct run *run)
{
    while (run->next_start < run->next_due && run->free.head != NULL) {
        struct openloop_conn *conn = run->free.head;
        list_remove(&run->free, conn);
        list_append(&run->flying, conn);
        run->stats->sent_count++;
        int64_t planned = planned_us(run, run->next_start);
        conn->started_us = now_us(run);
        run->next_start++;
        take_step(run, conn, openloop_conn_start(conn, &run->target, planned));
    }
}

/* Fails what its time is over for, in flight and waiting. */
static void expire(struct run *run, int64_t now)
{
    int64_t timeout_us = run->options->timeout_ms * 1000;
    struct openloop_conn *conn;

    while ((conn = run->flying.head) != NULL && conn->started_us + timeout_us <= now) {
        conn->replaced = conn->state != OPENLOOP_CONN_CONNECTING;
        conn->cause = OPENLOOP_CAUSE_FAILED;
        openloop_conn_abort(conn);
        add_result(run, conn->planned_us, now, OPENLOOP_OUTCOME_TIMEOUT, 0);
        land(run, conn);
    }
    while (run->next_start < run->next_due &&
           planned_us(run, run->next_start) + timeout_us <= now) {
        add_result(run, planned_us(run, run->next_start), now, OPENLOOP_OUTCOME_UNSENT, 0);
        run->next_start++;
    }
}

static bool is_over(const struct run *run)
{
    return run->stopped || (run->next_start >= run->planned_count && run->flying.head == NULL);
}

/* The next moment at which something happens without an event from outside. */
static int64_t next_wake_us(const struct run *run)
{
    int64_t timeout_us = run->options->timeout_ms * 1000;
    int64_t wake = INT64_MAX;

    if (run->next_due < run->planned_count) {
        wake = planned_us(run, run->next_due);
    }
    if (run->flying.head != NULL && run->flying.head->started_us + timeout_us < wake) {
        wake = run->flying.head->started_us + timeout_us;
    }
    if (run->next_start < run->next_due && planned_us(run, run->next_start) + timeout_us < wake) {
        wake = planned_us(run, run->next_start) + timeout_us;
    }
    return wake;
}

static enum rc set_timer(const struct run *run, int64_t wake_us, struct err *err)
{
    int64_t at_us = run->start_us + wake_us;
    struct itimerspec spec = {
        .it_value = {.tv_sec = at_us / US_PER_S, .tv_nsec = at_us % US_PER_S * 1000}};

    if (timerfd_settime(run->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) < 0) {
        return err_set_errno(err, RC_IO, "timerfd_settime");
    }
    return RC_OK;
}

static void take_signal(struct run *run)
{
    struct signalfd_siginfo info;

    if (read(run->signal_fd, &info, sizeof info) != (ssize_t)sizeof info) {
        return;
    }
    if (run->planned_count > run->next_due) {
        run->planned_count = run->next_due;
    } else {
        run->stopped = true;
    }
}

/* Waits for events and works through them. */
static enum rc run_round(struct run *run, struct err *err)
{
    struct epoll_event events[EVENTS_PER_ROUND];
    uint64_t expirations;
    int count = epoll_wait(run->target.epoll_fd, events, EVENTS_PER_ROUND, -1);

    if (count < 0 && errno != EINTR) {
        return err_set_errno(err, RC_IO, "epoll_wait");
    }
    for (int i = 0; i < count; i++) {
        void *tag = events[i].data.ptr;
        if (tag == &timer_tag) {
            ssize_t got = read(run->timer_fd, &expirations, sizeof expirations);
            (void)got; /* EAGAIN when the timer was moved meanwhile: fine */
        } else if (tag == &signal_tag) {
            take_signal(run);
        } else {
            struct openloop_conn *conn = tag;
            take_step(run, conn, openloop_conn_advance(conn, &run->target, events[i].events));
        }
    }
    return RC_OK;
}

/* Connects all connections, some at a time; what fails is opened later by its first request. */
static enum rc open_all(struct run *run, struct err *err)
{
    int64_t next = 0;
    int64_t deadline_us = OPENING_US_MAX;
    enum rc rc = RC_OK;

    while (rc == RC_OK && !run->stopped &&
           (next < run->options->connection_count || run->opening > 0) &&
           now_us(run) < deadline_us) {
        while (run->opening < OPENING_AT_ONCE && next < run->options->connection_count) {
            struct openloop_conn *conn = &run->conns[next++];
            conn->opening = true;
            run->opening++;
            take_step(run, conn, openloop_conn_open(conn, &run->target));
        }
        rc = set_timer(run, deadline_us, err);
        if (rc == RC_OK && run->opening > 0) {
            rc = run_round(run, err);
        }
    }
    return rc;
}

static void cut_short(struct run *run)
{
    int64_t now = now_us(run);
    struct openloop_conn *conn;

    while ((conn = run->flying.head) != NULL) {
        conn->replaced = false;
        openloop_conn_abort(conn);
        add_result(run, conn->planned_us, now, OPENLOOP_OUTCOME_UNANSWERED, 0);
        land(run, conn);
    }
    for (; run->next_start < run->next_due; run->next_start++) {
        add_result(run, planned_us(run, run->next_start), now, OPENLOOP_OUTCOME_UNSENT, 0);
    }
}

static enum rc run_plan(struct run *run, struct err *err)
{
    enum rc rc = RC_OK;
    int64_t armed_us = -1;

    int64_t rest_us = run->options->mode == OPENLOOP_MODE_IDLE ? SETTLE_US : 0;

    run->start_us = clk_monotonic_us() + rest_us;
    openloop_stats_start(run->stats, run->start_us, clk_unix_ms() + rest_us / 1000);
    while (rc == RC_OK) {
        int64_t now = now_us(run);
        notice_due(run, now);
        expire(run, now);
        start_due(run);
        if (is_over(run)) {
            break;
        }
        int64_t wake_us = next_wake_us(run);
        if (wake_us != armed_us && wake_us != INT64_MAX) {
            rc = set_timer(run, wake_us, err);
            armed_us = wake_us;
        }
        if (rc == RC_OK) {
            rc = run_round(run, err);
        }
    }
    cut_short(run);
    openloop_stats_finish(run->stats, now_us(run), planned_us(run, run->next_due));
    return rc;
}

/* The descriptor limit is raised as far as allowed; then it must do. */
static enum rc raise_descriptor_limit(int64_t connection_count, struct err *err)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)connection_count + OTHER_DESCRIPTORS;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return err_set_errno(err, RC_IO, "getrlimit");
    }
    if (limit.rlim_cur >= wanted) {
        return RC_OK;
    }
    if (limit.rlim_max < wanted) {
        return err_set(err, RC_LIMIT, "%lld connections need %llu descriptors, allowed are %llu",
                       (long long)connection_count, (unsigned long long)wanted,
                       (unsigned long long)limit.rlim_max);
    }
    limit.rlim_cur = wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return err_set_errno(err, RC_IO, "setrlimit");
    }
    return RC_OK;
}

static enum rc watch(struct run *run, int fd, char *tag, const char *what, struct err *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};

    if (fd < 0 || epoll_ctl(run->target.epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        return err_set_errno(err, RC_IO, "%s", what);
    }
    return RC_OK;
}

static enum rc open_loop(struct run *run, struct err *err)
{
    sigset_t signals;

    (void)signal(SIGPIPE, SIG_IGN);
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    /* Timers of this process shall fire when asked, not up to 50 us later. */
    (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    run->target.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (run->target.epoll_fd < 0) {
        return err_set_errno(err, RC_IO, "epoll_create1");
    }
    run->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    enum rc rc = watch(run, run->timer_fd, &timer_tag, "timerfd", err);
    if (rc == RC_OK) {
        run->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
        rc = watch(run, run->signal_fd, &signal_tag, "signalfd", err);
    }
    return rc;
}

/* The one request that is sent over and over. *text is returned (destroy with free). */
static enum rc build_request(struct run *run, char **text, struct err *err)
{
    const struct openloop_options *options = run->options;
    const char *body = options->body != NULL ? options->body : "";
    char length[48] = "";

    if (options->post) {
        (void)snprintf(length, sizeof length, "Content-Length: %zu\r\n", strlen(body));
    }
    int count = asprintf(text, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: openloop\r\n%s%s\r\n%s",
                         options->post ? "POST" : "GET", options->path, options->host, length,
                         options->mode == OPENLOOP_MODE_FRESH ? "Connection: close\r\n" : "", body);
    if (count < 0) {
        *text = NULL;
        return err_set(err, RC_NOMEM, "no memory for the request");
    }
    run->target.request = (struct openloop_request){
        .bytes = *text, .byte_count = (size_t)count, .close = options->mode == OPENLOOP_MODE_FRESH};
    return RC_OK;
}

static enum rc make_conns(struct run *run, struct err *err)
{
    size_t count = (size_t)run->options->connection_count;

    run->conns = calloc(count, sizeof *run->conns);
    if (run->conns == NULL) {
        return err_set(err, RC_NOMEM, "no memory for %zu connections", count);
    }
    for (size_t i = 0; i < count; i++) {
        openloop_conn_init(&run->conns[i]);
        list_append(&run->free, &run->conns[i]);
    }
    return RC_OK;
}

static void close_all(struct run *run)
{
    for (int64_t i = 0; run->conns != NULL && i < run->options->connection_count; i++) {
        openloop_conn_abort(&run->conns[i]);
    }
    const int fds[] = {run->timer_fd, run->signal_fd, run->target.epoll_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

enum rc openloop_run(const struct openloop_options *options, struct openloop_stats *stats,
                     struct err *err)
{
    struct run run = {
        .options = options,
        .stats = stats,
        .target = {.epoll_fd = -1, .options = options, .opened_count = &stats->opened_count},
        .timer_fd = -1,
        .signal_fd = -1,
        .start_us = clk_monotonic_us(),
        .planned_count = options->request_count};
    char *request = NULL;
    enum rc rc = raise_descriptor_limit(options->connection_count, err);

    if (rc == RC_OK) {
        rc = open_loop(&run, err);
    }
    if (rc == RC_OK) {
        rc = build_request(&run, &request, err);
    }
    if (rc == RC_OK) {
        rc = make_conns(&run, err);
    }
    if (rc == RC_OK && options->mode == OPENLOOP_MODE_IDLE) {
        rc = open_all(&run, err);
    }
    if (rc == RC_OK) {
        rc = run_plan(&run, err);
    }
    close_all(&run);
    free(run.conns);
    free(request);
    return rc;
}
