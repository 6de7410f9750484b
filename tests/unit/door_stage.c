/* SPDX-License-Identifier: Apache-2.0 */
/* door_stage: see door_stage.h. */
#include "tests/unit/door_stage.h"

#include "base/clk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct door_stage stage;

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

void door_stage_set_port(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    memset(&stage.config.listen, 0, sizeof stage.config.listen);
    memcpy(&stage.config.listen, &address, sizeof address);
    stage.config.listen_bytes = sizeof address;
}

int door_stage_set_up(void **state)
{
    (void)state;
    (void)snprintf(stage.directory, sizeof stage.directory, "/tmp/test-door-XXXXXX");
    if (mkdtemp(stage.directory) == NULL) {
        return -1;
    }
    (void)snprintf(stage.socket_path, sizeof stage.socket_path, "%s/door.sock", stage.directory);
    stage.open_before = count_open_fds();
    stage.config = (struct door_config){.socket_path = stage.socket_path,
                                        .listen_text = "test",
                                        .uid = geteuid(),
                                        .parked_max = DOOR_PARKED_MAX};
    door_stage_set_port(0);
    log_set_level(LOG_LEVEL_ERROR);
    return door_hall_create(&stage.config, &stage.hall, &stage.err) == RC_OK ? 0 : -1;
}

int door_stage_tear_down(void **state)
{
    char lock_path[128];

    (void)state;
    door_hall_destroy(stage.hall);
    stage.hall = NULL;
    (void)snprintf(lock_path, sizeof lock_path, "%s.lock", stage.socket_path);
    unlink(lock_path);
    rmdir(stage.directory);
    return count_open_fds() == stage.open_before ? 0 : -1;
}

void door_stage_work(void)
{
    for (int i = 0; i < 5 && stage.hall != NULL; i++) {
        assert_int_equal(door_hall_work(stage.hall, &stage.err), RC_OK);
    }
}

/* The next event that is one, letting hall and client work in turn. */
struct door_event door_stage_expect_event(struct door_client *client, enum door_event_kind kind)
{
    int64_t deadline_ms = clk_monotonic_ms() + DOOR_STAGE_PATIENCE_MS;
    struct pollfd ready = {.fd = door_client_get_fd(client), .events = POLLIN};
    struct door_event event = {.kind = DOOR_EVENT_NONE};

    while (event.kind == DOOR_EVENT_NONE) {
        assert_true(clk_monotonic_ms() < deadline_ms);
        door_stage_work();
        assert_int_equal(door_client_next(client, &event, &stage.err), RC_OK);
        if (event.kind == DOOR_EVENT_NONE) {
            (void)poll(&ready, 1, 5);
        }
    }
    assert_int_equal(event.kind, kind);
    return event;
}

void door_stage_expect_nothing(struct door_client *client)
{
    struct door_event event;

    door_stage_work();
    for (int i = 0; i < 5; i++) {
        assert_int_equal(door_client_next(client, &event, &stage.err), RC_OK);
        assert_int_equal(event.kind, DOOR_EVENT_NONE);
        door_stage_work();
    }
}

struct door_client *door_stage_create_client(void)
{
    struct door_client *client = NULL;

    assert_int_equal(door_client_create(stage.socket_path, &client, &stage.err), RC_OK);
    return client;
}

struct door_client *door_stage_join(int *listener)
{
    struct door_client *client = door_stage_create_client();

    *listener = door_stage_expect_event(client, DOOR_EVENT_LISTENER).fd;
    assert_true(door_client_is_joined(client));
    return client;
}

uint16_t door_stage_port_of(int listener)
{
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;

    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    return ntohs(address.sin_port);
}

/* A browser's end and a server's end of one connection. */
void door_stage_connect(int listener, int *browser, int *served)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(door_stage_port_of(listener)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct pollfd ready = {.fd = listener, .events = POLLIN};

    *browser = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(*browser, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(poll(&ready, 1, DOOR_STAGE_PATIENCE_MS), 1);
    *served = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(*served >= 0);
}

void door_stage_expect_talk(int browser, int served)
{
    char byte = 'x';

    assert_int_equal(write(browser, "q", 1), 1);
    assert_int_equal(read(served, &byte, 1), 1);
    assert_int_equal(byte, 'q');
    assert_int_equal(write(served, "a", 1), 1);
    assert_int_equal(read(browser, &byte, 1), 1);
    assert_int_equal(byte, 'a');
}

void door_stage_expect_end(int browser)
{
    char byte;
    struct pollfd ready = {.fd = browser, .events = POLLIN};

    assert_int_equal(poll(&ready, 1, DOOR_STAGE_PATIENCE_MS), 1);
    assert_int_equal(read(browser, &byte, 1), 0);
}

struct door_message door_stage_ask_health(void)
{
    const struct door_message question = {.type = DOOR_MESSAGE_HEALTH};
    struct door_message answer = {.count = 0};
    int passed = -1;
    int fd = -1;

    assert_int_equal(door_socket_connect(stage.socket_path, &fd, &stage.err), RC_OK);
    assert_int_equal(door_message_send(fd, &question, -1, &stage.err), RC_OK);
    door_stage_work();
    assert_int_equal(door_message_receive(fd, &answer, &passed, &stage.err), RC_OK);
    assert_int_equal(answer.type, DOOR_MESSAGE_HEALTH);
    close(fd);
    door_stage_work();
    return answer;
}
