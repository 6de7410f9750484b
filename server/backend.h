/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend: what the answers of http.c stand on: the writer, the replicator and the process's one
 * reading connection, which lives in the http thread and is open only while the writer's is.
 *
 * Ready means: the replicator says that the database may be served, the writer has it open, and no
 * stop has begun.
 *
 * Thread: create, destroy: main, while the http thread does not run. backend_begin_stop,
 * backend_reader_is_open: any. The rest: the http thread.
 */
#ifndef HARVEY_SERVER_BACKEND_H
#define HARVEY_SERVER_BACKEND_H

#include "base/err.h"
#include "replicator/replicator.h"
#include "server/http.h"
#include "server/writer.h"

#include <stdbool.h>
#include <stddef.h>

struct backend_config {
    const char *database_path; /* borrowed, as all the others */
    bool synchronous_normal;
    const char *filesystem;
    bool unsafe_filesystem;
    struct writer *writer;
    struct replicator *replicator;
};

struct backend;

RC_MUST_CHECK enum rc backend_create(const struct backend_config *config, struct backend **backend,
                                     struct err *err);
void backend_destroy(struct backend *backend); /* NULL is legal */

/* The table of functions for http_create. */
struct http_backend backend_for_http(struct backend *backend);

/*
 * After a change of the writer's state or an event of the replicator, and now and then, for an alarm comes
 * without one: logs a change of role or reason, closes a stale reader.
 */
void backend_follow(struct backend *backend);

/* From here on /readyz and --health say "stopping". */
void backend_begin_stop(struct backend *backend);

bool backend_is_ready(struct backend *backend);

/* Whether requests can be served now: as is_ready, but during a stop too. */
bool backend_can_serve(const struct backend *backend);

/* True once it is ready, or it is known why it is not: before that a client had better wait a moment. */
bool backend_is_settled(struct backend *backend);

/* One line, why it is not ready: never empty. */
void backend_describe(struct backend *backend, char *text, size_t text_bytes);

/* Closes the reader (at the thread's end). */
void backend_close_reader(struct backend *backend);
bool backend_reader_is_open(const struct backend *backend);

#endif
