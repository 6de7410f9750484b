/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_accept: connections come in; see http.h. MHD is started without a listening socket, for ours
 * can change (a door in a new network namespace brings another), is shared with siblings, and must be
 * left without being shut down.
 */
#include "server/http_internal.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HTTP_ACCEPTS_MAX 32u     /* per call: requests of those who are in already get their turn */
#define HTTP_ROOM_PART 8         /* so much of the limit must be free after it was reached */
#define HTTP_ACCEPT_PAUSE_MS 100 /* after an accept that failed: no descriptor, no memory */
#define HTTP_QUEUE_TAKEN_MAX (2u * LISTENER_BACKLOG) /* accepted at most when a drain begins */

bool http_is_full(const struct http *http)
{
    return http->connections >= http->config.connections_max;
}

bool http_has_room(const struct http *http)
{
    unsigned most = http->config.connections_max;
    return http->connections < most - most / HTTP_ROOM_PART;
}

bool http_may_accept(const struct http *http)
{
    return !http->draining && !http->passing && http->now_ms >= http->accept_again_ms &&
           http->connections < http->config.connections_max + HTTP_SURPLUS_CONNECTIONS;
}

/* Takes fd; MHD closes it where it cannot have it. */
static bool add(struct http *http, int fd, const struct sockaddr_storage *address, socklen_t bytes)
{
    return MHD_add_connection(http->daemon, fd, (const struct sockaddr *)address, bytes) == MHD_YES;
}

static unsigned accept_some(struct http *http, unsigned most)
{
    unsigned taken = 0;
    while (taken < most &&
           http->connections < http->config.connections_max + HTTP_SURPLUS_CONNECTIONS) {
        struct sockaddr_storage address;
        socklen_t bytes = sizeof address;
        int fd = accept4(http->config.listener->fd, (struct sockaddr *)&address, &bytes,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }
            if (errno != EAGAIN) { /* they stay in the kernel's queue */
                log_warn("http", "clients must wait: accept fails  errno=%d", errno);
                http->accept_again_ms = http->now_ms + HTTP_ACCEPT_PAUSE_MS;
            }
            break;
        }
        taken++;
        if (!add(http, fd, &address, bytes)) {
            log_debug("http", "a waiting client could not be taken in");
        }
    }
    return taken;
}

void http_accept(struct http *http, int64_t now_ms)
{
    unsigned most = HTTP_ACCEPTS_MAX;
    if (!http_is_full(http) && http->config.connections_max - http->connections < most) {
        most = http->config.connections_max - http->connections;
    }
    http->now_ms = now_ms;
    (void)accept_some(http, most);
}

unsigned http_accept_rest(struct http *http)
{
    return accept_some(http, HTTP_QUEUE_TAKEN_MAX);
}

void http_adopt(struct http *http, int fd, int64_t now_ms)
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof address;
    http->now_ms = now_ms;
    if (getpeername(fd, (struct sockaddr *)&address, &bytes) != 0) {
        (void)close(fd); /* its client has gone meanwhile */
        return;
    }
    http->adopting = true;
    bool added = add(http, fd, &address, bytes);
    http->adopting = false;
    if (!added) {
        log_warn("http", "a connection passed to us was closed: there are too many  connections=%u",
                 http->connections);
    }
}
