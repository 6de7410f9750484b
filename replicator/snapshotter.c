/* SPDX-License-Identifier: Apache-2.0 */
/* snapshotter: see snapshotter.h. */
#include "replicator/snapshotter.h"

#include "archive/snapshot_format.h"
#include "base/backoff.h"
#include "base/clk.h"
#include "base/failpoint.h"
#include "base/fsio.h"
#include "base/log.h"
#include "replicator/snapshot_pack.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SNAPSHOT_STEP_PAGES 256
#define SNAPSHOT_FREE_SPARE_BYTES (4ull << 20)
#define SNAPSHOT_WAIT_MS 20
#define SNAPSHOT_TROUBLE_MS 3000 /* a put that fails for that long is told */
#define SNAPSHOT_BUSY_TRIES 1000 /* of 10 ms: a source that stays locked that long is stuck */

struct snapshotter {
    const struct store_config *store_config;
    const struct sidecar *sidecar;
    struct shipper *shipper;
    struct state *state;
    bool started; /* the thread is to be joined */
    pthread_t thread;
    struct stop stop;
    _Atomic bool running;
    _Atomic bool holds_transaction;
    _Atomic int64_t failed_ms;
    char failure[ERR_TEXT_BYTES]; /* written before running turns false, read after it did */
    sqlite3 *source;              /* the thread's, from begin on; NULL when resuming */
    struct snapshot_job job;
    struct snapshot_manifest manifest;
    pthread_mutex_t mutex;
    char trouble[ERR_TEXT_BYTES]; /* guarded by mutex; "" = none */
};

enum rc snapshotter_create(const struct store_config *store, const struct sidecar *sidecar,
                           struct shipper *shipper, struct state *state,
                           struct snapshotter **snapshotter, struct err *err)
{
    struct snapshotter *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the snapshotter");
    }
    s->store_config = store;
    s->sidecar = sidecar;
    s->shipper = shipper;
    s->state = state;
    snapshot_manifest_init(&s->manifest);
    stop_init(&s->stop);
    ASSERT(pthread_mutex_init(&s->mutex, NULL) == 0);
    *snapshotter = s;
    return RC_OK;
}

static void snapshot_join(struct snapshotter *s)
{
    if (s->started) {
        (void)pthread_join(s->thread, NULL);
        s->started = false;
    }
}

void snapshotter_destroy(struct snapshotter *s)
{
    if (s != NULL) {
        stop_raise(&s->stop, STOP_NOW);
        snapshot_join(s);
        stop_deinit(&s->stop);
        snapshot_manifest_deinit(&s->manifest);
        (void)pthread_mutex_destroy(&s->mutex);
        free(s);
    }
}

bool snapshotter_is_busy(struct snapshotter *s, int64_t *failed_ms)
{
    bool busy = atomic_load(&s->running);
    if (!busy) {
        snapshot_join(s);
    }
    *failed_ms = atomic_load(&s->failed_ms);
    return busy;
}

const char *snapshotter_failure(const struct snapshotter *s)
{
    ASSERT(!atomic_load(&s->running));
    return s->failure;
}

bool snapshotter_is_in_trouble(struct snapshotter *s, char text[ERR_TEXT_BYTES])
{
    (void)pthread_mutex_lock(&s->mutex);
    memcpy(text, s->trouble, ERR_TEXT_BYTES);
    (void)pthread_mutex_unlock(&s->mutex);
    return text[0] != '\0';
}

bool snapshotter_holds_transaction(struct snapshotter *s)
{
    return atomic_load(&s->holds_transaction);
}

/* What is packed or copied goes: no next start must find it. */
static void snapshot_drop(const struct snapshotter *s)
{
    struct err err;
    if (fsio_remove_tree(s->sidecar->snapshot, &err) != RC_OK) {
        log_warn("snapshot", "%s", err.text);
    }
}

void snapshotter_abandon(struct snapshotter *s)
{
    stop_raise(&s->stop, STOP_NOW);
    snapshot_join(s);
    stop_deinit(&s->stop);
    stop_init(&s->stop);
    snapshot_drop(s);
}

/* ---- copy ---- */

static enum rc snapshot_check_space(const struct snapshotter *s, struct err *err)
{
    uint64_t need =
        2 * (uint64_t)s->job.page_size_bytes * s->job.database_pages + SNAPSHOT_FREE_SPARE_BYTES;
    uint64_t have;
    enum rc rc = fsio_free_bytes(s->sidecar->snapshot, &have, err);
    if (rc == RC_OK && have < need) {
        rc = err_set(err, RC_LIMIT,
                     "a snapshot needs %llu MiB free in %s for its local copy, there are %llu: "
                     "free some space",
                     (unsigned long long)(need >> 20), s->sidecar->snapshot,
                     (unsigned long long)(have >> 20));
    }
    return rc;
}

static enum rc snapshot_run_backup(struct snapshotter *s, sqlite3 *copy, struct err *err)
{
    sqlite3_backup *backup = sqlite3_backup_init(copy, "main", s->source, "main");
    if (backup == NULL) {
        return err_set(err, RC_IO, "backup: %s", sqlite3_errmsg(copy));
    }
    int code = SQLITE_OK;
    int busy = 0;
    while ((code == SQLITE_OK || code == SQLITE_BUSY || code == SQLITE_LOCKED) &&
           stop_level(&s->stop) == STOP_NONE && busy < SNAPSHOT_BUSY_TRIES) {
        code = sqlite3_backup_step(backup, SNAPSHOT_STEP_PAGES);
        if (code == SQLITE_BUSY || code == SQLITE_LOCKED) {
            busy++;
            (void)stop_wait_ms(&s->stop, STOP_SOON, 10);
        }
    }
    int finish = sqlite3_backup_finish(backup);
    if (stop_level(&s->stop) != STOP_NONE) {
        return err_set(err, RC_STOPPED, "stopped while copying");
    }
    if (code != SQLITE_DONE || finish != SQLITE_OK) {
        return err_set(err, RC_IO, "copying the database: %s (SQLite code %d)",
                       sqlite3_errstr(code != SQLITE_DONE ? code : finish), code);
    }
    return RC_OK;
}

/* Copies inside the source's transaction and ends that, whatever happens. */
static enum rc snapshot_copy(struct snapshotter *s, struct err *err)
{
    char path[FSIO_PATH_BYTES];
    sqlite3 *copy = NULL;
    struct fsio_stat stat;
    enum rc rc;
    if ((rc = fsio_remove_tree(s->sidecar->snapshot, err)) != RC_OK ||
        (rc = fsio_make_dirs(s->sidecar->snapshot, err)) != RC_OK ||
        (rc = snapshot_check_space(s, err)) != RC_OK ||
        (rc = snapshot_pack_copy_path(s->sidecar->snapshot, path, err)) != RC_OK) {
        goto done;
    }
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &copy, flags, NULL) != SQLITE_OK ||
        sqlite3_exec(
            copy,
            "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "PRAGMA cache_size=-1024;",
            NULL, NULL, NULL) != SQLITE_OK) {
        rc = err_set(err, RC_IO, "cannot make %s: %s", path, sqlite3_errmsg(copy));
        goto done;
    }
    rc = snapshot_run_backup(s, copy, err);
done:
    (void)sqlite3_close_v2(copy);
    (void)sqlite3_close_v2(s->source); /* ends the read transaction: the WAL may be reset again */
    s->source = NULL;
    atomic_store(&s->holds_transaction, false);
    uint64_t want = (uint64_t)s->job.page_size_bytes * s->job.database_pages;
    if (rc == RC_OK && (rc = fsio_stat(path, &stat, err)) == RC_OK && stat.size_bytes != want) {
        rc = err_set(err, RC_INTERNAL, "the copy has %llu bytes, the database %llu",
                     (unsigned long long)stat.size_bytes, (unsigned long long)want);
    }
    return rc;
}

static void snapshot_begin_manifest(struct snapshotter *s)
{
    snapshot_manifest_deinit(&s->manifest);
    snapshot_manifest_init(&s->manifest);
    s->manifest.generation = s->job.generation;
    s->manifest.point = s->job.point;
    s->manifest.page_size_bytes = s->job.page_size_bytes;
    s->manifest.database_pages = s->job.database_pages;
    s->manifest.unix_ms = s->job.unix_ms;
}

/* ---- upload ---- */

/*
 * Waits until the confirmed run covers the snapshot's position (or only until its birth is put). RC_CORRUPT:
 * what the run has there is of another history.
 */
static enum rc snapshot_wait_confirmed(struct snapshotter *s, bool whole, struct err *err)
{
    for (;;) {
        struct shipper_view view;
        shipper_get_view(s->shipper, &view);
        bool ours = generation_id_equal(&view.generation, &s->manifest.generation);
        int order = position_compare(view.confirmed.position, s->manifest.point.position);
        if (ours && whole && order == 0 && !wal_point_equal(view.confirmed, s->manifest.point)) {
            return err_set(err, RC_CORRUPT,
                           "the archive has another history at the snapshot's position");
        }
        if (ours && (!whole || order >= 0)) {
            return RC_OK;
        }
        if (stop_wait_ms(&s->stop, STOP_SOON, SNAPSHOT_WAIT_MS)) {
            return err_set(err, RC_STOPPED, "stopped while waiting for the archive");
        }
    }
}

static void snapshot_note_trouble(struct snapshotter *s, const char *text)
{
    (void)pthread_mutex_lock(&s->mutex);
    bool is_new = text[0] != '\0' && s->trouble[0] == '\0';
    (void)snprintf(s->trouble, sizeof s->trouble, "%s", text);
    (void)pthread_mutex_unlock(&s->mutex);
    if (is_new) {
        log_error("snapshot", "its upload does not get through, tried again: %s", text);
    }
}

/* Repeats a put until it works: a dead store is waited out, like for segments. */
static enum rc snapshot_put(struct snapshotter *s, struct store *store, const char *key,
                            struct backoff *backoff, struct err *err)
{
    char path[FSIO_PATH_BYTES];
    struct fsio_stat stat;
    int fd = -1;
    enum rc rc;
    if ((rc = fsio_join(path, sizeof path, s->sidecar->snapshot, key, err)) != RC_OK ||
        (rc = fsio_stat(path, &stat, err)) != RC_OK ||
        (rc = fsio_open(path, O_RDONLY, 0, &fd, err)) != RC_OK) {
        return rc;
    }
    struct store_body body = {.bytes = NULL, .fd = fd, .size_bytes = stat.size_bytes};
    int64_t begun_ms = clk_monotonic_ms();
    while ((rc = store_put(store, key, &body, STORE_PUT_PLAIN, err)) != RC_OK) {
        log_debug("snapshot", "%s: %s", key, err->text);
        if (rc != RC_STOPPED && clk_monotonic_ms() - begun_ms >= SNAPSHOT_TROUBLE_MS) {
            snapshot_note_trouble(s, err->text);
        }
        if (rc == RC_STOPPED || stop_wait_ms(&s->stop, STOP_SOON, backoff_next_ms(backoff))) {
            rc = err_set(err, RC_STOPPED, "stopped while uploading");
            break;
        }
    }
    snapshot_note_trouble(s, "");
    backoff_reset(backoff);
    (void)close(fd);
    return rc;
}

static uint64_t snapshot_stored_bytes(const struct snapshot_manifest *manifest)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < manifest->part_count; i++) {
        sum += manifest->parts[i].object_bytes;
    }
    return sum;
}

/* The state knows the snapshot before the archived position counts from it. */
static enum rc snapshot_record(struct snapshotter *s, struct err *err)
{
    struct state_record record;
    state_edit_begin(s->state, &record);
    record.snapshot = s->manifest.point.position;
    record.snapshot_unix_ms = s->manifest.unix_ms;
    record.snapshot_bytes = snapshot_stored_bytes(&s->manifest);
    record.has_archived = true;
    return state_edit_end(s->state, &record, err);
}

static enum rc snapshot_upload(struct snapshotter *s, struct err *err)
{
    struct store *store = NULL;
    struct backoff backoff;
    char key[OBJECT_KEY_BYTES];
    enum rc rc;
    backoff_init(&backoff, 100, 5000);
    if ((rc = snapshot_wait_confirmed(s, false, err)) != RC_OK ||
        (rc = store_open(s->store_config, &s->stop, &store, err)) != RC_OK) {
        return rc;
    }
    for (uint32_t part_no = 1; rc == RC_OK && part_no <= s->manifest.part_count; part_no++) {
        snapshot_part_key(&s->manifest, part_no, key);
        rc = snapshot_put(s, store, key, &backoff, err);
        FAILPOINT("snapshot_part_put");
    }
    if (rc == RC_OK && (rc = snapshot_wait_confirmed(s, true, err)) == RC_OK) {
        FAILPOINT("snapshot_before_complete");
        snapshot_complete_key(&s->manifest, key);
        rc = snapshot_put(s, store, key, &backoff, err);
        FAILPOINT("snapshot_completed");
    }
    if (rc == RC_OK) {
        rc = snapshot_record(s, err);
    }
    if (rc == RC_OK) {
        shipper_snapshot_complete(s->shipper, &s->manifest.generation, s->manifest.point.position,
                                  s->manifest.unix_ms, snapshot_stored_bytes(&s->manifest));
        rc = fsio_remove_tree(s->sidecar->snapshot, err);
    }
    if (rc == RC_CORRUPT) {
        snapshot_drop(s);
    }
    store_close(store);
    return rc;
}

/* ---- the thread ---- */

static void *snapshotter_thread_main(void *arg)
{
    struct snapshotter *s = arg;
    struct err err = ERR_INIT;
    enum rc rc = RC_OK;
    int64_t begun_ms = clk_monotonic_ms();
    if (s->source != NULL) {
        if ((rc = snapshot_copy(s, &err)) == RC_OK) {
            FAILPOINT("snapshot_copied");
            snapshot_begin_manifest(s);
            rc = snapshot_pack(s->sidecar->snapshot, s->job.in_background, &s->stop, &s->manifest,
                               &err);
        }
    }
    if (rc == RC_OK) {
        rc = snapshot_upload(s, &err);
    }
    if (rc == RC_OK) {
        char position[POSITION_TEXT_BYTES];
        position_format(&s->manifest.generation, s->manifest.point.position, position);
        log_info("snapshot", "complete  position=%s parts=%u bytes=%llu took_ms=%lld", position,
                 s->manifest.part_count, (unsigned long long)snapshot_stored_bytes(&s->manifest),
                 (long long)(clk_monotonic_ms() - begun_ms));
        atomic_store(&s->failed_ms, 0);
    } else if (rc != RC_STOPPED) {
        log_error("snapshot", "failed, will be tried again: %s", err.text);
        memcpy(s->failure, err.text, sizeof s->failure);
        atomic_store(&s->failed_ms, clk_monotonic_ms());
    }
    atomic_store(&s->running, false);
    state_wake(s->state);
    return NULL;
}

static enum rc snapshot_start_thread(struct snapshotter *s, struct err *err)
{
    atomic_store(&s->running, true);
    if (pthread_create(&s->thread, NULL, snapshotter_thread_main, s) != 0) {
        atomic_store(&s->running, false);
        return err_set(err, RC_NOMEM, "cannot start the snapshot thread");
    }
    s->started = true;
    return RC_OK;
}

enum rc snapshotter_begin(struct snapshotter *s, sqlite3 *source, const struct snapshot_job *job,
                          struct err *err)
{
    ASSERT(!atomic_load(&s->running));
    snapshot_join(s);
    s->source = source;
    s->job = *job;
    atomic_store(&s->holds_transaction, true);
    enum rc rc = snapshot_start_thread(s, err);
    if (rc != RC_OK) {
        (void)sqlite3_close_v2(s->source);
        s->source = NULL;
        atomic_store(&s->holds_transaction, false);
    }
    return rc;
}

enum rc snapshotter_packed_point(const struct snapshotter *s,
                                 const struct generation_id *generation, bool *found,
                                 struct wal_point *point, struct err *err)
{
    struct snapshot_manifest manifest;
    ASSERT(!atomic_load(&s->running));
    snapshot_manifest_init(&manifest);
    enum rc rc = snapshot_pack_find(s->sidecar->snapshot, generation, &manifest, found, err);
    *point = manifest.point;
    snapshot_manifest_deinit(&manifest);
    return rc;
}

enum rc snapshotter_resume(struct snapshotter *s, const struct generation_id *generation,
                           bool *resumed, struct err *err)
{
    ASSERT(!atomic_load(&s->running));
    snapshot_join(s);
    bool found = false;
    *resumed = false;
    if (!generation_id_is_none(generation)) {
        enum rc rc =
            snapshot_pack_find(s->sidecar->snapshot, generation, &s->manifest, &found, err);
        if (rc != RC_OK) {
            return rc;
        }
    }
    if (!found) {
        return fsio_remove_tree(s->sidecar->snapshot, err);
    }
    log_info("snapshot", "resuming an upload  wal_no=%u frame_no=%u",
             s->manifest.point.position.wal_no, s->manifest.point.position.frame_no);
    s->source = NULL;
    *resumed = true;
    return snapshot_start_thread(s, err);
}
