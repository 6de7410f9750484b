/* SPDX-License-Identifier: Apache-2.0 */
/* plan: see plan.h. */
#include "restorer/plan.h"

#include "restorer/choose.h"
#include "restorer/fetch.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PLAN_WINDOW_DEFAULT 1u /* of a generation whose birth is missing: any hole is damage */

void plan_init(struct plan *plan)
{
    *plan = (struct plan){.generation = NULL};
    catalog_init(&plan->catalog);
    snapshot_manifest_init(&plan->manifest);
    catalog_run_init(&plan->run);
}

void plan_deinit(struct plan *plan)
{
    catalog_run_deinit(&plan->run);
    snapshot_manifest_deinit(&plan->manifest);
    catalog_deinit(&plan->catalog);
}

/* Appends to a text of PLAN_DETAIL_BYTES, after "; " where something stands there already. */
__attribute__((format(printf, 2, 0))) static void plan_append(char *text, const char *format,
                                                              va_list arguments)
{
    size_t used = strlen(text);
    if (used > 0 && used + 3 < PLAN_DETAIL_BYTES) {
        memcpy(text + used, "; ", 3);
        used += 2;
    }
    (void)vsnprintf(text + used, PLAN_DETAIL_BYTES - used, format, arguments);
}

void plan_leave_out(struct plan *plan, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    plan_append(plan->left_out_detail, format, arguments);
    va_end(arguments);
    plan->left_out = true;
}

void plan_remark(struct plan *plan, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    plan_append(plan->remark, format, arguments);
    va_end(arguments);
}

/* ---- calls that are repeated when the store does not answer ---- */

struct plan_call {
    struct catalog *catalog;
    struct catalog_generation *generation;
    struct store *store;
    uint32_t wal_no;
    struct catalog_run *run;
};

static enum rc plan_births_attempt(void *arg, struct err *err)
{
    struct plan_call *call = arg;
    catalog_deinit(call->catalog);
    catalog_init(call->catalog);
    return catalog_read_births(call->catalog, call->store, err);
}

static enum rc plan_load_attempt(void *arg, struct err *err)
{
    struct plan_call *call = arg;
    return catalog_load_lists(call->generation, call->store, call->wal_no, err);
}

static enum rc plan_run_attempt(void *arg, struct err *err)
{
    struct plan_call *call = arg;
    uint32_t window = call->generation->birth.window;
    catalog_run_deinit(call->run);
    catalog_run_init(call->run);
    return catalog_find_run(call->generation, call->store, call->wal_no,
                            window > 0 ? window : PLAN_WINDOW_DEFAULT, call->run, err);
}

/* Lists the segments from the WAL of `from` on and finds the run. */
static enum rc plan_find_run(struct catalog_generation *generation, struct store *store,
                             struct stop *stop, uint32_t wal_no, struct catalog_run *run,
                             struct err *err)
{
    struct plan_call call = {
        .generation = generation, .store = store, .wal_no = wal_no, .run = run};
    enum rc rc = fetch_retry(stop, plan_load_attempt, &call, err);
    return rc == RC_OK ? fetch_retry(stop, plan_run_attempt, &call, err) : rc;
}

/* ---- the end of it ---- */

/* Nothing of the run is needed for a snapshot. */
static void plan_set_last_good(struct plan_failure *failure, const struct cut *cut)
{
    failure->has_last_good = true;
    failure->last_good = cut->point.position;
    failure->last_good_end = cut->is_snapshot ? 0 : cut->index + 1;
}

static struct position plan_position_before(struct position position)
{
    return position.frame_no > 1 ? (struct position){position.wal_no, position.frame_no - 1}
           : position.wal_no > 1 ? (struct position){position.wal_no - 1, UINT32_MAX}
                                 : (struct position){1, 0};
}

/*
 * From the fork on there are two histories, and neither a position nor a time says which of them is
 * meant. A snapshot behind it belongs to one of the two; an older one can tell what lies before.
 */
static enum rc plan_refuse_fork(struct plan *plan, const struct cut_source *source,
                                struct plan_failure *failure, struct err *err)
{
    struct position fork = plan->run.hole_first;
    if (position_compare(source->manifest->point.position, fork) >= 0) {
        failure->snapshot_is_damaged = true;
    } else {
        enum rc rc = cut_find_position(source, plan_position_before(fork), &plan->cut,
                                       &failure->damaged_index, err);
        failure->has_damaged_index = rc == RC_CORRUPT;
        if (rc != RC_OK) {
            return rc;
        }
        plan_set_last_good(failure, &plan->cut);
    }
    return err_set(err, RC_CORRUPT,
                   "generation %s: %s (to choose one, move the objects of the other lead away)",
                   plan->generation->birth.id.text, plan->run.detail);
}

/* Was something captured by then from where the fork is on, in whichever of the histories? */
static bool plan_fork_had_begun(const struct plan *plan, int64_t unix_ms)
{
    for (size_t i = 0; i < plan->generation->segment_count; i++) {
        const struct catalog_segment *segment = &plan->generation->segments[i];
        struct position first = {segment->wal_no, segment->first_frame_no};
        if (position_compare(first, plan->run.hole_first) >= 0 && segment->unix_ms <= unix_ms) {
            return true;
        }
    }
    return false;
}

/*
 * Where a position or a time is behind what was found wrong inside the run: a fork is refused; an object
 * that nobody needs and nobody can read is told.
 */
static enum rc plan_check_cut(struct plan *plan, const struct cut_source *source,
                              struct plan_failure *failure, struct err *err)
{
    enum catalog_end end = plan->run.end_kind;
    if ((end != CATALOG_END_FORK && end != CATALOG_END_DAMAGE) ||
        position_compare(plan->cut.point.position, plan->run.hole_first) < 0) {
        return RC_OK;
    }
    if (end == CATALOG_END_FORK) {
        return plan_refuse_fork(plan, source, failure, err);
    }
    plan_remark(plan, "%s", plan->run.detail);
    return RC_OK;
}

/*
 * A complete snapshot behind the run says that its WAL was confirmed up to there: the run has lost its
 * end, whatever else lies or does not lie behind it.
 */
static enum rc plan_check_end_is_real(struct plan *plan, const struct cut_source *source,
                                      struct plan_failure *failure, struct err *err)
{
    const struct catalog_snapshot *later = catalog_latest_snapshot(plan->generation, NULL);
    struct position end = plan->run.end.position;
    if (later == NULL || position_compare(later->position, end) <= 0 ||
        position_compare(later->position, source->manifest->point.position) <= 0) {
        return RC_OK;
    }
    plan_set_last_good(failure, &plan->cut);
    return err_set(err, RC_CORRUPT,
                   "generation %s: frames behind %u/%u are missing, up to the snapshot at %u/%u",
                   plan->generation->birth.id.text, plan->cut.point.position.wal_no,
                   plan->cut.point.position.frame_no, later->position.wal_no,
                   later->position.frame_no);
}

/* Cuts at the end of the run; a hole or fork there is no matter only where a crash explains it. */
static enum rc plan_cut_latest(struct plan *plan, const struct cut_source *source,
                               struct plan_failure *failure, struct err *err)
{
    size_t count = plan->run.segment_count;
    enum rc rc = cut_find(source, count > 0 ? count - 1 : 0, UINT32_MAX, &plan->cut,
                          &failure->damaged_index, err);
    failure->has_damaged_index = rc == RC_CORRUPT;
    if (rc != RC_OK) {
        return rc;
    }
    enum catalog_end end = plan->run.end_kind;
    if (end == CATALOG_END_FORK) {
        return plan_refuse_fork(plan, source, failure, err);
    }
    if (end == CATALOG_END_DAMAGE) {
        plan_set_last_good(failure, &plan->cut);
        return err_set(err, RC_CORRUPT, "generation %s: %s", plan->generation->birth.id.text,
                       plan->run.detail);
    }
    rc = plan_check_end_is_real(plan, source, failure, err);
    if (rc == RC_OK && end == CATALOG_END_CRASH) {
        plan_leave_out(plan, "%s", plan->run.detail);
    }
    return rc;
}

/* `limit` (may be NULL): no commit behind it belongs to the history that is wanted. */
static enum rc plan_cut_time(struct plan *plan, const struct cut_source *source, int64_t unix_ms,
                             const struct position *limit, struct plan_failure *failure,
                             struct err *err)
{
    struct position end = plan->run.end.position;
    bool limit_is_in = limit != NULL && position_compare(*limit, end) <= 0;
    if (unix_ms >= plan->run.end_unix_ms && !limit_is_in) {
        return plan_cut_latest(plan, source, failure, err);
    }
    enum rc rc = cut_find_time(source, unix_ms, &plan->cut, &failure->damaged_index, err);
    if (rc == RC_OK && limit_is_in && position_compare(plan->cut.point.position, *limit) > 0) {
        rc = cut_find_position(source, *limit, &plan->cut, &failure->damaged_index, err);
    }
    failure->has_damaged_index = rc == RC_CORRUPT;
    bool ends_before_fork =
        limit != NULL && position_compare(*limit, plan->run.hole_first) < 0; /* whatever was live */
    if (rc == RC_OK && plan->run.end_kind == CATALOG_END_FORK && !ends_before_fork &&
        plan_fork_had_begun(plan, unix_ms)) {
        rc = plan_refuse_fork(plan, source, failure, err);
    }
    return rc;
}

static enum rc plan_cut_position(struct plan *plan, const struct cut_source *source,
                                 struct position target, struct plan_failure *failure,
                                 struct err *err)
{
    char text[POSITION_TEXT_BYTES];
    enum rc rc = cut_find_position(source, target, &plan->cut, &failure->damaged_index, err);
    failure->has_damaged_index = rc == RC_CORRUPT;
    if (rc != RC_OK || position_compare(plan->cut.point.position, target) == 0) {
        return rc;
    }
    plan_set_last_good(failure, &plan->cut);
    position_format(source->generation, target, text);
    for (size_t i = 0; i < plan->run.segment_count; i++) {
        const struct catalog_segment *segment = plan->run.segments[i];
        if (segment->wal_no == target.wal_no && segment->first_frame_no <= target.frame_no &&
            target.frame_no <= segment->last_frame_no) {
            return err_set(err, RC_CORRUPT, "%s lies inside a transaction", text);
        }
    }
    return err_set(err, RC_CORRUPT, "%s is not in the archive%s%s", text,
                   plan->run.detail[0] != '\0' ? ": " : "", plan->run.detail);
}

static enum rc plan_find_cut(struct plan *plan, const struct restore_request *request,
                             const struct cut_source *source, const struct position *limit,
                             struct plan_failure *failure, struct err *err)
{
    enum rc rc = RC_OK;
    switch (request->target) {
    case RESTORE_TO_TIME:
        rc = plan_cut_time(plan, source, request->target_unix_ms, limit, failure, err);
        break;
    case RESTORE_TO_POSITION:
        rc = plan_cut_position(plan, source, request->target_position, failure, err);
        break;
    case RESTORE_TO_LATEST:
    default:
        rc = plan_cut_latest(plan, source, failure, err);
        break;
    }
    return rc == RC_OK ? plan_check_cut(plan, source, failure, err) : rc;
}

/* The first object that reaches the snapshot's frame. */
static void plan_set_first_index(struct plan *plan)
{
    const struct catalog_run *run = &plan->run;
    size_t first = 0;
    while (first < run->segment_count &&
           position_compare(
               (struct position){run->segments[first]->wal_no, run->segments[first]->last_frame_no},
               plan->manifest.point.position) < 0) {
        first++;
    }
    plan->first_index = first;
}

/* Which objects are read: from the first one through the cut's. */
static void plan_set_range(struct plan *plan)
{
    size_t first = plan->first_index;
    if (!plan->cut.is_snapshot) {
        ASSERT(plan->cut.index >= first && plan->cut.index < plan->run.segment_count);
        plan->segment_count = plan->cut.index - first + 1;
    } else if (first < plan->run.segment_count && plan->manifest.point.position.frame_no > 0) {
        plan->segment_count = 1; /* the one that holds the snapshot's frame: it proves the chain */
    }
    for (size_t i = 0; i < plan->segment_count; i++) {
        plan->segment_object_bytes += plan->run.segments[first + i]->object_bytes;
    }
    for (uint32_t i = 0; i < plan->manifest.part_count; i++) {
        plan->part_object_bytes += plan->manifest.parts[i].object_bytes;
    }
}

/*
 * A complete snapshot says that its WAL was confirmed from frame 1 to its position. Where the run
 * does not reach it, objects were lost; the snapshot itself can still be had.
 */
static enum rc plan_check_run_reaches(const struct plan *plan,
                                      const struct restore_request *request,
                                      struct plan_failure *failure, struct err *err)
{
    struct position snapshot = plan->manifest.point.position;
    struct position end = plan->run.end.position;
    bool reaches = snapshot.frame_no == 0 || position_compare(end, snapshot) >= 0;
    bool wants_snapshot = request->target == RESTORE_TO_POSITION &&
                          position_compare(request->target_position, snapshot) == 0;
    if (reaches || wants_snapshot) {
        return RC_OK;
    }
    plan_set_last_good(failure, &(struct cut){.is_snapshot = true, .point = plan->manifest.point});
    return err_set(err, RC_CORRUPT,
                   "frames of WAL %u at or before the snapshot's frame %u are missing%s%s",
                   snapshot.wal_no, snapshot.frame_no, plan->run.detail[0] != '\0' ? ": " : "",
                   plan->run.detail);
}

/* Notes the newest generation, the end of its run and its highest claim. */
static enum rc plan_look_at_newest(struct plan *plan, struct store *store, struct stop *stop,
                                   struct err *err)
{
    struct catalog_generation *newest =
        &plan->catalog.generations[plan->catalog.generation_count - 1];
    enum rc rc = RC_OK;
    if (newest == plan->generation) {
        plan->newest_end = plan->run.end;
    } else {
        struct catalog_run run;
        struct plan_call call = {.generation = newest, .store = store, .wal_no = UINT32_MAX};
        catalog_run_init(&run);
        rc = fetch_retry(stop, plan_load_attempt, &call, err);
        if (rc == RC_OK) {
            const struct catalog_snapshot *snapshot = catalog_latest_snapshot(newest, NULL);
            uint32_t wal_no = snapshot != NULL ? snapshot->position.wal_no : 1;
            rc = plan_find_run(newest, store, stop, wal_no, &run, err);
        }
        plan->newest_end = run.end;
        catalog_run_deinit(&run);
        if (rc == RC_CORRUPT) { /* not ours to restore: the next start will look at it */
            plan_remark(plan, "the newest generation %s is damaged", newest->birth.id.text);
            plan->newest_end = (struct wal_point){.position = {0, 0}};
            rc = RC_OK;
        }
    }
    plan->newest_generation = newest->birth.id;
    plan->newest_term = newest->term_highest;
    return rc;
}

enum rc plan_make(struct plan *plan, const struct restore_request *request, struct store *store,
                  struct stop *stop, size_t skip_snapshots, struct plan_failure *failure,
                  struct err *err)
{
    struct choose_result chosen;
    struct choose_source choose = {&plan->catalog, store, stop, request, NULL};
    struct plan_call births = {.catalog = &plan->catalog, .store = store};
    *failure = (struct plan_failure){.has_last_good = false};
    enum rc rc = fetch_retry(stop, plan_births_attempt, &births, err);
    if (rc == RC_OK) {
        rc = choose_generation(&choose, &chosen, err);
        failure->needs_choice = chosen.needs_choice;
    }
    if (rc != RC_OK) {
        return rc;
    }
    plan->generation = chosen.generation;
    if (chosen.leaves_out) {
        plan_leave_out(plan, "%s", chosen.note);
    } else if (chosen.note[0] != '\0') {
        plan_remark(plan, "%s", chosen.note);
    }
    choose.limit = chosen.has_limit ? &chosen.limit : NULL;
    rc = choose_snapshot(&choose, plan->generation, skip_snapshots, &plan->manifest,
                         &failure->snapshot_is_damaged, err);
    if (rc == RC_OK) {
        rc = plan_find_run(plan->generation, store, stop, plan->manifest.point.position.wal_no,
                           &plan->run, err);
    }
    if (rc == RC_OK) {
        rc = plan_check_run_reaches(plan, request, failure, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    plan_set_first_index(plan);
    struct cut_source source = {store, stop, &plan->generation->birth.id, &plan->manifest,
                                &plan->run};
    rc = plan_find_cut(plan, request, &source, choose.limit, failure, err);
    if (rc == RC_OK) {
        plan_set_range(plan);
        rc = plan_look_at_newest(plan, store, stop, err);
    }
    return rc;
}

enum rc plan_last_commit_before(const struct plan *plan, struct store *store, struct stop *stop,
                                size_t index, struct position *position, struct err *err)
{
    struct cut cut;
    struct cut_source source = {store, stop, &plan->generation->birth.id, &plan->manifest,
                                &plan->run};
    *position = plan->manifest.point.position;
    if (index == 0) {
        return RC_OK;
    }
    enum rc rc = cut_find(&source, index - 1, UINT32_MAX, &cut, NULL, err);
    if (rc == RC_OK) {
        *position = cut.point.position;
    }
    return rc;
}
