/* SPDX-License-Identifier: Apache-2.0 */
/* door_protocol: see door_protocol.h. Sources: unix(7), cmsg(3). */
#include "door/door_protocol.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Room for more than the one descriptor allowed: what comes is seen and closed, not truncated. */
#define FDS_MAX 8
/* A peer that closes with unread messages leaves one ECONNRESET before what it had sent. */
#define RESETS_MAX 3

_Static_assert(sizeof(struct sockaddr_un) <= sizeof(struct sockaddr_storage), "address fits");

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)];
};

void door_message_encode(const struct door_message *message, uint8_t bytes[DOOR_MESSAGE_BYTES])
{
    bytes[0] = DOOR_PROTOCOL_VERSION;
    bytes[1] = (uint8_t)message->type;
    bytes_put_u16(bytes + 2, message->flags);
    bytes_put_u32(bytes + 4, message->number);
    bytes_put_u32(bytes + 8, message->count);
}

enum rc door_message_decode(const uint8_t *bytes, size_t count, struct door_message *message,
                            struct err *err)
{
    if (count < 1 || bytes[0] != DOOR_PROTOCOL_VERSION) {
        return err_set(err, RC_INVALID, "peer speaks version %d of the door's protocol, not %d",
                       count < 1 ? -1 : bytes[0], DOOR_PROTOCOL_VERSION);
    }
    if (count != DOOR_MESSAGE_BYTES) {
        return err_set(err, RC_INVALID, "message of %zu bytes, want %d", count, DOOR_MESSAGE_BYTES);
    }
    if (bytes[1] < DOOR_MESSAGE_HELLO || bytes[1] > DOOR_MESSAGE_HEALTH) {
        return err_set(err, RC_INVALID, "unknown message type %d", bytes[1]);
    }
    *message = (struct door_message){.type = (enum door_message_type)bytes[1],
                                     .flags = bytes_get_u16(bytes + 2),
                                     .number = bytes_get_u32(bytes + 4),
                                     .count = bytes_get_u32(bytes + 8)};
    return RC_OK;
}

bool door_message_has_fd(enum door_message_type type)
{
    return type == DOOR_MESSAGE_LISTENER || type == DOOR_MESSAGE_CONN;
}

enum rc door_message_send(int fd, const struct door_message *message, int passed_fd,
                          struct err *err)
{
    uint8_t bytes[DOOR_MESSAGE_BYTES];
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
    union control control = {0};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t sent;

    ASSERT(door_message_has_fd(message->type) == (passed_fd >= 0));
    door_message_encode(message, bytes);
    if (passed_fd >= 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(sizeof passed_fd);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        ASSERT(rights != NULL);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof passed_fd);
        memcpy(CMSG_DATA(rights), &passed_fd, sizeof passed_fd);
    }
    do {
        sent = sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent == (ssize_t)sizeof bytes) {
        return RC_OK;
    }
    switch (errno) {
    case EAGAIN:
    case ENOBUFS:
    case ETOOMANYREFS: /* too many descriptors under way: goes when the peer reads */
        return err_set_errno(err, RC_BUSY, "peer's queue");
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return err_set_errno(err, RC_UNAVAILABLE, "peer");
    default:
        return err_set_errno(err, RC_IO, "sendmsg");
    }
}

/* Gathers all descriptors of the message; returns how many. */
static size_t take_fds(struct msghdr *header, int fds[FDS_MAX])
{
    size_t count = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t here = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < here && count < FDS_MAX; i++) {
            memcpy(&fds[count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
        }
    }
    return count;
}

static enum rc check_fds(const struct msghdr *header, const struct door_message *message,
                         size_t fd_count, struct err *err)
{
    size_t wanted = door_message_has_fd(message->type) ? 1 : 0;

    if ((header->msg_flags & MSG_CTRUNC) != 0) {
        return err_set(err, RC_INVALID, "descriptors were cut off: too many, or none free here");
    }
    if (fd_count != wanted) {
        return err_set(err, RC_INVALID, "message type %d with %zu descriptors, want %zu",
                       (int)message->type, fd_count, wanted);
    }
    return RC_OK;
}

enum rc door_message_receive(int fd, struct door_message *message, int *passed_fd, struct err *err)
{
    uint8_t bytes[DOOR_MESSAGE_BYTES + 1]; /* one more: a longer message shows as longer */
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
    union control control;
    struct msghdr header;
    int fds[FDS_MAX];
    ssize_t count;
    int resets = 0;

    *passed_fd = -1;
    do {
        header = (struct msghdr){.msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = control.bytes,
                                 .msg_controllen = sizeof control.bytes};
        count = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (count < 0 && (errno == EINTR || (errno == ECONNRESET && ++resets < RESETS_MAX)));
    if (count < 0 && errno == EAGAIN) {
        return err_set(err, RC_NOT_FOUND, "no message");
    }
    if (count < 0 && errno != ECONNRESET) {
        return err_set_errno(err, RC_IO, "recvmsg");
    }
    if (count <= 0) {
        return err_set(err, RC_UNAVAILABLE, "peer closed");
    }
    size_t fd_count = take_fds(&header, fds);
    enum rc rc = door_message_decode(bytes, (size_t)count, message, err);
    if (rc == RC_OK) {
        rc = check_fds(&header, message, fd_count, err);
    }
    if (rc == RC_OK && fd_count == 1) {
        *passed_fd = fds[0];
        fd_count = 0;
    }
    for (size_t i = 0; i < fd_count; i++) {
        close(fds[i]);
    }
    return rc;
}

enum rc door_socket_connect(const char *path, int *fd, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    *fd = -1;
    if (strlen(path) >= sizeof address.sun_path) {
        return err_set(err, RC_INVALID, "%s: longer than a socket's path may be (%zu)", path,
                       sizeof address.sun_path - 1);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    int made = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (made < 0) {
        return err_set_errno(err, RC_IO, "socket");
    }
    if (connect(made, (const struct sockaddr *)&address, sizeof address) == 0) {
        *fd = made;
        return RC_OK;
    }
    enum rc rc = errno == EACCES || errno == EPERM ? RC_DENIED : RC_UNAVAILABLE;
    rc = err_set_errno(err, rc, "door at %s", path);
    close(made);
    return rc;
}
