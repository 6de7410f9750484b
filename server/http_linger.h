/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_linger: closing a connection whose client is still sending. A plain close would make the
 * kernel answer the rest with a reset, which can overtake the answer that says why (RFC 9112, 9.6).
 * So the socket is kept for a moment under a second descriptor, shut down for writing, and read to
 * its end or to a deadline; MHD closes its own descriptor meanwhile.
 *
 * Bounded in number and time; past the bounds it is a plain close.
 *
 * Thread: the http thread. Embedded by value; zero is its start.
 */
#ifndef HARVEY_SERVER_HTTP_LINGER_H
#define HARVEY_SERVER_HTTP_LINGER_H

#include <stdbool.h>
#include <stdint.h>

#define HTTP_LINGER_SOCKETS_MAX 128u

struct http_linger {
    unsigned count;
    int64_t next_ms; /* when to look at them again */
    struct http_linger_socket {
        int fd;
        int64_t deadline_ms;
    } sockets[HTTP_LINGER_SOCKETS_MAX];
};

/* To be called just before `fd` (borrowed) is closed; keeps it if its client may still send. */
void http_linger_keep(struct http_linger *linger, int fd, int64_t now_ms);

/* Reads what has come; cheap, and does nothing more often than every few milliseconds. */
void http_linger_run(struct http_linger *linger, int64_t now_ms);

void http_linger_close_all(struct http_linger *linger);

#endif
