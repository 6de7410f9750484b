/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restorer: see restorer.h. The phases, in order:
 *
 *   target    refuse, lock, temporary file           target.c
 *   plan      what to read, where to end             plan.c, choose.c, cut.c
 *   wal       frames, the last object first          replay.c, fetch.c, apply.c, chain.c
 *   snapshot  parts, without what frames replaced    load.c, fetch.c, apply.c
 *   integrity PRAGMA integrity_check, and the fsync  verify.c
 *   commit    marker, rename                         target.c
 *
 * A damaged snapshot is no reason to give up while an older one is there: the plan is made again
 * from that one, which only means more WAL to read.
 */
#include "restorer/restorer.h"

#include "archive/history_format.h"
#include "base/clk.h"
#include "restorer/apply.h"
#include "restorer/fetch.h"
#include "restorer/load.h"
#include "restorer/plan.h"
#include "restorer/replay.h"
#include "restorer/spooled.h"
#include "restorer/target.h"
#include "restorer/verify.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RESTORE_PROGRESS_MS 200
#define RESTORE_WATCH_MS 50
#define RESTORE_JOBS_DEFAULT_S3 8  /* most of the time goes to waiting for answers */
#define RESTORE_JOBS_DEFAULT_DIR 4 /* at most; as many as there are processors */

struct restore {
    const struct store_config *config;
    const struct restore_request *request;
    struct restore_result *result;
    struct store *store;  /* for the plan */
    struct fetch *fetch;  /* for the rest */
    struct stop cancel;   /* what the phases look at: raised to STOP_NOW by the watcher */
    struct stop finished; /* ends the watcher */
    bool is_watched;
    pthread_t watcher;
    struct target target;
    bool has_target;
    struct plan plan;
    struct restore_progress progress;
    uint64_t received_before; /* when the phase began */
    int64_t progress_ms;
};

/* ---- telling and being told ---- */

/* The caller's STOP_SOON ends a restore at once: there is nothing worth finishing. */
static void *restore_watch_thread_main(void *arg)
{
    struct restore *restore = arg;
    while (!stop_wait_ms(&restore->finished, STOP_SOON, RESTORE_WATCH_MS)) {
        if (stop_level(restore->request->stop) >= STOP_SOON) {
            stop_raise(&restore->cancel, STOP_NOW);
        }
    }
    return NULL;
}

static bool restore_is_stopped(const struct restore *restore)
{
    return stop_level(&restore->cancel) >= STOP_NOW ||
           (restore->request->stop != NULL && stop_level(restore->request->stop) >= STOP_SOON);
}

static void restore_tick(void *arg)
{
    struct restore *restore = arg;
    int64_t now_ms = clk_monotonic_ms();
    if (restore->request->progress == NULL || now_ms < restore->progress_ms) {
        return;
    }
    restore->progress_ms = now_ms + RESTORE_PROGRESS_MS;
    if (restore->fetch != NULL && restore->progress.total_bytes > 0) {
        uint64_t done = fetch_received_bytes(restore->fetch) - restore->received_before;
        uint64_t total = restore->progress.total_bytes;
        restore->progress.done_bytes =
            done < total ? done : total; /* a repeated GET counts twice */
    }
    restore->request->progress(restore->request->progress_arg, &restore->progress);
}

static void restore_begin_phase(struct restore *restore, const char *phase, uint64_t total_bytes)
{
    restore->progress = (struct restore_progress){.phase = phase, .total_bytes = total_bytes};
    restore->received_before = restore->fetch != NULL ? fetch_received_bytes(restore->fetch) : 0;
    restore->progress_ms = 0;
    restore_tick(restore);
}

/* ---- what to say after damage ---- */

static void restore_set_last_good(struct restore *restore, const struct generation_id *generation,
                                  struct position position)
{
    restore->result->has_last_good = true;
    restore->result->last_good = position;
    restore->result->last_good_generation = *generation;
}

/*
 * An object of the run is bad: checks what lies before it and names the last commit of that; it is
 * `planned` (may be NULL) where all of that is good.
 */
static void restore_name_last_good(struct restore *restore, size_t bad_index,
                                   const struct position *planned)
{
    const struct plan *plan = &restore->plan;
    struct position position;
    size_t first_bad = bad_index;
    struct err err = ERR_INIT; /* the damage is what the caller reports */
    enum rc rc = replay_find_first_bad(plan, restore->fetch, &first_bad, &err);
    if (rc == RC_OK && planned != NULL && first_bad == bad_index) {
        position = *planned;
    } else if (rc == RC_OK) {
        rc = plan_last_commit_before(plan, restore->store, &restore->cancel, first_bad, &position,
                                     &err);
    }
    if (rc == RC_OK) {
        restore_set_last_good(restore, &plan->generation->birth.id, position);
    }
}

/* No snapshot of the generation is usable: what is left is where it began. */
static void restore_name_parent(struct restore *restore)
{
    const struct catalog_generation *generation = restore->plan.generation;
    if (generation != NULL && generation->birth.has_parent &&
        catalog_find(&restore->plan.catalog, &generation->birth.parent) != NULL) {
        restore_set_last_good(restore, &generation->birth.parent,
                              generation->birth.parent_point.position);
    }
}

/* ---- phases ---- */

static enum rc restore_check_request(const struct restore_request *request, struct err *err)
{
    if (request->jobs < 0 || request->jobs > RESTORE_JOBS_MAX) {
        return err_set(err, RC_INVALID, "%d jobs: allowed are 1 to %d", request->jobs,
                       RESTORE_JOBS_MAX);
    }
    if (request->target == RESTORE_TO_POSITION && generation_id_is_none(&request->generation)) {
        return err_set(err, RC_INVALID, "a position needs its generation");
    }
    if (request->output_path == NULL || request->output_path[0] == '\0') {
        return err_set(err, RC_INVALID, "no file to restore to");
    }
    return RC_OK;
}

static int restore_jobs(const struct restore *restore)
{
    if (restore->request->jobs > 0) {
        return restore->request->jobs;
    }
    if (restore->config->is_s3) {
        return RESTORE_JOBS_DEFAULT_S3;
    }
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return processors < 2                          ? 2
           : processors > RESTORE_JOBS_DEFAULT_DIR ? RESTORE_JOBS_DEFAULT_DIR
                                                   : (int)processors;
}

static enum rc restore_prepare_attempt(void *arg, struct err *err)
{
    struct restore *restore = arg;
    return store_prepare(restore->store, false, err);
}

static enum rc restore_reach_store(struct restore *restore, struct err *err)
{
    if (restore->config->off) {
        return err_set(err, RC_INVALID,
                       "HARVEY_ARCHIVE is none: set it to the archive to restore from");
    }
    enum rc rc = store_open(restore->config, &restore->cancel, &restore->store, err);
    if (rc == RC_OK) {
        rc = fetch_retry(&restore->cancel, restore_prepare_attempt, restore, err);
    }
    if (rc == RC_OK) {
        rc = fetch_create(restore->config, restore_jobs(restore), &restore->cancel, &restore->fetch,
                          err);
    }
    return rc;
}

static void restore_fill_result(struct restore *restore)
{
    const struct plan *plan = &restore->plan;
    struct restore_result *result = restore->result;
    result->generation = plan->generation->birth.id;
    result->point = plan->cut.point;
    result->commit_unix_ms = plan->cut.unix_ms;
    result->snapshot = plan->manifest.point.position;
    result->object_count = plan->segment_count + plan->manifest.part_count;
    result->object_bytes = plan->segment_object_bytes + plan->part_object_bytes;
    result->database_bytes = (uint64_t)plan->cut.commit_pages * plan->manifest.page_size_bytes;
    result->left_out = plan->left_out;
    (void)snprintf(result->left_out_detail, sizeof result->left_out_detail, "%s",
                   plan->left_out_detail);
    (void)snprintf(result->note, sizeof result->note, "%s", plan->remark);
}

/* The frames. *snapshot_is_damaged: it does not lie on this chain, an older one may. */
static enum rc restore_write_wal(struct restore *restore, struct apply *apply,
                                 bool *snapshot_is_damaged, struct err *err)
{
    struct plan *plan = &restore->plan;
    struct replay_verdict verdict;
    restore_begin_phase(restore, "wal", plan->segment_object_bytes);
    enum rc rc = replay_run(plan, restore->fetch, apply, restore_tick, restore, &verdict, err);
    if (rc == RC_CORRUPT && verdict.fault == REPLAY_FAULT_SNAPSHOT) {
        *snapshot_is_damaged = true;
    } else if (rc == RC_CORRUPT && plan->cut.is_snapshot) {
        /* Nothing of that object is wanted: it would only have shown where the snapshot belongs. */
        plan_remark(plan, "the WAL object at the snapshot's position is damaged");
        restore_fill_result(restore);
        rc = RC_OK;
    } else if (rc == RC_CORRUPT) {
        restore_name_last_good(restore, verdict.bad_index, NULL);
    }
    fetch_release_buffers(restore->fetch);
    return rc;
}

/* SQLite's check, while the disk writes. */
static enum rc restore_check_and_sync(struct restore *restore, const struct apply *apply,
                                      struct err *err)
{
    struct verify *verify = NULL;
    struct err sync_err = ERR_INIT;
    restore_begin_phase(restore, "integrity", 0);
    enum rc rc = verify_start(restore->target.temp, restore->request->integrity, &verify, err);
    if (rc != RC_OK) {
        return rc;
    }
    enum rc sync_rc = apply_sync(apply, &sync_err);
    rc = verify_finish(verify, &restore->cancel, restore_tick, restore, err);
    if (rc == RC_OK && sync_rc != RC_OK) {
        *err = sync_err;
        rc = sync_rc;
    }
    return rc;
}

/* Writes the database file of the plan. *snapshot_is_damaged: an older snapshot may serve. */
static enum rc restore_write(struct restore *restore, bool *snapshot_is_damaged, struct err *err)
{
    const struct plan *plan = &restore->plan;
    struct apply apply;
    enum rc rc = target_check_space(&restore->target, restore->result->database_bytes, err);
    if (rc != RC_OK) {
        return rc;
    }
    rc = apply_init(&apply, restore->target.fd, restore->target.temp,
                    plan->manifest.page_size_bytes, plan->cut.commit_pages, err);
    if (rc == RC_OK) {
        rc = restore_write_wal(restore, &apply, snapshot_is_damaged, err);
    }
    if (rc == RC_OK) {
        restore_begin_phase(restore, "snapshot", plan->part_object_bytes);
        rc = load_run(&plan->manifest, restore->fetch, &apply, restore_tick, restore, err);
        *snapshot_is_damaged = rc == RC_CORRUPT;
    }
    if (rc == RC_OK) {
        rc = apply_set_size(&apply, err);
    }
    if (rc == RC_OK) {
        rc = restore_check_and_sync(restore, &apply, err);
    }
    apply_deinit(&apply);
    return rc;
}

static enum rc restore_plan_once(struct restore *restore, size_t skip_snapshots,
                                 bool *snapshot_is_damaged, struct err *err)
{
    struct plan_failure failure;
    restore_begin_phase(restore, "plan", 0);
    enum rc rc = plan_make(&restore->plan, restore->request, restore->store, &restore->cancel,
                           skip_snapshots, &failure, err);
    *snapshot_is_damaged = rc == RC_CORRUPT && failure.snapshot_is_damaged;
    restore->result->needs_choice = rc == RC_CORRUPT && failure.needs_choice;
    if (rc == RC_CORRUPT && failure.has_last_good) {
        restore_name_last_good(restore, failure.last_good_end, &failure.last_good);
    } else if (rc == RC_CORRUPT && failure.has_damaged_index) {
        restore_name_last_good(restore, failure.damaged_index, NULL);
    }
    return rc;
}

/* Plans and writes, from older snapshots as long as newer ones turn out to be damaged. */
static enum rc restore_plan_and_write(struct restore *restore, struct err *err)
{
    struct err first_err = ERR_INIT;
    enum rc rc = RC_OK;
    for (size_t skip = 0;; skip++) {
        bool snapshot_is_damaged = false;
        plan_deinit(&restore->plan);
        plan_init(&restore->plan);
        rc = restore_plan_once(restore, skip, &snapshot_is_damaged, err);
        if (rc == RC_OK && skip > 0) {
            plan_remark(&restore->plan, "%zu newer snapshot%s damaged (%.100s)", skip,
                        skip == 1 ? " is" : "s are", first_err.text);
        }
        if (rc == RC_OK) {
            restore_fill_result(restore);
        }
        if (rc == RC_OK && !restore->request->dry_run) {
            rc = restore_write(restore, &snapshot_is_damaged, err);
        }
        if (rc != RC_CORRUPT) {
            break;
        }
        if (skip == 0) {
            first_err = *err;
        }
        if (!snapshot_is_damaged) {
            if (skip > 0) {
                *err = first_err; /* no older one serves: the damage is the news */
            }
            if (skip > 0 && !restore->result->has_last_good) {
                restore_name_parent(restore);
            }
            break;
        }
    }
    return rc;
}

static void restore_note_spool(struct restore *restore)
{
    if (restore->request->replace) {
        return;
    }
    size_t count =
        spooled_objects_beyond(restore->target.sidecar.spool, &restore->plan.generation->birth.id,
                               restore->plan.run.end.position);
    if (count > 0) {
        plan_leave_out(
            &restore->plan,
            "the spool beside the database still holds %zu objects that the archive lacks", count);
        restore_fill_result(restore);
    }
}

static enum rc restore_commit(struct restore *restore, struct err *err)
{
    const struct plan *plan = &restore->plan;
    struct restored_marker marker = {
        .generation = plan->generation->birth.id,
        .point = plan->cut.point,
        .newest_generation = plan->newest_generation,
        .newest_end = plan->newest_end,
        .newest_term = plan->newest_term,
    };
    if (restore_is_stopped(restore)) {
        return err_set(err, RC_STOPPED, "interrupted");
    }
    (void)snprintf(marker.archive, sizeof marker.archive, "%s", restore->config->url);
    restore_note_spool(restore);
    restore_begin_phase(restore, "sync", 0);
    return target_commit(&restore->target, &marker, restore->result->moved_aside, err);
}

static enum rc restore_run_phases(struct restore *restore, struct err *err)
{
    enum rc rc = restore_check_request(restore->request, err);
    if (rc == RC_OK && !restore->request->dry_run) {
        rc = target_open(&restore->target, restore->request->output_path, restore->request->replace,
                         err);
        restore->has_target = rc == RC_OK;
    }
    if (rc == RC_OK) {
        rc = restore_reach_store(restore, err);
    }
    if (rc == RC_OK) {
        rc = restore_plan_and_write(restore, err);
    }
    if (rc == RC_OK && !restore->request->dry_run) {
        rc = restore_commit(restore, err);
    }
    return rc;
}

enum rc restorer_run(const struct store_config *config, const struct restore_request *request,
                     struct restore_result *result, struct err *err)
{
    struct restore restore = {.config = config, .request = request, .result = result};
    struct err local_err = ERR_INIT;
    int64_t start_ms = clk_monotonic_ms();
    err = err != NULL ? err : &local_err;
    memset(result, 0, sizeof *result);
    stop_init(&restore.cancel);
    stop_init(&restore.finished);
    plan_init(&restore.plan);
    if (request->stop != NULL) {
        restore.is_watched =
            pthread_create(&restore.watcher, NULL, restore_watch_thread_main, &restore) == 0;
    }

    enum rc rc = restore_run_phases(&restore, err);
    if (rc != RC_OK && restore_is_stopped(&restore)) {
        rc = err_set(err, RC_STOPPED, "interrupted: nothing was restored");
    }

    if (restore.is_watched) {
        stop_raise(&restore.finished, STOP_SOON);
        ASSERT(pthread_join(restore.watcher, NULL) == 0);
    }
    if (restore.has_target) {
        target_close(&restore.target);
    }
    result->request_count = restore.store != NULL ? restore.store->request_count : 0;
    result->request_count += restore.fetch != NULL ? fetch_request_count(restore.fetch) : 0;
    result->elapsed_ms = clk_monotonic_ms() - start_ms;
    fetch_destroy(restore.fetch);
    plan_deinit(&restore.plan);
    store_close(restore.store);
    stop_deinit(&restore.finished);
    stop_deinit(&restore.cancel);
    return rc;
}

int restorer_exit_status(enum rc rc)
{
    switch (rc) {
    case RC_OK:
        return 0;
    case RC_INVALID:
        return 2;
    case RC_NOT_FOUND:
        return 3;
    case RC_CORRUPT:
        return 4;
    case RC_EXISTS:
    case RC_BUSY:
        return 5;
    case RC_UNAVAILABLE:
    case RC_TIMEOUT:
    case RC_DENIED:
        return 6;
    case RC_IO:
    case RC_LIMIT:
        return 7;
    case RC_NOMEM:
    case RC_INTERNAL:
    case RC_STOPPED:
        return 1;
    }
    return 1;
}
