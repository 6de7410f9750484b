/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preflight, listener, health and the command line: what a start looks at before anything is opened,
 * and the sockets it makes, on directories of the test's and ports of the kernel's choice.
 */
#include "server/preflight.h"

#include "server/health.h"
#include "server/listener.h"
#include "server/server_options.h"

#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct scratch scratch;
static struct err err;
static struct config config;
static struct preflight result;
static char *no_environment[] = {NULL};
static long filesystem_magic; /* 0: what is there */

/* In between the code and the kernel: a database's directory on any filesystem. */
int statfs(const char *file, struct statfs *found)
{
    int code = (int)syscall(SYS_statfs, file, found);
    found->f_type = filesystem_magic != 0 ? filesystem_magic : found->f_type;
    return code;
}

static int setup(void **state)
{
    (void)state;
    scratch_init(&scratch);
    err = (struct err)ERR_INIT;
    config = (struct config){.unsafe_fs = 1}; /* wherever the tests run */
    (void)snprintf(config.database_path, sizeof config.database_path, "%s",
                   scratch_path(&scratch, "data/state.db"));
    config.store.off = true;
    filesystem_magic = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_deinit(&scratch);
    return 0;
}

static void archive_at(const char *path)
{
    config.store.off = false;
    (void)snprintf(config.store.dir, sizeof config.store.dir, "%s", path);
    (void)snprintf(config.store.url, sizeof config.store.url, "dir:%.400s", path);
}

/* ---- preflight ---- */

static void test_preflight__makes_one_directory_and_no_tree(void **state)
{
    (void)state;
    check_ok(preflight_check(&config, &result, &err));
    assert_int_equal(access(scratch_path(&scratch, "data"), F_OK), 0);
    assert_true(result.filesystem[0] != '\0');
    check_ok(preflight_check(&config, &result, &err));
    (void)snprintf(config.database_path, sizeof config.database_path, "%s",
                   scratch_path(&scratch, "no/such/state.db"));
    check_fails(RC_IO, preflight_check(&config, &result, &err));
    check_text("no/such");
    assert_int_not_equal(access(scratch_path(&scratch, "no"), F_OK), 0);
}

static void test_preflight__database_is_a_directory(void **state)
{
    (void)state;
    assert_int_equal(mkdir(scratch_path(&scratch, "data"), 0755), 0);
    assert_int_equal(mkdir(config.database_path, 0755), 0);
    check_fails(RC_INVALID, preflight_check(&config, &result, &err));
    check_text("is a directory");
}

static void test_preflight__archive_inside_the_database_directory(void **state)
{
    (void)state;
    static const char *const inside[] = {"data",       "data/",       "data/backup",
                                         "data/a/b/c", "link/backup", "data/../data/backup"};
    assert_int_equal(mkdir(scratch_path(&scratch, "data"), 0755), 0);
    assert_int_equal(symlink("data", scratch_path(&scratch, "link")), 0);
    for (size_t i = 0; i < sizeof inside / sizeof inside[0]; i++) {
        archive_at(scratch_path(&scratch, inside[i]));
        if (preflight_check(&config, &result, &err) != RC_INVALID) {
            fail_msg("%s was taken", inside[i]);
        }
        check_text("inside the database's directory");
    }
    static const char *const outside[] = {"backup", "data2", "data2/data", "dat"};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        archive_at(scratch_path(&scratch, outside[i]));
        check_ok(preflight_check(&config, &result, &err));
    }
}

static void test_preflight__filesystems(void **state)
{
    (void)state;
    config.unsafe_fs = 0;
    (void)snprintf(config.database_path, sizeof config.database_path, "/proc/state.db");
    enum rc rc = preflight_check(&config, &result, &err);
    assert_true(rc == RC_IO || rc == RC_DENIED); /* who is not root may not write there anyway */
    check_text("/proc");
    if (rc == RC_IO) {
        check_text("HARVEY_UNSAFE_FS=1");
        config.unsafe_fs = 1;
        check_ok(preflight_check(&config, &result, &err));
        assert_true(result.unsafe_filesystem);
    }
}

/* Where SQLite's locks or the file itself cannot be relied on, only HARVEY_UNSAFE_FS=1 goes on. */
static void test_preflight__every_kind_of_filesystem(void **state)
{
    (void)state;
    static const struct {
        long magic;
        const char *text; /* NULL: it is fine */
    } kinds[] = {
        {0xef53, NULL},           {0x58465342, NULL},           {0x01021994, NULL},
        {0x6969, "cannot trust"}, {0x65735546, "cannot trust"}, {0x794c7630, "a container's own"},
        {0x1234, "not known"}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        filesystem_magic = kinds[i].magic;
        config.unsafe_fs = 0;
        if (kinds[i].text == NULL) {
            check_ok(preflight_check(&config, &result, &err));
            assert_false(result.unsafe_filesystem);
            continue;
        }
        check_fails(RC_IO, preflight_check(&config, &result, &err));
        check_text(kinds[i].text);
        config.unsafe_fs = 1;
        check_ok(preflight_check(&config, &result, &err));
        assert_true(result.unsafe_filesystem);
    }
}

/* ---- listener ---- */

static int connect_to(const char *address)
{
    unsigned port = 0;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(sscanf(address, "127.0.0.1:%u", &port), 1);
    in.sin_port = htons((uint16_t)port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
    return fd;
}

static void test_listener__the_kernels_port(void **state)
{
    (void)state;
    struct listener listener;
    struct listener second;
    check_ok(listener_open(&listener, "127.0.0.1:0", no_environment, &err));
    assert_false(listener.shared);
    assert_int_equal(close(connect_to(listener.address)), 0);
    assert_true((fcntl(listener.fd, F_GETFL) & O_NONBLOCK) != 0);
    assert_true((fcntl(listener.fd, F_GETFD) & FD_CLOEXEC) != 0);
    check_fails(RC_BUSY, listener_open(&second, listener.address, no_environment, &err));
    check_text("in use");
    check_text(listener.address);
    listener_close(&listener);
    listener_close(&listener);
    check_fails(RC_INVALID, listener_open(&listener, "192.0.2.1:0", no_environment, &err));
    check_text("no such address");
}

static void test_listener__unix_sockets(void **state)
{
    (void)state;
    struct listener listener;
    struct listener second;
    char address[SCRATCH_PATH_BYTES + 8];
    (void)snprintf(address, sizeof address, "unix:%s", scratch_path(&scratch, "app.sock"));
    check_ok(listener_open(&listener, address, no_environment, &err));
    check_fails(RC_BUSY, listener_open(&second, address, no_environment, &err));
    assert_int_equal(close(listener.fd), 0); /* as after kill -9: the name stays */
    check_ok(listener_open(&listener, address, no_environment, &err));
    listener_close(&listener);
    assert_int_not_equal(access(scratch_path(&scratch, "app.sock"), F_OK), 0);
    FILE *file = fopen(scratch_path(&scratch, "app.sock"), "w"); /* no socket: not ours to remove */
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    check_fails(RC_BUSY, listener_open(&listener, address, no_environment, &err));
    assert_int_equal(access(scratch_path(&scratch, "app.sock"), F_OK), 0);
}

static void test_listener__foreign_listen_variables_are_not_ours(void **state)
{
    (void)state;
    struct listener listener;
    char other[] = "LISTEN_PID=1";
    char count[] = "LISTEN_FDS=1";
    char *environment[] = {other, count, NULL};
    check_ok(listener_open(&listener, "127.0.0.1:0", environment, &err));
    assert_false(listener.shared);
    listener_close(&listener);
}

/* ---- health ---- */

struct answering {
    struct health health;
    bool ready;
};

static void *answering_thread_main(void *arg)
{
    struct answering *answering = arg;
    struct pollfd poller = {.fd = answering->health.fd, .events = POLLIN};
    if (poll(&poller, 1, 20000) == 1) {
        health_answer(&answering->health, answering->ready, "the reason");
    }
    return NULL;
}

static enum rc ask_once(struct answering *answering)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answering_thread_main, answering), 0);
    enum rc rc = health_ask(config.database_path, &err);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return rc;
}

static void make_sidecar(void)
{
    assert_int_equal(mkdir(scratch_path(&scratch, "data"), 0755), 0);
    assert_int_equal(mkdir(scratch_path(&scratch, "data/state.db-harvey"), 0755), 0);
}

static void test_health__ready_and_not(void **state)
{
    (void)state;
    struct answering answering = {.ready = true};
    check_fails(RC_NOT_FOUND, health_ask(config.database_path, &err));
    check_fails(RC_NOT_FOUND, health_open(&answering.health, config.database_path, &err));
    make_sidecar();
    check_fails(RC_NOT_FOUND, health_ask(config.database_path, &err));
    check_ok(health_open(&answering.health, config.database_path, &err));
    check_ok(ask_once(&answering));
    answering.ready = false;
    check_fails(RC_UNAVAILABLE, ask_once(&answering));
    health_close(&answering.health);
    health_close(&answering.health);
    check_fails(RC_NOT_FOUND, health_ask(config.database_path, &err));
}

/* The one that started last answers; the first one's end does not take its name away. */
static void test_health__two_servers(void **state)
{
    (void)state;
    struct answering first = {.ready = false};
    struct answering second = {.ready = true};
    make_sidecar();
    check_ok(health_open(&first.health, config.database_path, &err));
    assert_true(health_is_in_place(&first.health));
    check_ok(health_open(&second.health, config.database_path, &err));
    assert_false(health_is_in_place(&first.health));
    check_ok(ask_once(&second));
    health_close(&first.health);
    check_ok(ask_once(&second));
    health_close(&second.health);
}

/* A database may lie deeper than a Unix socket's path may be long. */
static void test_health__deep_directory(void **state)
{
    (void)state;
    struct answering answering = {.ready = true};
    char path[1024];
    (void)snprintf(path, sizeof path, "%s", scratch_path(&scratch, "a"));
    for (int depth = 0; depth < 6; depth++) {
        assert_int_equal(mkdir(path, 0755), 0);
        size_t used = strlen(path);
        (void)snprintf(path + used, sizeof path - used, "/%040d", depth);
    }
    (void)snprintf(config.database_path, sizeof config.database_path, "%s", path);
    (void)snprintf(path + strlen(path), sizeof path - strlen(path), "-harvey");
    assert_int_equal(mkdir(path, 0755), 0);
    check_ok(health_open(&answering.health, config.database_path, &err));
    check_ok(ask_once(&answering));
    health_close(&answering.health);
}

/* ---- command line ---- */

static enum rc options(const char *first, const char *second, enum server_task *task)
{
    char *argv[] = {(char *)(uintptr_t) "server", (char *)(uintptr_t)first,
                    (char *)(uintptr_t)second, NULL};
    return server_options_read(first == NULL ? 1 : second == NULL ? 2 : 3, argv, task, &err);
}

static void test_server_options__all(void **state)
{
    (void)state;
    enum server_task task;
    check_ok(options(NULL, NULL, &task));
    assert_int_equal(task, SERVER_RUN);
    check_ok(options("--health", NULL, &task));
    assert_int_equal(task, SERVER_ASK_HEALTH);
    check_ok(options("--check-config", NULL, &task));
    assert_int_equal(task, SERVER_CHECK_CONFIG);
    check_ok(options("--version", "--help", &task));
    assert_int_equal(task, SERVER_HELP);
    check_fails(RC_INVALID, options("--frobnicate", NULL, &task));
    check_text("--frobnicate");
    check_fails(RC_INVALID, options("--health", "--no", &task));
    check_text("--no");
    check_fails(RC_INVALID, options("-x", NULL, &task));
    check_text("-x");
    check_fails(RC_INVALID, options("surplus", NULL, &task));
    check_text("surplus");
    check_fails(RC_INVALID, options("--health=yes", NULL, &task));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_preflight__makes_one_directory_and_no_tree),
        CASE(test_preflight__database_is_a_directory),
        CASE(test_preflight__archive_inside_the_database_directory),
        CASE(test_preflight__filesystems),
        CASE(test_preflight__every_kind_of_filesystem),
        CASE(test_listener__the_kernels_port),
        CASE(test_listener__unix_sockets),
        CASE(test_listener__foreign_listen_variables_are_not_ours),
        CASE(test_health__ready_and_not),
        CASE(test_health__two_servers),
        CASE(test_health__deep_directory),
        CASE(test_server_options__all),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
