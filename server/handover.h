/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handover: the server behind a door (door/door_client.h). It brings the listening socket and other
 * servers' live connections in, and at a stop passes ours on, so that a release closes none.
 *
 * Joined is the door only by a server that can serve, or that has had HANDOVER_GRACE_MS to become so:
 * until then clients wait in the kernel's queue or go to a sibling; after it somebody must tell them why.
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

#define HANDOVER_GRACE_MS 3000

struct handover;

struct handover_config {   /* all borrowed */
    const char *door_path; /* of the door's socket */
    bool pass_connections; /* false: drain ours at a stop, as a server without a door does */
    struct http *http;
    struct listener *listener; /* without a socket until the door brings one */
};

RC_MUST_CHECK enum rc handover_create(const struct handover_config *config,
                                      struct handover **handover, struct err *err);
void handover_destroy(struct handover *handover); /* NULL is legal */

/*
 * Begins to look for the door, if it is time to: `ready`, or the grace is over. True: the descriptor to
 * watch (handover_fd) is there from now on.
 */
bool handover_join(struct handover *handover, bool ready, int64_t now_ms);
int handover_fd(const struct handover *handover); /* -1 before */

/* When handover_join must be called at the latest; INT64_MAX: it was. */
int64_t handover_join_due_ms(const struct handover *handover);

/* Does what the door has sent. Never blocks. */
void handover_run(struct handover *handover, int64_t now_ms);

/*
 * Begins to leave: nothing is adopted any more, and connections are passed on. False: they are not
 * (not joined, or not wished), so drain. A door that is away meanwhile is looked for.
 */
bool handover_leave(struct handover *handover, int64_t now_ms);

#endif
