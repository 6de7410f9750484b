/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_protocol: the messages between the door and the servers ("apps") behind it.
 *
 * One message is one packet of a Unix SOCK_SEQPACKET socket, always 12 bytes, numbers big-endian,
 * with at most one descriptor beside it (SCM_RIGHTS):
 *
 *   offset  bytes  field
 *   0       1      version, 1
 *   1       1      type, see enum door_message_type
 *   2       2      flags, see DOOR_FLAG_…; unknown ones are 0 when sent and ignored when received
 *   4       4      number
 *   8       4      count
 *
 * A conversation:
 *
 *   app   HELLO                    joins; says whether it holds the listener already
 *   door  LISTENER + fd            accept from it; or, when the door itself has none (it was
 *                                  restarted): WANT_LISTENER, and the app sends LISTENER + fd
 *   door  CONN n + fd              a live connection at a request boundary
 *   app   ADOPTED n                it is mine now (before the first byte is read from it)
 *   app   LEAVING                  no more CONN, please; what I have not adopted is not mine
 *   app   CONN + fd, again and again, then it closes the socket
 *   any   HEALTH                   answered by HEALTH: flags, number = apps, count = parked
 *
 * The door keeps its own copy of a descriptor until it is adopted: an app that is killed, or
 * leaves, with unread messages loses none. Not a byte of HTTP is in any message.
 *
 * Thread: any; the functions keep no state.
 */
#ifndef HARVEY_DOOR_PROTOCOL_H
#define HARVEY_DOOR_PROTOCOL_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define DOOR_PROTOCOL_VERSION 1
#define DOOR_MESSAGE_BYTES 12
#define DOOR_SOCKET_DEFAULT "/run/harvey/door.sock"

enum door_message_type {
    DOOR_MESSAGE_HELLO = 1,
    DOOR_MESSAGE_LISTENER = 2, /* with descriptor */
    DOOR_MESSAGE_CONN = 3,     /* with descriptor; number: per app, from 1 (door's only) */
    DOOR_MESSAGE_ADOPTED = 4,  /* number: of the CONN; it and all before it */
    DOOR_MESSAGE_LEAVING = 5,
    DOOR_MESSAGE_WANT_LISTENER = 6,
    DOOR_MESSAGE_HEALTH = 7,
};

#define DOOR_FLAG_HAS_LISTENER 1U /* HELLO and the answer to HEALTH */

struct door_message {
    enum door_message_type type;
    uint16_t flags;
    uint32_t number;
    uint32_t count;
};

void door_message_encode(const struct door_message *message, uint8_t bytes[DOOR_MESSAGE_BYTES]);

/* RC_INVALID: another version, an unknown type, another length. */
RC_MUST_CHECK enum rc door_message_decode(const uint8_t *bytes, size_t count,
                                          struct door_message *message, struct err *err);

/* True for LISTENER and CONN: exactly these travel with a descriptor. */
bool door_message_has_fd(enum door_message_type type);

/*
 * Sends one message without waiting; `passed_fd` is borrowed (the kernel takes its own reference),
 * -1 for none. RC_BUSY: the peer's queue is full, nothing was sent. RC_UNAVAILABLE: the peer is
 * gone. RC_IO: anything else.
 */
RC_MUST_CHECK enum rc door_message_send(int fd, const struct door_message *message, int passed_fd,
                                        struct err *err);

/*
 * Receives one message without waiting; *passed_fd is returned (close it) or -1. RC_NOT_FOUND:
 * nothing there now. RC_UNAVAILABLE: the peer is gone, and all it sent was received. RC_INVALID:
 * not a message of this protocol, or its descriptor is missing or too much: close the connection;
 * descriptors that came are closed already. RC_IO.
 *
 * The caller keeps descriptor numbers free: the kernel drops a descriptor that finds none.
 */
RC_MUST_CHECK enum rc door_message_receive(int fd, struct door_message *message, int *passed_fd,
                                           struct err *err);

/*
 * Connects to the door's socket without waiting; *fd is returned. RC_UNAVAILABLE: nobody there
 * (yet, or its queue is full). RC_DENIED: permissions. RC_INVALID: path too long. RC_IO.
 */
RC_MUST_CHECK enum rc door_socket_connect(const char *path, int *fd, struct err *err);

#endif
