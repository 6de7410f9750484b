/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsio: files, directories and their errors in a directory of its own. What fsync promises cannot be
 * tested without a power cut; here it is that nothing half written is ever seen under a final name.
 */
#include "base/fsio.h"

#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS 4
#define ROUNDS 100

static struct scratch scratch;
static struct err err;
static struct buf contents;

static int setup(void **state)
{
    (void)state;
    scratch_init(&scratch);
    buf_init(&contents, 1 << 20);
    err = (struct err)ERR_INIT;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_deinit(&contents);
    scratch_deinit(&scratch);
    return 0;
}

static int rename_errno; /* what renameat2 fails with; 0 = it works */

/* Stands before libc's: a filesystem that knows no RENAME_NOREPLACE can be played anywhere. */
int renameat2(int old_dir, const char *from, int new_dir, const char *to, unsigned flags)
{
    if (rename_errno != 0) {
        errno = rename_errno;
        return -1;
    }
    return (int)syscall(SYS_renameat2, old_dir, from, new_dir, to, flags);
}

static void put(const char *name, const char *text)
{
    check_ok(fsio_replace_file(scratch_path(&scratch, name), text, strlen(text), false, &err));
}

static void check_content(const char *name, const char *text)
{
    buf_clear(&contents);
    check_ok(fsio_read_file(scratch_path(&scratch, name), &contents, &err));
    assert_int_equal(contents.size, strlen(text));
    assert_memory_equal(contents.data, text, contents.size);
}

static enum rc count_visit(void *arg, const char *name, bool is_dir, struct err *visit_err)
{
    (void)name;
    (void)is_dir;
    (void)visit_err;
    (*(size_t *)arg)++;
    return RC_OK;
}

static size_t count_names(void)
{
    size_t count = 0;
    check_ok(fsio_list_dir(scratch.dir, count_visit, &count, &err));
    return count;
}

static void test_fsio__errors_become_codes(void **state)
{
    (void)state;
    static const struct {
        int sys_errno;
        enum rc rc;
    } rows[] = {
        {ENOENT, RC_NOT_FOUND}, {EEXIST, RC_EXISTS}, {EACCES, RC_DENIED}, {EPERM, RC_DENIED},
        {EROFS, RC_DENIED},     {EIO, RC_IO},        {ENOSPC, RC_IO},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        errno = rows[i].sys_errno;
        assert_int_equal(fsio_fail(&err, "cannot open", "/the/path"), rows[i].rc);
        assert_int_equal(err.rc, rows[i].rc);
        assert_int_equal(err.sys_errno, rows[i].sys_errno);
        check_text("cannot open /the/path: ");
    }
}

static void test_fsio__open_closes_on_exec(void **state)
{
    (void)state;
    int fd = -1;
    check_ok(fsio_open(scratch_path(&scratch, "f"), O_RDWR | O_CREAT, 0644, &fd, &err));
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(close(fd), 0);
    fd = -1;
    check_fails(RC_NOT_FOUND, fsio_open(scratch_path(&scratch, "g"), O_RDWR, 0, &fd, &err));
    assert_int_equal(fd, -1);
}

static void test_fsio__reads_exactly_or_fails(void **state)
{
    (void)state;
    char bytes[8] = "........";
    int fd = -1;
    put("f", "0123456789");
    check_ok(fsio_open(scratch_path(&scratch, "f"), O_RDONLY, 0, &fd, &err));
    check_ok(fsio_read_at(fd, bytes, 4, 6, &err));
    assert_memory_equal(bytes, "6789....", 8);
    check_ok(fsio_read_at(fd, bytes, 0, 100, &err));
    check_fails(RC_CORRUPT, fsio_read_at(fd, bytes, 5, 6, &err));
    check_text("ends at byte 10");
    check_fails(RC_CORRUPT, fsio_read_at(fd, bytes, 1, 11, &err));
    assert_int_equal(close(fd), 0);
    check_fails(RC_IO, fsio_read_at(fd, bytes, 1, 0, &err)); /* a closed descriptor */
}

static void test_fsio__writes_at_an_offset(void **state)
{
    (void)state;
    int fd = -1;
    put("f", "0123456789");
    check_ok(fsio_open(scratch_path(&scratch, "f"), O_WRONLY, 0, &fd, &err));
    check_ok(fsio_write_at(fd, "abc", 3, 8, &err));
    assert_int_equal(close(fd), 0);
    check_content("f", "01234567abc");
    check_fails(RC_IO, fsio_write_at(fd, "abc", 3, 0, &err));
}

static void test_fsio__write_reports_a_full_disk(void **state)
{
    (void)state;
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        skip();
    }
    check_fails(RC_IO, fsio_write_at(fd, "abc", 3, 0, &err));
    assert_int_equal(err.sys_errno, ENOSPC);
    assert_int_equal(close(fd), 0);
}

static void test_fsio__reads_whole_files(void **state)
{
    (void)state;
    put("empty", "");
    check_content("empty", "");
    put("f", "some text");
    check_content("f", "some text");
    check_ok(fsio_read_file(scratch_path(&scratch, "f"), &contents, &err)); /* appends */
    assert_int_equal(contents.size, 18);
    buf_clear(&contents);
    check_ok(fsio_read_file("/proc/self/status", &contents, &err)); /* its size says 0 */
    assert_true(contents.size > 100);
    check_fails(RC_NOT_FOUND, fsio_read_file(scratch_path(&scratch, "g"), &contents, &err));
    check_fails(RC_IO, fsio_read_file(scratch.dir, &contents, &err));
}

static void test_fsio__read_regular_waits_for_no_pipe(void **state)
{
    (void)state;
    put("f", "some text");
    check_ok(fsio_read_regular(scratch_path(&scratch, "f"), &contents, &err));
    assert_int_equal(contents.size, 9);
    check_fails(RC_NOT_FOUND, fsio_read_regular(scratch_path(&scratch, "g"), &contents, &err));
    check_fails(RC_CORRUPT, fsio_read_regular(scratch.dir, &contents, &err));
    assert_int_equal(mkfifo(scratch_path(&scratch, "p"), 0644), 0);
    check_fails(RC_CORRUPT, fsio_read_regular(scratch_path(&scratch, "p"), &contents, &err));
    check_text("/p is no file");
}

static void test_fsio__read_obeys_the_cap_exactly(void **state)
{
    (void)state;
    struct buf small;
    put("f", "0123456789");
    buf_init(&small, 10);
    check_ok(fsio_read_file(scratch_path(&scratch, "f"), &small, &err));
    assert_int_equal(small.size, 10);
    buf_deinit(&small);
    buf_init(&small, 9);
    check_fails(RC_LIMIT, fsio_read_file(scratch_path(&scratch, "f"), &small, &err));
    check_text("/f");
    buf_deinit(&small);
    buf_init(&small, 100);
    check_fails(RC_LIMIT, fsio_read_file("/proc/self/status", &small, &err));
    buf_deinit(&small);
}

static void test_fsio__replace_leaves_old_or_new(void **state)
{
    (void)state;
    const char *path = scratch_path(&scratch, "f");
    check_ok(fsio_replace_file(path, "old", 3, true, &err));
    check_content("f", "old");
    check_ok(fsio_replace_file(path, "newer", 5, true, &err));
    check_content("f", "newer");
    assert_int_equal(count_names(), 1);
    check_fails(RC_NOT_FOUND,
                fsio_replace_file(scratch_path(&scratch, "no/f"), "x", 1, true, &err));
    /* a directory in its place: the rename fails, and no temporary file is left */
    check_ok(fsio_make_dirs(scratch_path(&scratch, "d/e"), &err));
    check_fails(RC_IO, fsio_replace_file(scratch_path(&scratch, "d"), "x", 1, true, &err));
    assert_int_equal(count_names(), 2);
}

static void test_fsio__replace_cleans_up_when_the_disk_is_full(void **state)
{
    (void)state;
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    put("f", "old");
    struct rlimit small = {1024, old.rlim_max};
    char *big = calloc(1, 4096);
    assert_non_null(big);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum rc rc = fsio_replace_file(scratch_path(&scratch, "f"), big, 4096, true, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    free(big);
    assert_int_equal(rc, RC_IO);
    assert_int_equal(err.sys_errno, EFBIG);
    check_content("f", "old");
    assert_int_equal(count_names(), 1);
}

static void *replacer_thread_main(void *arg)
{
    const char *path = arg;
    char text[4096];
    uintptr_t failures = 0;
    for (int i = 0; i < ROUNDS; i++) {
        memset(text, 'a' + i % 26, sizeof text);
        failures += fsio_replace_file(path, text, sizeof text, false, NULL) != RC_OK;
    }
    return (void *)failures; // NOLINT(performance-no-int-to-ptr)
}

static void test_fsio__replacers_do_not_disturb_each_other(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    char path[FSIO_PATH_BYTES];
    check_ok(fsio_join(path, sizeof path, scratch.dir, "f", &err));
    put("f", "");
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, replacer_thread_main, path), 0);
    }
    for (int i = 0; i < ROUNDS; i++) { /* whoever reads sees a whole file of one writer */
        buf_clear(&contents);
        check_ok(fsio_read_file(path, &contents, &err));
        assert_true(contents.size == 0 || contents.size == 4096);
        for (size_t at = 1; at < contents.size; at++) {
            assert_int_equal(contents.data[at], contents.data[0]);
        }
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *failures = NULL;
        assert_int_equal(pthread_join(threads[i], &failures), 0);
        assert_null(failures);
    }
    assert_int_equal(count_names(), 1);
}

static void check_rename_new(void)
{
    put("a", "of a");
    put("b", "of b");
    check_fails(RC_EXISTS,
                fsio_rename_new(scratch_path(&scratch, "a"), scratch_path(&scratch, "b"), &err));
    check_content("a", "of a");
    check_content("b", "of b");
    check_ok(fsio_rename_new(scratch_path(&scratch, "a"), scratch_path(&scratch, "c"), &err));
    check_content("c", "of a");
    check_fails(RC_NOT_FOUND,
                fsio_rename_new(scratch_path(&scratch, "a"), scratch_path(&scratch, "d"), &err));
    assert_int_equal(count_names(), 2);
}

static void test_fsio__rename_new_never_replaces(void **state)
{
    (void)state;
    check_rename_new();
}

static void test_fsio__rename_new_falls_back_to_link(void **state)
{
    (void)state;
    static const int unknown[] = {EINVAL, ENOSYS};
    for (size_t i = 0; i < 2; i++) {
        rename_errno = unknown[i];
        check_rename_new();
        rename_errno = 0;
        check_ok(fsio_remove_file(scratch_path(&scratch, "b"), &err));
        check_ok(fsio_remove_file(scratch_path(&scratch, "c"), &err));
    }
    rename_errno = EIO; /* any other failure is one */
    put("a", "");
    enum rc rc = fsio_rename_new(scratch_path(&scratch, "a"), scratch_path(&scratch, "b"), &err);
    rename_errno = 0;
    assert_int_equal(rc, RC_IO);
}

static void test_fsio__makes_missing_parents(void **state)
{
    (void)state;
    struct fsio_stat stat;
    check_ok(fsio_make_dirs(scratch_path(&scratch, "a/b//c/"), &err));
    check_ok(fsio_make_dirs(scratch_path(&scratch, "a/b/c"), &err));
    check_ok(fsio_stat(scratch_path(&scratch, "a/b/c"), &stat, &err));
    assert_true(stat.exists);
    assert_true(stat.is_dir);
    check_ok(fsio_make_dirs("/", &err));
    check_ok(fsio_make_dirs(".", &err));
    put("f", "");
    check_fails(RC_IO, fsio_make_dirs(scratch_path(&scratch, "f"), &err));
    check_fails(RC_IO, fsio_make_dirs(scratch_path(&scratch, "f/x"), &err));
    check_fails(RC_LIMIT, fsio_make_dirs("", &err));
    char longer[FSIO_PATH_BYTES + 1];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    check_fails(RC_LIMIT, fsio_make_dirs(longer, &err));
}

static void test_fsio__removes_files_and_trees(void **state)
{
    (void)state;
    struct fsio_stat stat;
    put("f", "");
    check_ok(fsio_remove_file(scratch_path(&scratch, "f"), &err));
    check_ok(fsio_remove_file(scratch_path(&scratch, "f"), &err));
    check_ok(fsio_make_dirs(scratch_path(&scratch, "tree/a/b"), &err));
    check_ok(fsio_make_dirs(scratch_path(&scratch, "kept"), &err));
    put("tree/a/f", "x");
    put("kept/f", "kept");
    assert_int_equal(symlink("../../kept", scratch_path(&scratch, "tree/a/link")), 0);
    check_ok(fsio_remove_tree(scratch_path(&scratch, "tree"), &err));
    check_ok(fsio_stat(scratch_path(&scratch, "tree"), &stat, &err));
    assert_false(stat.exists);
    check_content("kept/f", "kept"); /* behind the link */
    check_ok(fsio_remove_tree(scratch_path(&scratch, "tree"), &err));
}

static void test_fsio__stat_tells_what_is_there(void **state)
{
    (void)state;
    struct fsio_stat stat;
    put("f", "12345");
    assert_int_equal(link(scratch_path(&scratch, "f"), scratch_path(&scratch, "g")), 0);
    check_ok(fsio_stat(scratch_path(&scratch, "f"), &stat, &err));
    assert_true(stat.exists);
    assert_false(stat.is_dir);
    assert_int_equal(stat.size_bytes, 5);
    assert_int_equal(stat.links, 2);
    assert_true(stat.inode != 0);
    assert_true(stat.mtime_ns > INT64_C(1500000000) * 1000000000);
    check_ok(fsio_stat(scratch_path(&scratch, "none"), &stat, &err));
    assert_false(stat.exists);
    check_fails(RC_IO, fsio_stat(scratch_path(&scratch, "f/x"), &stat, &err)); /* ENOTDIR */
}

struct names {
    char text[256];
    size_t stop_after;
    size_t seen;
};

static enum rc join_visit(void *arg, const char *name, bool is_dir, struct err *visit_err)
{
    struct names *names = arg;
    if (names->seen++ == names->stop_after) {
        return err_set(visit_err, RC_STOPPED, "enough");
    }
    size_t used = strlen(names->text);
    (void)snprintf(names->text + used, sizeof names->text - used, "%s%s ", name, is_dir ? "/" : "");
    return RC_OK;
}

static void test_fsio__lists_in_byte_order(void **state)
{
    (void)state;
    struct names names = {.stop_after = 100};
    put("b", "");
    put("a-", "");
    put("a.", "");
    put("Z", "");
    put(".hidden", "");
    check_ok(fsio_make_dirs(scratch_path(&scratch, "a"), &err));
    assert_int_equal(symlink("a", scratch_path(&scratch, "link")), 0);
    check_ok(fsio_list_dir(scratch.dir, join_visit, &names, &err));
    assert_string_equal(names.text, ".hidden Z a/ a- a. b link ");
    check_fails(RC_NOT_FOUND, fsio_list_dir(scratch_path(&scratch, "x"), join_visit, &names, &err));
}

static void test_fsio__listing_stops_when_told(void **state)
{
    (void)state;
    struct names names = {.stop_after = 2};
    put("a", "");
    put("b", "");
    put("c", "");
    put("d", "");
    check_fails(RC_STOPPED, fsio_list_dir(scratch.dir, join_visit, &names, &err));
    assert_string_equal(names.text, "a b ");
    assert_int_equal(names.seen, 3);
}

static void test_fsio__syncs_what_exists(void **state)
{
    (void)state;
    put("f", "x");
    check_ok(fsio_sync_dir(scratch.dir, &err));
    check_ok(fsio_sync_file(scratch_path(&scratch, "f"), &err));
    check_fails(RC_NOT_FOUND, fsio_sync_dir(scratch_path(&scratch, "x"), &err));
    check_fails(RC_NOT_FOUND, fsio_sync_file(scratch_path(&scratch, "x"), &err));
    check_fails(RC_IO, fsio_sync_dir(scratch_path(&scratch, "f"), &err));
}

static void test_fsio__knows_space_and_filesystem(void **state)
{
    (void)state;
    uint64_t free_bytes = 0;
    enum fsio_fs_kind kind = FSIO_FS_LOCAL;
    char name[32] = "";
    check_ok(fsio_free_bytes(scratch.dir, &free_bytes, &err));
    assert_true(free_bytes > 0);
    check_ok(fsio_fs_kind(scratch.dir, &kind, name, sizeof name, &err));
    assert_true(strlen(name) > 0);
    check_ok(fsio_fs_kind("/proc", &kind, name, sizeof name, &err));
    assert_int_equal(kind, FSIO_FS_UNKNOWN);
    assert_string_equal(name, "0x00009fa0");
    check_fails(RC_NOT_FOUND, fsio_free_bytes(scratch_path(&scratch, "x"), &free_bytes, &err));
    check_fails(RC_NOT_FOUND,
                fsio_fs_kind(scratch_path(&scratch, "x"), &kind, name, sizeof name, &err));
}

static void test_fsio__tmpfs_is_volatile(void **state)
{
    (void)state;
    enum fsio_fs_kind kind = FSIO_FS_LOCAL;
    char name[32] = "";
    if (fsio_fs_kind("/dev/shm", &kind, name, sizeof name, &err) != RC_OK ||
        strcmp(name, "tmpfs") != 0) {
        skip();
    }
    assert_int_equal(kind, FSIO_FS_VOLATILE);
}

static void test_fsio__joins_paths(void **state)
{
    (void)state;
    char path[8];
    check_ok(fsio_join(path, sizeof path, "abc", "def", &err));
    assert_string_equal(path, "abc/def");
    check_ok(fsio_join(path, sizeof path, "abcdefg", "", &err));
    assert_string_equal(path, "abcdefg");
    check_fails(RC_LIMIT, fsio_join(path, sizeof path, "abcd", "efg", &err));
    check_fails(RC_LIMIT, fsio_join(path, sizeof path, "abcdefgh", "", &err));
}

static void test_fsio__finds_the_directory_part(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"a/b/c", "a/b"}, {"a", "."},    {"/a", "/"}, {"/", "/"},   {"//", "/"},
        {"a//b", "a"},    {"a/b/", "a"}, {"", "."},   {"./a", "."}, {"/a/b//", "/a"},
    };
    char dir[16];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_ok(fsio_dirname(rows[i][0], dir, sizeof dir, &err));
        assert_string_equal(dir, rows[i][1]);
    }
    check_ok(fsio_dirname("12345678/x", dir, 9, &err));
    check_fails(RC_LIMIT, fsio_dirname("12345678/x", dir, 8, &err));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void test_fsio__exchange(void **state)
{
    (void)state;
    bool made = false;
    char a[FSIO_PATH_BYTES];
    char b[FSIO_PATH_BYTES];
    (void)snprintf(a, sizeof a, "%s", scratch_path(&scratch, "a"));
    (void)snprintf(b, sizeof b, "%s", scratch_path(&scratch, "b"));
    check_ok(fsio_make_dir(a, &made, &err));
    assert_true(made);
    check_ok(fsio_make_dir(a, &made, &err));
    assert_false(made);
    check_fails(RC_NOT_FOUND, fsio_exchange(a, b, &err));
    check_ok(fsio_replace_file(b, "text", 4, false, &err));
    check_fails(RC_IO, fsio_make_dir(b, &made, &err));
    struct fsio_stat stat;
    for (int i = 0; i < 3; i++) { /* forth, back by renames, forth */
        rename_errno = i == 1 ? EINVAL : 0;
        check_ok(fsio_exchange(a, b, &err));
    }
    rename_errno = ENOENT;
    check_fails(RC_NOT_FOUND, fsio_exchange(a, b, &err));
    rename_errno = 0;
    check_ok(fsio_stat(a, &stat, &err));
    assert_true(stat.exists && !stat.is_dir && stat.size_bytes == 4);
    check_ok(fsio_stat(b, &stat, &err));
    assert_true(stat.is_dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_fsio__errors_become_codes),
        TEST(test_fsio__open_closes_on_exec),
        TEST(test_fsio__reads_exactly_or_fails),
        TEST(test_fsio__writes_at_an_offset),
        TEST(test_fsio__write_reports_a_full_disk),
        TEST(test_fsio__reads_whole_files),
        TEST(test_fsio__read_regular_waits_for_no_pipe),
        TEST(test_fsio__read_obeys_the_cap_exactly),
        TEST(test_fsio__replace_leaves_old_or_new),
        TEST(test_fsio__replace_cleans_up_when_the_disk_is_full),
        TEST(test_fsio__replacers_do_not_disturb_each_other),
        TEST(test_fsio__rename_new_never_replaces),
        TEST(test_fsio__rename_new_falls_back_to_link),
        TEST(test_fsio__makes_missing_parents),
        TEST(test_fsio__removes_files_and_trees),
        TEST(test_fsio__stat_tells_what_is_there),
        TEST(test_fsio__lists_in_byte_order),
        TEST(test_fsio__listing_stops_when_told),
        TEST(test_fsio__syncs_what_exists),
        TEST(test_fsio__knows_space_and_filesystem),
        TEST(test_fsio__tmpfs_is_volatile),
        TEST(test_fsio__joins_paths),
        TEST(test_fsio__finds_the_directory_part),
        TEST(test_fsio__exchange),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
