/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door's limits: who may come near, how much it holds, in which order, and to whom a connection goes.
 * Its conversations are in test_door_hall.c; here apps are bare sockets that say one message after the
 * other.
 */
#include "door/door_client.h"
#include "door/door_hall.h"
#include "door/door_listener.h"
#include "door/door_parking.h"
#include "door/door_protocol.h"
#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static struct scratch scratch;
static struct err err;
static char socket_path[SCRATCH_PATH_BYTES];
static struct door_config config;
static struct door_hall *hall;

static bool queue_is_full; /* of whoever is sent a descriptor next */

/* In between the code and the kernel: a queue that is full just now. */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (queue_is_full && message->msg_controllen > 0) {
        queue_is_full = false;
        errno = EAGAIN;
        return -1;
    }
    return syscall(SYS_sendmsg, fd, message, flags);
}

static int setup(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    scratch_init(&scratch);
    err = (struct err)ERR_INIT;
    (void)snprintf(socket_path, sizeof socket_path, "%s", scratch_path(&scratch, "door.sock"));
    config = (struct door_config){.socket_path = socket_path,
                                  .listen_text = "test",
                                  .uid = geteuid(),
                                  .parked_max = DOOR_PARKED_MAX};
    memcpy(&config.listen, &address, sizeof address);
    config.listen_bytes = sizeof address;
    hall = NULL;
    queue_is_full = false;
    log_set_level(LOG_LEVEL_ERROR);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    door_hall_destroy(hall);
    scratch_deinit(&scratch);
    return 0;
}

static void hall_works(void)
{
    for (int i = 0; i < 5; i++) {
        check_ok(door_hall_work(hall, &err));
    }
}

static void say(int app, enum door_message_type type, int fd)
{
    const struct door_message message = {.type = type};
    check_ok(door_message_send(app, &message, fd, &err));
    hall_works();
}

/* An app that has joined. */
static int join(void)
{
    struct door_message message;
    int app = -1;
    int listener = -1;
    check_ok(door_socket_connect(socket_path, &app, &err));
    say(app, DOOR_MESSAGE_HELLO, -1);
    check_ok(door_message_receive(app, &message, &listener, &err));
    assert_int_equal(message.type, DOOR_MESSAGE_LISTENER);
    assert_int_equal(close(listener), 0);
    return app;
}

/* How many connections wait for this app; it says nothing of having them. */
static int count_received(int app)
{
    int count = 0;
    struct door_message message;
    int fd = -1;
    while (door_message_receive(app, &message, &fd, &err) == RC_OK) {
        assert_int_equal(message.type, DOOR_MESSAGE_CONN);
        assert_int_equal(close(fd), 0);
        count++;
    }
    return count;
}

static void pass_some(int leaver, int count)
{
    for (int i = 0; i < count; i++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        say(leaver, DOOR_MESSAGE_CONN, pair[0]);
        assert_int_equal(close(pair[0]),
                         0); /* the client's end stays open until the program's end */
    }
}

static void test_door_limits__only_its_owner_reaches_the_socket(void **state)
{
    (void)state;
    struct stat file;
    check_ok(door_hall_create(&config, &hall, &err));
    assert_int_equal(stat(socket_path, &file), 0);
    assert_int_equal(file.st_mode & 0777, 0600);
    door_hall_destroy(hall);
    config.uid = geteuid() + 1; /* another may join: it must get as far as the check of its uid */
    check_ok(door_hall_create(&config, &hall, &err));
    assert_int_equal(stat(socket_path, &file), 0);
    assert_int_equal(file.st_mode & 0777, 0666);
}

/* With fewer descriptors than it promises to hold it says so at once, not when they run out. */
static void test_door_limits__too_few_descriptors(void **state)
{
    (void)state;
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        const struct rlimit few = {.rlim_cur = 1000, .rlim_max = 1000};
        if (setrlimit(RLIMIT_NOFILE, &few) != 0) {
            _exit(2); /* valgrind keeps descriptors for itself */
        }
        _exit(door_hall_create(&config, &hall, &err) == RC_LIMIT ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    const char *preloaded = getenv("LD_PRELOAD");
    bool is_valgrind = preloaded != NULL && strstr(preloaded, "vgpreload") != NULL;
    if (is_valgrind && WIFEXITED(status) && WEXITSTATUS(status) == 2) {
        skip();
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* One app is slow and confirms nothing: who confirms gets what comes. */
static void test_door_limits__fewest_on_their_way_first(void **state)
{
    (void)state;
    check_ok(door_hall_create(&config, &hall, &err));
    int slow = join();
    int leaver = join();
    say(leaver, DOOR_MESSAGE_LEAVING, -1);
    pass_some(leaver, 5);
    int quick = join();
    pass_some(leaver, 4);
    assert_int_equal(count_received(slow), 5);
    assert_int_equal(count_received(quick), 4);
    assert_int_equal(close(slow), 0);
    assert_int_equal(close(quick), 0);
    assert_int_equal(close(leaver), 0);
    hall_works();
}

/* It could not be sent just now: it goes back to the others that wait, and is sent later. */
static void test_door_limits__a_full_queue_costs_no_connection(void **state)
{
    (void)state;
    int pair[2];
    check_ok(door_hall_create(&config, &hall, &err));
    int app = join();
    int leaver = join();
    say(leaver, DOOR_MESSAGE_LEAVING, -1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    const struct door_message message = {.type = DOOR_MESSAGE_CONN};
    check_ok(door_message_send(leaver, &message, pair[0], &err));
    queue_is_full = true;
    hall_works();
    assert_false(queue_is_full);
    assert_int_equal(count_received(app), 1);
    assert_int_equal(close(pair[0]) + close(pair[1]) + close(app) + close(leaver), 0);
    hall_works();
}

/* The address is taken by the listener of the door before us: who has it gives it, and all get it. */
static void test_door_limits__who_waits_gets_the_listener(void **state)
{
    (void)state;
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    struct door_message message = {.type = DOOR_MESSAGE_HELLO, .flags = DOOR_FLAG_HAS_LISTENER};
    int passed = -1;
    int waiting = -1;
    int owner = -1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(&address, &config.listen, sizeof address);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    memcpy(&config.listen, &address, sizeof address);
    check_ok(door_hall_create(&config, &hall, &err));
    check_ok(door_socket_connect(socket_path, &waiting, &err));
    say(waiting, DOOR_MESSAGE_HELLO, -1);
    check_fails(RC_NOT_FOUND, door_message_receive(waiting, &message, &passed, &err));
    check_ok(door_socket_connect(socket_path, &owner, &err));
    message = (struct door_message){.type = DOOR_MESSAGE_HELLO, .flags = DOOR_FLAG_HAS_LISTENER};
    check_ok(door_message_send(owner, &message, -1, &err));
    hall_works();
    check_ok(door_message_receive(owner, &message, &passed, &err));
    assert_int_equal(message.type, DOOR_MESSAGE_WANT_LISTENER);
    say(owner, DOOR_MESSAGE_LISTENER, listener);
    check_ok(door_message_receive(waiting, &message, &passed, &err));
    assert_int_equal(message.type, DOOR_MESSAGE_LISTENER);
    assert_int_equal(close(passed) + close(listener) + close(waiting) + close(owner), 0);
    hall_works();
}

/* What an app offers as the listener must be one: bound there, and listening. */
static void test_door_limits__what_is_no_listener(void **state)
{
    (void)state;
    struct sockaddr_in address;
    int bound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(&address, &config.listen, sizeof address);
    assert_int_equal(bind(bound, (struct sockaddr *)&address, sizeof address), 0);
    check_fails(RC_INVALID, door_listener_check(bound, &config.listen, &err));
    check_text("not a listening socket");
    assert_int_equal(listen(bound, 1), 0);
    check_ok(door_listener_check(bound, &config.listen, &err));
    assert_int_equal(close(bound), 0);
}

/* The one that has waited longest goes first; where there is no room a client sees the end, not silence. */
static void test_door_limits__parking(void **state)
{
    (void)state;
    struct door_parking *parking = NULL;
    int pairs[3][2];
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    char byte;
    check_ok(door_parking_create(epoll_fd, 0, 2, &parking, &err));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]), 0);
    }
    check_ok(door_parking_add(parking, pairs[0][0], &err));
    check_ok(door_parking_add(parking, pairs[1][0], &err));
    check_fails(RC_LIMIT, door_parking_add(parking, pairs[2][0], &err));
    assert_int_equal(read(pairs[2][1], &byte, 1), 0);
    assert_int_equal(door_parking_take(parking), pairs[0][0]);
    assert_int_equal(door_parking_take(parking), pairs[1][0]);
    assert_int_equal(door_parking_take(parking), -1);
    door_parking_destroy(parking);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(close(pairs[i][1]), 0);
    }
    assert_int_equal(close(pairs[0][0]) + close(pairs[1][0]) + close(epoll_fd), 0);
}

/* Something at the door's path that sends a connection before the listener is no door. */
static void test_door_limits__client_before_the_listener(void **state)
{
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct door_client *client = NULL;
    struct door_event event = {.kind = DOOR_EVENT_NONE};
    const struct door_message message = {.type = DOOR_MESSAGE_CONN, .number = 1};
    int pair[2];
    assert_true(strlen(socket_path) < sizeof address.sun_path);
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    int stranger = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(stranger, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(stranger, 1), 0);
    check_ok(door_client_create(socket_path, &client, &err));
    check_ok(door_client_next(client, &event, &err)); /* connects */
    int peer = accept4(stranger, NULL, NULL, SOCK_CLOEXEC);
    assert_true(peer >= 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    check_ok(door_message_send(peer, &message, pair[0], &err));
    check_ok(door_client_next(client, &event, &err));
    assert_int_equal(event.kind, DOOR_EVENT_LOST);
    door_client_destroy(client);
    assert_int_equal(close(pair[0]) + close(pair[1]) + close(peer) + close(stranger), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_door_limits__only_its_owner_reaches_the_socket),
        CASE(test_door_limits__too_few_descriptors),
        CASE(test_door_limits__fewest_on_their_way_first),
        CASE(test_door_limits__a_full_queue_costs_no_connection),
        CASE(test_door_limits__who_waits_gets_the_listener),
        CASE(test_door_limits__what_is_no_listener),
        CASE(test_door_limits__parking),
        CASE(test_door_limits__client_before_the_listener),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
