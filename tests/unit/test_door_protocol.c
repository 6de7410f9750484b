/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door's messages: encoding, what is refused, and descriptors that travel over a real
 * SOCK_SEQPACKET pair. Every test ends with as many open descriptors as it began with.
 */
#include "door/door_protocol.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int pair[2];
static int open_before;

static int count_open_fds(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    assert_non_null(directory);
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}

static int set_up(void **state)
{
    (void)state;
    open_before = count_open_fds();
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        if (pair[i] >= 0) {
            close(pair[i]);
        }
    }
    return count_open_fds() == open_before ? 0 : -1;
}

static int open_null(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

/* Sends raw bytes with `fd_count` descriptors of /dev/null. */
static void send_raw(const uint8_t *bytes, size_t count, size_t fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * 16)];
    } control = {0};
    int fds[16];
    struct iovec part;
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    uint8_t copy[64];

    assert_true(count <= sizeof copy && fd_count <= 16);
    memcpy(copy, bytes, count);
    part = (struct iovec){.iov_base = copy, .iov_len = count};
    for (size_t i = 0; i < fd_count; i++) {
        fds[i] = open_null();
    }
    if (fd_count > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(rights), fds, sizeof(int) * fd_count);
    }
    assert_int_equal(sendmsg(pair[0], &header, 0), (ssize_t)count);
    for (size_t i = 0; i < fd_count; i++) {
        close(fds[i]);
    }
}

static enum rc receive(struct door_message *message, int *fd)
{
    struct err err = ERR_INIT;

    return door_message_receive(pair[1], message, fd, &err);
}

static void test_door_protocol__layout_is_fixed(void **state)
{
    const struct door_message message = {
        .type = DOOR_MESSAGE_HEALTH, .flags = 0x0102, .number = 0x03040506, .count = 0x0708090a};
    static const uint8_t expected[] = {1, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    uint8_t bytes[DOOR_MESSAGE_BYTES];

    (void)state;
    door_message_encode(&message, bytes);
    assert_memory_equal(bytes, expected, sizeof expected);
}

static void test_door_protocol__every_type_comes_back(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    for (int type = DOOR_MESSAGE_HELLO; type <= DOOR_MESSAGE_HEALTH; type++) {
        const struct door_message message = {.type = (enum door_message_type)type,
                                             .flags = DOOR_FLAG_HAS_LISTENER,
                                             .number = UINT32_MAX,
                                             .count = 1};
        struct door_message decoded;
        uint8_t bytes[DOOR_MESSAGE_BYTES];
        door_message_encode(&message, bytes);
        assert_int_equal(door_message_decode(bytes, sizeof bytes, &decoded, &err), RC_OK);
        assert_int_equal(decoded.type, message.type);
        assert_int_equal(decoded.flags, message.flags);
        assert_int_equal(decoded.number, message.number);
        assert_int_equal(decoded.count, message.count);
    }
}

static void test_door_protocol__foreign_messages_are_invalid(void **state)
{
    static const uint8_t good[DOOR_MESSAGE_BYTES] = {1, DOOR_MESSAGE_HELLO};
    struct door_message message;
    struct err err = ERR_INIT;
    uint8_t bytes[DOOR_MESSAGE_BYTES + 1] = {0};

    (void)state;
    for (size_t length = 0; length <= sizeof bytes; length++) {
        memcpy(bytes, good, sizeof good);
        assert_int_equal(door_message_decode(bytes, length, &message, &err),
                         length == DOOR_MESSAGE_BYTES ? RC_OK : RC_INVALID);
    }
    for (int version = 0; version <= 255; version++) {
        bytes[0] = (uint8_t)version;
        assert_int_equal(door_message_decode(bytes, sizeof good, &message, &err),
                         version == DOOR_PROTOCOL_VERSION ? RC_OK : RC_INVALID);
    }
    bytes[0] = DOOR_PROTOCOL_VERSION;
    for (int type = 0; type <= 255; type++) {
        bytes[1] = (uint8_t)type;
        bool known = type >= DOOR_MESSAGE_HELLO && type <= DOOR_MESSAGE_HEALTH;
        assert_int_equal(door_message_decode(bytes, sizeof good, &message, &err),
                         known ? RC_OK : RC_INVALID);
    }
}

static void test_door_protocol__descriptor_travels(void **state)
{
    const struct door_message conn = {.type = DOOR_MESSAGE_CONN, .number = 7};
    struct door_message message;
    struct err err = ERR_INIT;
    struct stat sent;
    struct stat received;
    int sent_fd = open_null();
    int fd = -1;

    (void)state;
    assert_int_equal(door_message_send(pair[0], &conn, sent_fd, &err), RC_OK);
    assert_int_equal(fstat(sent_fd, &sent), 0);
    close(sent_fd);
    assert_int_equal(receive(&message, &fd), RC_OK);
    assert_int_equal(message.type, DOOR_MESSAGE_CONN);
    assert_int_equal(message.number, 7);
    assert_int_equal(fstat(fd, &received), 0);
    assert_int_equal(sent.st_ino, received.st_ino);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    close(fd);
    assert_int_equal(receive(&message, &fd), RC_NOT_FOUND);
    assert_int_equal(fd, -1);
}

/* The descriptors of refused messages are closed: tear_down counts. */
static void test_door_protocol__descriptors_out_of_place_are_closed(void **state)
{
    static const uint8_t conn[DOOR_MESSAGE_BYTES] = {1, DOOR_MESSAGE_CONN};
    static const uint8_t hello[DOOR_MESSAGE_BYTES] = {1, DOOR_MESSAGE_HELLO};
    static const uint8_t unknown[DOOR_MESSAGE_BYTES] = {1, 99};
    static const uint8_t future[DOOR_MESSAGE_BYTES + 20] = {2, DOOR_MESSAGE_CONN};
    struct door_message message;
    int fd = -1;

    (void)state;
    send_raw(conn, sizeof conn, 0);
    assert_int_equal(receive(&message, &fd), RC_INVALID);
    send_raw(conn, sizeof conn, 2);
    assert_int_equal(receive(&message, &fd), RC_INVALID);
    send_raw(conn, sizeof conn, 12);
    assert_int_equal(receive(&message, &fd), RC_INVALID);
    send_raw(hello, sizeof hello, 1);
    assert_int_equal(receive(&message, &fd), RC_INVALID);
    send_raw(unknown, sizeof unknown, 1);
    assert_int_equal(receive(&message, &fd), RC_INVALID);
    send_raw(future, sizeof future, 1);
    assert_int_equal(receive(&message, &fd), RC_INVALID);
    assert_int_equal(fd, -1);
    send_raw(conn, sizeof conn, 1);
    assert_int_equal(receive(&message, &fd), RC_OK);
    close(fd);
}

/*
 * A leaver closes with messages of ours unread: the kernel reports a reset before what the leaver
 * had sent. Nothing of that may be lost.
 */
static void test_door_protocol__last_words_survive_a_reset(void **state)
{
    const struct door_message adopted = {.type = DOOR_MESSAGE_ADOPTED, .number = 1};
    const struct door_message conn = {.type = DOOR_MESSAGE_CONN};
    struct door_message message;
    struct err err = ERR_INIT;
    int null_fd = open_null();
    int fd = -1;

    (void)state;
    assert_int_equal(door_message_send(pair[1], &adopted, -1, &err), RC_OK); /* never read */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(door_message_send(pair[0], &conn, null_fd, &err), RC_OK);
    }
    close(null_fd);
    close(pair[0]);
    pair[0] = -1;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(receive(&message, &fd), RC_OK);
        close(fd);
    }
    assert_int_equal(receive(&message, &fd), RC_UNAVAILABLE);
    assert_int_equal(door_message_send(pair[1], &adopted, -1, &err), RC_UNAVAILABLE);
}

static void test_door_protocol__full_queue_is_busy(void **state)
{
    const struct door_message adopted = {.type = DOOR_MESSAGE_ADOPTED};
    struct door_message message;
    struct err err = ERR_INIT;
    enum rc rc = RC_OK;
    int sent = 0;
    int fd = -1;

    (void)state;
    while (rc == RC_OK && sent < 1000000) {
        rc = door_message_send(pair[0], &adopted, -1, &err);
        sent += rc == RC_OK ? 1 : 0;
    }
    assert_int_equal(rc, RC_BUSY);
    for (int i = 0; i < sent; i++) {
        assert_int_equal(receive(&message, &fd), RC_OK);
    }
    assert_int_equal(receive(&message, &fd), RC_NOT_FOUND);
    assert_int_equal(door_message_send(pair[0], &adopted, -1, &err), RC_OK);
}

static void test_door_protocol__connect_says_why_not(void **state)
{
    struct err err = ERR_INIT;
    char path[200];
    int fd = -1;

    (void)state;
    assert_int_equal(door_socket_connect("/nonexistent/door.sock", &fd, &err), RC_UNAVAILABLE);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(door_socket_connect(path, &fd, &err), RC_INVALID);
    assert_int_equal(fd, -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_door_protocol__layout_is_fixed),
        TEST(test_door_protocol__every_type_comes_back),
        TEST(test_door_protocol__foreign_messages_are_invalid),
        TEST(test_door_protocol__descriptor_travels),
        TEST(test_door_protocol__descriptors_out_of_place_are_closed),
        TEST(test_door_protocol__last_words_survive_a_reset),
        TEST(test_door_protocol__full_queue_is_busy),
        TEST(test_door_protocol__connect_says_why_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
