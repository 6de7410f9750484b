/* SPDX-License-Identifier: Apache-2.0 */
/* err: codes, texts that are cut and not overrun, errno that survives; a failed ASSERT ends the process. */
#include "base/err.h"

#include "tests/unit/checks.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_err__sets_code_and_text(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_int_equal(err_set(&err, RC_LIMIT, "%d of %s", 3, "them"), RC_LIMIT);
    assert_int_equal(err.rc, RC_LIMIT);
    assert_int_equal(err.sys_errno, 0);
    assert_string_equal(err.text, "3 of them");
}

static void test_err__takes_null(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, RC_IO, "x"), RC_IO);
    assert_int_equal(err_set_errno(NULL, RC_BUSY, "x"), RC_BUSY);
    assert_int_equal(err_prefix(NULL, "x"), RC_INTERNAL);
}

static void test_err__keeps_errno(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    errno = ENOSPC;
    assert_int_equal(err_set_errno(&err, RC_IO, "writing %s", "a file"), RC_IO);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(err.sys_errno, ENOSPC);
    assert_string_equal(err.text, "writing a file: No space left on device");
}

static void test_err__cuts_long_texts(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char longer[2 * ERR_TEXT_BYTES];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(err_set(&err, RC_IO, "%s", longer), RC_IO);
    assert_int_equal(strlen(err.text), ERR_TEXT_BYTES - 1);
    errno = EIO;
    assert_int_equal(err_set_errno(&err, RC_IO, "%s", longer), RC_IO);
    assert_int_equal(strlen(err.text), ERR_TEXT_BYTES - 1);
    assert_int_equal(err_prefix(&err, "doing %s", longer), RC_IO);
    assert_true(strlen(err.text) < ERR_TEXT_BYTES);
}

static void test_err__prefix_keeps_code_and_text(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    errno = EIO;
    assert_int_equal(err_set_errno(&err, RC_IO, "reading"), RC_IO);
    assert_int_equal(err_prefix(&err, "starting %d", 7), RC_IO);
    assert_string_equal(err.text, "while starting 7: reading: Input/output error");
    assert_int_equal(err.sys_errno, EIO);
}

static void test_err__only_transient_codes_are_retryable(void **state)
{
    (void)state;
    for (int rc = RC_OK; rc <= RC_STOPPED; rc++) {
        bool transient = rc == RC_IO || rc == RC_TIMEOUT || rc == RC_UNAVAILABLE || rc == RC_BUSY;
        assert_int_equal(rc_is_retryable((enum rc)rc), transient);
    }
}

static void test_err__every_code_has_its_own_name(void **state)
{
    (void)state;
    for (int a = RC_OK; a <= RC_STOPPED; a++) {
        assert_string_not_equal(rc_name((enum rc)a), "unknown");
        for (int b = RC_OK; b < a; b++) {
            assert_string_not_equal(rc_name((enum rc)a), rc_name((enum rc)b));
        }
    }
}

static void test_err__failed_assert_ends_the_process(void **state)
{
    (void)state;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(pipes[1], STDERR_FILENO);
        (void)signal(SIGABRT, SIG_DFL);
        volatile int one = 1;
        ASSERT(one == 2);
        _exit(0);
    }
    (void)close(pipes[1]);
    char text[256];
    ssize_t n = read(pipes[0], text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = '\0';
    (void)close(pipes[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_non_null(strstr(text, "one == 2"));
    assert_non_null(strstr(text, "test_err.c"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err__sets_code_and_text),
        cmocka_unit_test(test_err__takes_null),
        cmocka_unit_test(test_err__keeps_errno),
        cmocka_unit_test(test_err__cuts_long_texts),
        cmocka_unit_test(test_err__prefix_keeps_code_and_text),
        cmocka_unit_test(test_err__only_transient_codes_are_retryable),
        cmocka_unit_test(test_err__every_code_has_its_own_name),
        cmocka_unit_test(test_err__failed_assert_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
