/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replicator_internal: the replicator's own data, shared by the two sides of it:
 *   replicator.c         made, started, stopped, and asked: main's thread and others
 *   replicator_thread.c  the leader thread: election, waiting, the start, leading
 */
#ifndef HARVEY_REPLICATOR_REPLICATOR_INTERNAL_H
#define HARVEY_REPLICATOR_REPLICATOR_INTERNAL_H

#include "archive/sidecar.h"
#include "base/lockfile.h"
#include "base/stop.h"
#include "replicator/replicator.h"
#include "replicator/spool.h"
#include "replicator/state.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define SAID_BYTES 640

struct replicator {
    struct replicator_config own_config; /* the caller's may be gone; its strings are borrowed */
    const struct replicator_config *config;
    struct sidecar sidecar;
    struct spool spool;
    struct state state;
    struct stop stop;
    struct stop ended; /* raised by the leader thread as it ends */
    struct lockfile leader_lock;
    pthread_t thread;
    bool started;
    int event_fd;
    struct store *store; /* the leader thread's, for looking; NULL when off */
    bool same_filesystem;
    bool unshipped; /* after the thread has ended */
    char stop_reason[512];
    /* as logged by tries to lead since one last succeeded: what fails the same way again is said once */
    char start_said[SAID_BYTES];
    char failure_said[SAID_BYTES];
    _Atomic bool may_serve;

    pthread_mutex_t mutex; /* guards what follows, and publishing */
    enum replicator_role role;
    char reason[512];
    bool cannot_lead;             /* the last try failed: nothing is archived until one succeeds */
    struct replicator_status own; /* the last one that this process published as leader */
};

/* ---- replicator_thread.c ---- */

/* Of the leader thread; arg: the replicator. Ends when told to stop, and raises `ended` then. */
void *replicator_thread_main(void *arg);

#endif
