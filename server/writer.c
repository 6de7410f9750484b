/* SPDX-License-Identifier: Apache-2.0 */
/*
 * writer: see writer.h. The queue is a stack of lists that is taken as a whole, so it needs no lock;
 * the sleep is a futex on `sleeping`, set before the last look at the queue.
 */
#include "server/writer.h"

#include "base/clk.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "server/app.h"
#include "server/db.h"
#include "server/durations.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WRITER_LOOK_MS 1000 /* between two looks at may_serve and the file's identity */
#define WRITER_SLOW_BEGIN_US                                                                       \
    1000000                      /* a wait for the write lock worth a line: a sibling is flat out */
#define WRITER_LOCK_SLICE_MS 500 /* of waiting for it, between two looks at may_serve */
#define WRITER_BRIEF_PATIENCE_MS 5000 /* well below the time that a stop may take */
#define WRITER_COMPLAIN_MS 5000       /* between two lines about failing batches */
#define WRITER_REFUSED_MS 10000       /* so long a failed batch counts, where no other one comes */

struct writer {
    struct writer_config config;
    pthread_t thread;
    bool started;
    int event_fd;

    /* shared */
    _Atomic(struct writer_job *) queue;    /* newest first */
    _Atomic(struct writer_job *) answered; /* newest first */
    _Atomic uint32_t sleeping;             /* 1: the thread waits on this word */
    atomic_bool poked;
    atomic_bool stopping;
    atomic_bool brief;
    _Atomic int state;
    pthread_mutex_t mutex;
    struct writer_view view; /* guarded by mutex; view.state mirrors `state` */
    struct durations pauses; /* guarded by mutex; the view's are made of it when asked for */
    int64_t refused_ms;      /* guarded by mutex: of the last batch */

    /* the thread's own */
    struct db db;
    sqlite3_stmt *begin;
    sqlite3_stmt *commit;
    struct app_writer *app;
    struct db lost;      /* handle NULL; the identity of a file that was taken from us */
    int64_t next_try_ms; /* when a failed opening is tried again */
    int64_t next_look_ms;
    int64_t next_complaint_ms;
    int64_t pause_us; /* of this batch's BEGIN; -1: it came to none */
};

/* ---- handing over ---- */

static long futex(_Atomic uint32_t *word, int operation, uint32_t value,
                  const struct timespec *timeout)
{
    return syscall(SYS_futex, word, operation, value, timeout, NULL, 0);
}

/* Puts the list from `first` to `last` before what the stack holds; true when it was empty. */
static bool push_list(_Atomic(struct writer_job *) *stack, struct writer_job *first,
                      struct writer_job *last)
{
    struct writer_job *head = atomic_load_explicit(stack, memory_order_relaxed);
    do {
        last->next = head;
    } while (!atomic_compare_exchange_weak_explicit(stack, &head, first, memory_order_seq_cst,
                                                    memory_order_relaxed));
    return head == NULL;
}

static void wake(struct writer *writer)
{
    if (atomic_exchange(&writer->sleeping, 0) == 1) {
        (void)futex(&writer->sleeping, FUTEX_WAKE_PRIVATE, 1, NULL);
    }
}

static void signal_event(struct writer *writer)
{
    const uint64_t one = 1;
    ssize_t written = write(writer->event_fd, &one, sizeof one);
    ASSERT(written == sizeof one || errno == EAGAIN); /* EAGAIN: it is readable already */
}

/* Sleeps until there is a job, a poke or a stop, at most until `deadline_ms`. */
static void wait_for_work(struct writer *writer, int64_t deadline_ms)
{
    atomic_store(&writer->sleeping, 1);
    if (atomic_load(&writer->queue) == NULL && !atomic_load(&writer->poked) &&
        !atomic_load(&writer->stopping)) {
        int64_t wait_ms = deadline_ms - clk_monotonic_ms();
        if (wait_ms > 0) {
            struct timespec timeout = {wait_ms / 1000, (long)(wait_ms % 1000) * 1000000L};
            (void)futex(&writer->sleeping, FUTEX_WAIT_PRIVATE, 1, &timeout);
        }
    }
    atomic_store(&writer->sleeping, 0);
}

static struct writer_job *reverse(struct writer_job *newest)
{
    struct writer_job *oldest = NULL;
    while (newest != NULL) {
        struct writer_job *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

/* ---- state ---- */

static void set_state(struct writer *writer, enum writer_state state, const char *reason)
{
    (void)pthread_mutex_lock(&writer->mutex);
    bool changed = writer->view.state != state || strcmp(writer->view.reason, reason) != 0;
    writer->view.state = state;
    if (state == WRITER_OPEN) {
        writer->view.open_no++;
    }
    (void)snprintf(writer->view.reason, sizeof writer->view.reason, "%s", reason);
    (void)pthread_mutex_unlock(&writer->mutex);
    atomic_store(&writer->state, (int)state);
    if (changed) {
        signal_event(writer);
    }
}

static void note_batch(struct writer *writer, enum rc rc, uint64_t rows, const struct err *err)
{
    (void)pthread_mutex_lock(&writer->mutex);
    writer->view.refuses = rc != RC_OK && rc != RC_BUSY;
    writer->refused_ms = clk_monotonic_ms();
    if (rc == RC_OK) {
        writer->view.batches++;
        writer->view.rows += rows;
    } else {
        writer->view.failed_batches++;
        (void)snprintf(writer->view.last_error, sizeof writer->view.last_error, "%s", err->text);
    }
    if (writer->pause_us >= 0) {
        durations_add(&writer->pauses, writer->pause_us);
    }
    (void)pthread_mutex_unlock(&writer->mutex);
}

static void close_database(struct writer *writer, enum writer_state state, const char *reason)
{
    app_writer_close(writer->app);
    writer->app = NULL;
    (void)sqlite3_finalize(writer->begin);
    writer->begin = NULL;
    (void)sqlite3_finalize(writer->commit);
    writer->commit = NULL;
    db_close(&writer->db);
    set_state(writer, state, reason);
}

static void open_database(struct writer *writer, int64_t now_ms)
{
    struct err err = ERR_INIT;
    const char *path = writer->config.database_path;
    enum rc rc = db_open(&writer->db, path, DB_WRITES, writer->config.synchronous_normal, &err);
    if (rc == RC_OK) {
        rc = app_writer_open(writer->db.handle, &writer->app, &err);
    }
    if (rc == RC_OK) {
        rc = db_prepare(writer->db.handle, "BEGIN IMMEDIATE", &writer->begin, &err);
    }
    if (rc == RC_OK) {
        rc = db_prepare(writer->db.handle, "COMMIT", &writer->commit, &err);
    }
    if (rc != RC_OK) {
        struct writer_view view;
        writer_get_view(writer, &view);
        if (strcmp(view.reason, err.text) != 0) {
            log_error("writer", "cannot open the database  error=\"%s\"", err.text);
        }
        writer->next_try_ms = now_ms + WRITER_LOOK_MS;
        close_database(writer, WRITER_FAILED, err.text);
        return;
    }
    (void)sqlite3_busy_timeout(writer->db.handle, WRITER_LOCK_SLICE_MS); /* begin() goes on */
    log_info("writer", "database open  path=%s", path);
    set_state(writer, WRITER_OPEN, "");
}

/* The file was taken from under us: nothing more is written into it. */
static void lose_database(struct writer *writer, const struct err *why)
{
    char reason[ERR_TEXT_BYTES];
    (void)snprintf(reason, sizeof reason,
                   "%.400s; put the file back, or stop the server and restore", why->text);
    log_error("writer", "database lost  reason=\"%s\"", reason);
    writer->lost.identity = writer->db.identity;
    close_database(writer, WRITER_LOST, reason);
}

/* No transaction outlives its batch: one that cannot be rolled back (no memory) ends with its connection. */
static void drop_transaction(struct writer *writer)
{
    log_error("writer", "a batch cannot be rolled back, the database is opened again");
    close_database(writer, WRITER_FAILED, "a batch could not be rolled back");
    writer->next_look_ms = 0;
}

/* Opens, closes, compares: what may_serve and the file at the path ask for. */
static void look(struct writer *writer)
{
    struct err err = ERR_INIT;
    int64_t now_ms = clk_monotonic_ms();
    bool may_serve = writer->config.guard.may_serve(writer->config.guard.arg);
    writer->next_look_ms = now_ms + WRITER_LOOK_MS;
    switch ((enum writer_state)atomic_load(&writer->state)) {
    case WRITER_OPEN:
        if (!may_serve) {
            close_database(writer, WRITER_CLOSED, "");
            log_info("writer", "database closed");
        } else if (!db_is_in_place(&writer->db, writer->config.database_path, &err)) {
            lose_database(writer, &err);
        }
        break;
    case WRITER_LOST: /* until it is back, or the start table has judged what lies there now */
        if (!may_serve) {
            set_state(writer, WRITER_CLOSED, "");
        } else if (db_is_in_place(&writer->lost, writer->config.database_path, &err)) {
            log_info("writer", "the database is back in its place");
            open_database(writer, now_ms);
        }
        break;
    case WRITER_FAILED:
        if (!may_serve) {
            set_state(writer, WRITER_CLOSED, "");
        } else if (now_ms >= writer->next_try_ms) {
            open_database(writer, now_ms);
        }
        break;
    case WRITER_CLOSED:
        if (may_serve) {
            open_database(writer, now_ms);
        }
        break;
    }
}

/* ---- one batch ---- */

static int64_t lock_patience_ms(const struct writer *writer)
{
    int64_t whole_ms = writer->config.lock_patience_ms;
    bool brief = atomic_load(&writer->brief) && whole_ms > WRITER_BRIEF_PATIENCE_MS;
    return brief ? WRITER_BRIEF_PATIENCE_MS : whole_ms;
}

static void note_lock_wait(struct writer *writer)
{
    (void)pthread_mutex_lock(&writer->mutex);
    writer->view.lock_waits++;
    (void)pthread_mutex_unlock(&writer->mutex);
}

/*
 * A sibling that writes flat out, or begins to lead on a slow disk, may keep the lock for seconds: nothing of
 * the batch has been done, so it waits rather than fails, as long as this database is ours to serve.
 */
static enum rc begin(struct writer *writer, struct err *err)
{
    const struct writer_guard *guard = &writer->config.guard;
    int64_t started_us = clk_monotonic_us();
    enum rc rc;
    for (;;) {
        rc = db_step(writer->begin, err);
        writer->pause_us = clk_monotonic_us() - started_us;
        if (rc != RC_BUSY || writer->pause_us / 1000 >= lock_patience_ms(writer) ||
            !guard->may_serve(guard->arg)) {
            break;
        }
        note_lock_wait(writer);
    }
    if (writer->pause_us >= WRITER_SLOW_BEGIN_US) {
        log_warn("writer", "waited for the write lock  waited_ms=%lld",
                 (long long)(writer->pause_us / 1000));
    }
    return rc;
}

static enum rc run_transaction(struct writer *writer, struct writer_job *oldest, uint64_t *rows,
                               struct err *err)
{
    sqlite3 *handle = writer->db.handle;
    if (FAILPOINT_SWITCH("NO_DATABASE")) {
        return RC_OK; /* tests/bench: what of an insert's cost is SQLite's */
    }
    enum rc rc = begin(writer, err);
    if (rc != RC_OK) {
        return rc;
    }
    for (struct writer_job *job = oldest; rc == RC_OK && job != NULL; job = job->next) {
        rc = app_insert(writer->app, job->text, job->text_bytes, &job->row_id, err);
        ++*rows;
        if (FAILPOINT_SWITCH("ONE_ROW") && rc == RC_OK && job->next != NULL) {
            rc = db_step(writer->commit, err); /* tests/bench: what group commit is worth */
            rc = rc == RC_OK ? db_step(writer->begin, err) : rc;
        }
    }
    if (rc == RC_OK) {
        rc = db_step(writer->commit, err);
    }
    if (rc != RC_OK && sqlite3_get_autocommit(handle) == 0) {
        /* Fails where SQLite has rolled back by itself, and where there is no memory for it. */
        (void)sqlite3_exec(handle, "ROLLBACK", NULL, NULL, NULL);
    }
    return rc;
}

static enum rc write_batch(struct writer *writer, struct writer_job *oldest,
                           struct replicator_commit *commit, struct err *err)
{
    uint64_t rows = 0;
    const struct writer_guard *guard = &writer->config.guard;
    writer->pause_us = -1;
    if (atomic_load(&writer->state) != WRITER_OPEN || !guard->may_serve(guard->arg)) {
        return err_set(err, RC_UNAVAILABLE, "the database is not open");
    }
    enum rc rc = run_transaction(writer, oldest, &rows, err);
    if (rc != RC_OK && sqlite3_get_autocommit(writer->db.handle) == 0) {
        drop_transaction(writer);
    }
    if (rc == RC_OK && !db_is_in_place(&writer->db, writer->config.database_path, err)) {
        lose_database(writer, err);
        rc = RC_UNAVAILABLE;
    }
    if (rc == RC_OK) {
        guard->committed(guard->arg, writer->db.handle, commit);
    }
    note_batch(writer, rc, rows, err);
    return rc;
}

static void complain(struct writer *writer, const struct err *err)
{
    int64_t now_ms = clk_monotonic_ms();
    if (now_ms >= writer->next_complaint_ms) {
        writer->next_complaint_ms = now_ms + WRITER_COMPLAIN_MS;
        log_error("writer", "batch failed, its requests are answered 5xx  error=\"%s\"", err->text);
    }
}

static void serve_queue(struct writer *writer)
{
    struct writer_job *newest = atomic_exchange(&writer->queue, NULL);
    if (newest == NULL) {
        return;
    }
    struct err err = ERR_INIT;
    struct writer_job *oldest = reverse(newest); /* `newest` is the list's last now */
    struct replicator_commit commit = {0};
    enum rc rc = write_batch(writer, oldest, &commit, &err);
    if (rc != RC_OK) {
        complain(writer, &err);
    }
    for (struct writer_job *job = oldest; job != NULL; job = job->next) {
        job->rc = rc;
        job->commit = commit;
    }
    if (push_list(&writer->answered, oldest, newest)) {
        signal_event(writer);
    }
}

static void *writer_thread_main(void *arg)
{
    struct writer *writer = arg;
    (void)pthread_setname_np(pthread_self(), "writer");
    while (!atomic_load(&writer->stopping) || atomic_load(&writer->queue) != NULL) {
        if (atomic_exchange(&writer->poked, false) || clk_monotonic_ms() >= writer->next_look_ms) {
            look(writer);
        }
        serve_queue(writer);
        wait_for_work(writer, writer->next_look_ms);
    }
    close_database(writer, WRITER_CLOSED, "stopped");
    return NULL;
}

/* ---- public ---- */

enum rc writer_create(const struct writer_config *config, struct writer **writer, struct err *err)
{
    struct writer *made = calloc(1, sizeof *made);
    *writer = NULL;
    if (made == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the writer");
    }
    made->config = *config;
    made->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (made->event_fd < 0) {
        enum rc rc = err_set_errno(err, RC_IO, "eventfd");
        free(made);
        return rc;
    }
    (void)pthread_mutex_init(&made->mutex, NULL);
    *writer = made;
    return RC_OK;
}

void writer_destroy(struct writer *writer)
{
    if (writer != NULL) {
        ASSERT(!writer->started);
        (void)close(writer->event_fd);
        (void)pthread_mutex_destroy(&writer->mutex);
        free(writer);
    }
}

enum rc writer_start(struct writer *writer, struct err *err)
{
    int failure = pthread_create(&writer->thread, NULL, writer_thread_main, writer);
    if (failure != 0) {
        errno = failure;
        return err_set_errno(err, RC_NOMEM,
                             "cannot start the writer's thread (a limit of memory or threads?)");
    }
    writer->started = true;
    return RC_OK;
}

void writer_stop(struct writer *writer)
{
    if (writer->started) {
        atomic_store(&writer->stopping, true);
        wake(writer);
        (void)pthread_join(writer->thread, NULL);
        writer->started = false;
    }
}

void writer_be_brief(struct writer *writer)
{
    atomic_store(&writer->brief, true);
}

void writer_submit(struct writer *writer, struct writer_job *newest, struct writer_job *oldest)
{
    (void)push_list(&writer->queue, newest, oldest);
    wake(writer);
}

struct writer_job *writer_collect(struct writer *writer)
{
    return atomic_exchange(&writer->answered, NULL);
}

int writer_event_fd(const struct writer *writer)
{
    return writer->event_fd;
}

void writer_poke(struct writer *writer)
{
    atomic_store(&writer->poked, true);
    wake(writer);
}

enum writer_state writer_state(const struct writer *writer)
{
    return (enum writer_state)atomic_load(&writer->state);
}

void writer_get_view(struct writer *writer, struct writer_view *view)
{
    (void)pthread_mutex_lock(&writer->mutex);
    *view = writer->view;
    view->pause_p999_us = durations_percentile(&writer->pauses, 999);
    view->pause_max_us = writer->pauses.max_us;
    view->refuses = view->refuses && clk_monotonic_ms() - writer->refused_ms < WRITER_REFUSED_MS;
    (void)pthread_mutex_unlock(&writer->mutex);
}
