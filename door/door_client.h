/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_client: a server's side of the door. Gets the listening socket, adopts live connections
 * that other servers pass on, passes its own ones on when it leaves, and finds the door again
 * after that was restarted. It reads and writes no HTTP and logs nothing.
 *
 * Use, in the thread that runs the HTTP loop, which is the only one that may touch a client:
 *
 *   door_client_create(path, &client, &err);
 *   door_client_join(client, 5000, &err);            or not: then LISTENER comes as an event
 *   epoll: add door_client_get_fd(client), EPOLLIN, level-triggered; the number never changes
 *   whenever it is readable:
 *       do { door_client_next(client, &event, &err); … act … } while (event.kind != NONE);
 *   SIGTERM: not ready; stop accepting (take the listener out of the loop, do not shut it down);
 *       door_client_leave(client, &err);
 *       for each connection at a request boundary with nothing buffered:
 *           door_client_send_conn(client, fd, &err)  RC_OK: close or dup2 over fd; no shutdown()
 *                                                    else: keep it until DOOR_EVENT_ROOM; past the
 *                                                    deadline: answer, Connection: close
 *   door_client_destroy(client);
 *
 * The listener and the connections are one socket in several processes. close() is always right;
 * shutdown() on one of them ends it for everybody: MHD_stop_daemon does that, MHD_quiesce_daemon
 * and _exit do not.
 *
 * What is adopted is adopted once: the client confirms a connection to the door before the caller
 * sees it, and no byte of it was read by anyone since its last answer went out. A process killed
 * before that loses none: the door hands it to another. After door_client_leave nothing is
 * adopted any more, what still comes stays the door's.
 */
#ifndef HARVEY_DOOR_CLIENT_H
#define HARVEY_DOOR_CLIENT_H

#include "base/err.h"

#include <stdbool.h>

struct door_client;

enum door_event_kind {
    DOOR_EVENT_NONE,     /* nothing more now; go back to the loop */
    DOOR_EVENT_LISTENER, /* event.fd: accept from it. Returned: the caller closes it */
    DOOR_EVENT_CONN,     /* event.fd: a live connection, adopted. Returned: the caller closes it */
    DOOR_EVENT_ROOM,     /* door_client_send_conn had failed: try again */
    DOOR_EVENT_LOST,     /* the door went away, err says how; the client looks for a new one */
};

struct door_event {
    enum door_event_kind kind;
    int fd; /* -1 when the kind has none */
};

/*
 * Makes a client for the door at `socket_path` (copied) and begins to look for it; no waiting.
 * *client is returned (destroy with door_client_destroy). RC_INVALID: path too long. RC_IO,
 * RC_NOMEM.
 */
RC_MUST_CHECK enum rc door_client_create(const char *socket_path, struct door_client **client,
                                         struct err *err);

/* Closes everything the client holds, not what it returned. NULL is legal. */
void door_client_destroy(struct door_client *client);

/*
 * Waits until the door has sent the listener; *listener_fd is returned (the caller closes it).
 * RC_TIMEOUT after `timeout_ms`, with the last reason in err; the client goes on trying. RC_IO.
 */
RC_MUST_CHECK enum rc door_client_join(struct door_client *client, int timeout_ms, int *listener_fd,
                                       struct err *err);

/* The descriptor to wait on (borrowed, readable when door_client_next has something to do). */
int door_client_get_fd(const struct door_client *client);

/*
 * Does what is due (connects, receives, answers the door) and gives at most one event. Never
 * waits. LISTENER comes once per socket: a door that was restarted and got its listener from us
 * does not cause one; a door in a new network namespace does, with a socket that replaces the old
 * one. For LOST `err` holds the reason. RC_IO: the client itself cannot go on (epoll, timer).
 */
RC_MUST_CHECK enum rc door_client_next(struct door_client *client, struct door_event *event,
                                       struct err *err);

/*
 * Says that this process leaves: from here on no connection is adopted and no listener taken.
 * Call it before the first door_client_send_conn of a release. RC_UNAVAILABLE: there is no door
 * now (it is being restarted, or was never there). The client goes on looking for one and tells
 * it; DOOR_EVENT_ROOM says so. Meanwhile serve on, past the deadline answer with Connection:
 * close. RC_BUSY: nothing was said, call it again. After success a second call does nothing.
 */
RC_MUST_CHECK enum rc door_client_leave(struct door_client *client, struct err *err);

/*
 * Stays away from the door for a while (this server is full, or cannot serve): it is sent no connection,
 * what it has not adopted goes to others, and no event comes. The caller's listener stays valid. Resume
 * looks for the door again; LISTENER comes only if the door has another one by then. Both are legal
 * twice; leaving ends a pause. RC_IO.
 */
RC_MUST_CHECK enum rc door_client_pause(struct door_client *client, struct err *err);
RC_MUST_CHECK enum rc door_client_resume(struct door_client *client, struct err *err);

/*
 * Passes a connection on. `fd` is borrowed: after RC_OK the door has its own reference and the
 * caller closes fd (or puts another socket over it) without shutdown(). After RC_BUSY (the door's
 * queue is full) and RC_UNAVAILABLE (it is gone) nothing was sent and fd is whole; DOOR_EVENT_ROOM
 * comes when there is room, or a new door. RC_IO.
 */
RC_MUST_CHECK enum rc door_client_send_conn(struct door_client *client, int fd, struct err *err);

/* True while the door is there and has given (or got) the listener. */
bool door_client_is_joined(const struct door_client *client);

/* Why the last try to reach the door failed; "" if none did. Borrowed, until the next call. */
const char *door_client_get_failure(const struct door_client *client);

#endif
