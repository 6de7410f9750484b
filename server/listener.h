/* SPDX-License-Identifier: Apache-2.0 */
/*
 * listener: the one place where the app's listening socket comes from. In this order: a socket that
 * systemd hands over (LISTEN_FDS, sd_listen_fds(3)), else HARVEY_LISTEN, bound by ourselves:
 * HOST:PORT, [IPV6]:PORT or unix:PATH. Behind a door (HARVEY_DOOR_SOCKET) none is opened: handover.c brings
 * the door's, when it comes.
 *
 * A socket is `shared` when somebody else holds it too: what waits in its queue at our stop is then
 * left for the next process instead of being accepted.
 *
 * Thread: main opens; the http thread uses, replaces and closes.
 */
#ifndef HARVEY_SERVER_LISTENER_H
#define HARVEY_SERVER_LISTENER_H

#include "base/err.h"

#include <stdbool.h>

#define LISTENER_TEXT_BYTES 256
#define LISTENER_BACKLOG 4096 /* the kernel cuts it at net.core.somaxconn */

struct listener {
    int fd; /* -1 = none */
    bool shared;
    char address[LISTENER_TEXT_BYTES];   /* as bound: the port is the real one */
    char unix_path[LISTENER_TEXT_BYTES]; /* to be removed at the end; "" = nothing to remove */
};

#define LISTENER_INIT                                                                              \
    {                                                                                              \
        -1, false, "", ""                                                                          \
    }

/* Checks the form of HARVEY_LISTEN without touching the network. RC_INVALID, one line. */
RC_MUST_CHECK enum rc listener_check_address(const char *address, struct err *err);

/*
 * Makes the non-blocking listening socket. RC_INVALID: LISTEN_FDS means us and brings something else than one
 * listening stream socket. RC_BUSY: the address is in use (the text names the
 * cure); RC_DENIED: a privileged port, a directory; RC_INVALID: no such address here; RC_IO.
 */
RC_MUST_CHECK enum rc listener_open(struct listener *listener, const char *address,
                                    char *const *environment, struct err *err);

/* Uses `fd` (taken; shared, non-blocking from now on) instead of the socket it has, if any. */
void listener_take(struct listener *listener, int fd);

/* Closes the socket and removes a Unix socket's name. Legal twice. */
void listener_close(struct listener *listener);

#endif
