/* SPDX-License-Identifier: Apache-2.0 */
/* handover: see handover.h. */
#include "server/handover.h"

#include "archive/sidecar.h"
#include "base/lockfile.h"
#include "base/log.h"
#include "door/door_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HANDOVER_EVENTS_MAX 64u /* per run: requests get their turn */
#define HANDOVER_WARN_MS 5000   /* without a door for that long: said once */
#define HANDOVER_LOOK_MS 20     /* between two looks at a sibling */

struct handover {
    struct handover_config config;
    struct door_client *client; /* NULL: not looked for yet */
    int64_t missing_since_ms;   /* 0: the door is there */
    bool warned;
    bool away; /* from the door, by our choice */
    bool leaving;
    struct lockfile open; /* held: this server lets clients in */
    bool open_failed;     /* said once */
    bool sibling_is_open; /* as of the last look */
    int64_t next_look_ms;
    char open_lock[FSIO_PATH_BYTES];
};

enum rc handover_create(const struct handover_config *config, struct handover **handover,
                        struct err *err)
{
    struct handover *made = calloc(1, sizeof *made);
    struct sidecar names;
    *handover = made;
    if (made == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the handover");
    }
    made->config = *config;
    made->open = (struct lockfile)LOCKFILE_INIT;
    enum rc rc = sidecar_init(&names, config->database_path, err);
    if (rc == RC_OK) {
        memcpy(made->open_lock, names.open_lock, sizeof made->open_lock);
    }
    return rc;
}

void handover_destroy(struct handover *handover)
{
    if (handover != NULL) {
        lockfile_release(&handover->open);
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

void handover_attend(struct handover *handover, bool wanted)
{
    struct err err = ERR_INIT;
    if (handover->client == NULL || wanted != handover->away) {
        return;
    }
    enum rc rc = wanted ? door_client_resume(handover->client, &err)
                        : door_client_pause(handover->client, &err);
    if (rc != RC_OK) {
        log_error("door", "%s", err.text);
        return;
    }
    handover->away = !wanted;
    log_info("door",
             wanted ? "connections may come again" : "connections may not come for a while");
}

/* ---- siblings ---- */

void handover_tell_open(struct handover *handover, bool open)
{
    struct err err = ERR_INIT;
    if (open == (handover->open.fd >= 0)) {
        return;
    }
    if (!open) {
        lockfile_release(&handover->open);
        return;
    }
    enum rc rc = lockfile_share(&handover->open, handover->open_lock, &err);
    if (rc != RC_OK && !handover->open_failed) {
        log_warn("door", "siblings cannot be told that clients are let in  error=\"%s\"", err.text);
    }
    handover->open_failed = rc != RC_OK;
}

bool handover_sibling_is_open(struct handover *handover, int64_t now_ms)
{
    struct err ignored = ERR_INIT;
    if (handover->open.fd >= 0) {
        return false;
    }
    if (now_ms >= handover->next_look_ms) {
        handover->next_look_ms = now_ms + HANDOVER_LOOK_MS;
        handover->sibling_is_open = lockfile_probe(handover->open_lock, &ignored) == RC_BUSY;
    }
    return handover->sibling_is_open;
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
    if (door_client_is_joined(handover->client) || handover->away) {
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
    case DOOR_EVENT_ROOM: /* each door that a leaver finds says so, also to one that passes nothing */
        if (handover->config.pass_connections) {
            http_pass_idle(handover->config.http);
        }
        break;
    case DOOR_EVENT_LOST:
        log_info("door", "lost, looking for it  reason=\"%s\"", err->text);
        break;
    case DOOR_EVENT_NONE:
        break;
    }
}

/*
 * What a full server does not hear it has not confirmed: the pause that follows gives it back. A leaver adopts
 * nothing, and hears when there is room for its own.
 */
static bool may_hear(const struct handover *handover)
{
    return handover->leaving || !http_is_full(handover->config.http);
}

void handover_run(struct handover *handover, int64_t now_ms)
{
    struct door_event event = {.kind = DOOR_EVENT_NONE, .fd = -1};
    for (unsigned i = 0; i < HANDOVER_EVENTS_MAX && may_hear(handover); i++) {
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
    handover_tell_open(handover, false);
    if (handover->client == NULL) {
        return false;
    }
    handover->away = false;
    handover->leaving = true;
    if (door_client_leave(handover->client, &err) != RC_OK) {
        log_info("door", "leaving  detail=\"%s\"", err.text);
    }
    if (!handover->config.pass_connections) {
        return false;
    }
    http_begin_passing(handover->config.http, &passer, now_ms);
    return true;
}
