/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_socket: the Unix socket at which apps join: one door per path.
 *
 * Thread: main, before the door works.
 */
#ifndef HARVEY_DOOR_SOCKET_H
#define HARVEY_DOOR_SOCKET_H

#include "base/err.h"

#include <stdbool.h>

/*
 * Locks `path`.lock (waits up to 1 s for another door to let go of it) and listens at `path`; *lock_fd and
 * *socket_fd are returned, also those that an error left open (else they are not touched). A dead door's socket
 * is removed, nothing else. With `for_all` any user can connect (and is checked then). RC_BUSY: another door runs
 * there. RC_EXISTS: something lies there that is no socket. RC_INVALID: path too long. RC_DENIED, RC_IO.
 */
RC_MUST_CHECK enum rc door_socket_open(const char *path, bool for_all, int *lock_fd, int *socket_fd,
                                       struct err *err);

#endif
