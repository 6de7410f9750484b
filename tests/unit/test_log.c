/* SPDX-License-Identifier: Apache-2.0 */
/* log: what one call writes to descriptor 2, read back through a pipe that takes its place. */
#include "base/log.h"

#include "base/clk.h"
#include "tests/unit/checks.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define LINE_BYTES 2048

static int saved_stderr = -1;
static int read_end = -1;

static int setup(void **state)
{
    (void)state;
    int pipes[2];
    if (pipe(pipes) != 0) {
        return -1;
    }
    saved_stderr = dup(STDERR_FILENO);
    (void)dup2(pipes[1], STDERR_FILENO);
    (void)close(pipes[1]);
    read_end = pipes[0];
    return fcntl(read_end, F_SETFL, O_NONBLOCK);
}

static int teardown(void **state)
{
    (void)state;
    log_set_level(LOG_LEVEL_INFO);
    (void)dup2(saved_stderr, STDERR_FILENO);
    (void)close(saved_stderr);
    (void)close(read_end);
    return 0;
}

/* What was written since the last call; "" when nothing was. */
static const char *written(void)
{
    static char text[LINE_BYTES];
    ssize_t n = read(read_end, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void test_log__writes_one_line(void **state)
{
    (void)state;
    log_info("leader", "generation begun  id=%d", 7);
    const char *line = written();
    assert_int_equal(strlen(line), strlen("2026-11-24T18:00:00.123Z info  leader     ") +
                                       strlen("generation begun  id=7\n"));
    assert_non_null(strstr(line, "Z info  leader     generation begun  id=7\n"));
    int64_t unix_ms = 0;
    char when[CLK_RFC3339_BYTES];
    struct err err = ERR_INIT;
    memcpy(when, line, 24);
    when[24] = '\0';
    check_ok(clk_parse_rfc3339(when, &unix_ms, &err));
    assert_true(clk_unix_ms() - unix_ms < 60000);
}

static void test_log__obeys_the_level(void **state)
{
    (void)state;
    log_debug("x", "hidden");
    assert_string_equal(written(), "");
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug("x", "shown");
    assert_non_null(strstr(written(), " debug x          shown\n"));
    log_set_level(LOG_LEVEL_ERROR);
    log_warn("x", "hidden");
    assert_string_equal(written(), "");
    log_error("x", "shown");
    assert_non_null(strstr(written(), " error x          shown\n"));
}

static void test_log__foreign_text_cannot_forge_a_line(void **state)
{
    (void)state;
    log_warn("http", "path=%s", "/a\r\n2026 error forged");
    const char *line = written();
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    assert_null(strchr(line, '\r'));
}

static void test_log__cuts_a_long_line(void **state)
{
    (void)state;
    char longer[3000];
    memset(longer, 'y', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    log_info("x", "%s", longer);
    const char *line = written();
    assert_true(strlen(line) > 900);
    assert_true(strlen(line) <= 1024);
    assert_int_equal(line[strlen(line) - 1], '\n');
}

static void test_log__keeps_errno(void **state)
{
    (void)state;
    errno = ENOTTY;
    log_info("x", "y");
    assert_int_equal(errno, ENOTTY);
    (void)written();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_log__writes_one_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_log__obeys_the_level, setup, teardown),
        cmocka_unit_test_setup_teardown(test_log__foreign_text_cannot_forge_a_line, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_log__cuts_a_long_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_log__keeps_errno, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
