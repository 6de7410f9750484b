/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch: the queue alone, with work that is made up: order of delivery, bounds of memory, the first
 * failing task in order, the stop flag; and the retries.
 */
#include "restorer/fetch.h"

#include "base/clk.h"
#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <stdatomic.h>
#include <stdio.h>

#define NEVER SIZE_MAX

static struct err err;
static struct scratch scratch;
static struct stop stop;

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    scratch_init(&scratch);
    stop_init(&stop);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stop_deinit(&stop);
    scratch_deinit(&scratch);
    return 0;
}

static struct fetch *create(int jobs)
{
    struct store_config config = {.is_s3 = false};
    struct fetch *fetch = NULL;
    (void)snprintf(config.dir, sizeof config.dir, "%s", scratch.dir);
    (void)snprintf(config.url, sizeof config.url, "dir:%s", scratch.dir);
    check_ok(fetch_create(&config, jobs, &stop, &fetch, &err));
    return fetch;
}

/* What the made-up job does and saw. */
struct job {
    uint64_t cost;
    size_t fails_at;      /* in work */
    size_t also_fails_at; /* later in order, earlier in time */
    size_t refuses_at;    /* in deliver */
    size_t stops_at;
    size_t delivered; /* also the number expected next */
    _Atomic int under_way;
    _Atomic int most_under_way;
    _Atomic int started;
};

static uint64_t job_cost(void *arg, size_t task)
{
    (void)task;
    return ((struct job *)arg)->cost;
}

static enum rc job_work(void *arg, size_t task, struct fetch_worker *worker,
                        struct fetch_slot *slot, struct err *work_err)
{
    struct job *job = arg;
    (void)worker;
    int now = atomic_fetch_add(&job->under_way, 1) + 1;
    int most = atomic_load(&job->most_under_way);
    while (now > most && !atomic_compare_exchange_weak(&job->most_under_way, &most, now)) {
    }
    atomic_fetch_add(&job->started, 1);
    clk_pause_ms(task % 7 == 0 ? 2 : 0);
    enum rc rc = RC_OK;
    if (task == job->stops_at) {
        stop_raise(&stop, STOP_NOW);
    }
    if (task == job->fails_at) {
        clk_pause_ms(20);
        rc = err_set(work_err, RC_CORRUPT, "task %zu is bad", task);
    } else if (task == job->also_fails_at) {
        rc = err_set(work_err, RC_DENIED, "task %zu is bad too", task);
    } else if (job->cost > 0) {
        buf_clear(&slot->buffers->content);
        rc = buf_append(&slot->buffers->content, &task, sizeof task, work_err);
    }
    atomic_fetch_sub(&job->under_way, 1);
    return rc;
}

static enum rc job_deliver(void *arg, size_t task, struct fetch_slot *slot, struct err *deliver_err)
{
    struct job *job = arg;
    assert_int_equal(task, job->delivered);
    if (job->cost > 0) {
        assert_memory_equal(slot->buffers->content.data, &task, sizeof task);
    }
    if (task == job->refuses_at) {
        return err_set(deliver_err, RC_INVALID, "not that one");
    }
    job->delivered++;
    return RC_OK;
}

static struct job new_job(uint64_t cost)
{
    return (struct job){.cost = cost,
                        .fails_at = NEVER,
                        .also_fails_at = NEVER,
                        .refuses_at = NEVER,
                        .stops_at = NEVER};
}

static struct fetch_job describe(struct job *job, size_t count)
{
    return (struct fetch_job){.task_count = count,
                              .cost_bytes = job_cost,
                              .work = job_work,
                              .deliver = job_deliver,
                              .arg = job};
}

static void test_fetch__delivers_in_order(void **state)
{
    (void)state;
    static const uint64_t costs[] = {0, 5000, 500000, 8u << 20};
    static const int jobs[] = {1, 3, 32};
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < 3; j++) {
            struct fetch *fetch = create(jobs[j]);
            for (int round = 0; round < 2; round++) { /* a fetch serves more than one run */
                struct job job = new_job(costs[i]);
                struct fetch_job described = describe(&job, 150);
                check_ok(fetch_run(fetch, &described, NULL, &err));
                assert_int_equal(job.delivered, 150);
            }
            fetch_release_buffers(fetch);
            fetch_destroy(fetch);
        }
    }
}

static void test_fetch__no_tasks(void **state)
{
    (void)state;
    struct fetch *fetch = create(4);
    struct job job = new_job(1);
    struct fetch_job described = describe(&job, 0);
    check_ok(fetch_run(fetch, &described, NULL, &err));
    fetch_destroy(fetch);
}

static void test_fetch__few_large_ones_at_a_time(void **state)
{
    (void)state;
    struct fetch *fetch = create(16);
    struct job job = new_job(8u << 20);
    struct fetch_job described = describe(&job, 100);
    check_ok(fetch_run(fetch, &described, NULL, &err));
    assert_in_range(job.most_under_way, 1, 3);
    fetch_destroy(fetch);
}

static void test_fetch__first_failure_in_order(void **state)
{
    (void)state;
    for (size_t at = 0; at < 60; at += 13) {
        struct fetch *fetch = create(4);
        struct job job = new_job(1000);
        size_t failed = 0;
        job.fails_at = at;
        job.also_fails_at = at + 2;
        struct fetch_job described = describe(&job, 1000);
        check_fails(RC_CORRUPT, fetch_run(fetch, &described, &failed, &err));
        assert_int_equal(failed, at);
        assert_int_equal(job.delivered, at);
        assert_true(job.started < 100); /* and then no more */
        job = new_job(1000);            /* it goes on working */
        check_ok(fetch_run(fetch, &described, NULL, &err));
        fetch_destroy(fetch);
    }
}

static void test_fetch__refused_delivery_ends_it(void **state)
{
    (void)state;
    struct fetch *fetch = create(4);
    struct job job = new_job(1000);
    size_t failed = 0;
    job.refuses_at = 40;
    struct fetch_job described = describe(&job, 1000);
    check_fails(RC_INVALID, fetch_run(fetch, &described, &failed, &err));
    assert_int_equal(failed, 40);
    fetch_destroy(fetch);
}

static void test_fetch__stop_ends_it(void **state)
{
    (void)state;
    struct fetch *fetch = create(4);
    struct job job = new_job(1000);
    job.stops_at = 50;
    struct fetch_job described = describe(&job, 100000000);
    check_fails(RC_STOPPED, fetch_run(fetch, &described, NULL, &err));
    fetch_destroy(fetch);
}

/* ---- retries ---- */

struct attempts {
    int count;
    int good_at;
    enum rc rc;
};

static enum rc attempt(void *arg, struct err *attempt_err)
{
    struct attempts *attempts = arg;
    attempts->count++;
    return attempts->count >= attempts->good_at ? RC_OK
                                                : err_set(attempt_err, attempts->rc, "not now");
}

static void test_fetch__retries_what_may_pass(void **state)
{
    (void)state;
    struct attempts attempts = {.good_at = 2, .rc = RC_UNAVAILABLE};
    check_ok(fetch_retry(&stop, attempt, &attempts, &err));
    assert_int_equal(attempts.count, 2);
    static const enum rc final[] = {RC_DENIED, RC_IO, RC_LIMIT};
    for (size_t i = 0; i < sizeof final / sizeof final[0]; i++) {
        attempts = (struct attempts){.good_at = 2, .rc = final[i]};
        check_fails(final[i], fetch_retry(&stop, attempt, &attempts, &err));
        assert_int_equal(attempts.count, 1);
    }
    static const enum rc once_more[] = {RC_CORRUPT, RC_NOT_FOUND};
    for (size_t i = 0; i < sizeof once_more / sizeof once_more[0]; i++) {
        attempts = (struct attempts){.good_at = 2, .rc = once_more[i]};
        check_ok(fetch_retry(&stop, attempt, &attempts, &err));
        attempts = (struct attempts){.good_at = 3, .rc = once_more[i]};
        check_fails(once_more[i], fetch_retry(&stop, attempt, &attempts, &err));
        assert_int_equal(attempts.count, 2);
    }
}

static void test_fetch__retries_end(void **state)
{
    (void)state;
    struct attempts attempts = {.good_at = 1000, .rc = RC_TIMEOUT};
    check_fails(RC_TIMEOUT, fetch_retry(&stop, attempt, &attempts, &err));
    assert_int_equal(attempts.count, FETCH_TRIES);
    stop_raise(&stop, STOP_NOW);
    attempts.count = 0;
    check_fails(RC_STOPPED, fetch_retry(&stop, attempt, &attempts, &err));
    assert_int_equal(attempts.count, 1);
}

static enum rc gone_work(void *arg, size_t task, struct fetch_worker *worker,
                         struct fetch_slot *slot, struct err *work_err)
{
    (void)arg;
    (void)task;
    struct object_key key = {.kind = OBJECT_SEGMENT,
                             .position = {1, 2},
                             .first_frame_no = 1,
                             .term = 1,
                             .tag = "5e1ec7ed"};
    (void)generation_id_parse("00000003-9f2c41d7a6b0e355", &key.generation, NULL);
    return fetch_segment(worker, &key, slot, work_err);
}

/* An object that was listed and is not there any more is damage, not an empty archive (exit 4, not 3). */
static void test_fetch__what_is_gone_is_damage(void **state)
{
    (void)state;
    struct fetch *fetch = create(1);
    struct job job = new_job(100);
    struct fetch_job fetch_job = {
        .task_count = 1, .cost_bytes = job_cost, .work = gone_work, .arg = &job};
    check_fails(RC_CORRUPT, fetch_run(fetch, &fetch_job, NULL, &err));
    check_text("gone");
    fetch_destroy(fetch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fetch__delivers_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fetch__no_tasks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fetch__few_large_ones_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fetch__first_failure_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fetch__refused_delivery_ends_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fetch__what_is_gone_is_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fetch__stop_ends_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fetch__retries_what_may_pass, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fetch__retries_end, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
