/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door: owns the listening socket, so that servers can come and go behind it.
 *
 * It hands the listener to every server that joins and passes live connections from one that
 * leaves to one that stays; in between it parks them. It never accepts, and never reads or writes
 * a byte of HTTP. SIGTERM or SIGINT ends it; the servers keep their listener, go on serving, and
 * give it to the next door. One thread.
 */
#include "base/err.h"
#include "base/log.h"
#include "door/door_config.h"
#include "door/door_hall.h"
#include "door/door_protocol.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* As the server's. */
#define EXIT_INTERNAL 1
#define EXIT_CONFIG 2
#define EXIT_LOCAL_IO 7

#define HEALTH_WAIT_MS 2000

static const char help_text[] =
    "door: owns the listening socket; servers come and go behind it\n"
    "\n"
    "  door                 runs until SIGTERM\n"
    "  door --health        asks the running door; exit 0 when it holds its listener\n"
    "  door --check-config  prints the configuration and exits\n"
    "  door --version, --help\n"
    "\n"
    "  HARVEY_DOOR_LISTEN   address to listen on (127.0.0.1:8080)\n"
    "  HARVEY_DOOR_SOCKET   where servers join (/run/harvey/door.sock)\n"
    "  HARVEY_DOOR_UID      a user id that may join besides the door's own\n"
    "  HARVEY_LOG_LEVEL     error, warn, info or debug (info)\n"
    "\n"
    "Exit status: 0 stopped, 1 internal, 2 configuration, 7 local I/O\n";

static int exit_status_of(enum rc rc)
{
    if (rc == RC_OK) {
        return EXIT_SUCCESS;
    }
    if (rc == RC_INVALID || rc == RC_LIMIT || rc == RC_EXISTS) {
        return EXIT_CONFIG;
    }
    return rc == RC_NOMEM || rc == RC_INTERNAL ? EXIT_INTERNAL : EXIT_LOCAL_IO;
}

/* Blocks the signals that end the door; *fd tells of them. */
static enum rc open_signals(int *fd, struct err *err)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    *fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return *fd >= 0 ? RC_OK : err_set_errno(err, RC_IO, "signalfd");
}

static enum rc run_until_signal(struct door_hall *hall, int signal_fd, struct err *err)
{
    struct pollfd ready[] = {{.fd = -1, .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}};
    enum rc rc = RC_OK;

    while (rc == RC_OK) {
        ready[0].fd = door_hall_get_fd(hall); /* none while somebody has to wait */
        if (poll(ready, 2, door_hall_get_timeout_ms(hall)) < 0 && errno != EINTR) {
            return err_set_errno(err, RC_IO, "poll");
        }
        if (ready[1].revents != 0) {
            log_info("door", "stopping");
            return RC_OK;
        }
        rc = door_hall_work(hall, err);
    }
    return rc;
}

static int run(const struct door_config *config)
{
    struct door_hall *hall = NULL;
    struct err err = ERR_INIT;
    int signal_fd = -1;
    enum rc rc = open_signals(&signal_fd, &err);

    if (rc == RC_OK) {
        rc = door_hall_create(config, &hall, &err);
    }
    if (rc == RC_OK) {
        rc = run_until_signal(hall, signal_fd, &err);
    }
    if (rc != RC_OK) {
        log_error("door", "%s", err.text);
    }
    door_hall_destroy(hall);
    if (signal_fd >= 0) {
        close(signal_fd);
    }
    return exit_status_of(rc);
}

static enum rc ask_health(int fd, struct door_message *answer, struct err *err)
{
    const struct door_message question = {.type = DOOR_MESSAGE_HEALTH};
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    int passed_fd = -1;
    enum rc rc = door_message_send(fd, &question, -1, err);

    if (rc != RC_OK) {
        return rc;
    }
    if (poll(&ready, 1, HEALTH_WAIT_MS) != 1) {
        return err_set(err, RC_TIMEOUT, "no answer in %d ms", HEALTH_WAIT_MS);
    }
    rc = door_message_receive(fd, answer, &passed_fd, err);
    if (passed_fd >= 0) {
        close(passed_fd);
    }
    if (rc == RC_OK && answer->type != DOOR_MESSAGE_HEALTH) {
        rc = err_set(err, RC_INVALID, "an answer to another question");
    }
    return rc;
}

static int print_health(const struct door_config *config)
{
    struct door_message answer = {.type = DOOR_MESSAGE_HEALTH};
    struct err err = ERR_INIT;
    int fd = -1;
    enum rc rc = door_socket_connect(config->socket_path, &fd, &err);

    if (rc == RC_OK) {
        rc = ask_health(fd, &answer, &err);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (rc != RC_OK) {
        (void)fprintf(stderr, "door: %s\n", err.text);
        return EXIT_INTERNAL;
    }
    bool listening = (answer.flags & DOOR_FLAG_HAS_LISTENER) != 0;
    (void)printf("listener=%s apps=%u parked=%u\n", listening ? "yes" : "no", answer.number,
                 answer.count);
    return listening ? EXIT_SUCCESS : EXIT_INTERNAL;
}

static int print_config(const struct door_config *config)
{
    (void)printf("HARVEY_DOOR_LISTEN=%s\nHARVEY_DOOR_SOCKET=%s\nHARVEY_DOOR_UID=%u\n",
                 config->listen_text, config->socket_path, config->uid);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct door_config config;
    struct err err = ERR_INIT;
    const char *command = argc > 1 ? argv[1] : "";

    if (strcmp(command, "--help") == 0) {
        (void)fputs(help_text, stdout);
        return EXIT_SUCCESS;
    }
    if (strcmp(command, "--version") == 0) {
        (void)printf("door %s\n", HARVEY_VERSION);
        return EXIT_SUCCESS;
    }
    if (door_config_read(&config, &err) != RC_OK) {
        (void)fprintf(stderr, "door: %s\n", err.text);
        return EXIT_CONFIG;
    }
    log_set_level(config.log_level);
    if (argc == 1) {
        return run(&config);
    }
    if (argc == 2 && strcmp(command, "--health") == 0) {
        return print_health(&config);
    }
    if (argc == 2 && strcmp(command, "--check-config") == 0) {
        return print_config(&config);
    }
    (void)fprintf(stderr, "door: unknown option %s; see --help\n", command);
    return EXIT_CONFIG;
}
