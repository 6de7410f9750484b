/* SPDX-License-Identifier: Apache-2.0 */
/*
 * health: `server --health` asks the running server whether it is ready, over a Unix socket beside
 * the database. The http thread answers, so a server whose loop hangs is not healthy.
 *
 * Old and new container of a release share that directory, and each must be asked about itself: the
 * socket is called health-<inode of the pid namespace>.sock (and health.sock where /proc does not
 * tell). Of two servers in one namespace the one that started last answers.
 *
 * Protocol: connect, read to the end: "ready\n", or "not ready: <reason>\n".
 *
 * Thread: serving: the http thread (open: main, before it). health_ask: a process of its own.
 */
#ifndef HARVEY_SERVER_HEALTH_H
#define HARVEY_SERVER_HEALTH_H

#include "base/err.h"
#include "base/fsio.h"

#include <stdbool.h>
#include <stdint.h>

struct health {
    int fd;         /* the listening socket; -1 = none */
    uint64_t inode; /* of the socket's name: another server may take it over */
    char dir[FSIO_PATH_BYTES];
    char name[64];
};

#define HEALTH_INIT                                                                                \
    {                                                                                              \
        -1, 0, "", ""                                                                              \
    }

/* Listens in <database>-harvey/, which must exist. RC_IO, RC_DENIED, RC_NOT_FOUND. */
RC_MUST_CHECK enum rc health_open(struct health *health, const char *database_path,
                                  struct err *err);

/* Closes, and removes the name if it is still ours. Legal twice. */
void health_close(struct health *health);

/* True while the name leads to our socket: a restore may have moved the directory aside. */
bool health_is_in_place(const struct health *health);

/* Answers everybody who has connected. */
void health_answer(struct health *health, bool ready, const char *reason);

/*
 * Asks, within 4 s, and prints the answer to stdout. RC_OK: ready. RC_UNAVAILABLE: not ready.
 * RC_NOT_FOUND: no server answers.
 */
RC_MUST_CHECK enum rc health_ask(const char *database_path, struct err *err);

#endif
