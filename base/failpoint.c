/* SPDX-License-Identifier: Apache-2.0 */
/* failpoint: see failpoint.h. The list below is the one place that names them all. */
#include "base/failpoint.h"

#ifdef HARVEY_TEST_HOOKS

#include "base/clk.h"
#include "base/err.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const failpoint_names[] = {
    "start_looked",             /* START: database, -wal, marker and record were looked at */
    "start_shipper_ready",      /* START: the shipper runs with an empty queue, no lock is taken */
    "start_compared",           /* leader.lock held, the start is decided, the lead not begun */
    "start_locks_held",         /* START: K and WRITE held, nothing captured */
    "start_generation_noted",   /* the pending generation is durable, its birth not yet put */
    "birth_put",                /* the birth is put, state does not know it yet */
    "claim_noted",              /* the pending claim is durable, not yet put */
    "claim_put",                /* the claim is put, state does not know it yet */
    "capture_done",             /* frames captured, the old read transaction still open */
    "spool_written",            /* a segment's temporary file is written, not yet named */
    "spool_named",              /* named, not yet queued */
    "checkpoint_flagged",       /* the flag is durable, the checkpoint has not begun */
    "checkpoint_done",          /* the checkpoint is done, the flag still set */
    "freeze_begins",            /* FREEZE: decided, WRITE not yet taken */
    "freeze_write_held",        /* FREEZE: WRITE held, before the tail is captured */
    "freeze_backfilled",        /* everything backfilled, on k>0 */
    "freeze_at_mark0",          /* at mark 0 with K and WRITE */
    "freeze_reset_noted",       /* "a reset follows" is durable, WRITE still held; START's too */
    "freeze_released",          /* WRITE released, the WAL not yet begun anew */
    "freeze_reset_done",        /* the WAL has begun anew, still at mark 0 */
    "snapshot_opened",          /* the read transaction is open at an exact position */
    "snapshot_copied",          /* the local copy is whole */
    "snapshot_part_made",       /* some part is made, not yet in the local complete.json */
    "snapshot_parts_made",      /* parts made, the local complete.json not yet */
    "snapshot_part_put",        /* some part is in the store */
    "snapshot_before_complete", /* everything put but complete.json */
    "snapshot_completed",       /* complete.json put, state does not know it yet */
    "upload_before_put",        /* a segment's upload is about to start */
    "store_file_written",       /* a directory archive: written and synced, not yet named */
    "upload_after_put",         /* the store has confirmed it, the run does not know it yet */
    "spool_before_delete",      /* confirmed, state durable, the file still there */
    "marker_before_delete",     /* state names the new generation, restored.json still there */
    "stop_last_look",           /* told to stop: the last look at the WAL comes */
    "stop_looked",              /* all that it saw is spooled, nothing of it shipped */
    "handover_lock_dropped",    /* HANDOVER: leader.lock dropped, transaction still open */
    "http_clients_wait",        /* woken for clients at the listening socket, none taken in yet */
    "restore_part_written",     /* restore: a part is in the temporary file */
    "restore_wal_applied",      /* restore: all frames applied */
    "restore_marker_written",   /* restore: the marker is there, the file not yet renamed */
    "restore_moved_aside",      /* restore --replace: one of the old files has its new name */
    "restore_renamed",          /* restore: renamed, the directory not yet synced */
};
enum { FAILPOINT_COUNT = sizeof failpoint_names / sizeof failpoint_names[0] };

static pthread_mutex_t failpoint_mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned failpoint_reached[FAILPOINT_COUNT]; /* guarded by failpoint_mutex */

static void failpoint_note(const char *name)
{
    const char *path = getenv("HARVEY_TEST_FAILPOINT_LOG");
    if (path == NULL) {
        return;
    }
    char line[64];
    int n = snprintf(line, sizeof line, "%s\n", name);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd >= 0) {
        ssize_t written = write(fd, line, (size_t)n);
        (void)written;
        (void)close(fd);
    }
}

/* Is `wanted` "<name>:<rest>"? Then the rest, else NULL. */
static const char *failpoint_rest(const char *wanted, const char *name)
{
    size_t length = strlen(name);
    bool is_it = wanted != NULL && strncmp(wanted, name, length) == 0 && wanted[length] == ':';
    return is_it ? wanted + length + 1 : NULL;
}

static void failpoint_hold(const char *path)
{
    char held[512];
    int fd;
    if (access(path, F_OK) != 0) {
        return;
    }
    (void)snprintf(held, sizeof held, "%s.held", path);
    fd = open(held, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    ASSERT(fd >= 0);
    (void)close(fd);
    while (access(path, F_OK) == 0) {
        clk_pause_ms(1);
    }
    (void)unlink(held);
}

void failpoint_reach(const char *name)
{
    size_t index = 0;
    while (index < FAILPOINT_COUNT && strcmp(failpoint_names[index], name) != 0) {
        index++;
    }
    ASSERT(index < FAILPOINT_COUNT);
    (void)pthread_mutex_lock(&failpoint_mutex);
    unsigned count = ++failpoint_reached[index];
    (void)pthread_mutex_unlock(&failpoint_mutex);
    if (count == 1) {
        failpoint_note(name);
    }
    const char *number = failpoint_rest(getenv("HARVEY_TEST_FAILPOINT"), name);
    const char *held_by = failpoint_rest(getenv("HARVEY_TEST_HOLD"), name);
    if (number != NULL && strtoul(number, NULL, 10) == count) {
        if (failpoint_switch("FAILPOINT_STOPS")) {
            (void)pthread_kill(pthread_self(), SIGSTOP); /* this thread takes not one step more */
        } else {
            (void)kill(getpid(), SIGKILL);
        }
    }
    if (held_by != NULL) {
        failpoint_hold(held_by);
    }
}

bool failpoint_switch(const char *name)
{
    char variable[64];
    (void)snprintf(variable, sizeof variable, "HARVEY_TEST_%s", name);
    return getenv(variable) != NULL;
}

#else
typedef int failpoint_is_compiled_out; /* ISO C wants something in every file */
#endif
