/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_hall: see door_hall.h and, for the conversation, door_protocol.h.
 *
 * A connection's way: CONN from a leaver -> parking -> (at once, if there is an app with room) CONN
 * to that app, its descriptor kept in `sent` -> ADOPTED: our copy is closed. If the app goes
 * before that, the descriptor returns to the parking. What comes from an app is checked; an app
 * that breaks the protocol is shown out, and nothing else happens.
 */
#include "door/door_hall.h"

#include "base/clk.h"
#include "base/log.h"
#include "door/door_listener.h"
#include "door/door_parking.h"
#include "door/door_protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define EVENTS_PER_ROUND 64
#define MESSAGES_PER_ROUND 64 /* of one app, then the next has its turn */
#define LAST_ROUNDS_MAX 64    /* of those, before the door stops */
#define BIND_RETRY_MS 200     /* while somebody else has the address */
#define STALL_RETRY_MS 20
#define LOCK_WAIT_MS 1000 /* for the door before us to be gone */
#define LOCK_PAUSE_MS 20
#define REPEAT_LOG_MS 10000 /* the same complaint at most that often */

/* What an epoll event is about: the high half of data.u64; the low half is an index. */
#define TAG_SOCKET (UINT64_C(1) << 32)
#define TAG_MEMBER (UINT64_C(2) << 32)
#define TAG_PARKED (UINT64_C(3) << 32)
#define TAG_MASK (UINT64_C(0xffffffff) << 32)

enum member_state {
    MEMBER_ABSENT,  /* slot is free */
    MEMBER_NEW,     /* connected, has not said what it is */
    MEMBER_WAITING, /* an app, and we have no listener to give */
    MEMBER_JOINED,
    MEMBER_LEAVING,
};

struct member {
    enum member_state state;
    int fd;
    uint32_t sent_no; /* of the last CONN */
    uint32_t adopted_no;
    int sent[DOOR_WINDOW]; /* descriptor of CONN n at n % DOOR_WINDOW, until adopted */
    uint64_t passed_count; /* connections it gave us */
};

struct door_hall {
    const struct door_config *config;
    int epoll_fd;
    int socket_fd; /* the Unix socket apps connect to */
    int lock_fd;
    int listener_fd; /* -1 while we have none */
    struct member members[DOOR_MEMBERS_MAX];
    uint32_t turn; /* where the search for the next app begins */
    struct door_parking *parking;
    bool stalled;          /* an app with an open window could not be sent to: look again soon */
    int64_t complained_ms; /* when "no room" or "address taken" was last logged; 0: never */
};

/* ---- small things ---- */

static uint32_t index_of(const struct door_hall *hall, const struct member *member)
{
    return (uint32_t)(member - hall->members);
}

static uint32_t under_way(const struct member *member)
{
    return member->sent_no - member->adopted_no;
}

static uint32_t count_apps(const struct door_hall *hall)
{
    uint32_t count = 0;

    for (size_t i = 0; i < DOOR_MEMBERS_MAX; i++) {
        count += hall->members[i].state == MEMBER_JOINED ? 1 : 0;
    }
    return count;
}

/* True at most once per REPEAT_LOG_MS. */
static bool may_complain(struct door_hall *hall)
{
    int64_t now_ms = clk_monotonic_ms();

    if (hall->complained_ms != 0 && now_ms - hall->complained_ms < REPEAT_LOG_MS) {
        return false;
    }
    hall->complained_ms = now_ms;
    return true;
}

static void park(struct door_hall *hall, int fd)
{
    struct err err = ERR_INIT;

    if (door_parking_add(hall->parking, fd, &err) != RC_OK && may_complain(hall)) {
        log_error("door", "connection closed: %s", err.text);
    }
}

/* ---- members come and go ---- */

/* Lets go of all that is under way to it: for others, or because the app will have it. */
static void release_sent(struct door_hall *hall, struct member *member, bool for_others)
{
    while (member->adopted_no != member->sent_no) {
        member->adopted_no++;
        int fd = member->sent[member->adopted_no % DOOR_WINDOW];
        if (for_others) {
            park(hall, fd);
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
    uint32_t returned = gone ? under_way(member) : 0;

    release_sent(hall, member, gone);
    close(member->fd);
    if (member->state != MEMBER_NEW) {
        enum member_state was = member->state;
        member->state = MEMBER_ABSENT;
        log_info("door",
                 "app gone app=%u left=%s passed=%" PRIu64 " returned=%u apps=%u parked=%u "
                 "reason=\"%s\"",
                 index_of(hall, member), was == MEMBER_LEAVING ? "orderly" : "abruptly",
                 member->passed_count, returned, count_apps(hall),
                 door_parking_count(hall->parking), why);
    }
    *member = (struct member){.state = MEMBER_ABSENT, .fd = -1};
}

/*
 * Sending failed. An app that is gone may have said a lot before it went, connections among it: it
 * is given nothing more, and heard to the end.
 */
static void take_send_failure(struct door_hall *hall, struct member *member, enum rc rc,
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
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = TAG_MEMBER | index_of(hall, member)};
    if (epoll_ctl(hall->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        log_error("door", "peer refused: epoll_ctl errno=%d", errno);
        close(fd);
        return;
    }
    *member = (struct member){.state = MEMBER_NEW, .fd = fd};
}

static void accept_peers(struct door_hall *hall)
{
    for (int i = 0; i < DOOR_MEMBERS_MAX; i++) {
        int fd = accept4(hall->socket_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
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
        take_send_failure(hall, member, rc, err.text);
        return;
    }
    member->state = MEMBER_JOINED;
    log_info("door", "app joined app=%u apps=%u parked=%u", index_of(hall, member),
             count_apps(hall), door_parking_count(hall->parking));
}

static void ask_for_listener(struct door_hall *hall, struct member *member)
{
    const struct door_message message = {.type = DOOR_MESSAGE_WANT_LISTENER};
    struct err err = ERR_INIT;

    enum rc rc = door_message_send(member->fd, &message, -1, &err);
    if (rc != RC_OK) {
        take_send_failure(hall, member, rc, err.text);
    }
}

/* From here on there is a listener: whoever waited for it gets it. Takes `fd`. */
static void hold_listener(struct door_hall *hall, int fd, const char *origin)
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

/* RC_OK also when the address is taken: then an app is expected to have our old socket. */
static enum rc try_bind(struct door_hall *hall, struct err *err)
{
    int fd = -1;
    enum rc rc = door_listener_open(&hall->config->listen, hall->config->listen_bytes, &fd, err);

    if (rc == RC_OK) {
        hold_listener(hall, fd, "bound");
    } else if (rc == RC_BUSY) {
        if (may_complain(hall)) {
            log_warn("door", "address taken, asking joining apps for its listener address=%s",
                     hall->config->listen_text);
        }
        rc = RC_OK;
    }
    return rc;
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
    hold_listener(hall, fd, "app");
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
    if (number - member->adopted_no > under_way(member)) {
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
    release_sent(hall, member, true);
}

static void answer_health(struct door_hall *hall, struct member *member)
{
    struct err err = ERR_INIT;
    const struct door_message answer = {.type = DOOR_MESSAGE_HEALTH,
                                        .flags =
                                            hall->listener_fd >= 0 ? DOOR_FLAG_HAS_LISTENER : 0,
                                        .number = count_apps(hall),
                                        .count = door_parking_count(hall->parking)};

    enum rc rc = door_message_send(member->fd, &answer, -1, &err);
    if (rc != RC_OK) {
        take_send_failure(hall, member, rc, err.text);
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
        park(hall, fd);
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

/* Hears some messages; true when there may be more. */
static bool listen_to(struct door_hall *hall, struct member *member)
{
    struct err err = ERR_INIT;
    enum rc rc = RC_OK;

    for (int i = 0; i < MESSAGES_PER_ROUND && rc == RC_OK; i++) {
        struct door_message message;
        int fd = -1;
        if (member->state == MEMBER_ABSENT) {
            return false; /* shown out by what it said before */
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

/* ---- connections ---- */

/* The app with the fewest connections on their way; among equals they take turns. */
static struct member *find_app(struct door_hall *hall)
{
    struct member *best = NULL;

    for (uint32_t i = 0; i < DOOR_MEMBERS_MAX; i++) {
        struct member *member = &hall->members[(hall->turn + i) % DOOR_MEMBERS_MAX];
        if (member->state == MEMBER_JOINED && under_way(member) < DOOR_WINDOW &&
            (best == NULL || under_way(member) < under_way(best))) {
            best = member;
        }
    }
    if (best != NULL) {
        hall->turn = (index_of(hall, best) + 1) % DOOR_MEMBERS_MAX;
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
        take_send_failure(hall, app, rc, err.text);
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
            park(hall, fd);
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

/*
 * One door per path, by a lock that dies with its holder, in whatever container that was. Without
 * it a second door would take the path from the first, and the apps would be divided.
 */
static enum rc lock_path(struct door_hall *hall, struct err *err)
{
    char name[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int64_t deadline_ms = clk_monotonic_ms() + LOCK_WAIT_MS;

    (void)snprintf(name, sizeof name, "%s.lock", hall->config->socket_path);
    hall->lock_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (hall->lock_fd < 0) {
        return err_set_errno(err, errno == EACCES ? RC_DENIED : RC_IO, "%s", name);
    }
    while (fcntl(hall->lock_fd, F_OFD_SETLK, &lock) < 0) {
        if (errno != EAGAIN && errno != EACCES) {
            return err_set_errno(err, RC_IO, "lock on %s", name);
        }
        if (clk_monotonic_ms() >= deadline_ms) {
            return err_set(err, RC_BUSY, "another door runs at %s", hall->config->socket_path);
        }
        clk_pause_ms(LOCK_PAUSE_MS);
    }
    return RC_OK;
}

static enum rc open_socket(struct door_hall *hall, struct err *err)
{
    const char *path = hall->config->socket_path;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* The uid is checked in any case; a foreign one allowed by configuration must get that far. */
    mode_t mode = hall->config->uid == geteuid() ? 0600 : 0666;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = TAG_SOCKET};

    if (strlen(path) >= sizeof address.sun_path) {
        return err_set(err, RC_INVALID, "HARVEY_DOOR_SOCKET=%s: longer than %zu bytes", path,
                       sizeof address.sun_path - 1);
    }
    enum rc rc = lock_path(hall, err);
    if (rc != RC_OK) {
        return rc;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    (void)unlink(path); /* a dead door's: the lock is ours */
    hall->socket_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (hall->socket_fd < 0 ||
        bind(hall->socket_fd, (const struct sockaddr *)&address, sizeof address) < 0 ||
        chmod(path, mode) < 0 || listen(hall->socket_fd, DOOR_MEMBERS_MAX) < 0 ||
        epoll_ctl(hall->epoll_fd, EPOLL_CTL_ADD, hall->socket_fd, &event) < 0) {
        return err_set_errno(err, errno == EACCES ? RC_DENIED : RC_IO, "socket at %s", path);
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
        rc = door_parking_create(made->epoll_fd, TAG_PARKED, DOOR_PARKED_MAX, &made->parking, err);
    }
    if (rc == RC_OK) {
        rc = open_socket(made, err);
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
            more = listen_to(hall, member);
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
        release_sent(hall, member, false); /* it lies in the app's queue */
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
    return hall->epoll_fd;
}

int door_hall_get_timeout_ms(const struct door_hall *hall)
{
    if (hall->stalled) {
        return STALL_RETRY_MS;
    }
    return hall->listener_fd < 0 ? BIND_RETRY_MS : -1;
}

static void take_event(struct door_hall *hall, uint64_t data)
{
    uint32_t index = (uint32_t)data;

    switch (data & TAG_MASK) {
    case TAG_SOCKET:
        accept_peers(hall);
        break;
    case TAG_MEMBER:
        if (index < DOOR_MEMBERS_MAX && hall->members[index].state != MEMBER_ABSENT) {
            (void)listen_to(hall, &hall->members[index]); /* more: the next round's event */
        }
        break;
    case TAG_PARKED:
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
