/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_hall: everything the door holds: the listener, the Unix socket, the apps that joined and
 * the connections between two apps. One object, one thread, one epoll set; it works when
 * door_hall_work is called and never waits for an app.
 *
 * An app is given at most DOOR_WINDOW connections that it has not confirmed. So one that is
 * stopped (SIGSTOP) attracts few, and one that dies gives them back.
 */
#ifndef HARVEY_DOOR_HALL_H
#define HARVEY_DOOR_HALL_H

#include "base/err.h"
#include "door/door_config.h"

#define DOOR_MEMBERS_MAX 64       /* apps, and others at the Unix socket */
#define DOOR_WINDOW 32            /* connections on their way to one app */
#define DOOR_DESCRIPTORS_SPARE 64 /* listener, sockets, epoll, and what is just being received */

struct door_hall;

/*
 * Takes the Unix socket's path (waits up to 1 s for another door to let go of it) and the
 * address. Where the address is taken the hall starts without a listener and asks joining apps for
 * it. `config` is borrowed for the hall's life. *hall is returned (destroy with
 * door_hall_destroy). RC_BUSY: another door runs on that path. RC_DENIED, RC_IO, RC_NOMEM;
 * RC_LIMIT: too few descriptors allowed.
 */
RC_MUST_CHECK enum rc door_hall_create(const struct door_config *config, struct door_hall **hall,
                                       struct err *err);

/* Removes the path and closes everything; apps keep their listener. NULL is legal. */
void door_hall_destroy(struct door_hall *hall);

/* Readable when there is work (borrowed). -1: only time brings work, see the next. */
int door_hall_get_fd(const struct door_hall *hall);

/* The longest the caller may wait before it calls door_hall_work, in ms; -1: for ever. */
int door_hall_get_timeout_ms(const struct door_hall *hall);

/* Does all that is due. RC_IO: the hall itself cannot go on. */
RC_MUST_CHECK enum rc door_hall_work(struct door_hall *hall, struct err *err);

#endif
