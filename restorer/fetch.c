/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch: see fetch.h.
 *
 * One mutex guards the queue. Task t lives in slot t % FETCH_SLOTS from its start to its delivery.
 * Workers sleep on `may_start`, the calling thread on `is_done`.
 */
#include "restorer/fetch.h"

#include "base/backoff.h"
#include "base/clk.h"
#include "restorer/restorer.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define FETCH_TICK_MS 100
#define FETCH_CONTENT_CAP_BYTES (SEGMENT_CONTENT_BYTES_MAX + (128u << 10))

/*
 * Tasks by what their buffers hold (object and content together), and how many of each kind may be
 * under way. Buffers grow by doubling, so a class costs at most twice its limit: 8 + 12 + 25 MiB.
 */
static const struct fetch_class {
    uint64_t cost_bytes_max;
    unsigned in_use_max;
} fetch_classes[] = {
    {0, FETCH_SLOTS},          /* needs no buffers */
    {128u << 10, FETCH_SLOTS}, /* most WAL objects */
    {1u << 20, 6},
    {UINT64_MAX, 3}, /* up to 8.3 MiB: one object and its content at their caps */
};
enum { FETCH_CLASS_COUNT = sizeof fetch_classes / sizeof fetch_classes[0] };

struct fetch {
    int jobs;
    struct stop *stop; /* borrowed */
    struct fetch_worker workers[RESTORE_JOBS_MAX];
    _Atomic uint64_t received_bytes;
    pthread_mutex_t mutex;
    pthread_cond_t may_start;
    pthread_cond_t is_done;
    /* guarded by mutex, as are the slots' states: */
    const struct fetch_job *job;
    size_t next_task;    /* to be started */
    size_t deliver_task; /* to be delivered */
    bool is_ending;      /* no task starts any more */
    unsigned in_use[FETCH_CLASS_COUNT];
    struct fetch_buffers *free_buffers[FETCH_CLASS_COUNT];
    struct fetch_slot slots[FETCH_SLOTS];
};

static void fetch_init_sync(struct fetch *fetch)
{
    pthread_condattr_t attr;
    ASSERT(pthread_mutex_init(&fetch->mutex, NULL) == 0);
    ASSERT(pthread_condattr_init(&attr) == 0);
    ASSERT(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    ASSERT(pthread_cond_init(&fetch->may_start, &attr) == 0);
    ASSERT(pthread_cond_init(&fetch->is_done, &attr) == 0);
    ASSERT(pthread_condattr_destroy(&attr) == 0);
}

static enum rc fetch_worker_init(struct fetch_worker *worker, const struct store_config *config,
                                 struct stop *stop, struct err *err)
{
    enum rc rc = store_open(config, stop, &worker->store, err);
    if (rc == RC_OK) {
        rc = segment_reader_create(&worker->reader, err);
    }
    if (rc == RC_OK) {
        rc = codec_decoder_create(&worker->decoder, err);
    }
    return rc == RC_OK ? hash_create(&worker->hash, err) : rc;
}

enum rc fetch_create(const struct store_config *config, int jobs, struct stop *stop,
                     struct fetch **fetch, struct err *err)
{
    ASSERT(jobs >= 1 && jobs <= RESTORE_JOBS_MAX);
    struct fetch *made = calloc(1, sizeof *made);
    *fetch = NULL;
    if (made == NULL) {
        return err_set(err, RC_NOMEM, "no memory for %d fetching threads", jobs);
    }
    made->jobs = jobs;
    made->stop = stop;
    fetch_init_sync(made);
    for (int i = 0; i < jobs; i++) {
        made->workers[i].fetch = made;
        made->workers[i].stop = stop;
        enum rc rc = fetch_worker_init(&made->workers[i], config, stop, err);
        if (rc != RC_OK) {
            fetch_destroy(made);
            return rc;
        }
    }
    *fetch = made;
    return RC_OK;
}

void fetch_release_buffers(struct fetch *fetch)
{
    for (size_t i = 0; i < FETCH_CLASS_COUNT; i++) {
        while (fetch->free_buffers[i] != NULL) {
            struct fetch_buffers *buffers = fetch->free_buffers[i];
            fetch->free_buffers[i] = buffers->next;
            buf_deinit(&buffers->object);
            buf_deinit(&buffers->content);
            free(buffers);
        }
    }
}

void fetch_destroy(struct fetch *fetch)
{
    if (fetch == NULL) {
        return;
    }
    fetch_release_buffers(fetch);
    for (int i = 0; i < fetch->jobs; i++) {
        hash_destroy(fetch->workers[i].hash);
        codec_decoder_destroy(fetch->workers[i].decoder);
        segment_reader_destroy(fetch->workers[i].reader);
        store_close(fetch->workers[i].store);
    }
    ASSERT(pthread_cond_destroy(&fetch->is_done) == 0);
    ASSERT(pthread_cond_destroy(&fetch->may_start) == 0);
    ASSERT(pthread_mutex_destroy(&fetch->mutex) == 0);
    free(fetch);
}

static size_t fetch_class_of(const struct fetch *fetch, size_t task)
{
    uint64_t cost = fetch->job->cost_bytes(fetch->job->arg, task);
    size_t i = 0;
    while (cost > fetch_classes[i].cost_bytes_max) {
        i++;
    }
    return i;
}

/* Under the mutex: may the next task start now? */
static bool fetch_may_start(const struct fetch *fetch, size_t *class_index)
{
    if (fetch->next_task - fetch->deliver_task >= FETCH_SLOTS) {
        return false;
    }
    *class_index = fetch_class_of(fetch, fetch->next_task);
    return fetch->in_use[*class_index] < fetch_classes[*class_index].in_use_max;
}

static struct fetch_buffers *fetch_new_buffers(void)
{
    struct fetch_buffers *buffers = calloc(1, sizeof *buffers);
    if (buffers != NULL) {
        buf_init(&buffers->object, SEGMENT_OBJECT_BYTES_MAX);
        buf_init(&buffers->content, FETCH_CONTENT_CAP_BYTES);
    }
    return buffers;
}

/* Under the mutex: takes the next task's slot and buffers. */
static enum rc fetch_take(struct fetch *fetch, size_t class_index, size_t *task,
                          struct fetch_slot **slot, struct err *err)
{
    *task = fetch->next_task;
    fetch->next_task++;
    *slot = &fetch->slots[*task % FETCH_SLOTS];
    (*slot)->is_done = false;
    (*slot)->class_index = class_index;
    (*slot)->buffers = NULL;
    fetch->in_use[class_index]++;
    if (class_index == 0) {
        return RC_OK;
    }
    struct fetch_buffers *buffers = fetch->free_buffers[class_index];
    if (buffers != NULL) {
        fetch->free_buffers[class_index] = buffers->next;
    } else {
        buffers = fetch_new_buffers();
    }
    (*slot)->buffers = buffers;
    return buffers != NULL ? RC_OK : err_set(err, RC_NOMEM, "no memory for a fetched object");
}

/* Under the mutex: gives them back. */
static void fetch_give_back(struct fetch *fetch, struct fetch_slot *slot)
{
    fetch->in_use[slot->class_index]--;
    if (slot->buffers != NULL) {
        slot->buffers->next = fetch->free_buffers[slot->class_index];
        fetch->free_buffers[slot->class_index] = slot->buffers;
        slot->buffers = NULL;
    }
}

static void *fetch_thread_main(void *arg)
{
    struct fetch_worker *worker = arg;
    struct fetch *fetch = worker->fetch;
    size_t class_index = 0;
    ASSERT(pthread_mutex_lock(&fetch->mutex) == 0);
    while (!fetch->is_ending && fetch->next_task < fetch->job->task_count) {
        if (!fetch_may_start(fetch, &class_index)) {
            ASSERT(pthread_cond_wait(&fetch->may_start, &fetch->mutex) == 0);
            continue;
        }
        size_t task;
        struct fetch_slot *slot;
        struct err err = ERR_INIT;
        enum rc rc = fetch_take(fetch, class_index, &task, &slot, &err);
        ASSERT(pthread_mutex_unlock(&fetch->mutex) == 0);
        if (rc == RC_OK) {
            rc = fetch->job->work(fetch->job->arg, task, worker, slot, &err);
        }
        ASSERT(pthread_mutex_lock(&fetch->mutex) == 0);
        slot->rc = rc;
        slot->err = err;
        slot->is_done = true;
        fetch->is_ending = fetch->is_ending || rc != RC_OK;
        ASSERT(pthread_cond_signal(&fetch->is_done) == 0);
    }
    ASSERT(pthread_cond_broadcast(&fetch->may_start) == 0);
    ASSERT(pthread_mutex_unlock(&fetch->mutex) == 0);
    return NULL;
}

/* Waits for one task's result, keeping the caller informed; RC_STOPPED when told to stop. */
static enum rc fetch_await(struct fetch *fetch, struct fetch_slot *slot, struct err *err)
{
    enum rc rc = RC_OK;
    int64_t tick_ms = clk_monotonic_ms() + FETCH_TICK_MS;
    ASSERT(pthread_mutex_lock(&fetch->mutex) == 0);
    while (!slot->is_done) {
        struct timespec deadline = clk_deadline(FETCH_TICK_MS);
        (void)pthread_cond_timedwait(&fetch->is_done, &fetch->mutex, &deadline);
        if (fetch->stop != NULL && stop_level(fetch->stop) >= STOP_NOW) {
            break;
        }
        if (clk_monotonic_ms() >= tick_ms && fetch->job->tick != NULL) {
            ASSERT(pthread_mutex_unlock(&fetch->mutex) == 0);
            fetch->job->tick(fetch->job->arg);
            ASSERT(pthread_mutex_lock(&fetch->mutex) == 0);
            tick_ms = clk_monotonic_ms() + FETCH_TICK_MS;
        }
    }
    if (fetch->stop != NULL && stop_level(fetch->stop) >= STOP_NOW) {
        rc = err_set(err, RC_STOPPED, "interrupted");
    }
    if (rc == RC_OK && slot->rc != RC_OK) {
        rc = slot->rc;
        if (err != NULL) {
            *err = slot->err;
        }
    }
    ASSERT(pthread_mutex_unlock(&fetch->mutex) == 0);
    return rc;
}

static enum rc fetch_deliver_all(struct fetch *fetch, size_t *failed_task, struct err *err)
{
    const struct fetch_job *job = fetch->job;
    int64_t tick_ms = clk_monotonic_ms() + FETCH_TICK_MS;
    for (size_t task = 0; task < job->task_count; task++) {
        struct fetch_slot *slot = &fetch->slots[task % FETCH_SLOTS];
        *failed_task = task;
        enum rc rc = fetch_await(fetch, slot, err);
        if (rc == RC_OK && job->deliver != NULL) {
            rc = job->deliver(job->arg, task, slot, err);
        }
        if (rc != RC_OK) {
            return rc;
        }
        ASSERT(pthread_mutex_lock(&fetch->mutex) == 0);
        fetch_give_back(fetch, slot);
        slot->is_done = false;
        fetch->deliver_task++;
        ASSERT(pthread_cond_broadcast(&fetch->may_start) == 0);
        ASSERT(pthread_mutex_unlock(&fetch->mutex) == 0);
        if (job->tick != NULL && clk_monotonic_ms() >= tick_ms) {
            job->tick(job->arg);
            tick_ms = clk_monotonic_ms() + FETCH_TICK_MS;
        }
    }
    return RC_OK;
}

enum rc fetch_run(struct fetch *fetch, const struct fetch_job *job, size_t *failed_task,
                  struct err *err)
{
    pthread_t threads[RESTORE_JOBS_MAX];
    int started = 0;
    enum rc rc = RC_OK;
    size_t failed = 0;

    fetch->job = job;
    fetch->next_task = 0;
    fetch->deliver_task = 0;
    fetch->is_ending = false;
    int threads_max =
        job->threads_max > 0 && job->threads_max < fetch->jobs ? job->threads_max : fetch->jobs;
    while (started < threads_max && (size_t)started < job->task_count && rc == RC_OK) {
        if (pthread_create(&threads[started], NULL, fetch_thread_main, &fetch->workers[started]) !=
            0) {
            rc = started > 0 ? RC_OK : err_set(err, RC_NOMEM, "cannot start a thread");
            break;
        }
        started++;
    }
    if (rc == RC_OK) {
        rc = fetch_deliver_all(fetch, &failed, err);
    }
    ASSERT(pthread_mutex_lock(&fetch->mutex) == 0);
    fetch->is_ending = true;
    ASSERT(pthread_cond_broadcast(&fetch->may_start) == 0);
    ASSERT(pthread_mutex_unlock(&fetch->mutex) == 0);
    for (int i = 0; i < started; i++) {
        ASSERT(pthread_join(threads[i], NULL) == 0);
    }
    for (size_t task = fetch->deliver_task; task < fetch->next_task; task++) {
        fetch_give_back(fetch, &fetch->slots[task % FETCH_SLOTS]);
        fetch->slots[task % FETCH_SLOTS].is_done = false;
    }
    if (failed_task != NULL) {
        *failed_task = failed;
    }
    return rc;
}

uint64_t fetch_received_bytes(const struct fetch *fetch)
{
    return atomic_load(&fetch->received_bytes);
}

void fetch_add_received(struct fetch *fetch, uint64_t bytes)
{
    atomic_fetch_add(&fetch->received_bytes, bytes);
}

uint64_t fetch_request_count(const struct fetch *fetch)
{
    uint64_t count = 0;
    for (int i = 0; i < fetch->jobs; i++) {
        count += fetch->workers[i].store != NULL ? fetch->workers[i].store->request_count : 0;
    }
    return count;
}

enum rc fetch_retry(struct stop *stop, fetch_attempt_fn *attempt, void *arg, struct err *err)
{
    struct backoff backoff;
    bool is_second_look = false;
    backoff_init(&backoff, FETCH_RETRY_FIRST_MS, FETCH_RETRY_CAP_MS);
    for (int tries = 1;; tries++) {
        enum rc rc = attempt(arg, err);
        if ((rc == RC_CORRUPT || rc == RC_NOT_FOUND) && !is_second_look) {
            is_second_look = true;
            continue;
        }
        if ((rc != RC_UNAVAILABLE && rc != RC_TIMEOUT) || tries == FETCH_TRIES) {
            return rc;
        }
        int64_t pause_ms = backoff_next_ms(&backoff);
        if (stop == NULL) {
            clk_pause_ms(pause_ms);
        } else if (stop_wait_ms(stop, STOP_NOW, pause_ms)) {
            return err_set(err, RC_STOPPED, "interrupted");
        }
    }
}

struct fetch_segment_call {
    struct fetch_worker *worker;
    const struct object_key *key;
    const char *name;
    struct fetch_slot *slot;
};

static enum rc fetch_append(void *arg, const uint8_t *bytes, size_t count, struct err *err)
{
    return buf_append(arg, bytes, count, err);
}

static enum rc fetch_segment_attempt(void *arg, struct err *err)
{
    struct fetch_segment_call *call = arg;
    struct fetch_worker *worker = call->worker;
    struct buf *object = &call->slot->buffers->object;
    buf_clear(object);
    enum rc rc = store_get(worker->store, call->name, NULL, fetch_append, object, err);
    if (rc == RC_NOT_FOUND) {
        return err_set(err, RC_CORRUPT, "%s was listed, but is gone", call->name);
    }
    if (rc == RC_LIMIT) {
        return err_set(err, RC_CORRUPT, "%s is larger than any WAL object", call->name);
    }
    if (rc != RC_OK) {
        return rc;
    }
    fetch_add_received(worker->fetch, object->size);
    rc = segment_read(worker->reader, call->key, object->data, object->size, &call->slot->header,
                      &call->slot->buffers->content, err);
    return rc == RC_CORRUPT ? err_prefix(err, "reading %s", call->name) : rc;
}

enum rc fetch_segment(struct fetch_worker *worker, const struct object_key *key,
                      struct fetch_slot *slot, struct err *err)
{
    char name[OBJECT_KEY_BYTES];
    object_key_format(key, name);
    struct fetch_segment_call call = {worker, key, name, slot};
    return fetch_retry(worker->stop, fetch_segment_attempt, &call, err);
}
