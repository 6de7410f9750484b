/* SPDX-License-Identifier: Apache-2.0 */
/*
 * writer: the one thread of the process that writes rows, with the only connection that does.
 *
 * Group commit: whatever is queued when the thread looks goes into one transaction. The http thread
 * hands over a whole list with one atomic exchange (and one futex wake if the writer slept), and
 * gets the answered jobs back the same way, with one eventfd write per list:
 *
 *   http thread ── writer_submit(list) ──> queue ──> BEGIN, app_insert each, COMMIT
 *               <── event fd, writer_collect ── answered <── file in place? ── replicator_committed
 *
 * An answer promises what has happened: rc is RC_OK only after COMMIT has returned, the database's
 * path still named the file that was written, and the replicator was told. Any error answers every
 * job of the batch; its rows were rolled back, or (an error of COMMIT itself) may exist.
 *
 * The database is open only while guard.may_serve says so. The thread looks again when it is poked,
 * and at least once per second, when it also compares the file's identity.
 *
 * Threads: create, start, stop, destroy: main. submit, collect: the http thread. The rest: any.
 */
#ifndef HARVEY_SERVER_WRITER_H
#define HARVEY_SERVER_WRITER_H

#include "base/err.h"
#include "replicator/replicator.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum writer_state {
    WRITER_CLOSED, /* may_serve is false, or not looked yet */
    WRITER_OPEN,
    WRITER_FAILED, /* the database could not be opened; tried again every second */
    WRITER_LOST,   /* replaced, renamed, deleted or linked under us; see writer_view.reason */
};

/* One row to insert. Embedded in the caller's request; the writer owns it from submit to collect. */
struct writer_job {
    struct writer_job *next; /* in lists handed over */
    const char *text;        /* borrowed until collected; NULL: the app makes the value */
    size_t text_bytes;
    enum rc rc; /* from here on: the answer */
    int64_t row_id;
    struct replicator_commit commit;
};

/* What the writer asks and tells; the replicator, or a stand-in in tests. */
struct writer_guard {
    void *arg;
    bool (*may_serve)(void *arg);
    void (*committed)(void *arg, sqlite3 *db, struct replicator_commit *commit);
};

struct writer_config {
    const char *database_path; /* borrowed for the writer's life */
    bool synchronous_normal;
    struct writer_guard guard;
    int64_t
        lock_patience_ms; /* so long may a batch wait for the write lock; then it fails (RC_BUSY) */
};

struct writer_view {
    enum writer_state state;
    uint64_t open_no; /* counts openings: a reader of an older one must be opened again */
    char reason[ERR_TEXT_BYTES];     /* why it is not open; "" while it is */
    char last_error[ERR_TEXT_BYTES]; /* of the last failed batch */
    bool refuses; /* the last batch failed a moment ago, and not because somebody else wrote */
    uint64_t batches;
    uint64_t rows;
    uint64_t failed_batches;
    /* how long batches waited for the write lock: from ready to be written to the end of BEGIN */
    int64_t pause_p999_us;
    int64_t pause_max_us;
    uint64_t lock_waits; /* slices of waiting for the write lock */
};

struct writer;

RC_MUST_CHECK enum rc writer_create(const struct writer_config *config, struct writer **writer,
                                    struct err *err);
void writer_destroy(struct writer *writer); /* stopped or never started; NULL is legal */

RC_MUST_CHECK enum rc writer_start(struct writer *writer, struct err *err);

/* Answers everything queued, closes the database, joins the thread. */
void writer_stop(struct writer *writer);

/* From here on (a stop has begun) a batch waits for the write lock for a few seconds only. Any thread. */
void writer_be_brief(struct writer *writer);

/* Hands over a list, newest first: `newest`->next ... ends at `oldest`. */
void writer_submit(struct writer *writer, struct writer_job *newest, struct writer_job *oldest);

/* All answered jobs so far, in no order, linked by `next`; NULL when there are none. */
struct writer_job *writer_collect(struct writer *writer);

/*
 * Readable when jobs were answered or the state changed: an edge each time. Read 8 bytes to clear, or wait
 * for edges and never read: its count lasts longer than the machine.
 */
int writer_event_fd(const struct writer *writer);

/* Look at may_serve again, now. */
void writer_poke(struct writer *writer);

enum writer_state writer_state(const struct writer *writer); /* one atomic load */
void writer_get_view(struct writer *writer, struct writer_view *view);

#endif
