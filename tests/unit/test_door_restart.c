/* SPDX-License-Identifier: Apache-2.0 */
/* The door ends, is started anew, runs out of room, and meets peers that break the rules (method: door_stage.h). */
#include "tests/unit/door_stage.h"

#include "base/clk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <stdio.h>
#include <unistd.h>

static void test_door_hall__restarted_door_gets_its_listener_back(void **state)
{
    int listener = -1;
    int other = -1;
    int browser = -1;
    int served = -1;
    struct door_client *a = door_stage_join(&listener);

    (void)state;
    door_stage_set_port(door_stage_port_of(listener));
    door_hall_destroy(stage.hall);
    stage.hall = NULL;
    (void)door_stage_expect_event(a, DOOR_EVENT_LOST);
    assert_false(door_client_is_joined(a));
    assert_int_equal(door_client_send_conn(a, listener, &stage.err), RC_UNAVAILABLE);
    door_stage_connect(listener, &browser, &served); /* no door, and nobody notices */
    assert_int_equal(door_hall_create(&stage.config, &stage.hall, &stage.err), RC_OK);
    assert_int_equal(door_stage_ask_health().flags, 0);
    int64_t deadline_ms = clk_monotonic_ms() + DOOR_STAGE_PATIENCE_MS;
    while (!door_client_is_joined(a)) {
        struct door_event event;
        assert_true(clk_monotonic_ms() < deadline_ms);
        assert_int_equal(door_client_next(a, &event, &stage.err), RC_OK);
        assert_int_equal(event.kind, DOOR_EVENT_NONE); /* it is the listener we have */
        door_stage_work();
        clk_pause_ms(1);
    }
    door_stage_expect_nothing(a);
    assert_int_equal(door_stage_ask_health().flags, DOOR_FLAG_HAS_LISTENER);
    struct door_client *b = door_stage_join(&other);
    assert_int_equal(door_stage_port_of(other), door_stage_port_of(listener));
    assert_int_equal(door_client_leave(a, &stage.err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &stage.err), RC_OK);
    close(served);
    int adopted = door_stage_expect_event(b, DOOR_EVENT_CONN).fd;
    door_stage_expect_talk(browser, adopted);
    close(adopted);
    close(browser);
    close(listener);
    close(other);
    door_client_destroy(a);
    door_client_destroy(b);
}

/* SIGTERM for a server while there is no door: it passes its connections to the next one. */
static void test_door_hall__leaver_waits_for_the_next_door(void **state)
{
    int listener_a = -1;
    int listener_b = -1;
    int browser = -1;
    int served = -1;
    struct door_client *a = door_stage_join(&listener_a);
    struct door_client *b = door_stage_join(&listener_b);

    (void)state;
    door_stage_connect(listener_a, &browser, &served);
    door_stage_set_port(door_stage_port_of(listener_a));
    door_hall_destroy(stage.hall);
    stage.hall = NULL;
    (void)door_stage_expect_event(a, DOOR_EVENT_LOST);
    (void)door_stage_expect_event(b, DOOR_EVENT_LOST);
    assert_int_equal(door_client_leave(a, &stage.err), RC_UNAVAILABLE);
    assert_int_equal(door_client_send_conn(a, served, &stage.err), RC_UNAVAILABLE);
    assert_int_equal(door_hall_create(&stage.config, &stage.hall, &stage.err), RC_OK);
    (void)door_stage_expect_event(a,
                                  DOOR_EVENT_ROOM); /* it has given the listener on its way out */
    assert_int_equal(door_stage_ask_health().flags, DOOR_FLAG_HAS_LISTENER);
    assert_int_equal(door_client_leave(a, &stage.err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &stage.err), RC_OK);
    close(served);
    int adopted = door_stage_expect_event(b, DOOR_EVENT_CONN).fd;
    door_stage_expect_talk(browser, adopted);
    assert_int_equal(door_stage_ask_health().number, 1);
    close(adopted);
    close(browser);
    close(listener_a);
    close(listener_b);
    door_client_destroy(a);
    door_client_destroy(b);
}

/* The same in one breath: the leaver is gone before the door has read a word of it. */
static void test_door_hall__leaver_in_a_hurry_is_heard_to_the_end(void **state)
{
    const struct door_message hello = {.type = DOOR_MESSAGE_HELLO, .flags = DOOR_FLAG_HAS_LISTENER};
    const struct door_message offer = {.type = DOOR_MESSAGE_LISTENER};
    const struct door_message leaving = {.type = DOOR_MESSAGE_LEAVING};
    const struct door_message conn = {.type = DOOR_MESSAGE_CONN};
    struct door_message message;
    int listener = -1;
    int browser = -1;
    int served = -1;
    int fd = -1;
    int passed = -1;
    struct door_client *a = door_stage_join(&listener);

    (void)state;
    door_stage_connect(listener, &browser, &served);
    door_stage_set_port(door_stage_port_of(listener));
    door_hall_destroy(stage.hall);
    stage.hall = NULL;
    door_client_destroy(a);
    assert_int_equal(door_hall_create(&stage.config, &stage.hall, &stage.err), RC_OK);
    assert_int_equal(door_socket_connect(stage.socket_path, &fd, &stage.err), RC_OK);
    assert_int_equal(door_message_send(fd, &hello, -1, &stage.err), RC_OK);
    door_stage_work();
    assert_int_equal(door_message_receive(fd, &message, &passed, &stage.err), RC_OK);
    assert_int_equal(message.type, DOOR_MESSAGE_WANT_LISTENER);
    assert_int_equal(door_message_send(fd, &offer, listener, &stage.err), RC_OK);
    assert_int_equal(door_message_send(fd, &leaving, -1, &stage.err), RC_OK);
    assert_int_equal(door_message_send(fd, &conn, served, &stage.err), RC_OK);
    close(served);
    close(listener);
    close(fd);
    door_stage_work();
    assert_int_equal(door_stage_ask_health().count, 1);
    struct door_client *b = door_stage_join(&listener);
    int adopted = door_stage_expect_event(b, DOOR_EVENT_CONN).fd;
    door_stage_expect_talk(browser, adopted);
    close(adopted);
    close(browser);
    close(listener);
    door_client_destroy(b);
}

/* The door ends with a connection in an app's queue: nobody else can have it. */
static void test_door_hall__unread_connection_survives_the_door(void **state)
{
    int listener_a = -1;
    int listener_b = -1;
    int browser = -1;
    int served = -1;
    struct door_client *a = door_stage_join(&listener_a);
    struct door_client *b = door_stage_join(&listener_b);

    (void)state;
    door_stage_connect(listener_a, &browser, &served);
    assert_int_equal(door_client_leave(a, &stage.err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &stage.err),
                     RC_OK); /* unread by the door, too */
    close(served);
    door_client_destroy(a);
    door_hall_destroy(stage.hall);
    stage.hall = NULL;
    int adopted = door_stage_expect_event(b, DOOR_EVENT_CONN).fd;
    (void)door_stage_expect_event(b, DOOR_EVENT_LOST);
    door_stage_expect_talk(browser, adopted);
    close(adopted);
    close(browser);
    close(listener_a);
    close(listener_b);
    door_client_destroy(b);
}

static void test_door_hall__second_door_is_refused(void **state)
{
    struct door_hall *second = NULL;

    (void)state;
    assert_int_equal(door_hall_create(&stage.config, &second, &stage.err), RC_BUSY);
    assert_null(second);
    assert_int_equal(door_stage_ask_health().flags,
                     DOOR_FLAG_HAS_LISTENER); /* the first is unharmed */
}

static void test_door_client__join_without_a_door_times_out(void **state)
{
    int listener = -1;

    (void)state;
    door_hall_destroy(stage.hall);
    stage.hall = NULL;
    struct door_client *client = door_stage_create_client();
    assert_int_equal(door_client_join(client, 60, &listener, &stage.err), RC_TIMEOUT);
    assert_int_equal(listener, -1);
    assert_int_equal(door_client_leave(client, &stage.err), RC_UNAVAILABLE);
    door_client_destroy(client);
    door_client_destroy(NULL);
}

static void expect_shown_out(int fd)
{
    struct door_message message;
    int passed = -1;

    door_stage_work();
    assert_int_equal(door_message_receive(fd, &message, &passed, &stage.err), RC_UNAVAILABLE);
    close(fd);
}

static void test_door_hall__broken_protocol_ends_only_that_peer(void **state)
{
    const struct door_message adopted = {.type = DOOR_MESSAGE_ADOPTED, .number = 1};
    const struct door_message leaving = {.type = DOOR_MESSAGE_LEAVING};
    const struct door_message hello = {.type = DOOR_MESSAGE_HELLO};
    static const uint8_t future[] = {2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t unknown[] = {1, 77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    int listener = -1;
    int fd = -1;
    int passed = -1;
    struct door_message message;
    struct door_client *a = door_stage_join(&listener);

    (void)state;
    assert_int_equal(door_socket_connect(stage.socket_path, &fd, &stage.err), RC_OK);
    assert_int_equal(send(fd, future, sizeof future, 0), sizeof future);
    expect_shown_out(fd);
    assert_int_equal(door_socket_connect(stage.socket_path, &fd, &stage.err), RC_OK);
    assert_int_equal(send(fd, unknown, sizeof unknown, 0), sizeof unknown);
    expect_shown_out(fd);
    assert_int_equal(door_socket_connect(stage.socket_path, &fd, &stage.err), RC_OK);
    assert_int_equal(door_message_send(fd, &leaving, -1, &stage.err), RC_OK); /* before HELLO */
    expect_shown_out(fd);
    assert_int_equal(door_socket_connect(stage.socket_path, &fd, &stage.err), RC_OK);
    assert_int_equal(door_message_send(fd, &hello, -1, &stage.err), RC_OK);
    door_stage_work();
    assert_int_equal(door_message_receive(fd, &message, &passed, &stage.err), RC_OK);
    close(passed);
    assert_int_equal(door_message_send(fd, &adopted, -1, &stage.err), RC_OK); /* of nothing sent */
    expect_shown_out(fd);
    assert_int_equal(door_stage_ask_health().number, 1);
    door_stage_expect_nothing(a);
    close(listener);
    door_client_destroy(a);
}

/* A listener of another address is no listener of ours. */
static void test_door_hall__foreign_listener_is_refused(void **state)
{
    const struct door_message hello = {.type = DOOR_MESSAGE_HELLO, .flags = DOOR_FLAG_HAS_LISTENER};
    const struct door_message offer = {.type = DOOR_MESSAGE_LISTENER};
    struct door_message message;
    int listener = -1;
    int fd = -1;
    int passed = -1;
    struct door_client *a = door_stage_join(&listener);

    (void)state;
    door_stage_set_port(door_stage_port_of(listener));
    door_hall_destroy(stage.hall);
    stage.hall = NULL;
    door_client_destroy(a); /* our own copy still bars the address */
    assert_int_equal(door_hall_create(&stage.config, &stage.hall, &stage.err), RC_OK);
    int foreign = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(listen(foreign, 1), 0); /* a port of the kernel's choice */
    assert_int_equal(door_socket_connect(stage.socket_path, &fd, &stage.err), RC_OK);
    assert_int_equal(door_message_send(fd, &hello, -1, &stage.err), RC_OK);
    door_stage_work();
    assert_int_equal(door_message_receive(fd, &message, &passed, &stage.err), RC_OK);
    assert_int_equal(message.type, DOOR_MESSAGE_WANT_LISTENER);
    assert_int_equal(door_message_send(fd, &offer, foreign, &stage.err), RC_OK);
    expect_shown_out(fd);
    assert_int_equal(door_stage_ask_health().flags, 0);
    close(foreign);
    close(listener); /* the address is free: the door takes it by itself */
    door_stage_work();
    assert_int_equal(door_stage_ask_health().flags, DOOR_FLAG_HAS_LISTENER);
}

/* Passes `count` connections of `a` on; how many the door's queue took. */
static int pass_many(struct door_client *a, int listener, int *browsers, int count)
{
    int passed = 0;

    assert_int_equal(door_client_leave(a, &stage.err), RC_OK);
    for (int i = 0; i < count; i++) {
        int served = -1;
        door_stage_connect(listener, &browsers[i], &served);
        passed += door_client_send_conn(a, served, &stage.err) == RC_OK ? 1 : 0;
        close(served);
    }
    return passed;
}

static void expect_all_adopted(int *browsers, int count)
{
    int listener = -1;
    struct door_client *b = door_stage_join(&listener);

    for (int i = 0; i < count; i++) {
        struct door_event event = door_stage_expect_event(b, DOOR_EVENT_CONN);
        assert_int_equal(write(event.fd, "a", 1), 1);
        close(event.fd);
        door_stage_work();
    }
    for (int i = 0; i < count; i++) {
        char byte = 'x';
        assert_int_equal(read(browsers[i], &byte, 1), 1);
        close(browsers[i]);
    }
    close(listener);
    door_client_destroy(b);
}

static rlim_t set_descriptor_limit(rlim_t limit)
{
    struct rlimit now;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &now), 0);
    rlim_t before = now.rlim_cur;
    now.rlim_cur = limit;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    return before;
}

/* No descriptor is left: what comes waits where it is, nobody is shown out, and the door does not spin. */
static void test_door_hall__without_descriptors_nothing_is_lost(void **state)
{
    enum { COUNT = 20 };
    int browsers[COUNT];
    int listener = -1;
    int peer = -1;
    struct door_client *a = door_stage_join(&listener);

    (void)state;
    assert_int_equal(pass_many(a, listener, browsers, COUNT), COUNT);
    assert_int_equal(door_socket_connect(stage.socket_path, &peer, &stage.err), RC_OK);
    rlim_t before = set_descriptor_limit(3); /* every number below is taken */
    door_stage_work();
    assert_int_equal(door_hall_get_fd(stage.hall), -1);
    assert_in_range(door_hall_get_timeout_ms(stage.hall), 1, 1000);
    (void)set_descriptor_limit(before);
    door_stage_work();
    assert_true(door_hall_get_fd(stage.hall) >= 0);
    assert_int_equal(door_stage_ask_health().count, COUNT);
    close(peer);
    close(listener);
    door_client_destroy(a);
    expect_all_adopted(browsers, COUNT);
}

/* As many are parked as may be: a leaver keeps the rest, and none is closed. */
static void test_door_hall__full_parking_makes_leavers_wait(void **state)
{
    enum { COUNT = 20, ROOM = 7 };
    int browsers[COUNT];
    int listener = -1;

    (void)state;
    stage.config.parked_max = ROOM;
    struct door_client *a = door_stage_join(&listener);
    assert_int_equal(pass_many(a, listener, browsers, COUNT), COUNT);
    door_stage_work();
    assert_int_equal(door_stage_ask_health().count, ROOM);
    assert_int_equal(door_hall_get_fd(stage.hall), -1);
    close(listener);
    door_client_destroy(a); /* gone, and heard to the end all the same */
    expect_all_adopted(browsers, COUNT);
    assert_true(door_hall_get_fd(stage.hall) >= 0);
}

/* A path that is no socket's is somebody's file. */
static void test_door_hall__a_file_at_the_path_is_not_removed(void **state)
{
    struct door_hall *other = NULL;
    char path[128];
    char lock[160];
    struct door_config config = stage.config;

    (void)state;
    (void)snprintf(path, sizeof path, "%s/precious", stage.directory);
    (void)snprintf(lock, sizeof lock, "%s.lock", path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    config.socket_path = path;
    assert_int_equal(door_hall_create(&config, &other, &stage.err), RC_EXISTS);
    assert_null(other);
    assert_int_equal(unlink(path), 0); /* it was there */
    assert_int_equal(unlink(lock), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, door_stage_set_up, door_stage_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_door_hall__restarted_door_gets_its_listener_back),
        TEST(test_door_hall__leaver_waits_for_the_next_door),
        TEST(test_door_hall__leaver_in_a_hurry_is_heard_to_the_end),
        TEST(test_door_hall__unread_connection_survives_the_door),
        TEST(test_door_hall__second_door_is_refused),
        TEST(test_door_client__join_without_a_door_times_out),
        TEST(test_door_hall__broken_protocol_ends_only_that_peer),
        TEST(test_door_hall__foreign_listener_is_refused),
        TEST(test_door_hall__without_descriptors_nothing_is_lost),
        TEST(test_door_hall__full_parking_makes_leavers_wait),
        TEST(test_door_hall__a_file_at_the_path_is_not_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
