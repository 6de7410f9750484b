/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_pass: live connections go to another process at a stop; see http.h.
 *
 * MHD has no call that lets go of a connection. But at a request boundary a connection's whole state
 * is its socket, as long as MHD has read nothing of a next request. That is counted:
 *   taken  bytes that left the kernel's buffer: tcpi_bytes_received (tcp(7)) less FIONREAD
 *   used   those of requests that MHD has handed to us whole: headers and bodies
 * Equal: the socket is sent, and MHD gets another under the same number, one that stays silent. Not
 * equal (a next request has begun, a chunked body, whose framing is not counted): served on, and
 * looked at again after each round.
 *
 * Looked at between two rounds of MHD, never inside its callbacks: a connection that MHD is about to
 * close (HTTP/1.0, "Connection: close") is gone by then.
 */
#include "server/http_internal.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define PASS_COUNT_TRIES 8 /* a byte that arrives between two looks spoils the count */

static bool bytes_received(int fd, uint64_t *count)
{
    struct tcp_info info = {0};
    socklen_t bytes = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0 ||
        bytes < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received) {
        return false; /* not TCP, or Linux before 4.1 */
    }
    *count = info.tcpi_bytes_received;
    return true;
}

bool http_bytes_taken(int fd, uint64_t *taken)
{
    uint64_t before = 0;
    uint64_t after = 0;
    int waiting = 0;
    for (unsigned i = 0; i < PASS_COUNT_TRIES; i++) {
        if (!bytes_received(fd, &before) || ioctl(fd, FIONREAD, &waiting) != 0 ||
            !bytes_received(fd, &after)) {
            return false;
        }
        if (before == after && (uint64_t)waiting <= after) {
            *taken = after - (uint64_t)waiting;
            return true;
        }
    }
    return false;
}

/* Of a connection in the ring of those that are idle. */
static bool is_at_boundary(const struct http_conn *conn)
{
    uint64_t taken = 0;
    return !conn->unsure && !conn->cut && !conn->refused && !conn->surplus &&
           http_bytes_taken(conn->fd, &taken) && taken == conn->bytes_used;
}

/*
 * Gives MHD a silent socket in place of the connection's own. Out of MHD's epoll set first: what is
 * watched there is the socket, not the number, and it lives on elsewhere. MHD takes the number out of
 * that set again before it closes it, so the silent one must be in it; its event says NULL, which MHD
 * passes over (the same in 0.9.75 and 1.0.1). Each has one of its own: a socket that is watched 500
 * times under an epoll set within another is more than the kernel allows.
 */
static void forget(struct http_conn *conn, int silent_fd)
{
    int epoll_fd = conn->http->epoll_fd;
    struct epoll_event silent = {.events = EPOLLET, .data.ptr = NULL};
    bool watched = epoll_ctl(epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL) == 0;
    int fd;
    do {
        fd = dup3(silent_fd, conn->fd, O_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    ASSERT(fd == conn->fd);
    if (watched) {
        int added = epoll_ctl(epoll_fd, EPOLL_CTL_ADD, conn->fd, &silent);
        ASSERT(added == 0);
    }
    conn->passed = true;
    http_leave(conn);
}

/* False: nothing was passed, there is no room or no descriptor. */
static bool pass(struct http_conn *conn)
{
    struct http *http = conn->http;
    int silent_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (silent_fd < 0) {
        log_warn("http", "cannot pass connections on  errno=%d", errno);
        return false;
    }
    bool passed = http->passer.pass(http->passer.arg, conn->fd);
    if (passed) {
        forget(conn, silent_fd);
        http->passed++;
    }
    (void)close(silent_fd);
    return passed;
}

void http_begin_passing(struct http *http, const struct http_passer *passer, int64_t now_ms)
{
    http->passer = *passer;
    http->passing = true;
    http->now_ms = now_ms;
    http->drain_since_ms = now_ms;
    log_info("http", "passing connections on  connections=%u idle=%u", http->connections,
             http->idle_count);
}

void http_pass_idle(struct http *http)
{
    struct http_ring *next;
    for (struct http_ring *at = http->idle.next; at != &http->idle; at = next) {
        struct http_conn *conn = http_ring_conn(at);
        next = at->next;
        if (is_at_boundary(conn) && !pass(conn)) {
            http->pass_waits = true;
            return; /* the loop calls again */
        }
    }
    http->pass_waits = false;
}
