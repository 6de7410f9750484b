/* SPDX-License-Identifier: Apache-2.0 */
/*
 * writer: group commit, errors of a batch, and a file that goes away, with the real thread on a real
 * database. The replicator's part is a stand-in that the test switches and that looks, at the moment
 * it is told of a commit, whether the rows are there: no answer may come before that.
 */
#include "server/writer.h"

#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include "base/clk.h"
#include "server/db.h"

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define JOBS 64
#define WAIT_MS 20000 /* for what takes milliseconds */
#define BUSY_MS 250 /* at least so long it waits for a lock: half of what writer.c allows a slice */

struct guard {
    atomic_bool may_serve;
    atomic_int asked;
    atomic_bool hold; /* committed waits as long as it is set: the next jobs gather */
    _Atomic int commits;
    _Atomic int64_t rows_at_commit;
};

static struct scratch scratch;
static struct err err;
static struct guard guard;
static struct writer *writer;
static struct writer_job jobs[JOBS];
static char path[SCRATCH_PATH_BYTES];

static bool guard_may_serve(void *arg)
{
    struct guard *at = arg;
    atomic_fetch_add(&at->asked, 1);
    return at->may_serve;
}

static int64_t count_rows(sqlite3 *handle)
{
    sqlite3_stmt *statement = NULL;
    int64_t rows = -1;
    if (sqlite3_prepare_v2(handle, "SELECT count(*) FROM test", -1, &statement, NULL) ==
            SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW) {
        rows = sqlite3_column_int64(statement, 0);
    }
    (void)sqlite3_finalize(statement);
    return rows;
}

/* ---- SQLite's memory, which a test lets end ---- */

static sqlite3_mem_methods real_memory;
static atomic_int allocations_left = INT_MAX;

static void *try_malloc(int bytes)
{
    return atomic_fetch_sub(&allocations_left, 1) > 0 ? real_memory.xMalloc(bytes) : NULL;
}

static void *try_realloc(void *old, int bytes)
{
    return atomic_fetch_sub(&allocations_left, 1) > 0 ? real_memory.xRealloc(old, bytes) : NULL;
}

static void take_memory(void)
{
    sqlite3_mem_methods memory;
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_memory), SQLITE_OK);
    memory = real_memory;
    memory.xMalloc = try_malloc;
    memory.xRealloc = try_realloc;
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_MALLOC, &memory), SQLITE_OK);
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0), SQLITE_OK);
}

static void guard_committed(void *arg, sqlite3 *db, struct replicator_commit *commit)
{
    struct guard *at = arg;
    while (at->hold) {
        clk_pause_ms(1);
    }
    at->rows_at_commit = count_rows(db);
    commit->known = true;
    commit->position = (struct position){1, (uint32_t)++at->commits};
}

static int setup_with(int64_t lock_patience_ms)
{
    scratch_init(&scratch);
    (void)snprintf(path, sizeof path, "%s", scratch_path(&scratch, "state.db"));
    err = (struct err)ERR_INIT;
    guard = (struct guard){.may_serve = true};
    memset(jobs, 0, sizeof jobs);
    const struct writer_config config = {.database_path = path,
                                         .synchronous_normal = true,
                                         .guard = {&guard, guard_may_serve, guard_committed},
                                         .lock_patience_ms = lock_patience_ms};
    check_ok(writer_create(&config, &writer, &err));
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return setup_with(10 * WAIT_MS);
}

static int setup_impatient(void **state)
{
    (void)state;
    return setup_with(0);
}

static int teardown(void **state)
{
    (void)state;
    guard.hold = false;
    writer_stop(writer);
    writer_destroy(writer);
    scratch_deinit(&scratch);
    return 0;
}

static void wait_state(enum writer_state wanted)
{
    int64_t deadline_ms = clk_monotonic_ms() + WAIT_MS;
    while (writer_state(writer) != wanted) {
        if (clk_monotonic_ms() > deadline_ms) {
            fail_msg("the writer's state stays %d, wanted %d", (int)writer_state(writer),
                     (int)wanted);
        }
        clk_pause_ms(1);
    }
}

static void start_open(void)
{
    check_ok(writer_start(writer, &err));
    wait_state(WRITER_OPEN);
}

/* Submits jobs first .. first + count - 1 as one list, as the http thread does. */
static void submit(size_t first, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        jobs[first + i].next = i == 0 ? NULL : &jobs[first + i - 1];
    }
    writer_submit(writer, &jobs[first + count - 1], &jobs[first]);
}

/* Waits until that many have come back. */
static void collect(size_t count)
{
    struct pollfd poller = {.fd = writer_event_fd(writer), .events = POLLIN};
    while (count > 0) {
        uint64_t events;
        assert_int_equal(poll(&poller, 1, WAIT_MS), 1);
        assert_int_equal(read(writer_event_fd(writer), &events, sizeof events), sizeof events);
        for (struct writer_job *job = writer_collect(writer); job != NULL; job = job->next) {
            assert_true(count > 0);
            count--;
        }
    }
}

static void test_writer__one_row(void **state)
{
    (void)state;
    start_open();
    jobs[0] = (struct writer_job){.text = "hello", .text_bytes = 5, .rc = RC_INTERNAL};
    submit(0, 1);
    collect(1);
    assert_int_equal(jobs[0].rc, RC_OK);
    assert_int_equal(jobs[0].row_id, 1);
    assert_true(jobs[0].commit.known);
    assert_int_equal(jobs[0].commit.position.frame_no, 1);
    assert_int_equal(guard.rows_at_commit, 1); /* it was there before it was answered */
}

/* What gathers while a commit is under way becomes one transaction, in the order of submission. */
static void test_writer__group_commit(void **state)
{
    (void)state;
    start_open();
    guard.hold = true;
    submit(0, 1);
    while (writer_state(writer) != WRITER_OPEN) {
    }
    clk_pause_ms(20); /* the first is on its way; if it is not, it joins the group: no harm */
    submit(1, 30);
    submit(31, JOBS - 31);
    guard.hold = false;
    collect(JOBS);
    for (size_t i = 0; i < JOBS; i++) {
        assert_int_equal(jobs[i].rc, RC_OK);
        assert_int_equal(jobs[i].row_id, i + 1);
    }
    assert_in_range(guard.commits, 1, 2);
    struct writer_view view;
    writer_get_view(writer, &view);
    assert_int_equal(view.rows, JOBS);
    assert_int_equal(view.batches, guard.commits);
}

static void test_writer__a_stop_answers_what_is_queued(void **state)
{
    (void)state;
    start_open();
    guard.hold = true;
    submit(0, 1);
    submit(1, 20);
    guard.hold = false;
    writer_stop(writer);
    collect(21);
    for (size_t i = 0; i < 21; i++) {
        assert_int_equal(jobs[i].rc, RC_OK);
    }
    assert_int_equal(writer_state(writer), WRITER_CLOSED);
}

static void test_writer__closed_while_it_may_not_serve(void **state)
{
    (void)state;
    guard.may_serve = false;
    check_ok(writer_start(writer, &err));
    submit(0, 3);
    collect(3);
    assert_int_equal(jobs[0].rc, RC_UNAVAILABLE);
    assert_int_equal(access(path, F_OK), -1); /* nothing was created */
    guard.may_serve = true;
    writer_poke(writer);
    wait_state(WRITER_OPEN);
    submit(0, 3);
    collect(3);
    assert_int_equal(jobs[2].rc, RC_OK);
    guard.may_serve = false; /* not even poked: it asks before each batch */
    submit(0, 3);
    collect(3);
    assert_int_equal(jobs[1].rc, RC_UNAVAILABLE);
    writer_poke(writer);
    wait_state(WRITER_CLOSED);
    guard.may_serve = true;
    writer_poke(writer);
    wait_state(WRITER_OPEN);
    struct writer_view view;
    writer_get_view(writer, &view);
    assert_int_equal(view.open_no, 2);
}

/* A failing row fails the whole batch, none of it stays, and the next batch is served. */
static void test_writer__an_error_fails_the_batch(void **state)
{
    (void)state;
    struct db other = {0};
    start_open();
    check_ok(db_open(&other, path, DB_WRITES, true, &err));
    check_ok(db_run(other.handle,
                    "CREATE TRIGGER no BEFORE INSERT ON test WHEN NEW.value = 'bad' "
                    "BEGIN SELECT RAISE(ABORT, 'no bad rows'); END",
                    &err));
    jobs[2] = (struct writer_job){.text = "bad", .text_bytes = 3};
    submit(0, 5);
    collect(5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_not_equal(jobs[i].rc, RC_OK);
        assert_false(jobs[i].commit.known);
    }
    assert_int_equal(count_rows(other.handle), 0);
    struct writer_view view;
    writer_get_view(writer, &view);
    assert_int_equal(view.failed_batches, 1);
    assert_non_null(strstr(view.last_error, "no bad rows"));
    assert_int_equal(view.open_no, 1); /* rolled back: no reason to give up the connection */
    submit(0, 2);
    collect(2);
    assert_int_equal(jobs[0].rc, RC_OK);
    assert_int_equal(jobs[0].row_id, 1);
    db_close(&other);
}

/* Another writer holds the lock for longer than we wait: busy, said, counted, and fine afterwards. */
static void test_writer__busy(void **state)
{
    (void)state;
    struct db other = {0};
    struct writer_view view;
    start_open();
    check_ok(db_open(&other, path, DB_WRITES, true, &err));
    check_ok(db_run(other.handle, "BEGIN IMMEDIATE", &err));
    submit(0, 2);
    collect(2);
    assert_int_equal(jobs[0].rc, RC_BUSY);
    writer_get_view(writer, &view);
    assert_true(view.pause_max_us >= BUSY_MS * 1000);
    assert_int_equal(view.pause_p999_us, view.pause_max_us); /* there was one batch */
    check_ok(db_run(other.handle, "ROLLBACK", &err));
    submit(0, 2);
    collect(2);
    assert_int_equal(jobs[0].rc, RC_OK);
    db_close(&other);
}

static void wait_for_lock_waits(uint64_t count)
{
    int64_t deadline_ms = clk_monotonic_ms() + WAIT_MS;
    struct writer_view view = {.lock_waits = 0};
    while (view.lock_waits < count) {
        assert_true(clk_monotonic_ms() < deadline_ms);
        clk_pause_ms(1);
        writer_get_view(writer, &view);
    }
}

/* It waits on, slice after slice, while the lock may still come. */
static void test_writer__waits_for_the_lock(void **state)
{
    (void)state;
    struct db other = {0};
    start_open();
    check_ok(db_open(&other, path, DB_WRITES, true, &err));
    check_ok(db_run(other.handle, "BEGIN IMMEDIATE", &err));
    submit(0, 2);
    wait_for_lock_waits(2);
    check_ok(db_run(other.handle, "ROLLBACK", &err));
    collect(2);
    assert_int_equal(jobs[0].rc, RC_OK);
    assert_int_equal(jobs[1].row_id, 2);
    db_close(&other);
}

/* The database may not be served any more: nobody waits for its lock. */
static void test_writer__does_not_wait_for_a_lock_it_may_not_use(void **state)
{
    (void)state;
    struct db other = {0};
    start_open();
    check_ok(db_open(&other, path, DB_WRITES, true, &err));
    check_ok(db_run(other.handle, "BEGIN IMMEDIATE", &err));
    submit(0, 2);
    wait_for_lock_waits(1);
    guard.may_serve = false;
    collect(2);
    assert_int_equal(jobs[0].rc, RC_BUSY);
    db_close(&other);
}

/* Nothing is acknowledged into a file that lost its name, and what was there goes on when back. */
static void check_lost(const char *what)
{
    struct writer_view view;
    submit(0, 4);
    collect(4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_not_equal(jobs[i].rc, RC_OK);
    }
    assert_int_equal(writer_state(writer), WRITER_LOST);
    writer_get_view(writer, &view);
    if (strstr(view.reason, what) == NULL || strstr(view.reason, "state.db") == NULL) {
        fail_msg("\"%s\" does not tell of \"%s\"", view.reason, what);
    }
}

/*
 * The schema has changed, and on the way through the batch (the insert is prepared again) memory ends and stays
 * away: the batch fails, its transaction with it, so the lock is free, and the next one is served. For each
 * allocation of a batch.
 */
static void test_writer__rolls_back_without_memory(void **state)
{
    (void)state;
    struct db other = {0};
    int failed = 0;
    enum rc rc = RC_INTERNAL;
    start_open();
    check_ok(db_open(&other, path, DB_WRITES, true, &err));
    for (int allowed = 0; rc != RC_OK; allowed++) {
        const char *change = allowed % 2 == 0 ? "CREATE TABLE later(x)" : "DROP TABLE later";
        check_ok(db_run(other.handle, change, &err));
        atomic_store(&allocations_left, allowed);
        submit(0, 1);
        collect(1);
        atomic_store(&allocations_left, INT_MAX);
        rc = jobs[0].rc;
        failed += rc == RC_OK ? 0 : 1;
        check_ok(db_run(other.handle, "BEGIN IMMEDIATE; ROLLBACK", &err));
        wait_state(WRITER_OPEN); /* where its connection had to be given up */
        submit(0, 1);
        collect(1);
        assert_int_equal(jobs[0].rc, RC_OK);
    }
    assert_true(failed > 5); /* memory did end, at more than one place */
    db_close(&other);
}

static void test_writer__file_renamed(void **state)
{
    (void)state;
    char moved[SCRATCH_PATH_BYTES];
    (void)snprintf(moved, sizeof moved, "%s", scratch_path(&scratch, "moved.db"));
    start_open();
    submit(0, 1);
    collect(1);
    assert_int_equal(rename(path, moved), 0);
    check_lost("renamed");
    assert_int_equal(rename(moved, path), 0);
    wait_state(WRITER_OPEN);
    submit(0, 1);
    collect(1);
    assert_int_equal(jobs[0].rc, RC_OK);
}

static void test_writer__file_replaced(void **state)
{
    (void)state;
    start_open();
    FILE *file = fopen(scratch_path(&scratch, "new.db"), "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(scratch_path(&scratch, "new.db"), path), 0);
    check_lost("replaced");
    for (int look = 0; look < 2; look++) { /* it stays lost until the replicator has judged */
        int asked = guard.asked;
        int64_t deadline_ms = clk_monotonic_ms() + 30000;
        writer_poke(writer);
        while (guard.asked == asked && clk_monotonic_ms() < deadline_ms) {
            clk_pause_ms(1);
        }
        assert_int_equal(writer_state(writer), WRITER_LOST);
    }
    guard.may_serve = false;
    writer_poke(writer);
    wait_state(WRITER_CLOSED);
    guard.may_serve = true;
    writer_poke(writer);
    wait_state(WRITER_OPEN);
}

static void test_writer__file_linked(void **state)
{
    (void)state;
    start_open();
    assert_int_equal(link(path, scratch_path(&scratch, "second")), 0);
    check_lost("hard links");
}

/* Idle, too: within a second or so, without a request. */
static void test_writer__file_deleted_while_idle(void **state)
{
    (void)state;
    start_open();
    assert_int_equal(unlink(path), 0);
    wait_state(WRITER_LOST);
}

static void test_writer__a_database_that_cannot_be_opened(void **state)
{
    (void)state;
    struct writer_view view;
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++) {
        (void)fputs("no database at all\n", file);
    }
    assert_int_equal(fclose(file), 0);
    check_ok(writer_start(writer, &err));
    wait_state(WRITER_FAILED);
    writer_get_view(writer, &view);
    assert_non_null(strstr(view.reason, "state.db"));
    submit(0, 1);
    collect(1);
    assert_int_equal(jobs[0].rc, RC_UNAVAILABLE);
    assert_int_equal(unlink(path), 0);
    wait_state(WRITER_OPEN); /* tried again by itself */
}

/* Many lists from a thread that never waits: each job comes back once, each row is there once. */
static void test_writer__keeps_up_with_a_fast_producer(void **state)
{
    (void)state;
    enum { ROUNDS = 200 };
    int64_t last_row = 0;
    start_open();
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < JOBS; i += 16) {
            submit(i, 16);
        }
        collect(JOBS);
        for (size_t i = 0; i < JOBS; i++) {
            assert_int_equal(jobs[i].rc, RC_OK);
            assert_int_equal(jobs[i].row_id, last_row + 1);
            last_row = jobs[i].row_id;
        }
    }
    assert_int_equal(last_row, ROUNDS * JOBS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_writer__one_row),
        CASE(test_writer__group_commit),
        CASE(test_writer__a_stop_answers_what_is_queued),
        CASE(test_writer__closed_while_it_may_not_serve),
        CASE(test_writer__an_error_fails_the_batch),
        cmocka_unit_test_setup_teardown(test_writer__busy, setup_impatient, teardown),
        CASE(test_writer__waits_for_the_lock),
        CASE(test_writer__does_not_wait_for_a_lock_it_may_not_use),
        CASE(test_writer__rolls_back_without_memory),
        CASE(test_writer__file_renamed),
        CASE(test_writer__file_replaced),
        CASE(test_writer__file_linked),
        CASE(test_writer__file_deleted_while_idle),
        CASE(test_writer__a_database_that_cannot_be_opened),
        CASE(test_writer__keeps_up_with_a_fast_producer),
#undef CASE
    };
    take_memory();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
