/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_parking: connections that have no app just now, first in first out. Every connection that
 * an app passes on goes through here, most of them for microseconds.
 *
 * A parked connection is never read. It is watched for its peer's departure only: a peer that is
 * gone is dropped, one that has merely said all it had to say (its request lies unread in the
 * kernel) stays.
 *
 * Thread: the door's only one.
 */
#ifndef HARVEY_DOOR_PARKING_H
#define HARVEY_DOOR_PARKING_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct door_parking;

/*
 * Room for `capacity` connections, watched on `epoll_fd` (borrowed) with data.u64 = tag | slot.
 * *parking is returned (destroy with door_parking_destroy). RC_NOMEM.
 */
RC_MUST_CHECK enum rc door_parking_create(int epoll_fd, uint64_t tag, uint32_t capacity,
                                          struct door_parking **parking, struct err *err);

/* Closes what is parked. NULL is legal. */
void door_parking_destroy(struct door_parking *parking);

/* Takes `fd`; RC_LIMIT when all is full: fd is closed then, its client sees the end. */
RC_MUST_CHECK enum rc door_parking_add(struct door_parking *parking, int fd, struct err *err);

/* The connection that has waited longest (returned), or -1. It is not watched any more. */
int door_parking_take(struct door_parking *parking);

/* Begins to watch what was added since the last call and still is there. */
void door_parking_watch(struct door_parking *parking);

/* epoll reported something for that slot; drops it when its peer is really gone. */
void door_parking_look(struct door_parking *parking, uint32_t slot);

uint32_t door_parking_count(const struct door_parking *parking);

/* Connections dropped so far because their peer had gone. */
uint64_t door_parking_dropped_count(const struct door_parking *parking);

#endif
