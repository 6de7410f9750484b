/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_members: apps (and others at the Unix socket) come, speak and go; see door_hall_internal.h, and
 * door_protocol.h for the conversation. What comes from an app is checked; one that breaks the protocol is shown
 * out, and nothing else happens.
 */
#include "door/door_hall_internal.h"

#include "base/log.h"
#include "door/door_listener.h"
#include "door/door_protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGES_PER_ROUND 64 /* of one app, then the next has its turn */

/* ---- small things ---- */

uint32_t door_members_index(const struct door_hall *hall, const struct member *member)
{
    return (uint32_t)(member - hall->members);
}

uint32_t door_members_under_way(const struct member *member)
{
    return member->sent_no - member->adopted_no;
}

uint32_t door_members_count_apps(const struct door_hall *hall)
{
    uint32_t count = 0;

    for (size_t i = 0; i < DOOR_MEMBERS_MAX; i++) {
        count += hall->members[i].state == MEMBER_JOINED ? 1 : 0;
    }
    return count;
}

/* ---- members come and go ---- */

/* Lets go of all that is under way to it: for others, or because the app will have it. */
void door_members_release_sent(struct door_hall *hall, struct member *member, bool for_others)
{
    while (member->adopted_no != member->sent_no) {
        member->adopted_no++;
        int fd = member->sent[member->adopted_no % DOOR_WINDOW];
        if (for_others) {
            door_hall_park(hall, fd);
        } else {
            close(fd);
        }
    }
}

/*
 * Ends the conversation. What an app that is `gone` has not adopted goes to others; one that we
 * show out still finds it in its queue, and keeps it.
 */
static void show_out(struct door_hall *hall, struct member *member, bool gone, const char *why)
{
    uint32_t returned = gone ? door_members_under_way(member) : 0;

    door_members_release_sent(hall, member, gone);
    close(member->fd);
    if (member->state != MEMBER_NEW) {
        enum member_state was = member->state;
        member->state = MEMBER_ABSENT;
        log_info("door",
                 "app gone app=%u left=%s passed=%" PRIu64 " returned=%u apps=%u parked=%u "
                 "reason=\"%s\"",
                 door_members_index(hall, member), was == MEMBER_LEAVING ? "orderly" : "abruptly",
                 member->passed_count, returned, door_members_count_apps(hall),
                 door_parking_count(hall->parking), why);
    }
    *member = (struct member){.state = MEMBER_ABSENT, .fd = -1};
}

/*
 * Sending failed. An app that is gone may have said a lot before it went, connections among it: it
 * is given nothing more, and heard to the end.
 */
void door_members_take_send_failure(struct door_hall *hall, struct member *member, enum rc rc,
                                    const char *why)
{
    if (rc == RC_UNAVAILABLE) {
        member->state = MEMBER_LEAVING;
    } else {
        show_out(hall, member, false, why);
    }
}

static bool is_allowed(const struct door_hall *hall, int fd)
{
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t peer_bytes = sizeof peer;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) < 0 ||
        (peer.uid != geteuid() && peer.uid != hall->config->uid)) {
        log_warn("door", "peer refused uid=%u", peer.uid);
        return false;
    }
    return true;
}

static struct member *find_free_slot(struct door_hall *hall)
{
    for (size_t i = 0; i < DOOR_MEMBERS_MAX; i++) {
        if (hall->members[i].state == MEMBER_ABSENT) {
            return &hall->members[i];
        }
    }
    return NULL;
}

static void let_in(struct door_hall *hall, int fd)
{
    struct member *member = find_free_slot(hall);

    if (!is_allowed(hall, fd)) {
        close(fd);
        return;
    }
    if (member == NULL) {
        log_warn("door", "peer refused: %d are here already", DOOR_MEMBERS_MAX);
        close(fd);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN,
                                .data.u64 = DOOR_TAG_MEMBER | door_members_index(hall, member)};
    if (epoll_ctl(hall->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        log_error("door", "peer refused: epoll_ctl errno=%d", errno);
        close(fd);
        return;
    }
    *member = (struct member){.state = MEMBER_NEW, .fd = fd};
}

/* Somebody has to wait who is announced by our epoll set again and again: so we look less often. */
static void hold_up(struct door_hall *hall, const char *why)
{
    hall->held_up = true;
    if (door_hall_may_complain(hall)) {
        log_warn("door", "%s parked=%u", why, door_parking_count(hall->parking));
    }
}

void door_members_accept(struct door_hall *hall)
{
    for (int i = 0; i < DOOR_MEMBERS_MAX; i++) {
        int fd = accept4(hall->socket_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
                hold_up(hall, "a peer must wait: accept failed");
            }
            return;
        }
        let_in(hall, fd);
    }
}

/* ---- the listener ---- */

static void give_listener(struct door_hall *hall, struct member *member)
{
    const struct door_message message = {.type = DOOR_MESSAGE_LISTENER};
    struct err err = ERR_INIT;

    enum rc rc = door_message_send(member->fd, &message, hall->listener_fd, &err);
    if (rc != RC_OK) {
        door_members_take_send_failure(hall, member, rc, err.text);
        return;
    }
    member->state = MEMBER_JOINED;
    log_info("door", "app joined app=%u apps=%u parked=%u", door_members_index(hall, member),
             door_members_count_apps(hall), door_parking_count(hall->parking));
}

static void ask_for_listener(struct door_hall *hall, struct member *member)
{
    const struct door_message message = {.type = DOOR_MESSAGE_WANT_LISTENER};
    struct err err = ERR_INIT;

    enum rc rc = door_message_send(member->fd, &message, -1, &err);
    if (rc != RC_OK) {
        door_members_take_send_failure(hall, member, rc, err.text);
    }
}

/* From here on there is a listener: whoever waited for it gets it. Takes `fd`. */
void door_members_hold_listener(struct door_hall *hall, int fd, const char *origin)
{
    char address[DOOR_ADDRESS_BYTES];

    ASSERT(hall->listener_fd < 0);
    hall->listener_fd = fd;
    hall->complained_ms = 0;
    door_listener_format_address(fd, address);
    log_info("door", "listening address=%s origin=%s", address, origin);
    for (size_t i = 0; i < DOOR_MEMBERS_MAX; i++) {
        if (hall->members[i].state == MEMBER_WAITING) {
            give_listener(hall, &hall->members[i]);
        }
    }
}

/* An app answers WANT_LISTENER. Takes `fd`. */
static enum rc take_listener(struct door_hall *hall, int fd, struct err *err)
{
    if (hall->listener_fd >= 0) {
        close(fd); /* another app was quicker, and it is the same socket */
        return RC_OK;
    }
    enum rc rc = door_listener_check(fd, &hall->config->listen, err);
    if (rc != RC_OK) {
        close(fd);
        return rc;
    }
    door_members_hold_listener(hall, fd, "app");
    return RC_OK;
}

/* ---- messages ---- */

static void take_hello(struct door_hall *hall, struct member *member,
                       const struct door_message *message)
{
    member->state = MEMBER_WAITING;
    if (hall->listener_fd >= 0) {
        give_listener(hall, member);
    } else if ((message->flags & DOOR_FLAG_HAS_LISTENER) != 0) {
        ask_for_listener(hall, member);
    }
}

static enum rc take_adopted(struct member *member, uint32_t number, struct err *err)
{
    /* Differences, not values: numbers may wrap. */
    if (number - member->adopted_no > door_members_under_way(member)) {
        return err_set(err, RC_INVALID, "adopted connection %u, sent are %u", number,
                       member->sent_no);
    }
    while (member->adopted_no != number) {
        member->adopted_no++;
        close(member->sent[member->adopted_no % DOOR_WINDOW]);
    }
    return RC_OK;
}

/* What it has not adopted by now it never will: the message says so, and messages keep order. */
static void take_leaving(struct door_hall *hall, struct member *member)
{
    member->state = MEMBER_LEAVING;
    door_members_release_sent(hall, member, true);
}

static void answer_health(struct door_hall *hall, struct member *member)
{
    struct err err = ERR_INIT;
    const struct door_message answer = {.type = DOOR_MESSAGE_HEALTH,
                                        .flags =
                                            hall->listener_fd >= 0 ? DOOR_FLAG_HAS_LISTENER : 0,
                                        .number = door_members_count_apps(hall),
                                        .count = door_parking_count(hall->parking)};

    enum rc rc = door_message_send(member->fd, &answer, -1, &err);
    if (rc != RC_OK) {
        door_members_take_send_failure(hall, member, rc, err.text);
    }
}

static enum rc refuse(const struct door_message *message, int fd, struct err *err)
{
    if (fd >= 0) {
        close(fd);
    }
    return err_set(err, RC_INVALID, "message type %d out of place", (int)message->type);
}

/* One message; `fd` is taken. An error ends the conversation. */
static enum rc take_message(struct door_hall *hall, struct member *member,
                            const struct door_message *message, int fd, struct err *err)
{
    bool is_app = member->state != MEMBER_NEW;

    if (message->type == DOOR_MESSAGE_HEALTH) {
        answer_health(hall, member);
        return RC_OK;
    }
    if (message->type == DOOR_MESSAGE_HELLO && !is_app) {
        take_hello(hall, member, message);
        return RC_OK;
    }
    if (!is_app) {
        return refuse(message, fd, err);
    }
    switch (message->type) {
    case DOOR_MESSAGE_LISTENER:
        return take_listener(hall, fd, err);
    case DOOR_MESSAGE_CONN:
        member->passed_count++;
        door_hall_park(hall, fd);
        return RC_OK;
    case DOOR_MESSAGE_ADOPTED:
        return take_adopted(member, message->number, err);
    case DOOR_MESSAGE_LEAVING:
        take_leaving(hall, member);
        return RC_OK;
    case DOOR_MESSAGE_HELLO:
    case DOOR_MESSAGE_WANT_LISTENER:
    case DOOR_MESSAGE_HEALTH:
        break;
    }
    return refuse(message, fd, err);
}

/*
 * Whether what it says can be taken. A leaver's connections are not, while there is no room for them or no
 * descriptor: the kernel would drop what finds no number. They wait in its queue and with it.
 */
static bool may_hear(struct door_hall *hall, const struct member *member)
{
    if (member->state != MEMBER_LEAVING) {
        return true;
    }
    if (door_parking_count(hall->parking) >= hall->config->parked_max) {
        hold_up(hall, "a leaver must wait: as many connections are parked as may be");
        return false;
    }
    int spare = fcntl(hall->epoll_fd, F_DUPFD_CLOEXEC, 0);
    if (spare < 0) {
        hold_up(hall, "a leaver must wait: no descriptor is left");
        return false;
    }
    close(spare);
    return true;
}

/* Hears some messages; true when there may be more. */
bool door_members_listen_to(struct door_hall *hall, struct member *member)
{
    struct err err = ERR_INIT;
    enum rc rc = RC_OK;

    for (int i = 0; i < MESSAGES_PER_ROUND && rc == RC_OK; i++) {
        struct door_message message;
        int fd = -1;
        if (member->state == MEMBER_ABSENT || !may_hear(hall, member)) {
            return false; /* shown out by what it said before; or it must wait */
        }
        rc = door_message_receive(member->fd, &message, &fd, &err);
        if (rc == RC_OK) {
            rc = take_message(hall, member, &message, fd, &err);
        }
    }
    if (rc == RC_OK || rc == RC_NOT_FOUND || member->state == MEMBER_ABSENT) {
        return rc == RC_OK;
    }
    if (rc == RC_INVALID) {
        log_warn("door", "peer shown out: %s", err.text);
    }
    show_out(hall, member, rc == RC_UNAVAILABLE, err.text);
    return false;
}
