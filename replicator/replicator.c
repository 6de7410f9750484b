/* SPDX-License-Identifier: Apache-2.0 */
/* replicator: see replicator.h. Made, started, stopped, and what other threads ask. */
#include "replicator/replicator_internal.h"

#include "base/clk.h"
#include "base/fsio.h"
#include "replicator/wal_index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define HEARTBEAT_STALE_MS 2000
#define STOP_MARGIN_MS 500 /* the lead's own deadline comes first, and says more */

const char *replicator_role_name(enum replicator_role role)
{
    switch (role) {
    case ROLE_STARTING:
        return "starting";
    case ROLE_LEADER:
        return "leader";
    case ROLE_FOLLOWER:
        return "follower";
    case ROLE_WAITING:
        return "waiting";
    case ROLE_WAITING_FOR_RESTORE:
        return "waiting for a restore";
    case ROLE_RESTORING:
        return "restoring";
    case ROLE_STOPPED:
        return "stopped";
    }
    return "unknown";
}

const char *replicator_store_state_name(enum replicator_store_state state)
{
    switch (state) {
    case STORE_OFF:
        return "off";
    case STORE_OK:
        return "ok";
    case STORE_RETRYING:
        return "retrying";
    case STORE_DOWN:
        return "down";
    }
    return "unknown";
}

/* The archive's directory, or the nearest of its parents that is there already. */
static bool replicator_stat_archive(const struct replicator *r, struct fsio_stat *stat)
{
    char path[FSIO_PATH_BYTES];
    char above[FSIO_PATH_BYTES];
    struct err ignored;
    (void)snprintf(path, sizeof path, "%s", r->config->store.dir);
    while (fsio_stat(path, stat, &ignored) == RC_OK && !stat->exists && strcmp(path, ".") != 0) {
        if (fsio_dirname(path, above, sizeof above, &ignored) != RC_OK) {
            return false;
        }
        memcpy(path, above, sizeof path);
    }
    return stat->exists;
}

static bool replicator_shares_filesystem(const struct replicator *r)
{
    struct fsio_stat mine;
    struct fsio_stat theirs = {.exists = false};
    struct err ignored;
    return !r->config->store.off && !r->config->store.is_s3 &&
           fsio_stat(r->sidecar.dir, &mine, &ignored) == RC_OK &&
           replicator_stat_archive(r, &theirs) && mine.device == theirs.device;
}

enum rc replicator_create(const struct replicator_config *config, struct replicator **replicator,
                          struct err *err)
{
    struct replicator *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the replicator");
    }
    r->own_config = *config;
    r->config = &r->own_config;
    r->leader_lock = (struct lockfile)LOCKFILE_INIT;
    r->state.fd = -1;
    r->role = ROLE_STARTING;
    stop_init(&r->stop);
    stop_init(&r->ended);
    ASSERT(pthread_mutex_init(&r->mutex, NULL) == 0);
    r->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    enum rc rc = RC_OK;
    if (r->event_fd < 0) {
        rc = err_set_errno(err, RC_IO, "eventfd");
    }
    if (rc != RC_OK || (rc = sidecar_init(&r->sidecar, config->database_path, err)) != RC_OK ||
        (rc = fsio_make_dirs(r->sidecar.dir, err)) != RC_OK ||
        (rc = spool_open(&r->spool, r->sidecar.spool, err)) != RC_OK ||
        (rc = state_open(&r->state, r->sidecar.state, err)) != RC_OK ||
        (!config->store.off &&
         (rc = store_open(&config->store, &r->stop, &r->store, err)) != RC_OK)) {
        replicator_destroy(r);
        return rc;
    }
    r->same_filesystem = replicator_shares_filesystem(r);
    *replicator = r;
    return RC_OK;
}

void replicator_destroy(struct replicator *r)
{
    if (r == NULL) {
        return;
    }
    if (r->started) {
        struct err err;
        (void)!replicator_stop(r, &err);
    }
    store_close(r->store);
    if (r->state.live != NULL) {
        state_close(&r->state);
    }
    if (r->event_fd >= 0) {
        (void)close(r->event_fd);
    }
    stop_deinit(&r->ended);
    stop_deinit(&r->stop);
    (void)pthread_mutex_destroy(&r->mutex);
    free(r);
}

enum rc replicator_start(struct replicator *r, struct err *err)
{
    if (pthread_create(&r->thread, NULL, replicator_thread_main, r) != 0) {
        return err_set(err, RC_NOMEM,
                       "cannot start the leader thread (a limit of memory or threads?)");
    }
    r->started = true;
    return RC_OK;
}

/*
 * The leader thread looks at its deadlines between two calls to the store, and one that compares has none:
 * a store that takes a call and does not answer it would keep us for its time-out, and so would the next.
 */
static void replicator_end_calls_in_time(struct replicator *r)
{
    int64_t allowed_ms = r->config->stop_timeout_ms + STOP_MARGIN_MS;
    if (!stop_wait_ms(&r->ended, STOP_NOW, allowed_ms)) {
        stop_raise(&r->stop, STOP_NOW);
    }
}

enum rc replicator_stop(struct replicator *r, struct err *err)
{
    if (r->started) {
        stop_raise(&r->stop, STOP_SOON);
        (void)pthread_mutex_lock(&r->mutex);
        state_wake(&r->state);
        (void)pthread_mutex_unlock(&r->mutex);
        replicator_end_calls_in_time(r);
        (void)pthread_join(r->thread, NULL);
        r->started = false;
    }
    return r->unshipped ? err_set(err, RC_TIMEOUT, "%s", r->stop_reason) : RC_OK;
}

void replicator_stop_now(struct replicator *r)
{
    stop_raise(&r->stop, STOP_NOW);
}

bool replicator_may_serve(const struct replicator *r)
{
    return atomic_load(&r->may_serve);
}

int replicator_event_fd(const struct replicator *r)
{
    return r->event_fd;
}

void replicator_get_status(struct replicator *r, struct replicator_status *status)
{
    (void)pthread_mutex_lock(&r->mutex);
    enum replicator_role role = r->role;
    if (role == ROLE_LEADER || role == ROLE_RESTORING) {
        *status = r->own;
    } else {
        state_read_published(&r->state, NULL, status);
    }
    status->role = role;
    status->may_serve = atomic_load(&r->may_serve);
    if (r->reason[0] != '\0') {
        (void)snprintf(status->reason, sizeof status->reason, "%s", r->reason);
    }
    status->same_filesystem = r->same_filesystem;
    (void)snprintf(status->store_url, sizeof status->store_url, "%s", r->config->store.url);
    status->spool_bytes_max = r->config->spool_bytes_max;
    if (r->config->store.off) {
        status->store_state = STORE_OFF;
        status->lag_ms = 0;
    } else {
        status->lag_ms = state_lag_ms(&r->state);
        int64_t beat = atomic_load(&r->state.live->heartbeat_ms);
        if (role == ROLE_FOLLOWER && clk_boottime_ms() - beat > HEARTBEAT_STALE_MS) {
            status->alarm = true;
            (void)snprintf(status->reason, sizeof status->reason,
                           "the leading process has stood still for %lld ms",
                           (long long)(clk_boottime_ms() - beat));
        }
    }
    if (role == ROLE_WAITING || role == ROLE_WAITING_FOR_RESTORE ||
        (role == ROLE_STARTING && r->cannot_lead)) {
        status->alarm = true;
    }
    (void)pthread_mutex_unlock(&r->mutex);
}

/* The map's WAL, or the one after it; false when neither can be told. Under the mutex. */
static bool replicator_map_wal(struct replicator *r, const struct wal_index *index,
                               struct replicator_commit *commit)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        struct state_wal_map map;
        struct wal_index_header header;
        struct err ignored;
        state_read_published(&r->state, &map, NULL);
        int64_t age = clk_boottime_ms() - atomic_load(&r->state.live->heartbeat_ms);
        if (!map.known || age > HEARTBEAT_STALE_MS ||
            wal_index_read(index, &header, &ignored) != RC_OK || header.mx_frame == 0) {
            return false;
        }
        bool same = wal_salts_equal(map.salts, header.salts);
        if (same || attempt == 1) { /* other salts twice: the WAL that follows the mapped one */
            commit->generation = map.generation;
            commit->position =
                (struct position){same ? map.wal_no : map.wal_no_next, header.mx_frame};
            return true;
        }
    }
    return false;
}

void replicator_committed(struct replicator *r, sqlite3 *db, struct replicator_commit *commit)
{
    struct wal_index index;
    struct err ignored;
    *commit = (struct replicator_commit){.known = false};
    if (r->config->store.off) {
        return; /* the leader still checkpoints; its poll finds the frames */
    }
    (void)pthread_mutex_lock(&r->mutex);
    commit->ticket = atomic_load(&r->state.live->epoch_started) + 1;
    state_note_commit(&r->state);
    if (wal_index_open(&index, db, &ignored) == RC_OK) {
        commit->known = replicator_map_wal(r, &index, commit);
    }
    (void)pthread_mutex_unlock(&r->mutex);
}

bool replicator_is_archived(struct replicator *r, uint64_t ticket)
{
    (void)pthread_mutex_lock(&r->mutex);
    bool archived = atomic_load(&r->state.live->epoch_archived) >= ticket;
    (void)pthread_mutex_unlock(&r->mutex);
    return archived;
}
