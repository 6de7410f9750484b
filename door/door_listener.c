/* SPDX-License-Identifier: Apache-2.0 */
/* door_listener: see door_listener.h. */
#include "door/door_listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The kernel cuts it to net.core.somaxconn. While no app accepts, connections wait in there. */
#define BACKLOG 65535

enum rc door_listener_open(const struct sockaddr_storage *address, socklen_t address_bytes, int *fd,
                           struct err *err)
{
    int on = 1;
    int made = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    enum rc rc = RC_OK;

    *fd = -1;
    if (made < 0) {
        return err_set_errno(err, RC_IO, "socket");
    }
    /* Old connections in TIME_WAIT shall not bar the address; a listener still does. */
    if (setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(made, (const struct sockaddr *)address, address_bytes) < 0 ||
        listen(made, BACKLOG) < 0) {
        rc = errno == EADDRINUSE ? RC_BUSY : errno == EACCES ? RC_DENIED : RC_IO;
        rc = err_set_errno(err, rc, "bind and listen");
        close(made);
        return rc;
    }
    *fd = made;
    return RC_OK;
}

static uint16_t port_of(const struct sockaddr_storage *address)
{
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;

    if (address->ss_family == AF_INET) {
        memcpy(&in4, address, sizeof in4);
        return ntohs(in4.sin_port);
    }
    memcpy(&in6, address, sizeof in6);
    return ntohs(in6.sin6_port);
}

static void format_address(const struct sockaddr_storage *address, char text[DOOR_ADDRESS_BYTES])
{
    char host[INET6_ADDRSTRLEN] = "?";
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;

    if (address->ss_family == AF_INET) {
        memcpy(&in4, address, sizeof in4);
        (void)inet_ntop(AF_INET, &in4.sin_addr, host, sizeof host);
        (void)snprintf(text, DOOR_ADDRESS_BYTES, "%s:%u", host, port_of(address));
    } else if (address->ss_family == AF_INET6) {
        memcpy(&in6, address, sizeof in6);
        (void)inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof host);
        (void)snprintf(text, DOOR_ADDRESS_BYTES, "[%s]:%u", host, port_of(address));
    } else {
        (void)snprintf(text, DOOR_ADDRESS_BYTES, "address family %d", address->ss_family);
    }
}

enum rc door_listener_check(int fd, const struct sockaddr_storage *address, struct err *err)
{
    struct sockaddr_storage bound = {0};
    struct sockaddr_storage wanted = *address;
    socklen_t bound_bytes = sizeof bound;
    int listening = 0;
    socklen_t listening_bytes = sizeof listening;
    char bound_text[DOOR_ADDRESS_BYTES];
    char wanted_text[DOOR_ADDRESS_BYTES];

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &listening_bytes) < 0 ||
        listening == 0 || getsockname(fd, (struct sockaddr *)&bound, &bound_bytes) < 0) {
        return err_set(err, RC_INVALID, "not a listening socket");
    }
    format_address(&bound, bound_text);
    format_address(&wanted, wanted_text);
    if (port_of(&wanted) == 0 && bound.ss_family == wanted.ss_family) {
        /* Compared without the port: any will do. */
        *strrchr(bound_text, ':') = '\0';
        *strrchr(wanted_text, ':') = '\0';
    }
    if (strcmp(bound_text, wanted_text) != 0) {
        return err_set(err, RC_INVALID, "a listener of %s, want %s", bound_text, wanted_text);
    }
    return RC_OK;
}

void door_listener_format_address(int fd, char text[DOOR_ADDRESS_BYTES])
{
    struct sockaddr_storage bound = {0};
    socklen_t bound_bytes = sizeof bound;

    (void)getsockname(fd, (struct sockaddr *)&bound, &bound_bytes);
    format_address(&bound, text);
}
