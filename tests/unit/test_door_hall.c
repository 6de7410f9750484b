/* SPDX-License-Identifier: Apache-2.0 */
/* Apps come and go behind the door, and connections find their way (method: door_stage.h). */
#include "tests/unit/door_stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void test_door_hall__two_apps_share_one_listener(void **state)
{
    int listener_a = -1;
    int listener_b = -1;
    int browser = -1;
    int served = -1;
    struct door_client *a = door_stage_join(&listener_a);
    struct door_client *b = door_stage_join(&listener_b);

    (void)state;
    assert_int_equal(door_stage_port_of(listener_a), door_stage_port_of(listener_b));
    door_stage_connect(listener_b, &browser, &served);
    door_stage_expect_talk(browser, served);
    assert_int_equal(door_stage_ask_health().number, 2);
    close(browser);
    close(served);
    close(listener_a);
    close(listener_b);
    door_client_destroy(a);
    door_client_destroy(b);
    door_stage_work();
    assert_int_equal(door_stage_ask_health().number, 0);
}

static void test_door_hall__leaver_passes_a_live_connection(void **state)
{
    int listener_a = -1;
    int listener_b = -1;
    int browser = -1;
    int served = -1;
    struct door_client *a = door_stage_join(&listener_a);
    struct door_client *b = door_stage_join(&listener_b);

    (void)state;
    door_stage_connect(listener_a, &browser, &served);
    door_stage_expect_talk(browser, served);
    assert_int_equal(door_client_leave(a, &stage.err), RC_OK);
    assert_int_equal(door_client_leave(a, &stage.err), RC_OK);
    assert_int_equal(write(browser, "r", 1), 1); /* the next request is on its way already */
    assert_int_equal(door_client_send_conn(a, served, &stage.err), RC_OK);
    close(served);
    door_client_destroy(a);
    int adopted = door_stage_expect_event(b, DOOR_EVENT_CONN).fd;
    char byte = 'x';
    assert_int_equal(read(adopted, &byte, 1), 1);
    assert_int_equal(byte, 'r');
    door_stage_expect_talk(browser, adopted);
    door_stage_work(); /* the door lets go of its copy: the end is ours to say */
    close(adopted);
    door_stage_expect_end(browser);
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
    struct door_client *a = door_stage_join(&listener);

    (void)state;
    door_stage_connect(listener, &browser, &served);
    assert_int_equal(door_client_leave(a, &stage.err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &stage.err), RC_OK);
    close(served);
    close(listener);
    door_client_destroy(a);
    door_stage_work();
    assert_int_equal(door_stage_ask_health().count, 1);
    struct door_client *b = door_stage_join(&listener);
    int adopted = door_stage_expect_event(b, DOOR_EVENT_CONN).fd;
    door_stage_expect_talk(browser, adopted);
    assert_int_equal(door_stage_ask_health().count, 0);
    close(adopted);
    close(browser);
    close(listener);
    door_client_destroy(b);
}

static void park_one(int *browser)
{
    int listener = -1;
    int served = -1;
    struct door_client *a = door_stage_join(&listener);

    door_stage_connect(listener, browser, &served);
    assert_int_equal(door_client_leave(a, &stage.err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &stage.err), RC_OK);
    close(served);
    close(listener);
    door_client_destroy(a);
    door_stage_work();
    assert_int_equal(door_stage_ask_health().count, 1);
}

static void test_door_hall__parked_connection_without_a_peer_is_dropped(void **state)
{
    int browser = -1;

    (void)state;
    park_one(&browser);
    close(browser);
    door_stage_work();
    assert_int_equal(door_stage_ask_health().count, 0);
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
    door_stage_work();
    assert_int_equal(door_stage_ask_health().count, 1);
    struct door_client *b = door_stage_join(&listener);
    int adopted = door_stage_expect_event(b, DOOR_EVENT_CONN).fd;
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
    struct door_client *a = door_stage_join(&listener_a);
    struct door_client *b = door_stage_join(&listener_b);

    (void)state;
    door_stage_connect(listener_a, &browser, &served);
    assert_int_equal(door_client_leave(a, &stage.err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &stage.err), RC_OK);
    close(served);
    door_stage_work(); /* now it lies in b's queue */
    door_client_destroy(b);
    door_stage_work();
    assert_int_equal(door_stage_ask_health().count, 1);
    close(listener_b);
    struct door_client *c = door_stage_join(&listener_b);
    int adopted = door_stage_expect_event(c, DOOR_EVENT_CONN).fd;
    door_stage_expect_talk(browser, adopted);
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
    struct door_client *a = door_stage_join(&listener_a);
    struct door_client *b = door_stage_join(&listener_b);

    (void)state;
    door_stage_connect(listener_a, &browser, &served);
    assert_int_equal(door_client_leave(a, &stage.err), RC_OK);
    assert_int_equal(door_client_send_conn(a, served, &stage.err), RC_OK);
    close(served);
    door_stage_work(); /* now it lies in b's queue */
    assert_int_equal(door_client_leave(b, &stage.err), RC_OK);
    door_stage_expect_nothing(b);
    assert_int_equal(door_stage_ask_health().count, 1);
    close(listener_a);
    struct door_client *c = door_stage_join(&listener_a);
    int adopted = door_stage_expect_event(c, DOOR_EVENT_CONN).fd;
    door_stage_expect_talk(browser, adopted);
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
        apps[i] = door_stage_join(&listeners[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        door_stage_connect(listeners[0], &browsers[i], &served[i]);
    }
    assert_int_equal(door_client_leave(apps[0], &stage.err), RC_OK);
    for (int i = 0; i < COUNT; i++) {
        enum rc rc = door_client_send_conn(apps[0], served[i], &stage.err);
        if (rc == RC_BUSY) {
            was_busy = true;
            (void)door_stage_expect_event(apps[0], DOOR_EVENT_ROOM); /* lets the hall work */
            rc = door_client_send_conn(apps[0], served[i], &stage.err);
        }
        assert_int_equal(rc, RC_OK);
        close(served[i]);
    }
    assert_true(was_busy);
    door_client_destroy(apps[0]);
    /* Nobody has read yet: each of the two was given a window, the rest is parked. */
    door_stage_work();
    door_stage_work();
    assert_int_equal(door_stage_ask_health().count, COUNT - 2 * DOOR_WINDOW);
    for (int done = 0; done < COUNT;) {
        int before = done;
        for (int i = 1; i < 3; i++) {
            struct door_event event;
            assert_int_equal(door_client_next(apps[i], &event, &stage.err), RC_OK);
            if (event.kind == DOOR_EVENT_CONN) {
                assert_int_equal(write(event.fd, "a", 1), 1);
                close(event.fd);
                adopted_count[i]++;
                done++;
            }
        }
        door_stage_work();
        assert_true(done > before);
    }
    assert_int_equal(adopted_count[1] + adopted_count[2], COUNT);
    assert_true(adopted_count[1] > COUNT / 3 && adopted_count[2] > COUNT / 3);
    for (int i = 0; i < COUNT; i++) {
        char byte = 'x';
        assert_int_equal(read(browsers[i], &byte, 1), 1);
        door_stage_expect_end(browsers[i]);
        close(browsers[i]);
    }
    for (int i = 0; i < 3; i++) {
        close(listeners[i]);
    }
    door_client_destroy(apps[1]);
    door_client_destroy(apps[2]);
}

/* Away for a while: what was on its way goes to others, and nothing comes until it is back. */
static void test_door_client__paused_is_sent_nothing(void **state)
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
    assert_int_equal(door_client_send_conn(a, served, &stage.err), RC_OK);
    close(served);
    door_client_destroy(a);
    door_stage_work(); /* now it lies in b's queue */
    assert_int_equal(door_client_pause(b, &stage.err), RC_OK);
    assert_int_equal(door_client_pause(b, &stage.err), RC_OK);
    door_stage_expect_nothing(b);
    assert_false(door_client_is_joined(b));
    assert_int_equal(door_stage_ask_health().number, 0);
    assert_int_equal(door_stage_ask_health().count, 1);
    assert_int_equal(door_client_resume(b, &stage.err), RC_OK);
    assert_int_equal(door_client_resume(b, &stage.err), RC_OK);
    int adopted = door_stage_expect_event(b, DOOR_EVENT_CONN).fd; /* and no second LISTENER */
    door_stage_expect_talk(browser, adopted);
    assert_true(door_client_is_joined(b));
    /* a stop ends a pause: there are connections to pass on */
    assert_int_equal(door_client_pause(b, &stage.err), RC_OK);
    assert_int_equal(door_client_leave(b, &stage.err), RC_UNAVAILABLE);
    (void)door_stage_expect_event(b, DOOR_EVENT_ROOM);
    assert_int_equal(door_client_send_conn(b, adopted, &stage.err), RC_OK);
    door_stage_work();
    assert_int_equal(door_stage_ask_health().count, 1);
    close(adopted);
    close(browser);
    close(listener_a);
    close(listener_b);
    door_client_destroy(b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, door_stage_set_up, door_stage_tear_down)

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
        TEST(test_door_client__paused_is_sent_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
