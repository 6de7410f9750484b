/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_hall: see door_hall.h and, for the conversation, door_protocol.h. Here: life, events, and the way of
 * connections; door_members.c has the apps.
 *
 * A connection's way: CONN from a leaver -> parking -> (at once, if there is an app with room) CONN
 * to that app, its descriptor kept in `sent` -> ADOPTED: our copy is closed. If the app goes
 * before that, the descriptor returns to the parking.
 */
#include "door/door_hall.h"

#include "base/clk.h"
#include "base/log.h"
#include "door/door_hall_internal.h"
#include "door/door_listener.h"
#include "door/door_protocol.h"
#include "door/door_socket.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#define EVENTS_PER_ROUND 64
#define LAST_ROUNDS_MAX 64 /* of hearing an app, before the door stops */
#define BIND_RETRY_MS 200  /* while somebody else has the address */
#define STALL_RETRY_MS 20
#define REPEAT_LOG_MS 10000 /* the same complaint at most that often */

/* ---- small things ---- */

/* True at most once per REPEAT_LOG_MS. */
bool door_hall_may_complain(struct door_hall *hall)
{
    int64_t now_ms = clk_monotonic_ms();

    if (hall->complained_ms != 0 && now_ms - hall->complained_ms < REPEAT_LOG_MS) {
        return false;
    }
    hall->complained_ms = now_ms;
    return true;
}

void door_hall_park(struct door_hall *hall, int fd)
{
    struct err err = ERR_INIT;

    if (door_parking_add(hall->parking, fd, &err) != RC_OK && door_hall_may_complain(hall)) {
        log_error("door", "connection closed: %s", err.text);
    }
}

/* ---- the listener ---- */

/* RC_OK also when the address is taken: then an app is expected to have our old socket. */
static enum rc try_bind(struct door_hall *hall, struct err *err)
{
    int fd = -1;
    enum rc rc = door_listener_open(&hall->config->listen, hall->config->listen_bytes, &fd, err);

    if (rc == RC_OK) {
        door_members_hold_listener(hall, fd, "bound");
    } else if (rc == RC_BUSY) {
        if (door_hall_may_complain(hall)) {
            log_warn("door", "address taken, asking joining apps for its listener address=%s",
                     hall->config->listen_text);
        }
        rc = RC_OK;
    }
    return rc;
}

/* ---- connections ---- */

/* The app with the fewest connections on their way; among equals they take turns. */
static struct member *find_app(struct door_hall *hall)
{
    struct member *best = NULL;

    for (uint32_t i = 0; i < DOOR_MEMBERS_MAX; i++) {
        struct member *member = &hall->members[(hall->turn + i) % DOOR_MEMBERS_MAX];
        if (member->state == MEMBER_JOINED && door_members_under_way(member) < DOOR_WINDOW &&
            (best == NULL || door_members_under_way(member) < door_members_under_way(best))) {
            best = member;
        }
    }
    if (best != NULL) {
        hall->turn = (door_members_index(hall, best) + 1) % DOOR_MEMBERS_MAX;
    }
    return best;
}

/* False when the app cannot take it now; `fd` is the caller's still. */
static bool hand_over(struct door_hall *hall, struct member *app, int fd)
{
    const struct door_message message = {.type = DOOR_MESSAGE_CONN, .number = app->sent_no + 1};
    struct err err = ERR_INIT;
    enum rc rc = door_message_send(app->fd, &message, fd, &err);

    if (rc == RC_OK) {
        app->sent_no++;
        app->sent[app->sent_no % DOOR_WINDOW] = fd;
        return true;
    }
    if (rc != RC_BUSY) {
        door_members_take_send_failure(hall, app, rc, err.text);
    }
    return false;
}

/*
 * Parked connections to apps, as long as there are both. An app that cannot be sent to although
 * its window is open (the kernel's limits, not ours) ends the round.
 */
static void spread(struct door_hall *hall)
{
    struct member *app = NULL;

    hall->stalled = false;
    while (door_parking_count(hall->parking) > 0 && (app = find_app(hall)) != NULL) {
        int fd = door_parking_take(hall->parking);
        if (!hand_over(hall, app, fd)) {
            door_hall_park(hall, fd);
            hall->stalled = app->state == MEMBER_JOINED;
            if (hall->stalled) {
                break;
            }
        }
    }
    door_parking_watch(hall->parking);
}

/* ---- life ---- */

static enum rc raise_descriptor_limit(struct err *err)
{
    const rlim_t wanted =
        DOOR_PARKED_MAX + DOOR_MEMBERS_MAX * (DOOR_WINDOW + 1) + DOOR_DESCRIPTORS_SPARE;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return err_set_errno(err, RC_IO, "getrlimit");
    }
    if (limit.rlim_max < wanted) {
        return err_set(err, RC_LIMIT,
                       "the door needs %llu descriptors, allowed are %llu (compose: "
                       "ulimits.nofile; systemd: LimitNOFILE)",
                       (unsigned long long)wanted, (unsigned long long)limit.rlim_max);
    }
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = wanted;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
            return err_set_errno(err, RC_IO, "setrlimit");
        }
    }
    return RC_OK;
}

enum rc door_hall_create(const struct door_config *config, struct door_hall **hall, struct err *err)
{
    struct door_hall *made = calloc(1, sizeof *made);

    *hall = NULL;
    if (made == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the door");
    }
    made->config = config;
    made->socket_fd = made->lock_fd = made->listener_fd = -1;
    for (size_t i = 0; i < DOOR_MEMBERS_MAX; i++) {
        made->members[i].fd = -1;
    }
    made->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    enum rc rc = made->epoll_fd >= 0 ? RC_OK : err_set_errno(err, RC_IO, "epoll_create1");
    if (rc == RC_OK) {
        rc = raise_descriptor_limit(err);
    }
    if (rc == RC_OK) {
        rc = door_parking_create(made->epoll_fd, DOOR_TAG_PARKED,
                                 config->parked_max + (uint32_t)(DOOR_MEMBERS_MAX * DOOR_WINDOW),
                                 &made->parking, err);
    }
    if (rc == RC_OK) {
        rc = door_socket_open(config->socket_path, config->uid != geteuid(), &made->lock_fd,
                              &made->socket_fd, err);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = DOOR_TAG_SOCKET};
    if (rc == RC_OK && epoll_ctl(made->epoll_fd, EPOLL_CTL_ADD, made->socket_fd, &event) < 0) {
        rc = err_set_errno(err, RC_IO, "epoll_ctl");
    }
    if (rc == RC_OK) {
        rc = try_bind(made, err);
    }
    if (rc == RC_OK) {
        *hall = made;
        made = NULL;
    }
    door_hall_destroy(made);
    return rc;
}

/* What apps had already said when we were told to stop still counts: a leaver may be among them. */
static void hear_last_words(struct door_hall *hall)
{
    for (size_t i = 0; i < DOOR_MEMBERS_MAX; i++) {
        struct member *member = &hall->members[i];
        bool more = member->state != MEMBER_ABSENT;
        for (int round = 0; more && round < LAST_ROUNDS_MAX; round++) {
            more = door_members_listen_to(hall, member);
        }
    }
    spread(hall);
}

void door_hall_destroy(struct door_hall *hall)
{
    if (hall == NULL) {
        return;
    }
    if (hall->socket_fd >= 0) {
        (void)unlink(hall->config->socket_path); /* before the lock is given up */
        hear_last_words(hall);
        if (door_parking_count(hall->parking) > 0) {
            log_warn("door", "stopping with connections that no app has taken parked=%u",
                     door_parking_count(hall->parking));
        }
    }
    for (size_t i = 0; i < DOOR_MEMBERS_MAX; i++) {
        struct member *member = &hall->members[i];
        door_members_release_sent(hall, member, false); /* it lies in the app's queue */
        if (member->fd >= 0) {
            close(member->fd);
        }
    }
    door_parking_destroy(hall->parking);
    const int fds[] = {hall->socket_fd, hall->listener_fd, hall->epoll_fd, hall->lock_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    free(hall);
}

int door_hall_get_fd(const struct door_hall *hall)
{
    return hall->held_up ? -1 : hall->epoll_fd;
}

int door_hall_get_timeout_ms(const struct door_hall *hall)
{
    if (hall->stalled || hall->held_up) {
        return STALL_RETRY_MS;
    }
    return hall->listener_fd < 0 ? BIND_RETRY_MS : -1;
}

static void take_event(struct door_hall *hall, uint64_t data)
{
    uint32_t index = (uint32_t)data;

    switch (data & DOOR_TAG_MASK) {
    case DOOR_TAG_SOCKET:
        door_members_accept(hall);
        break;
    case DOOR_TAG_MEMBER:
        if (index < DOOR_MEMBERS_MAX && hall->members[index].state != MEMBER_ABSENT) {
            (void)door_members_listen_to(hall,
                                         &hall->members[index]); /* more: the next round's event */
        }
        break;
    case DOOR_TAG_PARKED:
        door_parking_look(hall->parking, index);
        break;
    default:
        break;
    }
}

enum rc door_hall_work(struct door_hall *hall, struct err *err)
{
    struct epoll_event events[EVENTS_PER_ROUND];
    enum rc rc = RC_OK;
    int count = epoll_wait(hall->epoll_fd, events, EVENTS_PER_ROUND, 0);

    hall->held_up = false;

    if (count < 0 && errno != EINTR) {
        return err_set_errno(err, RC_IO, "epoll_wait");
    }
    for (int i = 0; i < count; i++) {
        take_event(hall, events[i].data.u64);
    }
    if (hall->listener_fd < 0) {
        rc = try_bind(hall, err);
    }
    spread(hall);
    return rc;
}
