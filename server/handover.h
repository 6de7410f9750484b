/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handover: the server behind a door (door/door_client.h). It brings the listening socket and other
 * servers' live connections in, and at a stop passes ours on, so that a release closes none.
 *
 * Servers on one database tell each other whether they let clients in (a shared lock, open.lock beside the
 * database, which dies with its holder): one that cannot serve now, or is full, leaves clients to one that
 * can, and stays away from the door meanwhile.
 *
 * Thread: the http thread; create, destroy: main, while it does not run.
 */
#ifndef HARVEY_SERVER_HANDOVER_H
#define HARVEY_SERVER_HANDOVER_H

#include "base/err.h"
#include "server/http.h"
#include "server/listener.h"

#include <stdbool.h>
#include <stdint.h>

struct handover;

struct handover_config {   /* all borrowed */
    const char *door_path; /* of the door's socket */
    bool pass_connections; /* false: drain ours at a stop, as a server without a door does */
    const char *database_path;
    struct http *http;
    struct listener *listener; /* without a socket until the door brings one */
};

RC_MUST_CHECK enum rc handover_create(const struct handover_config *config,
                                      struct handover **handover, struct err *err);
void handover_destroy(struct handover *handover); /* NULL is legal */

/* Begins to look for the door; handover_fd is the descriptor to watch from then on. RC_IO, RC_NOMEM. */
RC_MUST_CHECK enum rc handover_join(struct handover *handover, int64_t now_ms, struct err *err);
int handover_fd(const struct handover *handover); /* -1 before */

/* Does what the door has sent, as long as there is room for connections. Never blocks. */
void handover_run(struct handover *handover, int64_t now_ms);

/* Whether the door may send connections here. Legal again and again, also before joining. */
void handover_attend(struct handover *handover, bool wanted);

/* Tells the siblings that this server lets clients in and can serve them, or that it does not. */
void handover_tell_open(struct handover *handover, bool open);

/* Whether a sibling has told so. False while this server tells it itself. Looks every few ms only. */
bool handover_sibling_is_open(struct handover *handover, int64_t now_ms);

/*
 * Begins to leave: nothing is adopted any more, and connections are passed on. False: they are not
 * (not joined, or not wished), so drain. A door that is away meanwhile is looked for.
 */
bool handover_leave(struct handover *handover, int64_t now_ms);

#endif
