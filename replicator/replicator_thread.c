/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replicator: see replicator.h. The leader thread:
 *   leader.lock busy -> follower (serves when the leader's start was passed)
 *   got it           -> start_decide -> wait | restore | lead_run, and over again
 */
#include "replicator/replicator_internal.h"

#include "base/backoff.h"
#include "base/clk.h"
#include "base/failpoint.h"
#include "base/fsio.h"
#include "base/log.h"
#include "replicator/lead.h"
#include "replicator/start.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FOLLOWER_TRY_MS 10       /* a leader that died is replaced within that */
#define WAITER_LOOK_MS 200       /* a waiting server looks that often whether the files changed */
#define WAITER_ASK_FIRST_MS 1000 /* and asks the archive again after that, then less often */
#define WAITER_ASK_CAP_MS 10000
#define RESTORE_RETRY_MS 5000
#define LEAD_RETRY_FIRST_MS 20
#define LEAD_RETRY_CAP_MS 2000
#define LEAD_LASTED_MS 5000 /* a lead that lasted resets the pause before the next */

/* ---- role ---- */

static void replicator_set_role(struct replicator *r, enum replicator_role role, bool may_serve,
                                const char *reason)
{
    (void)pthread_mutex_lock(&r->mutex);
    bool changed = r->role != role || atomic_load(&r->may_serve) != may_serve ||
                   strcmp(r->reason, reason) != 0;
    r->role = role;
    (void)snprintf(r->reason, sizeof r->reason, "%s", reason);
    atomic_store(&r->may_serve, may_serve);
    (void)pthread_mutex_unlock(&r->mutex);
    if (changed) {
        uint64_t one = 1;
        ssize_t written = write(r->event_fd, &one, sizeof one);
        (void)written; /* EAGAIN: the reader has not taken the last one yet, which says the same */
        if (reason[0] != '\0') {
            log_info("leader", "role=\"%s\" reason=\"%s\"", replicator_role_name(role), reason);
        } else {
            log_info("leader", "role=\"%s\"", replicator_role_name(role));
        }
    }
}

static void replicator_note_try(struct replicator *r, bool failed)
{
    (void)pthread_mutex_lock(&r->mutex);
    r->cannot_lead = failed;
    (void)pthread_mutex_unlock(&r->mutex);
}

static void replicator_publish(void *arg, const struct replicator_status *status,
                               const struct state_wal_map *map)
{
    struct replicator *r = arg;
    (void)pthread_mutex_lock(&r->mutex);
    r->own = *status;
    state_publish(&r->state, map, status);
    bool first = r->role != ROLE_LEADER;
    (void)pthread_mutex_unlock(&r->mutex);
    if (first) {
        replicator_set_role(r, ROLE_LEADER, true, "");
    }
}

/* Logs the text, but where it was the last one `said` too: for whoever looks closely (debug). */
static void replicator_say(char said[SAID_BYTES], enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void replicator_say(char said[SAID_BYTES], enum log_level level, const char *format, ...)
{
    char text[SAID_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (strcmp(text, said) == 0) {
        log_debug("leader", "again: %s", text);
    } else {
        log_line(level, "leader", "%s", text);
        memcpy(said, text, sizeof text);
    }
}

/* Opens the folder beside the database again, and the state in it; tries until that works. */
static void replicator_reopen_sidecar(struct replicator *r)
{
    struct state fresh;
    struct err err;
    while (fsio_make_dirs(r->sidecar.dir, &err) != RC_OK ||
           spool_open(&r->spool, r->sidecar.spool, &err) != RC_OK ||
           state_open(&fresh, r->sidecar.state, &err) != RC_OK) {
        replicator_say(r->failure_said, LOG_LEVEL_ERROR, "%s", err.text);
        if (stop_wait_ms(&r->stop, STOP_SOON, WAITER_ASK_FIRST_MS)) {
            return;
        }
    }
    (void)pthread_mutex_lock(&r->mutex);
    state_adopt(&r->state, &fresh);
    (void)pthread_mutex_unlock(&r->mutex);
}

/* ---- waiting ---- */

/* Not ready: waits, without any lock, until the files change or it is time to ask the archive again. */
static void replicator_wait(struct replicator *r, int64_t ask_again_ms)
{
    struct file_identity before;
    struct file_identity now;
    struct err err;
    int64_t deadline = clk_monotonic_ms() + ask_again_ms;
    if (start_identify(r->sidecar.database, &before, &err) != RC_OK) {
        before = (struct file_identity){0};
    }
    while (!stop_wait_ms(&r->stop, STOP_SOON, WAITER_LOOK_MS) && clk_monotonic_ms() < deadline) {
        if (start_identify(r->sidecar.database, &now, &err) == RC_OK &&
            (now.inode != before.inode || now.size_bytes != before.size_bytes ||
             now.mtime_ns != before.mtime_ns)) {
            return;
        }
    }
}

static void replicator_follow(struct replicator *r)
{
    struct state_live *live = r->state.live;
    uint64_t lead = atomic_load(&live->lead_seq);
    bool may_serve = atomic_load(&r->may_serve);
    atomic_store(&live->waiter_ms, clk_boottime_ms());
    struct err ignored;
    if (!may_serve && lockfile_probe(r->sidecar.serving_lock, &ignored) == RC_BUSY) {
        may_serve = true; /* the start was passed, by a leader that lives, for all processes */
    } else if (may_serve && atomic_load(&live->refused_lead) == lead) {
        may_serve = false;
    }
    replicator_set_role(r, may_serve ? ROLE_FOLLOWER : ROLE_STARTING, may_serve,
                        may_serve ? "" : "another process is starting to lead");
    (void)stop_wait_ms(&r->stop, STOP_SOON, FOLLOWER_TRY_MS);
}

/* ---- leading ---- */

struct leading {
    struct backoff ask;   /* while waiting */
    struct backoff retry; /* after a lead that did not last */
    uint64_t lead_seq;
    bool handed_over; /* to a sibling, or to one that had just gone */
};

/* A try failed before it led. Whoever serves goes on, and is red: nothing is archived meanwhile. */
static void replicator_fail(struct replicator *r, struct leading *leading, const struct err *err)
{
    replicator_say(r->failure_said, LOG_LEVEL_ERROR, "cannot start: %s", err->text);
    replicator_note_try(r, true);
    replicator_set_role(r, ROLE_STARTING, atomic_load(&r->may_serve), err->text);
    (void)stop_wait_ms(&r->stop, STOP_SOON, backoff_next_ms(&leading->retry));
}

static void replicator_refuse(struct replicator *r, struct leading *leading,
                              const struct start_plan *plan)
{
    enum replicator_role role =
        plan->action == START_WAIT_FOR_RESTORE ? ROLE_WAITING_FOR_RESTORE : ROLE_WAITING;
    atomic_store(&r->state.live->refused_lead, leading->lead_seq);
    lockfile_release(&r->leader_lock);
    replicator_set_role(r, role, false, plan->reason);
    replicator_wait(r, backoff_next_ms(&leading->ask));
}

static void replicator_restore(struct replicator *r, struct leading *leading,
                               const struct start_plan *plan)
{
    struct err err = ERR_INIT;
    atomic_store(&r->state.live->refused_lead, leading->lead_seq);
    lockfile_release(&r->leader_lock); /* the restore takes it */
    if (r->config->restore == NULL) {
        replicator_set_role(r, ROLE_WAITING_FOR_RESTORE, false, "this program cannot restore");
        replicator_wait(r, RESTORE_RETRY_MS);
        return;
    }
    replicator_set_role(r, ROLE_RESTORING, false, plan->reason);
    enum rc rc = r->config->restore(r->config->restore_arg, plan->replace, &err);
    replicator_reopen_sidecar(r); /* the folder beside the database may have been moved aside */
    if (rc != RC_OK) {
        char reason[512];
        (void)snprintf(reason, sizeof reason, "the restore failed: %.480s", err.text);
        replicator_set_role(r, ROLE_WAITING_FOR_RESTORE, false, reason);
        replicator_wait(r, RESTORE_RETRY_MS);
    }
}

/* Returns false when the thread is to end. */
static bool replicator_lead(struct replicator *r, struct leading *leading, struct start_plan *plan)
{
    struct lead_context context = {.config = r->config,
                                   .sidecar = &r->sidecar,
                                   .spool = &r->spool,
                                   .state = &r->state,
                                   .stop = &r->stop,
                                   .leader_lock = &r->leader_lock,
                                   .lead_seq = leading->lead_seq,
                                   .publish = replicator_publish,
                                   .publish_arg = r};
    char reason[512] = "";
    int64_t begun_ms = clk_monotonic_ms();
    replicator_say(r->start_said, plan->is_ordinary ? LOG_LEVEL_INFO : LOG_LEVEL_WARN,
                   "start  row=%d %s", plan->row, plan->reason);
    backoff_reset(&leading->ask);
    enum lead_end end = lead_run(&context, plan, reason, sizeof reason, &r->unshipped);
    if (end == LEAD_STOPPED || end == LEAD_HANDED_OVER) {
        leading->handed_over = end == LEAD_HANDED_OVER;
        (void)snprintf(r->stop_reason, sizeof r->stop_reason, "%s", reason);
        lockfile_release(&r->leader_lock);
        return false;
    }
    if (r->role == ROLE_LEADER) { /* it led for a while: nothing of before is old news */
        r->start_said[0] = '\0';
        r->failure_said[0] = '\0';
    }
    replicator_say(r->failure_said, LOG_LEVEL_WARN, "%s: %s",
                   end == LEAD_RESTART ? "starting over" : "could not lead", reason);
    if (clk_monotonic_ms() - begun_ms >= LEAD_LASTED_MS) {
        backoff_reset(&leading->retry);
    }
    bool keeps_serving = atomic_load(&r->may_serve);
    lockfile_release(&r->leader_lock);
    replicator_note_try(r, end == LEAD_FAILED);
    replicator_set_role(r, ROLE_STARTING, keeps_serving, reason);
    (void)stop_wait_ms(&r->stop, STOP_SOON, backoff_next_ms(&leading->retry));
    return true;
}

/* leader.lock is held. Returns false when the thread is to end. */
static bool replicator_start_over(struct replicator *r, struct leading *leading)
{
    struct start_input input = {r->config, &r->sidecar, &r->spool, &r->state, r->store};
    struct start_plan plan;
    struct err err = ERR_INIT;
    bool go_on = true;
    start_plan_init(&plan);
    if (!state_is_current(&r->state, r->sidecar.state)) {
        replicator_reopen_sidecar(r); /* somebody restored with --replace while we waited */
    }
    leading->lead_seq = atomic_fetch_add(&r->state.live->lead_seq, 1) + 1;
    if (r->role != ROLE_WAITING && r->role != ROLE_WAITING_FOR_RESTORE &&
        r->failure_said[0] == '\0') { /* a waiter's reason stands, and why a try failed */
        replicator_set_role(r, ROLE_STARTING, atomic_load(&r->may_serve),
                            "comparing with the archive");
    }
    enum rc rc = state_reload(&r->state, &err);
    if (rc == RC_OK) {
        rc = start_decide(&input, &plan, &err);
    }
    FAILPOINT("start_compared");
    if (rc != RC_OK) {
        lockfile_release(&r->leader_lock);
        replicator_fail(r, leading, &err);
    } else {
        switch (plan.action) {
        case START_WAIT:
        case START_WAIT_FOR_RESTORE:
            replicator_refuse(r, leading, &plan);
            break;
        case START_RESTORE:
            replicator_restore(r, leading, &plan);
            break;
        case START_SERVE:
            go_on = replicator_lead(r, leading, &plan);
            break;
        }
    }
    start_plan_deinit(&plan);
    return go_on;
}

/*
 * Told to stop, and not leading. Where nobody goes on leading, what was committed since the last capture is
 * ours to ship: all siblings may have been told to stop at once, and the leader before us.
 */
static void replicator_last_out(struct replicator *r, struct leading *leading)
{
    struct state_live *live = r->state.live;
    struct err err;
    int64_t deadline = clk_monotonic_ms() + r->config->stop_timeout_ms;
    if (!atomic_load(&r->may_serve)) {
        return;
    }
    atomic_store(&live->waiter_ms, 0); /* a leader that looks now must not count on us */
    for (;;) {
        enum rc rc = lockfile_try(&r->leader_lock, r->sidecar.leader_lock, &err);
        if (rc == RC_OK) {
            log_info("leader", "the last one ships the rest");
            if (replicator_start_over(r, leading)) {
                break; /* the lead could not be taken, the log says why */
            }
            return;
        }
        bool leader_ends = atomic_load(&live->finishing_lead) == atomic_load(&live->lead_seq);
        if (rc == RC_BUSY && (!leader_ends || leading->handed_over)) {
            return; /* a leader that goes on has our commits */
        }
        if (rc != RC_BUSY || clk_monotonic_ms() >= deadline ||
            stop_wait_ms(&r->stop, STOP_NOW, FOLLOWER_TRY_MS)) {
            break;
        }
    }
    r->unshipped = true;
    (void)snprintf(r->stop_reason, sizeof r->stop_reason,
                   "the last commits may be in the -wal alone, and are shipped by the next start");
}

void *replicator_thread_main(void *arg)
{
    struct replicator *r = arg;
    struct leading leading = {.lead_seq = 0};
    struct err err;
    (void)pthread_setname_np(pthread_self(), "leader");
    backoff_init(&leading.ask, WAITER_ASK_FIRST_MS, WAITER_ASK_CAP_MS);
    backoff_init(&leading.retry, LEAD_RETRY_FIRST_MS, LEAD_RETRY_CAP_MS);
    bool go_on = true;
    while (go_on && stop_level(&r->stop) == STOP_NONE) {
        enum rc rc = lockfile_try(&r->leader_lock, r->sidecar.leader_lock, &err);
        if (rc == RC_BUSY) {
            replicator_follow(r);
        } else if (rc != RC_OK) {
            replicator_fail(r, &leading, &err);
        } else {
            go_on = replicator_start_over(r, &leading);
        }
    }
    if (go_on || leading.handed_over) {
        replicator_last_out(r, &leading);
    }
    lockfile_release(&r->leader_lock);
    replicator_set_role(r, ROLE_STOPPED, false, "");
    stop_raise(&r->ended, STOP_NOW);
    return NULL;
}
