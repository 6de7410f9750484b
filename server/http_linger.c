/* SPDX-License-Identifier: Apache-2.0 */
/* http_linger: see http_linger.h. */
#include "server/http_linger.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

#define HTTP_LINGER_MS 1000 /* a client that goes on for longer is cut off */
#define HTTP_LINGER_LOOK_MS 5
#define HTTP_LINGER_READS_MAX 16 /* per socket and look */
#define HTTP_LINGER_BYTES 65536

void http_linger_keep(struct http_linger *linger, int fd, int64_t now_ms)
{
    char byte;
    if (linger->count == HTTP_LINGER_SOCKETS_MAX ||
        recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
        return; /* the client has closed its side: nothing can follow */
    }
    int kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (kept < 0) {
        return;
    }
    (void)shutdown(kept, SHUT_WR);
    linger->sockets[linger->count++] = (struct http_linger_socket){kept, now_ms + HTTP_LINGER_MS};
}

/* Reads and forgets; false at the end. MSG_TRUNC: the kernel drops the bytes without copying. */
static bool swallow(int fd)
{
    for (unsigned i = 0; i < HTTP_LINGER_READS_MAX; i++) {
        ssize_t count = recv(fd, NULL, HTTP_LINGER_BYTES, MSG_TRUNC | MSG_DONTWAIT);
        if (count == 0) {
            return false;
        }
        if (count < 0) {
            return true; /* EAGAIN; anything worse ends with the deadline */
        }
    }
    return true;
}

void http_linger_run(struct http_linger *linger, int64_t now_ms)
{
    if (linger->count == 0 || now_ms < linger->next_ms) {
        return;
    }
    linger->next_ms = now_ms + HTTP_LINGER_LOOK_MS;
    for (unsigned i = 0; i < linger->count;) {
        struct http_linger_socket *socket = &linger->sockets[i];
        if (now_ms < socket->deadline_ms && swallow(socket->fd)) {
            i++;
            continue;
        }
        (void)close(socket->fd);
        *socket = linger->sockets[--linger->count];
    }
}

void http_linger_close_all(struct http_linger *linger)
{
    while (linger->count > 0) {
        (void)close(linger->sockets[--linger->count].fd);
    }
}
