/* SPDX-License-Identifier: Apache-2.0 */
/* handover: see handover.h. */
#include "server/handover.h"

#include "base/log.h"
#include "door/door_client.h"

#include <stdio.h>
#include <stdlib.h>

#define HANDOVER_EVENTS_MAX 64u /* per run: requests get their turn */
#define HANDOVER_WARN_MS 5000   /* without a door for that long: said once */

struct handover {
    struct handover_config config;
    struct door_client *client; /* NULL: not looked for yet */
    int64_t missing_since_ms;   /* 0: the door is there */
    bool warned;
};

enum rc handover_create(const struct handover_config *config, struct handover **handover,
                        struct err *err)
{
    struct handover *made = calloc(1, sizeof *made);
    *handover = made;
    if (made == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the handover");
    }
    made->config = *config;
    return RC_OK;
}

void handover_destroy(struct handover *handover)
{
    if (handover != NULL) {
        door_client_destroy(handover->client);
        free(handover);
    }
}

/* ---- joining ---- */

enum rc handover_join(struct handover *handover, int64_t now_ms, struct err *err)
{
    ASSERT(handover->client == NULL);
    handover->missing_since_ms = now_ms;
    log_info("door", "joining  door=%s", handover->config.door_path);
    return door_client_create(handover->config.door_path, &handover->client, err);
}

int handover_fd(const struct handover *handover)
{
    return handover->client == NULL ? -1 : door_client_get_fd(handover->client);
}

/* ---- events ---- */

/* A door that was started anew in another network namespace has bound another socket. */
static void take_listener(struct handover *handover, int fd)
{
    struct listener *listener = handover->config.listener;
    listener_take(listener, fd);
    log_info("door", "listening  address=%s", listener->address);
}

static void note_door(struct handover *handover, int64_t now_ms)
{
    if (door_client_is_joined(handover->client)) {
        handover->missing_since_ms = 0;
        handover->warned = false;
        return;
    }
    if (handover->missing_since_ms == 0) {
        handover->missing_since_ms = now_ms;
    }
    if (!handover->warned && now_ms - handover->missing_since_ms >= HANDOVER_WARN_MS) {
        handover->warned = true;
        log_warn("door", "no door yet  reason=\"%s\"", door_client_get_failure(handover->client));
    }
}

static void take_event(struct handover *handover, const struct door_event *event,
                       const struct err *err, int64_t now_ms)
{
    switch (event->kind) {
    case DOOR_EVENT_LISTENER:
        take_listener(handover, event->fd);
        break;
    case DOOR_EVENT_CONN:
        http_adopt(handover->config.http, event->fd, now_ms);
        break;
    case DOOR_EVENT_ROOM:
        http_pass_idle(handover->config.http);
        break;
    case DOOR_EVENT_LOST:
        log_info("door", "lost, looking for it  reason=\"%s\"", err->text);
        break;
    case DOOR_EVENT_NONE:
        break;
    }
}

void handover_run(struct handover *handover, int64_t now_ms)
{
    struct door_event event = {.kind = DOOR_EVENT_NONE, .fd = -1};
    for (unsigned i = 0; i < HANDOVER_EVENTS_MAX; i++) {
        struct err err = ERR_INIT;
        if (door_client_next(handover->client, &event, &err) != RC_OK) {
            log_error("door", "%s", err.text);
            break;
        }
        if (event.kind == DOOR_EVENT_NONE) {
            break;
        }
        take_event(handover, &event, &err, now_ms);
    }
    note_door(handover, now_ms);
}

/* ---- leaving ---- */

static bool pass(void *arg, int fd)
{
    struct handover *handover = arg;
    struct err err = ERR_INIT;
    enum rc rc = door_client_send_conn(handover->client, fd, &err);
    if (rc != RC_OK && rc != RC_BUSY && rc != RC_UNAVAILABLE) {
        log_warn("door", "a connection stays here: %s", err.text);
    }
    return rc == RC_OK;
}

bool handover_leave(struct handover *handover, int64_t now_ms)
{
    const struct http_passer passer = {.arg = handover, .pass = pass};
    struct err err = ERR_INIT;
    if (handover->client == NULL) {
        return false;
    }
    if (door_client_leave(handover->client, &err) != RC_OK) {
        log_info("door", "leaving  detail=\"%s\"", err.text);
    }
    if (!handover->config.pass_connections) {
        return false;
    }
    http_begin_passing(handover->config.http, &passer, now_ms);
    return true;
}
