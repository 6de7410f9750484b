/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door's hall and its client together, in one process and one thread: a test lets each of them
 * work in turn, so every order of events is chosen, and none is waited for. Connections are real
 * ones over loopback, to a port that the kernel chose.
 *
 * Each test ends with as many open descriptors as it began with.
 */
#include "base/clk.h"
#include "door/door_client.h"
#include "door/door_hall.h"
#include "door/door_protocol.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_MS 5000 /* a test that waits longer has failed */

static char directory[64];
static char socket_path[96];
static struct door_config config;
static struct door_hall *hall;
static struct err err;
static int open_before;

static int count_open_fds(void)
{
    DIR *listing = opendir("/proc/self/fd");
    int count = 0;

    assert_non_null(listing);
    while (readdir(listing) != NULL) {
        count++;
    }
    closedir(listing);
    return count;
}

static void set_port(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    memset(&config.listen, 0, sizeof config.listen);
    memcpy(&config.listen, &address, sizeof address);
    config.listen_bytes = sizeof address;
}

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof directory, "/tmp/test-door-XXXXXX");
    if (mkdtemp(directory) == NULL) {
        return -1;
    }
    (void)snprintf(socket_path, sizeof socket_path, "%s/door.sock", directory);
    open_before = count_open_fds();
    config =
        (struct door_config){.socket_path = socket_path, .listen_text = "test", .uid = geteuid()};
    set_port(0);
    log_set_level(LOG_LEVEL_ERROR);
    return door_hall_create(&config, &hall, &err) == RC_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    char lock_path[128];

    (void)state;
    door_hall_destroy(hall);
    hall = NULL;
    (void)snprintf(lock_path, sizeof lock_path, "%s.lock", socket_path);
    unlink(lock_path);
    rmdir(directory);
    return count_open_fds() == open_before ? 0 : -1;
}

static void hall_works(void)
{
    for (int i = 0; i < 5 && hall != NULL; i++) {
        assert_int_equal(door_hall_work(hall, &err), RC_OK);
    }
}

/* The next event that is one, letting hall and client work in turn. */
static struct door_event expect_event(struct door_client *client, enum door_event_kind kind)
{
    int64_t deadline_ms = clk_monotonic_ms() + PATIENCE_MS;
    struct pollfd ready = {.fd = door_client_get_fd(client), .events = POLLIN};
    struct door_event event = {.kind = DOOR_EVENT_NONE};

    while (event.kind == DOOR_EVENT_NONE) {
        assert_true(clk_monotonic_ms() < deadline_ms);
        hall_works();
        assert_int_equal(door_client_next(client, &event, &err), RC_OK);
        if (event.kind == DOOR_EVENT_NONE) {
            (void)poll(&ready, 1, 5);
        }
    }
    assert_int_equal(event.kind, kind);
    return event;
}

static void expect_nothing(struct door_client *client)
{
    struct door_event event;

    hall_works();
    for (int i = 0; i < 5; i++) {
        assert_int_equal(door_client_next(client, &event, &err), RC_OK);
        assert_int_equal(event.kind, DOOR_EVENT_NONE);
        hall_works();
    }
}

static struct door_client *create_client(void)
{
    struct door_client *client = NULL;

    assert_int_equal(door_client_create(socket_path, &client, &err), RC_OK);
    return client;
}

static struct door_client *join(int *listener)
{
    struct door_client *client = create_client();

    *listener = expect_event(client, DOOR_EVENT_LISTENER).fd;
    assert_true(door_client_is_joined(client));
    return client;
}

static uint16_t port_of(int listener)
{
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;

    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    return ntohs(address.sin_port);
}

/* A browser's end and a server's end of one connection. */
static void connect_through(int listener, int *browser, int *served)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port_of(listener)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct pollfd ready = {.fd = listener, .events = POLLIN};

    *browser = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(*browser, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(poll(&ready, 1, PATIENCE_MS), 1);
    *served = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(*served >= 0);
}

static void expect_talk(int browser, int served)
{
    char byte = 'x';

    assert_int_equal(write(browser, "q", 1), 1);
    assert_int_equal(read(served, &byte, 1), 1);
    assert_int_equal(byte, 'q');
    assert_int_equal(write(served, "a", 1), 1);
    assert_int_equal(read(browser, &byte, 1), 1);
    assert_int_equal(byte, 'a');
}

static void expect_end(int browser)
{
    char byte;
    struct pollfd ready = {.fd = browser, .events = POLLIN};

    assert_int_equal(poll(&ready, 1, PATIENCE_MS), 1);
    assert_int_equal(read(browser, &byte, 1), 0);
}

static struct door_message ask_health(void)
{
    const struct door_message question = {.type = DOOR_MESSAGE_HEALTH};
    struct door_message answer = {.count = 0};
    int passed = -1;
    int fd = -1;

    assert_int_equal(door_socket_connect(socket_path, &fd, &err), RC_OK);
    assert_int_equal(door_message_send(fd, &question, -1, &err), RC_OK);
    hall_works();
    assert_int_equal(door_message_receive(fd, &answer, &passed, &err), RC_OK);
    assert_int_equal(answer.type, DOOR_MESSAGE_HEALTH);
    close(fd);
    hall_works();
    return answer;
}

static void test_door_hall__two_apps_share_one_listener(void **state)
{
    int listener_a = -1;
    int listener_b = -1;
    int browser = -1;
    int served = -1;
    struct door_client *a = join(&listener_a);
    struct door_client *b = join(&listener_b);

    (void)state;
    assert_int_equal(port_of(listener_a), port_of(listener_b));
    connect_through(listener_b, &browser, &served);
    expect_talk(browser, served);
    assert_int_equal(ask_health().number, 2);
    close(browser);
    close(served);
    close(listener_a);
    close(listener_b);
    door_client_destroy(a);
    door_client_destroy(b);
    hall_works();
    assert_int_equal(ask_health().number, 0);
}

static void test_door_hall__leaver_passes_a_live_connection(void **state)
{
    int listener_a = -1;
    int listener_b = -1;
    int browser = -1;
    int served = -1;
    struct door_client *a = join(&listener_a);
    struct door_client *b = join(&listener_b);

    (void)state;
    connect_through(listener_a, &browser, &served);
    expect_talk(browser, served);
    assert_int_equal(door_client_leave(a, &err), RC_OK);
    assert_int_equal(door_client_leave(a, &err), RC_OK);
    assert_int_equal(write(browser, "r", 1), 1); /* the next request is on its way already */
    assert_int_equal(door_client_send_conn(a, served, &err), RC_OK);
    close(served);
    door_client_destroy(a);
    int adopted = expect_event(b, DOOR_EVENT_CONN).fd;
    char byte = 'x';
    assert_int_equal(read(adopted, &byte, 1), 1);
    assert_int_equal(byte, 'r');
    expect_talk(browser, adopted);
    hall_works(); /* the door lets go of its copy: the end is ours to say */
    close(adopted);
    expect_end(browser);
    close(browser);
    close(listener_a);
    close(listener_b);
    door_client_destroy(b);
}

static void test_door_hall__parked_connection_waits_for_the_next_app(void **state)
{
    int listener = -1;
    int browser = -1;
    int served = -1;
    struct door_client *a = join(&listener);

    (void)state;
    connect_through(listener, &browser, &served);
    assert_int_equal(door_client_leave(a, &err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &err), RC_OK);
    close(served);
    close(listener);
    door_client_destroy(a);
    hall_works();
    assert_int_equal(ask_health().count, 1);
    struct door_client *b = join(&listener);
    int adopted = expect_event(b, DOOR_EVENT_CONN).fd;
    expect_talk(browser, adopted);
    assert_int_equal(ask_health().count, 0);
    close(adopted);
    close(browser);
    close(listener);
    door_client_destroy(b);
}

static void park_one(int *browser)
{
    int listener = -1;
    int served = -1;
    struct door_client *a = join(&listener);

    connect_through(listener, browser, &served);
    assert_int_equal(door_client_leave(a, &err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &err), RC_OK);
    close(served);
    close(listener);
    door_client_destroy(a);
    hall_works();
    assert_int_equal(ask_health().count, 1);
}

static void test_door_hall__parked_connection_without_a_peer_is_dropped(void **state)
{
    int browser = -1;

    (void)state;
    park_one(&browser);
    close(browser);
    hall_works();
    assert_int_equal(ask_health().count, 0);
}

/* "GET …" and shutdown(SHUT_WR), as nc does: the request lies unread, and wants its answer. */
static void test_door_hall__half_closed_connection_keeps_its_request(void **state)
{
    int listener = -1;
    int browser = -1;
    char byte = 'x';

    (void)state;
    park_one(&browser);
    assert_int_equal(write(browser, "r", 1), 1);
    assert_int_equal(shutdown(browser, SHUT_WR), 0);
    hall_works();
    assert_int_equal(ask_health().count, 1);
    struct door_client *b = join(&listener);
    int adopted = expect_event(b, DOOR_EVENT_CONN).fd;
    assert_int_equal(read(adopted, &byte, 1), 1);
    assert_int_equal(byte, 'r');
    assert_int_equal(write(adopted, "a", 1), 1);
    assert_int_equal(read(browser, &byte, 1), 1);
    close(adopted);
    close(browser);
    close(listener);
    door_client_destroy(b);
}

/* An app that was killed had a connection in its queue that it never saw. */
static void test_door_hall__unread_connection_of_a_dead_app_goes_on(void **state)
{
    int listener_a = -1;
    int listener_b = -1;
    int browser = -1;
    int served = -1;
    struct door_client *a = join(&listener_a);
    struct door_client *b = join(&listener_b);

    (void)state;
    connect_through(listener_a, &browser, &served);
    assert_int_equal(door_client_leave(a, &err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &err), RC_OK);
    close(served);
    hall_works(); /* now it lies in b's queue */
    door_client_destroy(b);
    hall_works();
    assert_int_equal(ask_health().count, 1);
    close(listener_b);
    struct door_client *c = join(&listener_b);
    int adopted = expect_event(c, DOOR_EVENT_CONN).fd;
    expect_talk(browser, adopted);
    close(adopted);
    close(browser);
    close(listener_a);
    close(listener_b);
    door_client_destroy(a);
    door_client_destroy(c);
}

/* A leaver adopts nothing more: what was on its way to it comes back to the door. */
static void test_door_hall__connection_on_its_way_to_a_leaver_turns_back(void **state)
{
    int listener_a = -1;
    int listener_b = -1;
    int browser = -1;
    int served = -1;
    struct door_client *a = join(&listener_a);
    struct door_client *b = join(&listener_b);

    (void)state;
    connect_through(listener_a, &browser, &served);
    assert_int_equal(door_client_leave(a, &err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &err), RC_OK);
    close(served);
    hall_works(); /* now it lies in b's queue */
    assert_int_equal(door_client_leave(b, &err), RC_OK);
    expect_nothing(b);
    assert_int_equal(ask_health().count, 1);
    close(listener_a);
    struct door_client *c = join(&listener_a);
    int adopted = expect_event(c, DOOR_EVENT_CONN).fd;
    expect_talk(browser, adopted);
    close(adopted);
    close(browser);
    close(listener_a);
    close(listener_b);
    door_client_destroy(a);
    door_client_destroy(b);
    door_client_destroy(c);
}

/* More connections than a window and than a socket's queue: busy, room, and none lost. */
static void test_door_hall__many_connections_are_spread(void **state)
{
    enum { COUNT = 400 };
    static int browsers[COUNT];
    int served[COUNT];
    int listeners[3];
    struct door_client *apps[3];
    int adopted_count[3] = {0, 0, 0};
    bool was_busy = false;

    (void)state;
    for (int i = 0; i < 3; i++) {
        apps[i] = join(&listeners[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        connect_through(listeners[0], &browsers[i], &served[i]);
    }
    assert_int_equal(door_client_leave(apps[0], &err), RC_OK);
    for (int i = 0; i < COUNT; i++) {
        enum rc rc = door_client_send_conn(apps[0], served[i], &err);
        if (rc == RC_BUSY) {
            was_busy = true;
            (void)expect_event(apps[0], DOOR_EVENT_ROOM); /* lets the hall work */
            rc = door_client_send_conn(apps[0], served[i], &err);
        }
        assert_int_equal(rc, RC_OK);
        close(served[i]);
    }
    assert_true(was_busy);
    door_client_destroy(apps[0]);
    /* Nobody has read yet: each of the two was given a window, the rest is parked. */
    hall_works();
    hall_works();
    assert_int_equal(ask_health().count, COUNT - 2 * DOOR_WINDOW);
    for (int done = 0; done < COUNT;) {
        int before = done;
        for (int i = 1; i < 3; i++) {
            struct door_event event;
            assert_int_equal(door_client_next(apps[i], &event, &err), RC_OK);
            if (event.kind == DOOR_EVENT_CONN) {
                assert_int_equal(write(event.fd, "a", 1), 1);
                close(event.fd);
                adopted_count[i]++;
                done++;
            }
        }
        hall_works();
        assert_true(done > before);
    }
    assert_int_equal(adopted_count[1] + adopted_count[2], COUNT);
    assert_true(adopted_count[1] > COUNT / 3 && adopted_count[2] > COUNT / 3);
    for (int i = 0; i < COUNT; i++) {
        char byte = 'x';
        assert_int_equal(read(browsers[i], &byte, 1), 1);
        expect_end(browsers[i]);
        close(browsers[i]);
    }
    for (int i = 0; i < 3; i++) {
        close(listeners[i]);
    }
    door_client_destroy(apps[1]);
    door_client_destroy(apps[2]);
}

static void test_door_hall__restarted_door_gets_its_listener_back(void **state)
{
    int listener = -1;
    int other = -1;
    int browser = -1;
    int served = -1;
    struct door_client *a = join(&listener);

    (void)state;
    set_port(port_of(listener));
    door_hall_destroy(hall);
    hall = NULL;
    (void)expect_event(a, DOOR_EVENT_LOST);
    assert_false(door_client_is_joined(a));
    assert_int_equal(door_client_send_conn(a, listener, &err), RC_UNAVAILABLE);
    connect_through(listener, &browser, &served); /* no door, and nobody notices */
    assert_int_equal(door_hall_create(&config, &hall, &err), RC_OK);
    assert_int_equal(ask_health().flags, 0);
    int64_t deadline_ms = clk_monotonic_ms() + PATIENCE_MS;
    while (!door_client_is_joined(a)) {
        struct door_event event;
        assert_true(clk_monotonic_ms() < deadline_ms);
        assert_int_equal(door_client_next(a, &event, &err), RC_OK);
        assert_int_equal(event.kind, DOOR_EVENT_NONE); /* it is the listener we have */
        hall_works();
        clk_pause_ms(1);
    }
    expect_nothing(a);
    assert_int_equal(ask_health().flags, DOOR_FLAG_HAS_LISTENER);
    struct door_client *b = join(&other);
    assert_int_equal(port_of(other), port_of(listener));
    assert_int_equal(door_client_leave(a, &err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &err), RC_OK);
    close(served);
    int adopted = expect_event(b, DOOR_EVENT_CONN).fd;
    expect_talk(browser, adopted);
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
    struct door_client *a = join(&listener_a);
    struct door_client *b = join(&listener_b);

    (void)state;
    connect_through(listener_a, &browser, &served);
    set_port(port_of(listener_a));
    door_hall_destroy(hall);
    hall = NULL;
    (void)expect_event(a, DOOR_EVENT_LOST);
    (void)expect_event(b, DOOR_EVENT_LOST);
    assert_int_equal(door_client_leave(a, &err), RC_UNAVAILABLE);
    assert_int_equal(door_client_send_conn(a, served, &err), RC_UNAVAILABLE);
    assert_int_equal(door_hall_create(&config, &hall, &err), RC_OK);
    (void)expect_event(a, DOOR_EVENT_ROOM); /* it has given the listener on its way out */
    assert_int_equal(ask_health().flags, DOOR_FLAG_HAS_LISTENER);
    assert_int_equal(door_client_leave(a, &err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &err), RC_OK);
    close(served);
    int adopted = expect_event(b, DOOR_EVENT_CONN).fd;
    expect_talk(browser, adopted);
    assert_int_equal(ask_health().number, 1);
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
    struct door_client *a = join(&listener);

    (void)state;
    connect_through(listener, &browser, &served);
    set_port(port_of(listener));
    door_hall_destroy(hall);
    hall = NULL;
    door_client_destroy(a);
    assert_int_equal(door_hall_create(&config, &hall, &err), RC_OK);
    assert_int_equal(door_socket_connect(socket_path, &fd, &err), RC_OK);
    assert_int_equal(door_message_send(fd, &hello, -1, &err), RC_OK);
    hall_works();
    assert_int_equal(door_message_receive(fd, &message, &passed, &err), RC_OK);
    assert_int_equal(message.type, DOOR_MESSAGE_WANT_LISTENER);
    assert_int_equal(door_message_send(fd, &offer, listener, &err), RC_OK);
    assert_int_equal(door_message_send(fd, &leaving, -1, &err), RC_OK);
    assert_int_equal(door_message_send(fd, &conn, served, &err), RC_OK);
    close(served);
    close(listener);
    close(fd);
    hall_works();
    assert_int_equal(ask_health().count, 1);
    struct door_client *b = join(&listener);
    int adopted = expect_event(b, DOOR_EVENT_CONN).fd;
    expect_talk(browser, adopted);
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
    struct door_client *a = join(&listener_a);
    struct door_client *b = join(&listener_b);

    (void)state;
    connect_through(listener_a, &browser, &served);
    assert_int_equal(door_client_leave(a, &err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &err), RC_OK); /* unread by the door, too */
    close(served);
    door_client_destroy(a);
    door_hall_destroy(hall);
    hall = NULL;
    int adopted = expect_event(b, DOOR_EVENT_CONN).fd;
    (void)expect_event(b, DOOR_EVENT_LOST);
    expect_talk(browser, adopted);
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
    assert_int_equal(door_hall_create(&config, &second, &err), RC_BUSY);
    assert_null(second);
    assert_int_equal(ask_health().flags, DOOR_FLAG_HAS_LISTENER); /* the first is unharmed */
}

static void test_door_client__join_without_a_door_times_out(void **state)
{
    int listener = -1;

    (void)state;
    door_hall_destroy(hall);
    hall = NULL;
    struct door_client *client = create_client();
    assert_int_equal(door_client_join(client, 60, &listener, &err), RC_TIMEOUT);
    assert_int_equal(listener, -1);
    assert_int_equal(door_client_leave(client, &err), RC_UNAVAILABLE);
    door_client_destroy(client);
    door_client_destroy(NULL);
}

static void expect_shown_out(int fd)
{
    struct door_message message;
    int passed = -1;

    hall_works();
    assert_int_equal(door_message_receive(fd, &message, &passed, &err), RC_UNAVAILABLE);
    close(fd);
}

static void test_door_hall__broken_protocol_ends_only_that_peer(void **state)
{
    const struct door_message adopted = {.type = DOOR_MESSAGE_ADOPTED, .number = 1};
    const struct door_message hello = {.type = DOOR_MESSAGE_HELLO};
    static const uint8_t future[] = {2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t unknown[] = {1, 77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    int listener = -1;
    int fd = -1;
    int passed = -1;
    struct door_message message;
    struct door_client *a = join(&listener);

    (void)state;
    assert_int_equal(door_socket_connect(socket_path, &fd, &err), RC_OK);
    assert_int_equal(send(fd, future, sizeof future, 0), sizeof future);
    expect_shown_out(fd);
    assert_int_equal(door_socket_connect(socket_path, &fd, &err), RC_OK);
    assert_int_equal(send(fd, unknown, sizeof unknown, 0), sizeof unknown);
    expect_shown_out(fd);
    assert_int_equal(door_socket_connect(socket_path, &fd, &err), RC_OK);
    assert_int_equal(door_message_send(fd, &adopted, -1, &err), RC_OK); /* before HELLO */
    expect_shown_out(fd);
    assert_int_equal(door_socket_connect(socket_path, &fd, &err), RC_OK);
    assert_int_equal(door_message_send(fd, &hello, -1, &err), RC_OK);
    hall_works();
    assert_int_equal(door_message_receive(fd, &message, &passed, &err), RC_OK);
    close(passed);
    assert_int_equal(door_message_send(fd, &adopted, -1, &err), RC_OK); /* of nothing sent */
    expect_shown_out(fd);
    assert_int_equal(ask_health().number, 1);
    expect_nothing(a);
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
    struct door_client *a = join(&listener);

    (void)state;
    set_port(port_of(listener));
    door_hall_destroy(hall);
    hall = NULL;
    door_client_destroy(a); /* our own copy still bars the address */
    assert_int_equal(door_hall_create(&config, &hall, &err), RC_OK);
    int foreign = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(listen(foreign, 1), 0); /* a port of the kernel's choice */
    assert_int_equal(door_socket_connect(socket_path, &fd, &err), RC_OK);
    assert_int_equal(door_message_send(fd, &hello, -1, &err), RC_OK);
    hall_works();
    assert_int_equal(door_message_receive(fd, &message, &passed, &err), RC_OK);
    assert_int_equal(message.type, DOOR_MESSAGE_WANT_LISTENER);
    assert_int_equal(door_message_send(fd, &offer, foreign, &err), RC_OK);
    expect_shown_out(fd);
    assert_int_equal(ask_health().flags, 0);
    close(foreign);
    close(listener); /* the address is free: the door takes it by itself */
    hall_works();
    assert_int_equal(ask_health().flags, DOOR_FLAG_HAS_LISTENER);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_door_hall__two_apps_share_one_listener),
        TEST(test_door_hall__leaver_passes_a_live_connection),
        TEST(test_door_hall__parked_connection_waits_for_the_next_app),
        TEST(test_door_hall__parked_connection_without_a_peer_is_dropped),
        TEST(test_door_hall__half_closed_connection_keeps_its_request),
        TEST(test_door_hall__unread_connection_of_a_dead_app_goes_on),
        TEST(test_door_hall__connection_on_its_way_to_a_leaver_turns_back),
        TEST(test_door_hall__many_connections_are_spread),
        TEST(test_door_hall__restarted_door_gets_its_listener_back),
        TEST(test_door_hall__leaver_waits_for_the_next_door),
        TEST(test_door_hall__leaver_in_a_hurry_is_heard_to_the_end),
        TEST(test_door_hall__unread_connection_survives_the_door),
        TEST(test_door_hall__second_door_is_refused),
        TEST(test_door_client__join_without_a_door_times_out),
        TEST(test_door_hall__broken_protocol_ends_only_that_peer),
        TEST(test_door_hall__foreign_listener_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
