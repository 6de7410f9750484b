/* SPDX-License-Identifier: Apache-2.0 */
/* listener: see listener.h. */
#include "server/listener.h"

#include "base/bytes.h"
#include "server/environment.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define UNIX_PREFIX "unix:"
#define LISTENER_SYSTEMD_FD 3 /* SD_LISTEN_FDS_START */
#define HOST_BYTES 128

struct host_port {
    char host[HOST_BYTES];
    char port[8];
};

static enum rc split_address(const char *address, struct host_port *out, struct err *err)
{
    const char *host = address;
    const char *colon = strrchr(address, ':');
    size_t host_bytes = colon == NULL ? 0 : (size_t)(colon - address);
    if (host_bytes >= 2 && address[0] == '[' && address[host_bytes - 1] == ']') {
        host = address + 1;
        host_bytes -= 2;
    } else if (host_bytes > 0 && memchr(address, ':', host_bytes) != NULL) {
        host_bytes = 0; /* an IPv6 address wants brackets */
    }
    uint64_t port = 0;
    size_t digits = colon == NULL ? 0 : strlen(colon + 1);
    if (host_bytes == 0 || host_bytes >= sizeof out->host || digits == 0 || digits > 5 ||
        !bytes_from_decimal(colon + 1, digits, &port) || port > 65535) {
        return err_set(err, RC_INVALID,
                       "HARVEY_LISTEN=%.200s: must be HOST:PORT (port 0 to 65535), [IPV6]:PORT or "
                       "unix:PATH",
                       address);
    }
    memcpy(out->host, host, host_bytes);
    out->host[host_bytes] = '\0';
    memcpy(out->port, colon + 1, digits + 1);
    return RC_OK;
}

static bool is_unix(const char *address)
{
    return strncmp(address, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0;
}

static enum rc unix_address(const char *address, struct sockaddr_un *out, struct err *err)
{
    const char *path = address + strlen(UNIX_PREFIX);
    size_t bytes = strlen(path);
    memset(out, 0, sizeof *out);
    out->sun_family = AF_UNIX;
    if (bytes == 0 || bytes >= sizeof out->sun_path) {
        return err_set(err, RC_INVALID, "HARVEY_LISTEN=%.200s: the path must have 1 to %zu bytes",
                       address, sizeof out->sun_path - 1);
    }
    memcpy(out->sun_path, path, bytes);
    return RC_OK;
}

enum rc listener_check_address(const char *address, struct err *err)
{
    struct sockaddr_un un;
    struct host_port pair;
    return is_unix(address) ? unix_address(address, &un, err) : split_address(address, &pair, err);
}

/* The error of a failed bind or listen, with the cure. */
static enum rc bind_failed(const char *address, struct err *err)
{
    switch (errno) {
    case EADDRINUSE:
        return err_set(err, RC_BUSY,
                       "HARVEY_LISTEN=%s: address in use by another program; stop that one or "
                       "choose another port",
                       address);
    case EACCES:
    case EPERM:
    case EROFS:
        return err_set_errno(err, RC_DENIED, "HARVEY_LISTEN=%s: not allowed to listen there",
                             address);
    case EADDRNOTAVAIL:
        return err_set(err, RC_INVALID, "HARVEY_LISTEN=%s: this machine has no such address",
                       address);
    default:
        return err_set_errno(err, RC_IO, "HARVEY_LISTEN=%s: cannot listen", address);
    }
}

/* Removes the name of a Unix socket whose server is gone. */
static void remove_stale_socket(const struct sockaddr_un *un)
{
    struct stat found;
    if (lstat(un->sun_path, &found) != 0 || !S_ISSOCK(found.st_mode)) {
        return; /* connecting to an ordinary file is refused too, and it is not ours to remove */
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)un, sizeof *un) != 0 &&
        errno == ECONNREFUSED) {
        (void)unlink(un->sun_path);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
}

static enum rc open_unix(struct listener *listener, const char *address, struct err *err)
{
    struct sockaddr_un un;
    if (unix_address(address, &un, err) != RC_OK) {
        return err->rc;
    }
    remove_stale_socket(&un);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&un, sizeof un) != 0 ||
        listen(fd, LISTENER_BACKLOG) != 0) {
        enum rc rc = bind_failed(address, err);
        if (fd >= 0) {
            (void)close(fd);
        }
        return rc;
    }
    listener->fd = fd;
    (void)snprintf(listener->address, sizeof listener->address, "%s", address);
    (void)snprintf(listener->unix_path, sizeof listener->unix_path, "%s", un.sun_path);
    return RC_OK;
}

/* Writes the bound address: the port may have been the kernel's choice. */
static void name_socket(struct listener *listener)
{
    struct sockaddr_storage storage = {0};
    socklen_t bytes = sizeof storage;
    char host[HOST_BYTES];
    char port[8];
    if (getsockname(listener->fd, (struct sockaddr *)&storage, &bytes) != 0 ||
        storage.ss_family == AF_UNIX ||
        getnameinfo((struct sockaddr *)&storage, bytes, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        (void)snprintf(listener->address, sizeof listener->address, "an inherited socket");
        return;
    }
    (void)snprintf(listener->address, sizeof listener->address,
                   storage.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static int bind_one(const struct addrinfo *info)
{
    const int on = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -1;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, info->ai_addr, info->ai_addrlen) != 0 || listen(fd, LISTENER_BACKLOG) != 0) {
        int saved = errno;
        (void)close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static enum rc open_tcp(struct listener *listener, const char *address, struct err *err)
{
    struct host_port pair;
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *infos = NULL;
    if (split_address(address, &pair, err) != RC_OK) {
        return err->rc;
    }
    int failure = getaddrinfo(pair.host, pair.port, &hints, &infos);
    if (failure != 0) {
        return err_set(err, RC_INVALID, "HARVEY_LISTEN=%s: %s", address, gai_strerror(failure));
    }
    enum rc rc = RC_OK;
    listener->fd = bind_one(infos);
    if (listener->fd < 0) {
        rc = bind_failed(address, err);
    } else {
        name_socket(listener);
    }
    freeaddrinfo(infos);
    return rc;
}

/* How many descriptors from 3 on are meant for us: LISTEN_PID names us, LISTEN_FDS counts them. */
static uint64_t count_inherited(char *const *environment)
{
    const char *pid_text = environment_find(environment, "LISTEN_PID");
    const char *count_text = environment_find(environment, "LISTEN_FDS");
    uint64_t pid = 0;
    uint64_t count = 0;
    bool ours = pid_text != NULL && count_text != NULL &&
                bytes_from_decimal(pid_text, strlen(pid_text), &pid) &&
                bytes_from_decimal(count_text, strlen(count_text), &count) &&
                pid == (uint64_t)getpid();
    return ours ? count : 0;
}

static bool has_option(int fd, int option, int wanted)
{
    int value = 0;
    socklen_t bytes = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &bytes) == 0 && value == wanted;
}

/*
 * The socket from systemd. What it means otherwise is refused: whoever connects to a socket that nobody
 * accepts from waits for ever.
 */
static enum rc take_inherited(struct listener *listener, uint64_t count, struct err *err)
{
    const int fd = LISTENER_SYSTEMD_FD;
    if (count != 1) {
        return err_set(err, RC_INVALID, "LISTEN_FDS=%llu: one socket can be served, not more",
                       (unsigned long long)count);
    }
    if (!has_option(fd, SO_ACCEPTCONN, 1) || !has_option(fd, SO_TYPE, SOCK_STREAM)) {
        return err_set(err, RC_INVALID,
                       "LISTEN_FDS: descriptor %d is no listening stream socket (the socket unit "
                       "wants ListenStream= and Accept=no)",
                       fd);
    }
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        return err_set_errno(err, RC_IO, "cannot prepare the socket of LISTEN_FDS");
    }
    listener->fd = fd;
    listener->shared = true;
    name_socket(listener);
    return RC_OK;
}

void listener_take(struct listener *listener, int fd)
{
    listener_close(listener);
    int flags = fcntl(fd, F_GETFL);
    int set = flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    ASSERT(set == 0); /* it fails for no socket */
    listener->fd = fd;
    listener->shared = true;
    listener->unix_path[0] = '\0';
    name_socket(listener);
}

enum rc listener_open(struct listener *listener, const char *address, char *const *environment,
                      struct err *err)
{
    *listener = (struct listener)LISTENER_INIT;
    uint64_t inherited = count_inherited(environment);
    if (inherited > 0) {
        return take_inherited(listener, inherited, err);
    }
    return is_unix(address) ? open_unix(listener, address, err) : open_tcp(listener, address, err);
}

void listener_close(struct listener *listener)
{
    if (listener->fd >= 0) {
        if (listener->unix_path[0] != '\0') {
            (void)unlink(listener->unix_path);
        }
        (void)close(listener->fd);
        listener->fd = -1;
    }
}
