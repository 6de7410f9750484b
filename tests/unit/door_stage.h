/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_stage: the door's hall and its clients together, in one process and one thread: a test lets each of them
 * work in turn, so every order of events is chosen, and none is waited for. Connections are real ones over
 * loopback, to a port that the kernel chose. Each test ends with as many open descriptors as it began with.
 */
#ifndef HARVEY_TESTS_UNIT_DOOR_STAGE_H
#define HARVEY_TESTS_UNIT_DOOR_STAGE_H

#include "base/err.h"
#include "door/door_client.h"
#include "door/door_hall.h"
#include "door/door_protocol.h"

#include <stdint.h>

#define DOOR_STAGE_PATIENCE_MS 60000 /* a test that waits longer has failed */

struct door_stage {
    char directory[64];
    char socket_path[96];
    struct door_config config;
    struct door_hall *hall; /* NULL while there is no door */
    struct err err;
    int open_before;
};
extern struct door_stage stage;

int door_stage_set_up(void **state);
int door_stage_tear_down(void **state);

/* For the next hall; 0: the kernel's choice. */
void door_stage_set_port(uint16_t port);

void door_stage_work(void); /* the hall's */

/* The next event that is one, letting hall and client work in turn. */
struct door_event door_stage_expect_event(struct door_client *client, enum door_event_kind kind);
void door_stage_expect_nothing(struct door_client *client);

struct door_client *door_stage_create_client(void);
struct door_client *door_stage_join(int *listener);
uint16_t door_stage_port_of(int listener);

/* A browser's end and a server's end of one connection. */
void door_stage_connect(int listener, int *browser, int *served);
void door_stage_expect_talk(int browser, int served);
void door_stage_expect_end(int browser);

struct door_message door_stage_ask_health(void);

#endif
