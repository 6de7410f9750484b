/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apply: pages of frames and of a snapshot come to lie where a checkpoint would put them.
 *
 * The oracle is the simplest checkpoint there is: the snapshot in memory, every frame copied over it
 * from the first to the last, cut at the final size. Against it: random snapshots and WALs, frames
 * applied last object first, the snapshot in pieces of odd sizes.
 */
#include "restorer/apply.h"

#include "archive/wal_format.h"
#include "base/bytes.h"
#include "base/fsio.h"
#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 512u
#define FRAME (WAL_FRAME_HEADER_BYTES + PAGE)
#define PAGES_MAX 80u
#define FRAMES_MAX 300u

static struct err err;
static struct scratch scratch;
static int fd = -1;
static const char *path;
static uint32_t random_state;

static uint32_t next_random(uint32_t below)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % below;
}

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    scratch_init(&scratch);
    path = scratch_path(&scratch, "file");
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return fd < 0;
}

static int teardown(void **state)
{
    (void)state;
    close(fd);
    scratch_deinit(&scratch);
    return 0;
}

static void put_frame(uint8_t *frame, uint32_t page_no, uint8_t content)
{
    memset(frame, 0, WAL_FRAME_HEADER_BYTES);
    bytes_put_u32(frame, page_no);
    memset(frame + WAL_FRAME_HEADER_BYTES, content, PAGE);
}

static void check_file(const uint8_t *wanted, size_t count)
{
    static uint8_t found[PAGES_MAX * PAGE];
    struct stat file;
    assert_int_equal(fstat(fd, &file), 0);
    assert_int_equal(file.st_size, count);
    check_ok(fsio_read_at(fd, found, count, 0, &err));
    assert_memory_equal(found, wanted, count);
}

static void random_round(uint32_t seed)
{
    static uint8_t frames[FRAMES_MAX * FRAME];
    static uint8_t snapshot[PAGES_MAX * PAGE];
    static uint8_t wanted[PAGES_MAX * PAGE];
    struct apply apply;
    random_state = seed;
    uint32_t snapshot_pages = 1 + next_random(PAGES_MAX - 1);
    uint32_t final_pages = 1 + next_random(PAGES_MAX - 1);
    uint32_t frame_count = next_random(FRAMES_MAX);

    memset(wanted, 0, sizeof wanted);
    for (uint32_t i = 0; i < snapshot_pages; i++) {
        memset(snapshot + i * PAGE, (int)(1 + i % 250), PAGE);
    }
    memcpy(wanted, snapshot, snapshot_pages * PAGE);
    uint32_t page_no = 1;
    for (uint32_t i = 0; i < frame_count; i++) {
        /* often the next page, as in a transaction; sometimes above the final size */
        page_no =
            next_random(3) > 0 ? page_no % (PAGES_MAX - 1) + 1 : 1 + next_random(PAGES_MAX - 1);
        put_frame(frames + i * FRAME, page_no, (uint8_t)next_random(256));
        memcpy(wanted + (page_no - 1) * PAGE, frames + i * FRAME + WAL_FRAME_HEADER_BYTES, PAGE);
    }

    check_ok(apply_init(&apply, fd, path, PAGE, final_pages, &err));
    uint32_t end = frame_count;
    while (end > 0) { /* "objects" of some frames, the last one first */
        uint32_t count = 1 + next_random(end);
        check_ok(apply_frames(&apply, frames + (end - count) * FRAME, count, &err));
        end -= count;
    }
    for (uint32_t at = 0; at < snapshot_pages * PAGE;) {
        uint32_t left = snapshot_pages * PAGE - at;
        uint32_t count = 1 + next_random(3 * PAGE);
        count = count < left ? count : left;
        check_ok(apply_snapshot_bytes(&apply, at, snapshot + at, count, &err));
        at += count;
    }
    check_ok(apply_set_size(&apply, &err));
    check_ok(apply_sync(&apply, &err));
    check_file(wanted, final_pages * PAGE);
    apply_deinit(&apply);
}

static void test_apply__equals_a_checkpoint(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 400; seed++) {
        random_round(seed);
    }
}

static void test_apply__writes_each_page_once(void **state)
{
    (void)state;
    static uint8_t frames[100 * FRAME];
    struct apply apply;
    for (uint32_t i = 0; i < 100; i++) {
        put_frame(frames + i * FRAME, 1 + i % 10, (uint8_t)i);
    }
    check_ok(apply_init(&apply, fd, path, PAGE, 10, &err));
    check_ok(apply_frames(&apply, frames, 100, &err));
    assert_int_equal(apply.frame_pages, 10);
    apply_deinit(&apply);
}

static void test_apply__refuses_page_number_zero(void **state)
{
    (void)state;
    uint8_t frame[FRAME];
    struct apply apply;
    put_frame(frame, 0, 1);
    check_ok(apply_init(&apply, fd, path, PAGE, 10, &err));
    check_fails(RC_CORRUPT, apply_frames(&apply, frame, 1, &err));
    apply_deinit(&apply);
}

static void test_apply__begins_with_an_empty_file(void **state)
{
    (void)state;
    uint8_t zeros[2 * PAGE] = {0};
    struct apply apply;
    check_ok(fsio_write_at(fd, "rubbish of an earlier try", 25, 600, &err));
    check_ok(apply_init(&apply, fd, path, PAGE, 2, &err));
    check_ok(apply_set_size(&apply, &err));
    check_file(zeros, sizeof zeros);
    apply_deinit(&apply);
}

/* Frames of before the database shrank: their pages are in no file any more, and nothing is written there. */
static void test_apply__pages_beyond_the_end(void **state)
{
    (void)state;
    uint8_t frames[3 * FRAME];
    struct apply apply;
    struct stat file;
    put_frame(frames, 3, 3);
    put_frame(frames + FRAME, 4000000000u, 4);
    put_frame(frames + 2 * FRAME, 2, 2);
    check_ok(apply_init(&apply, fd, path, PAGE, 2, &err));
    check_ok(apply_frames(&apply, frames, 3, &err));
    assert_int_equal(apply.frame_pages, 1);
    assert_int_equal(fstat(fd, &file), 0);
    assert_int_equal(file.st_size, 2 * PAGE);
    apply_deinit(&apply);
}

/* A file size limit is what a full disk is: the code says so, not just "I/O error". */
static void test_apply__full_is_a_limit(void **state)
{
    (void)state;
    uint8_t page[PAGE] = {1};
    struct rlimit before;
    struct apply apply;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit small = {.rlim_cur = 4 * PAGE, .rlim_max = before.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    check_ok(apply_init(&apply, fd, path, PAGE, 10, &err));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    check_ok(apply_snapshot_bytes(&apply, 3 * PAGE, page, PAGE, &err));
    check_fails(RC_LIMIT, apply_snapshot_bytes(&apply, 4 * PAGE, page, PAGE, &err));
    apply_deinit(&apply);
    check_fails(RC_LIMIT, apply_init(&apply, fd, path, PAGE, 10, &err)); /* seen at once */
    apply_deinit(&apply);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, handler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_apply__equals_a_checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(test_apply__writes_each_page_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_apply__refuses_page_number_zero, setup, teardown),
        cmocka_unit_test_setup_teardown(test_apply__pages_beyond_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_apply__begins_with_an_empty_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_apply__full_is_a_limit, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
