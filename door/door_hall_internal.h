/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_hall_internal: what door_hall.c (life, events, connections that go out) and door_members.c (apps come,
 * speak and go) share. Nobody else includes it.
 */
#ifndef HARVEY_DOOR_HALL_INTERNAL_H
#define HARVEY_DOOR_HALL_INTERNAL_H

#include "door/door_hall.h"
#include "door/door_parking.h"

#include <stdbool.h>
#include <stdint.h>

/* What an epoll event is about: the high half of data.u64; the low half is an index. */
#define DOOR_TAG_SOCKET (UINT64_C(1) << 32)
#define DOOR_TAG_MEMBER (UINT64_C(2) << 32)
#define DOOR_TAG_PARKED (UINT64_C(3) << 32)
#define DOOR_TAG_MASK (UINT64_C(0xffffffff) << 32)

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
    bool held_up;          /* somebody wants in whom we have no room for: look again soon */
    int64_t complained_ms; /* when "no room" or "address taken" was last logged; 0: never */
};

/* True at most once in a while: for complaints that would be repeated. */
bool door_hall_may_complain(struct door_hall *hall);

/* Takes `fd`, a connection without an app; closes it where all is full. */
void door_hall_park(struct door_hall *hall, int fd);

uint32_t door_members_index(const struct door_hall *hall, const struct member *member);

/* How many connections are on their way to it. */
uint32_t door_members_under_way(const struct member *member);

uint32_t door_members_count_apps(const struct door_hall *hall);

/* Lets in who waits at the Unix socket. */
void door_members_accept(struct door_hall *hall);

/* Hears some messages; true when there may be more. The member may be gone then. */
bool door_members_listen_to(struct door_hall *hall, struct member *member);

/* Lets go of all that is under way to it: for others, or because the app will have it. */
void door_members_release_sent(struct door_hall *hall, struct member *member, bool for_others);

/* Sending to it failed; it may be gone then, or is given nothing more. */
void door_members_take_send_failure(struct door_hall *hall, struct member *member, enum rc rc,
                                    const char *why);

/* From here on there is a listener: whoever waited for it gets it. Takes `fd`. */
void door_members_hold_listener(struct door_hall *hall, int fd, const char *origin);

#endif
