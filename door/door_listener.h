/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_listener: the listening TCP socket: made here, or taken from an app that kept it through a
 * restart of the door.
 *
 * Thread: the door's only one.
 */
#ifndef HARVEY_DOOR_LISTENER_H
#define HARVEY_DOOR_LISTENER_H

#include "base/err.h"

#include <sys/socket.h>

#define DOOR_ADDRESS_BYTES 64 /* "[IPv6 address]:65535" and the NUL */

/*
 * Binds and listens; *fd is returned. RC_BUSY: somebody listens there already (an app that kept
 * our socket, or a stranger). RC_DENIED: no permission. RC_IO.
 */
RC_MUST_CHECK enum rc door_listener_open(const struct sockaddr_storage *address,
                                         socklen_t address_bytes, int *fd, struct err *err);

/*
 * Is `fd` (borrowed) a listening socket at that address (any port, where the address asks for port
 * 0)? RC_INVALID with what it is instead.
 */
RC_MUST_CHECK enum rc door_listener_check(int fd, const struct sockaddr_storage *address,
                                          struct err *err);

/* "127.0.0.1:8080": where the socket is bound. */
void door_listener_format_address(int fd, char text[DOOR_ADDRESS_BYTES]);

#endif
