/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch: objects got and checked by several threads at once, delivered in order.
 *
 * A job is a row of tasks, one object each. Worker threads take them in order and run `work` (GET,
 * check, decode); the calling thread takes the results, strictly in order, by `deliver`. A task
 * starts only when its memory is there: at most FETCH_SLOTS tasks are under way or wait for their
 * turn, and of the bigger ones only a few (fetch.c, fetch_classes). So memory is bounded whatever the
 * sizes; and as tasks start in order, the next one to be delivered always has its share: no deadlock.
 *
 * The error returned is that of the first failing task in order. Transient errors of the store are
 * repeated with pauses (fetch_retry); after them nothing is.
 *
 * Threads: fetch_run starts them and joins them before it returns. Each worker has a store handle,
 * a reader and a decoder of its own, kept from run to run.
 */
#ifndef HARVEY_RESTORER_FETCH_H
#define HARVEY_RESTORER_FETCH_H

#include "archive/codec.h"
#include "archive/segment.h"
#include "archive/store.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/stop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FETCH_SLOTS 32u
#define FETCH_TRIES 6
#define FETCH_RETRY_FIRST_MS 100
#define FETCH_RETRY_CAP_MS 2000

struct fetch;

/* What one worker thread has for itself. */
struct fetch_worker {
    struct fetch *fetch;
    struct stop *stop; /* borrowed, may be NULL */
    struct store *store;
    struct segment_reader *reader;
    struct codec_decoder *decoder;
    struct hash *hash;
};

/* Where a task's result waits for its turn. `buffers` is there for tasks with a cost only. */
struct fetch_buffers {
    struct buf object;
    struct buf content;
    struct fetch_buffers *next; /* in the list of free ones of its class */
};

struct fetch_slot {
    struct fetch_buffers *buffers;
    struct segment_header header;
    bool is_done; /* this and the rest: guarded by the fetch's mutex */
    size_t class_index;
    enum rc rc;
    struct err err;
};

struct fetch_job {
    size_t task_count;
    int threads_max; /* 0 = all */
    /* bytes of memory that the task's buffers will hold; 0 = it needs none */
    uint64_t (*cost_bytes)(void *arg, size_t task);
    /* on a worker's thread */
    enum rc (*work)(void *arg, size_t task, struct fetch_worker *worker, struct fetch_slot *slot,
                    struct err *err);
    /* on the calling thread, in order; may be NULL */
    enum rc (*deliver)(void *arg, size_t task, struct fetch_slot *slot, struct err *err);
    /* on the calling thread, at least every 100 ms; may be NULL */
    void (*tick)(void *arg);
    void *arg;
};

/*
 * `jobs` threads, 1..RESTORE_JOBS_MAX. Opens the store handles. `stop` is borrowed: at STOP_NOW
 * fetch_run returns RC_STOPPED. Errors of store_open; RC_NOMEM.
 */
RC_MUST_CHECK enum rc fetch_create(const struct store_config *config, int jobs, struct stop *stop,
                                   struct fetch **fetch, struct err *err);
void fetch_destroy(struct fetch *fetch); /* NULL is legal */

/* Runs all tasks, or up to the first failing one in order: *failed_task (may be NULL) is its number. */
RC_MUST_CHECK enum rc fetch_run(struct fetch *fetch, const struct fetch_job *job,
                                size_t *failed_task, struct err *err);

/* Bytes received so far by all workers: for progress. Any thread. */
uint64_t fetch_received_bytes(const struct fetch *fetch);
void fetch_add_received(struct fetch *fetch, uint64_t bytes);

/* Requests that all handles sent. Only between runs. */
uint64_t fetch_request_count(const struct fetch *fetch);

/* Frees the buffers kept between tasks. Only between runs. */
void fetch_release_buffers(struct fetch *fetch);

/*
 * Calls `attempt` until it succeeds, fails for good, or FETCH_TRIES are used up, with growing pauses
 * after transient errors. What is not as it should be, or not there, is looked at once more: a proxy
 * on the way may have answered with something else, or half of it. Any thread.
 */
typedef enum rc fetch_attempt_fn(void *arg, struct err *err);
RC_MUST_CHECK enum rc fetch_retry(struct stop *stop, fetch_attempt_fn *attempt, void *arg,
                                  struct err *err);

/* GET and segment_read of the WAL object `key` (a segment) into the slot, with retries. */
RC_MUST_CHECK enum rc fetch_segment(struct fetch_worker *worker, const struct object_key *key,
                                    struct fetch_slot *slot, struct err *err);

#endif
