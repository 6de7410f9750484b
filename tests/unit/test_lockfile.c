/* SPDX-License-Identifier: Apache-2.0 */
/* lockfile: handles of one process exclude each other as those of two processes do; death frees. */
#include "base/lockfile.h"

#include "base/fsio.h"
#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct scratch scratch;
static struct err err;
static const char *removed_before_the_lock; /* NULL: nothing is */

/* In between the code and the kernel: somebody removes the file after it was opened. */
int fcntl(int fd, int command, ...)
{
    va_list args;
    va_start(args, command);
    void *argument = va_arg(args, void *);
    va_end(args);
    if (command == F_OFD_SETLK && removed_before_the_lock != NULL) {
        (void)unlink(removed_before_the_lock);
        removed_before_the_lock = NULL;
    }
    return (int)syscall(SYS_fcntl, fd, command, argument);
}

static int setup(void **state)
{
    (void)state;
    scratch_init(&scratch);
    err = (struct err)ERR_INIT;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_deinit(&scratch);
    return 0;
}

static void test_lockfile__second_handle_is_busy(void **state)
{
    (void)state;
    struct lockfile first = LOCKFILE_INIT;
    struct lockfile second = LOCKFILE_INIT;
    const char *path = scratch_path(&scratch, "leader.lock");
    check_ok(lockfile_try(&first, path, &err));
    check_fails(RC_BUSY, lockfile_try(&second, path, &err));
    check_text("leader.lock");
    assert_int_equal(second.fd, -1);
    lockfile_release(&first);
    assert_int_equal(first.fd, -1);
    check_ok(lockfile_try(&second, path, &err));
    lockfile_release(&second);
    lockfile_release(&second); /* legal */
}

static void test_lockfile__shared_by_many_and_by_none_alone(void **state)
{
    (void)state;
    struct lockfile first = LOCKFILE_INIT;
    struct lockfile second = LOCKFILE_INIT;
    struct lockfile alone = LOCKFILE_INIT;
    const char *path = scratch_path(&scratch, "open.lock");
    check_ok(lockfile_share(&first, path, &err));
    check_ok(lockfile_share(&second, path, &err));
    check_fails(RC_BUSY, lockfile_try(&alone, path, &err));
    lockfile_release(&first);
    check_fails(RC_BUSY, lockfile_probe(path, &err));
    lockfile_release(&second);
    check_ok(lockfile_probe(path, &err));
    check_ok(lockfile_try(&alone, path, &err));
    check_fails(RC_BUSY, lockfile_share(&first, path, &err));
    lockfile_release(&alone);
}

/* A lock on a file that has no name any more excludes nobody: whoever comes next makes a new one. */
static void test_lockfile__a_file_that_was_removed_meanwhile(void **state)
{
    (void)state;
    struct lockfile lock = LOCKFILE_INIT;
    const char *path = scratch_path(&scratch, "leader.lock");
    removed_before_the_lock = path;
    check_fails(RC_BUSY, lockfile_try(&lock, path, &err));
    check_text("removed");
    assert_int_equal(lock.fd, -1);
    check_ok(lockfile_try(&lock, path, &err));
    lockfile_release(&lock);
}

static void test_lockfile__probe_takes_nothing(void **state)
{
    (void)state;
    struct lockfile lock = LOCKFILE_INIT;
    const char *path = scratch_path(&scratch, "leader.lock");
    check_fails(RC_NOT_FOUND, lockfile_probe(path, &err));
    check_ok(lockfile_try(&lock, path, &err));
    check_fails(RC_BUSY, lockfile_probe(path, &err));
    check_fails(RC_BUSY, lockfile_probe(path, &err)); /* closing its descriptor freed nothing */
    lockfile_release(&lock);
    check_ok(lockfile_probe(path, &err));
    check_ok(lockfile_try(&lock, path, &err));
    lockfile_release(&lock);
}

static void test_lockfile__other_descriptors_of_the_file_do_not_free_it(void **state)
{
    (void)state;
    struct lockfile lock = LOCKFILE_INIT;
    const char *path = scratch_path(&scratch, "leader.lock");
    check_ok(lockfile_try(&lock, path, &err));
    int fd = -1;
    check_ok(fsio_open(path, O_RDWR, 0, &fd, &err));
    assert_int_equal(close(fd), 0); /* would free a POSIX lock of this process */
    check_fails(RC_BUSY, lockfile_probe(path, &err));
    lockfile_release(&lock);
}

static void test_lockfile__death_of_the_holder_frees_it(void **state)
{
    (void)state;
    const char *path = scratch_path(&scratch, "leader.lock");
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct lockfile held = LOCKFILE_INIT;
        char ok = lockfile_try(&held, path, NULL) == RC_OK ? 'y' : 'n';
        (void)!write(pipes[1], &ok, 1);
        (void)pause();
        _exit(0);
    }
    char ok = '?';
    assert_int_equal(read(pipes[0], &ok, 1), 1);
    assert_int_equal(ok, 'y');
    struct lockfile lock = LOCKFILE_INIT;
    check_fails(RC_BUSY, lockfile_try(&lock, path, &err));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    check_ok(lockfile_try(&lock, path, &err));
    lockfile_release(&lock);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

static void test_lockfile__missing_directory_is_not_found(void **state)
{
    (void)state;
    struct lockfile lock = LOCKFILE_INIT;
    check_fails(RC_NOT_FOUND, lockfile_try(&lock, scratch_path(&scratch, "no/leader.lock"), &err));
    assert_int_equal(lock.fd, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lockfile__second_handle_is_busy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lockfile__shared_by_many_and_by_none_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_lockfile__a_file_that_was_removed_meanwhile, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_lockfile__probe_takes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lockfile__other_descriptors_of_the_file_do_not_free_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_lockfile__death_of_the_holder_frees_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_lockfile__missing_directory_is_not_found, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
