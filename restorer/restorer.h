/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restorer: archive -> database file. The library behind bin/restore; the server calls it for
 * HARVEY_ON_EMPTY=restore and HARVEY_ON_STALE=restore.
 *
 * It writes a temporary file beside the target, checks every object, frame checksum and link, and
 * integrity_check, fsyncs, renames without replacing, fsyncs the directory, and leaves
 * <target>-harvey/restored.json. It never overwrites; with `replace` it moves what is there aside
 * first. <target>-harvey/leader.lock is held from the first look to the rename.
 *
 * Thread: the call blocks; it starts `jobs` threads of its own and joins them before it returns.
 */
#ifndef HARVEY_RESTORER_RESTORER_H
#define HARVEY_RESTORER_RESTORER_H

#include "archive/position.h"
#include "archive/store.h"
#include "base/err.h"
#include "base/fsio.h"
#include "base/stop.h"

#include <stdbool.h>
#include <stdint.h>

enum restore_target { RESTORE_TO_LATEST, RESTORE_TO_TIME, RESTORE_TO_POSITION };
enum restore_integrity { RESTORE_INTEGRITY_FULL, RESTORE_INTEGRITY_QUICK, RESTORE_INTEGRITY_NONE };

#define RESTORE_JOBS_MAX 32

struct restore_progress {
    const char *phase; /* "plan", "snapshot", "wal", "integrity", "sync" */
    uint64_t done_bytes;
    uint64_t total_bytes;
};

struct restore_request {
    enum restore_target target;
    int64_t target_unix_ms;          /* RESTORE_TO_TIME */
    struct position target_position; /* RESTORE_TO_POSITION */
    struct generation_id generation; /* none = choose; required for RESTORE_TO_POSITION */
    const char *output_path;
    enum restore_integrity integrity;
    int jobs; /* 1..RESTORE_JOBS_MAX; 0 = default */
    bool replace;
    bool dry_run; /* plan only */
    /* may be NULL; called on the calling thread, a few times per second at most */
    void (*progress)(void *arg, const struct restore_progress *progress);
    void *progress_arg;
    struct stop
        *stop; /* may be NULL: STOP_SOON ends it with RC_STOPPED, the temporary file removed */
};

struct restore_result {
    struct generation_id generation;
    struct wal_point point;   /* what was restored */
    int64_t commit_unix_ms;   /* of its last capture pass */
    struct position snapshot; /* what it started from */
    uint64_t object_count;
    uint64_t object_bytes;
    uint64_t database_bytes;
    uint64_t request_count;
    int64_t elapsed_ms;
    bool left_out; /* a crash's hole, or a newer generation without a snapshot */
    char left_out_detail[256];
    char note[256];                    /* worth saying although nothing is left out; "" = nothing */
    char moved_aside[FSIO_PATH_BYTES]; /* with replace, when something was there */
    /* after RC_CORRUPT: the error names a choice (--generation …), nothing need be damaged; else the
     * last good position before the damage, where one is known */
    bool needs_choice;
    bool has_last_good;
    struct position last_good;
    struct generation_id last_good_generation;
};

/*
 * RC_NOT_FOUND: nothing to restore (archive empty, generation unknown). RC_CORRUPT: the target
 * cannot be reached (gap, damage, fork that needs a choice); result->last_good is set where there is
 * one, and nothing is left at the target. RC_EXISTS: target, -wal, -shm or -journal exists. RC_BUSY: a
 * live server holds it. RC_UNAVAILABLE, RC_TIMEOUT, RC_DENIED: the store. RC_IO, RC_LIMIT: local.
 * RC_INVALID, RC_NOMEM, RC_INTERNAL, RC_STOPPED.
 */
RC_MUST_CHECK enum rc restorer_run(const struct store_config *config,
                                   const struct restore_request *request,
                                   struct restore_result *result, struct err *err);

/* The documented exit status of bin/restore for a code (0..7). */
int restorer_exit_status(enum rc rc);

#endif
