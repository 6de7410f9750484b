/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_client: see door_client.h. The descriptor handed out is an epoll set of our own that holds
 * the door's socket and a timer for the next try, so the caller's loop never sees either change.
 */
#include "door/door_client.h"

#include "base/backoff.h"
#include "base/clk.h"
#include "door/door_protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

/* A restarted door is found again quickly; one that stays away costs a connect per second. */
#define RETRY_FIRST_MS 20
#define RETRY_CAP_MS 1000

struct door_client {
    int epoll_fd;
    int timer_fd;
    int socket_fd;   /* -1: not connected */
    int listener_fd; /* our own copy, kept to hand it to a restarted door; -1: none yet */
    bool joined;     /* this connection has a listener on both sides */
    bool leaving;    /* adopts nothing more */
    bool told;       /* the door at the other end knows */
    bool paused;     /* stays away from the door */
    bool wants_room; /* a send found the queue full */
    bool due;        /* the moment to try to connect has come */
    struct backoff backoff;
    struct err last_failure; /* of connecting, for door_client_join */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

static enum rc set_timer(struct door_client *client, int64_t after_ms, struct err *err)
{
    struct itimerspec spec = {
        .it_value = {.tv_sec = after_ms / 1000, .tv_nsec = after_ms % 1000 * 1000000}};

    if (timerfd_settime(client->timer_fd, 0, &spec, NULL) < 0) {
        return err_set_errno(err, RC_IO, "timerfd_settime");
    }
    return RC_OK;
}

static enum rc watch(struct door_client *client, int operation, int fd, uint32_t events,
                     struct err *err)
{
    struct epoll_event event = {.events = events, .data.fd = fd};

    if (epoll_ctl(client->epoll_fd, operation, fd, &event) < 0) {
        return err_set_errno(err, RC_IO, "epoll_ctl");
    }
    return RC_OK;
}

static void disconnect(struct door_client *client)
{
    if (client->socket_fd >= 0) {
        close(client->socket_fd);
    }
    client->socket_fd = -1;
    client->joined = false;
    client->told = false;
    client->wants_room = false;
}

/* Not connected: try again later. A leaver too: it has connections to pass on. */
static enum rc retry_later(struct door_client *client, struct err *err)
{
    disconnect(client);
    return set_timer(client, backoff_next_ms(&client->backoff), err);
}

enum rc door_client_create(const char *socket_path, struct door_client **client, struct err *err)
{
    struct door_client *made = calloc(1, sizeof *made);
    enum rc rc = RC_OK;

    *client = NULL;
    if (made == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a door client");
    }
    made->timer_fd = made->socket_fd = made->listener_fd = -1;
    made->due = true;
    backoff_init(&made->backoff, RETRY_FIRST_MS, RETRY_CAP_MS);
    made->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (strlen(socket_path) >= sizeof made->path) {
        rc = err_set(err, RC_INVALID, "%s: longer than a socket's path may be (%zu)", socket_path,
                     sizeof made->path - 1);
        goto done;
    }
    memcpy(made->path, socket_path, strlen(socket_path) + 1);
    made->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (made->epoll_fd < 0 || made->timer_fd < 0) {
        rc = err_set_errno(err, RC_IO, "epoll_create1, timerfd_create");
        goto done;
    }
    rc = watch(made, EPOLL_CTL_ADD, made->timer_fd, EPOLLIN, err);
    if (rc == RC_OK) {
        rc = set_timer(made, 1, err); /* wakes the caller's loop for the first try */
    }
done:
    if (rc == RC_OK) {
        *client = made;
        made = NULL;
    }
    door_client_destroy(made);
    return rc;
}

void door_client_destroy(struct door_client *client)
{
    if (client == NULL) {
        return;
    }
    const int fds[] = {client->socket_fd, client->listener_fd, client->timer_fd, client->epoll_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    free(client);
}

int door_client_get_fd(const struct door_client *client)
{
    return client->epoll_fd;
}

bool door_client_is_joined(const struct door_client *client)
{
    return client->joined;
}

const char *door_client_get_failure(const struct door_client *client)
{
    return client->last_failure.text;
}

static enum rc say_hello(struct door_client *client, struct err *err)
{
    struct door_message hello = {.type = DOOR_MESSAGE_HELLO};

    if (client->listener_fd >= 0) {
        hello.flags = DOOR_FLAG_HAS_LISTENER;
    }
    return door_message_send(client->socket_fd, &hello, -1, err);
}

/* One try to reach the door. Failing is normal and remembered, not returned. */
static enum rc try_connect(struct door_client *client, struct err *err)
{
    enum rc rc = door_socket_connect(client->path, &client->socket_fd, &client->last_failure);

    client->due = false;
    if (rc == RC_OK) {
        rc = watch(client, EPOLL_CTL_ADD, client->socket_fd, EPOLLIN, &client->last_failure);
    }
    if (rc == RC_OK) {
        rc = say_hello(client, &client->last_failure);
    }
    return rc == RC_OK ? RC_OK : retry_later(client, err);
}

static bool is_same_socket(int a, int b)
{
    struct stat left;
    struct stat right;

    return a >= 0 && b >= 0 && fstat(a, &left) == 0 && fstat(b, &right) == 0 &&
           left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

static enum rc say_leaving(struct door_client *client, struct err *err)
{
    const struct door_message leaving = {.type = DOOR_MESSAGE_LEAVING};

    if (client->told) {
        return RC_OK;
    }
    enum rc rc = door_message_send(client->socket_fd, &leaving, -1, err);
    client->told = rc == RC_OK;
    return rc;
}

/* There is a door again, and both sides have the listener. A leaver may go on passing. */
static enum rc finish_joining(struct door_client *client, struct door_event *event, struct err *err)
{
    client->joined = true;
    backoff_reset(&client->backoff);
    if (!client->leaving) {
        return RC_OK;
    }
    event->kind = DOOR_EVENT_ROOM;
    return say_leaving(client, err);
}

/* Takes `fd`. The caller gets a copy, unless it has this very socket or wants none any more. */
static enum rc take_listener(struct door_client *client, int fd, struct door_event *event,
                             struct err *err)
{
    if (client->leaving || is_same_socket(fd, client->listener_fd)) {
        close(fd);
        return client->joined ? RC_OK : finish_joining(client, event, err);
    }
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) {
        enum rc rc = err_set_errno(err, RC_IO, "no descriptor for the listener");
        close(fd);
        return rc;
    }
    if (client->listener_fd >= 0) {
        close(client->listener_fd);
    }
    client->listener_fd = fd;
    *event = (struct door_event){.kind = DOOR_EVENT_LISTENER, .fd = copy};
    return finish_joining(client, event, err);
}

/* The door was restarted and could not bind: our copy is the socket that is in its way. */
static enum rc give_listener(struct door_client *client, struct door_event *event, struct err *err)
{
    const struct door_message message = {.type = DOOR_MESSAGE_LISTENER};

    if (client->listener_fd < 0) {
        return RC_OK; /* it asks others too */
    }
    enum rc rc = door_message_send(client->socket_fd, &message, client->listener_fd, err);
    return rc == RC_OK ? finish_joining(client, event, err) : rc;
}

/*
 * Takes `fd`. Confirmed first: what the door does not know to be ours it gives to another. A door
 * that has ended gives nothing to anybody: then it is ours without being confirmed.
 */
static enum rc adopt(struct door_client *client, uint32_t number, int fd, struct door_event *event,
                     struct err *err)
{
    const struct door_message adopted = {.type = DOOR_MESSAGE_ADOPTED, .number = number};

    if (client->leaving) {
        close(fd); /* our reference only: the door has its own */
        return RC_OK;
    }
    if (client->listener_fd < 0) {
        close(fd);
        return err_set(err, RC_INVALID, "the door sent a connection before the listener");
    }
    enum rc rc = door_message_send(client->socket_fd, &adopted, -1, err);
    if (rc != RC_OK && rc != RC_UNAVAILABLE) {
        close(fd);
        return rc;
    }
    *event = (struct door_event){.kind = DOOR_EVENT_CONN, .fd = fd};
    return RC_OK; /* the next receive finds out whether the door is still there */
}

static enum rc take_message(struct door_client *client, const struct door_message *message, int fd,
                            struct door_event *event, struct err *err)
{
    switch (message->type) {
    case DOOR_MESSAGE_LISTENER:
        return take_listener(client, fd, event, err);
    case DOOR_MESSAGE_CONN:
        return adopt(client, message->number, fd, event, err);
    case DOOR_MESSAGE_WANT_LISTENER:
        return give_listener(client, event, err);
    case DOOR_MESSAGE_HELLO:
    case DOOR_MESSAGE_ADOPTED:
    case DOOR_MESSAGE_LEAVING:
    case DOOR_MESSAGE_HEALTH:
        break;
    }
    return err_set(err, RC_INVALID, "the door sent message type %d", (int)message->type);
}

/* Receives until there is an event or nothing more. Any failure means: this door is lost. */
static enum rc receive(struct door_client *client, struct door_event *event, struct err *err)
{
    enum rc rc = RC_OK;

    while (rc == RC_OK && event->kind == DOOR_EVENT_NONE) {
        struct door_message message;
        int fd = -1;
        rc = door_message_receive(client->socket_fd, &message, &fd, err);
        if (rc == RC_OK) {
            rc = take_message(client, &message, fd, event, err);
        }
    }
    return rc == RC_NOT_FOUND ? RC_OK : rc;
}

static enum rc take_timer(struct door_client *client, struct err *err)
{
    uint64_t expirations = 0;

    if (read(client->timer_fd, &expirations, sizeof expirations) == (ssize_t)sizeof expirations) {
        client->due = client->socket_fd < 0 && !client->paused;
    } else if (errno != EAGAIN) {
        return err_set_errno(err, RC_IO, "timerfd");
    }
    return RC_OK;
}

/* The queue that was full: has it room again? */
static enum rc look_for_room(struct door_client *client, struct door_event *event, struct err *err)
{
    struct pollfd ready = {.fd = client->socket_fd, .events = POLLOUT};

    if (poll(&ready, 1, 0) <= 0 || (ready.revents & POLLOUT) == 0) {
        return RC_OK;
    }
    client->wants_room = false;
    event->kind = DOOR_EVENT_ROOM;
    return watch(client, EPOLL_CTL_MOD, client->socket_fd, EPOLLIN, err);
}

enum rc door_client_next(struct door_client *client, struct door_event *event, struct err *err)
{
    *event = (struct door_event){.kind = DOOR_EVENT_NONE, .fd = -1};
    enum rc rc = take_timer(client, err);
    if (rc == RC_OK && client->due) {
        rc = try_connect(client, err);
    }
    if (rc != RC_OK || client->socket_fd < 0) {
        return rc;
    }
    rc = receive(client, event, err);
    if (rc == RC_OK && event->kind == DOOR_EVENT_NONE && client->wants_room) {
        rc = look_for_room(client, event, err);
    }
    if (rc == RC_OK) {
        return RC_OK;
    }
    /* Only a fresh process could do better: look for the next door. */
    struct err reason = *err;
    event->kind = DOOR_EVENT_LOST;
    rc = retry_later(client, err);
    if (rc == RC_OK) {
        *err = reason;
    }
    return rc;
}

enum rc door_client_join(struct door_client *client, int timeout_ms, int *listener_fd,
                         struct err *err)
{
    int64_t deadline_ms = clk_monotonic_ms() + timeout_ms;
    struct pollfd ready = {.fd = client->epoll_fd, .events = POLLIN};
    struct door_event event;

    *listener_fd = -1;
    for (;;) {
        enum rc rc = door_client_next(client, &event, err);
        if (rc != RC_OK) {
            return rc;
        }
        ASSERT(event.kind != DOOR_EVENT_CONN); /* the door sends the listener first */
        if (event.kind == DOOR_EVENT_LISTENER) {
            *listener_fd = event.fd;
            return RC_OK;
        }
        int64_t left_ms = deadline_ms - clk_monotonic_ms();
        if (left_ms <= 0) {
            return err_set(err, RC_TIMEOUT, "no listener from the door at %s: %.300s", client->path,
                           client->socket_fd >= 0 ? "it has none yet" : client->last_failure.text);
        }
        if (event.kind == DOOR_EVENT_NONE && poll(&ready, 1, (int)left_ms) < 0 && errno != EINTR) {
            return err_set_errno(err, RC_IO, "poll");
        }
    }
}

enum rc door_client_pause(struct door_client *client, struct err *err)
{
    if (client->paused || client->leaving) {
        return RC_OK;
    }
    if (client->joined) {
        struct err ignored = ERR_INIT; /* a door that cannot be told sees the socket's end */
        (void)!say_leaving(client, &ignored);
    }
    client->paused = true;
    client->due = false;
    disconnect(client);
    return set_timer(client, 0, err);
}

enum rc door_client_resume(struct door_client *client, struct err *err)
{
    if (!client->paused) {
        return RC_OK;
    }
    client->paused = false;
    backoff_reset(&client->backoff);
    return set_timer(client, 1, err);
}

enum rc door_client_leave(struct door_client *client, struct err *err)
{
    client->leaving = true;
    if (door_client_resume(client, err) != RC_OK) {
        return err->rc;
    }
    if (!client->joined) {
        return err_set(err, RC_UNAVAILABLE, "no door at %s", client->path);
    }
    return say_leaving(client, err);
}

enum rc door_client_send_conn(struct door_client *client, int fd, struct err *err)
{
    const struct door_message message = {.type = DOOR_MESSAGE_CONN};

    if (!client->joined) {
        return err_set(err, RC_UNAVAILABLE, "no door at %s", client->path);
    }
    enum rc rc = door_message_send(client->socket_fd, &message, fd, err);
    if (rc == RC_BUSY && !client->wants_room) {
        client->wants_room = true;
        struct err watch_err = ERR_INIT;
        if (watch(client, EPOLL_CTL_MOD, client->socket_fd, EPOLLIN | EPOLLOUT, &watch_err) !=
            RC_OK) {
            *err = watch_err;
            return watch_err.rc;
        }
    }
    return rc;
}
