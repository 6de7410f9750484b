/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server_main: the server's story. Configuration is read and checked, the parts are made and started
 * (writer, replicator, http), then main waits for a signal and stops them in the order that loses
 * nothing: http drains while the writer still commits, then the writer closes, then the replicator
 * ships the rest. A second signal skips the waiting.
 */
#include "archive/store.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/stop.h"
#include "replicator/replicator.h"
#include "server/backend.h"
#include "server/config.h"
#include "server/db.h"
#include "server/handover.h"
#include "server/health.h"
#include "server/http.h"
#include "server/http_loop.h"
#include "server/listener.h"
#include "server/notify.h"
#include "server/preflight.h"
#include "server/restoring.h"
#include "server/server_options.h"
#include "server/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* The look at the store at start is a short one; the replicator waits longer. */
#define SERVER_STORE_CONNECT_MS 1000
#define SERVER_STORE_REQUEST_MS 2000

/* Clients wait as long for other things; above any freeze, start or foreign transaction seen. */
#define SERVER_LOCK_PATIENCE_MS 15000

enum server_exit { /* docs/configuration.md */
                   SERVER_EXIT_STOPPED = 0,
                   SERVER_EXIT_INTERNAL = 1,
                   SERVER_EXIT_CONFIGURATION = 2,
                   SERVER_EXIT_STORE = 6,
                   SERVER_EXIT_LOCAL = 7,
};

struct server {
    struct config config;
    struct preflight preflight;
    struct listener listener;
    bool store_refused; /* what ended the start */
    struct stop stop;   /* seen by a restore under way */
    struct restoring restoring;
    struct replicator *replicator;
    bool replicator_started;
    struct writer *writer;
    struct backend *backend;
    struct http *http;
    struct handover *handover;
    struct http_loop *loop;
    int signal_fd;
    /* while stopping */
    pthread_t hurry_thread;
    bool hurry_started;
    int stopped_fd; /* eventfd: the stop is over */
};

static enum server_exit exit_of(enum rc rc)
{
    switch (rc) {
    case RC_OK:
    case RC_STOPPED:
        return SERVER_EXIT_STOPPED;
    case RC_INVALID:
        return SERVER_EXIT_CONFIGURATION;
    case RC_IO:
    case RC_BUSY:
    case RC_CORRUPT:
    case RC_DENIED:
    case RC_LIMIT:
    case RC_NOT_FOUND:
    case RC_EXISTS:
        return SERVER_EXIT_LOCAL;
    case RC_TIMEOUT:
    case RC_UNAVAILABLE:
    case RC_NOMEM:
    case RC_INTERNAL:
        break;
    }
    return SERVER_EXIT_INTERNAL;
}

static enum server_exit fail(enum server_exit status, const struct err *err)
{
    (void)fprintf(stderr, "server: %s\n", err->text);
    return status;
}

/* ---- tasks that end at once ---- */

static enum server_exit check_config(void)
{
    struct config config;
    struct err err = ERR_INIT;
    if (config_read(&config, environ, &err) != RC_OK) {
        return fail(SERVER_EXIT_CONFIGURATION, &err);
    }
    config_print(&config, stdout);
    return SERVER_EXIT_STOPPED;
}

static enum server_exit ask_health(void)
{
    struct config config;
    struct err err = ERR_INIT;
    if (config_read_database(&config, environ, &err) != RC_OK) {
        return fail(SERVER_EXIT_CONFIGURATION, &err);
    }
    enum rc rc = health_ask(config.database_path, &err);
    if (rc == RC_OK) {
        return SERVER_EXIT_STOPPED;
    }
    return rc == RC_UNAVAILABLE ? SERVER_EXIT_INTERNAL : fail(SERVER_EXIT_INTERNAL, &err);
}

static enum server_exit print_version(void)
{
    (void)printf("harvey %s  SQLite %s\n", HARVEY_VERSION, sqlite3_libversion());
    return SERVER_EXIT_STOPPED;
}

/* ---- start ---- */

/* Descriptors 0-2 must not become a database's: somebody may write to them. */
static enum rc keep_standard_fds(struct err *err)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (fd < 0) {
            return err_set_errno(err, RC_IO, "cannot open /dev/null");
        }
    } while (fd <= STDERR_FILENO);
    (void)close(fd);
    return RC_OK;
}

/* Signals are taken from a descriptor by main; every thread made later inherits the mask. */
static enum rc take_signals(struct server *server, struct err *err)
{
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGHUP);
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR || pthread_sigmask(SIG_BLOCK, &signals, NULL) != 0) {
        return err_set_errno(err, RC_INTERNAL, "cannot block signals");
    }
    server->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
    server->stopped_fd = eventfd(0, EFD_CLOEXEC);
    return server->signal_fd >= 0 && server->stopped_fd >= 0
               ? RC_OK
               : err_set_errno(err, RC_IO, "signalfd or eventfd");
}

static enum rc look_at_directory(const char *dir, struct err *err)
{
    bool refused = access(dir, W_OK) != 0 && (errno == EACCES || errno == EROFS || errno == EPERM);
    return refused ? err_set_errno(err, RC_DENIED, "cannot write to the archive directory") : RC_OK;
}

/*
 * A store that refuses our credentials will go on refusing them: better to end with a word than to
 * wait for ever, before anything is begun. Any other trouble with it is the replicator's to wait for.
 */
static enum rc look_at_store(struct server *server, struct err *err)
{
    struct store *store = NULL;
    struct store_config config = server->config.store;
    if (config.off) {
        log_warn("server", "HARVEY_ARCHIVE=none: nothing is backed up");
        return RC_OK;
    }
    config.connect_timeout_ms = SERVER_STORE_CONNECT_MS;
    config.request_timeout_ms = SERVER_STORE_REQUEST_MS;
    enum rc rc = store_open(&config, &server->stop, &store, err);
    if (rc == RC_OK) {
        /* a bucket is made and probed; a directory is the start's to make, or to miss (a lost mount) */
        rc = config.is_s3 ? store_prepare(store, true, err) : look_at_directory(config.dir, err);
        server->store_refused = rc == RC_DENIED;
    }
    store_close(store);
    if (rc == RC_DENIED || rc == RC_INTERNAL || rc == RC_INVALID) {
        return err_prefix(err, "reaching %s %s", config.url, config.endpoint);
    }
    if (rc != RC_OK) {
        log_warn("server", "the store does not answer yet  archive=%s endpoint=%s error=\"%s\"",
                 config.url, config.endpoint, err->text);
    }
    return RC_OK;
}

static enum rc make_replicator(struct server *server, struct err *err)
{
    const struct config *config = &server->config;
    server->restoring = (struct restoring){
        .store = &config->store, .database_path = config->database_path, .stop = &server->stop};
    const struct replicator_config settings = {
        .database_path = config->database_path,
        .store = config->store,
        .ship_interval_ms = config->ship_interval_ms,
        .snapshot_interval_s = config->snapshot_interval_s,
        .spool_bytes_max = config->spool_bytes_max,
        .stop_timeout_ms = config->stop_timeout_ms,
        .synchronous_normal = config->synchronous_normal != 0,
        .on_empty = config->on_empty,
        .on_empty_generation = config->on_empty_generation,
        .on_stale = config->on_stale,
        .on_stale_generation = config->on_stale_generation,
        .version = HARVEY_VERSION,
        .restore = restoring_run,
        .restore_arg = &server->restoring,
    };
    return replicator_create(&settings, &server->replicator, err);
}

static bool guard_may_serve(void *arg)
{
    return replicator_may_serve(arg);
}

static void guard_committed(void *arg, sqlite3 *db, struct replicator_commit *commit)
{
    replicator_committed(arg, db, commit);
}

static enum rc make_writer(struct server *server, struct err *err)
{
    const struct writer_config settings = {
        .database_path = server->config.database_path,
        .synchronous_normal = server->config.synchronous_normal != 0,
        .guard = {server->replicator, guard_may_serve, guard_committed},
        .lock_patience_ms = SERVER_LOCK_PATIENCE_MS,
    };
    enum rc rc = writer_create(&settings, &server->writer, err);
    server->restoring.writer = server->writer;
    return rc;
}

static enum rc make_backend(struct server *server, struct err *err)
{
    const struct backend_config settings = {
        .database_path = server->config.database_path,
        .synchronous_normal = server->config.synchronous_normal != 0,
        .filesystem = server->preflight.filesystem,
        .unsafe_filesystem = server->preflight.unsafe_filesystem,
        .writer = server->writer,
        .replicator = server->replicator,
    };
    enum rc rc = backend_create(&settings, &server->backend, err);
    server->restoring.backend = server->backend;
    return rc;
}

static enum rc make_http(struct server *server, struct err *err)
{
    const struct config *config = &server->config;
    const struct http_config settings = {
        .listener = &server->listener,
        .backend = backend_for_http(server->backend),
        .connections_max = (unsigned)config->connections_max,
        .idle_timeout_s = (unsigned)config->idle_timeout_s,
        .request_timeout_s = (unsigned)config->request_timeout_s,
    };
    enum rc rc = http_create(&settings, &server->http, err);
    if (rc == RC_OK && config->door_socket[0] != '\0') {
        const struct handover_config door = {.door_path = config->door_socket,
                                             .pass_connections = config->door_drain == 0,
                                             .database_path = config->database_path,
                                             .http = server->http,
                                             .listener = &server->listener};
        rc = handover_create(&door, &server->handover, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    const struct http_loop_config loop = {.http = server->http,
                                          .listener = &server->listener,
                                          .handover = server->handover,
                                          .backend = server->backend,
                                          .writer = server->writer,
                                          .replicator = server->replicator,
                                          .database_path = config->database_path,
                                          .drain_delay_ms = config->drain_delay_ms};
    return http_loop_create(&loop, &server->loop, err);
}

typedef enum rc server_step_fn(struct server *server, struct err *err);

static enum rc check_directories(struct server *server, struct err *err)
{
    return preflight_check(&server->config, &server->preflight, err);
}

static enum rc open_listener(struct server *server, struct err *err)
{
    const struct config *config = &server->config;
    if (config->door_socket[0] != '\0') {
        (void)snprintf(server->listener.address, sizeof server->listener.address, "the door's");
        return RC_OK; /* handover.c brings it */
    }
    return listener_open(&server->listener, config->listen, environ, err);
}

static enum rc start_writer(struct server *server, struct err *err)
{
    return writer_start(server->writer, err);
}

static enum rc start_replicator(struct server *server, struct err *err)
{
    server->replicator_started = true;
    return replicator_start(server->replicator, err);
}

static enum rc start_http(struct server *server, struct err *err)
{
    /* from here on the listener is the http thread's: a door may bring another */
    log_info("server", "listening  address=%s database=%s archive=%s version=%s",
             server->listener.address, server->config.database_path, server->config.store.url,
             HARVEY_VERSION);
    return http_loop_start(server->loop, err);
}

static enum rc start(struct server *server, struct err *err)
{
    static server_step_fn *const steps[] = {
        check_directories, open_listener,    take_signals, look_at_store,
        make_replicator,   make_writer,      make_backend, make_http,
        start_writer,      start_replicator, start_http,
    };
    enum rc rc = keep_standard_fds(err);
    if (rc == RC_OK) {
        rc = hash_begin(err);
    }
    if (rc == RC_OK) {
        rc = db_initialize(err);
    }
    for (size_t i = 0; rc == RC_OK && i < sizeof steps / sizeof steps[0]; i++) {
        rc = steps[i](server, err);
    }
    return rc;
}

/* ---- stop ---- */

static void wait_for_signal(struct server *server)
{
    struct signalfd_siginfo info;
    ssize_t got;
    do {
        got = read(server->signal_fd, &info, sizeof info);
    } while (got < 0 && errno == EINTR);
    log_info("server", "stopping  signal=%u", got == sizeof info ? info.ssi_signo : 0);
}

/* A second signal while we stop: cut the drain and the shipping short. */
static void *hurry_thread_main(void *arg)
{
    struct server *server = arg;
    struct pollfd fds[] = {{.fd = server->signal_fd, .events = POLLIN},
                           {.fd = server->stopped_fd, .events = POLLIN}};
    (void)pthread_setname_np(pthread_self(), "hurry");
    while (poll(fds, 2, -1) < 0 && errno == EINTR) {
    }
    if (fds[0].revents != 0 && fds[1].revents == 0) {
        log_warn("server", "second signal: not waiting any longer");
        stop_raise(&server->stop, STOP_NOW);
        http_loop_stop(server->loop, true);
        replicator_stop_now(server->replicator);
    }
    return NULL;
}

static void watch_for_second_signal(struct server *server)
{
    server->hurry_started =
        pthread_create(&server->hurry_thread, NULL, hurry_thread_main, server) == 0;
}

static void end_watch(struct server *server)
{
    const uint64_t one = 1;
    if (server->hurry_started) {
        ssize_t written = write(server->stopped_fd, &one, sizeof one);
        ASSERT(written == sizeof one);
        (void)pthread_join(server->hurry_thread, NULL);
    }
}

/* Waits for each thread's end, in the order that loses nothing. Legal twice, and for some only. */
static void stop_threads(struct server *server)
{
    struct err err = ERR_INIT;
    if (server->loop != NULL) {
        http_loop_join(server->loop);
    }
    if (server->writer != NULL) {
        writer_stop(server->writer);
    }
    if (server->replicator_started) {
        server->replicator_started = false;
        if (replicator_stop(server->replicator, &err) != RC_OK) {
            log_warn("server", "not everything is archived  detail=\"%s\"", err.text);
        }
    }
}

static void stop_all(struct server *server)
{
    notify_send(environ, "STOPPING=1");
    watch_for_second_signal(server);
    stop_raise(&server->stop, STOP_SOON);
    http_loop_stop(server->loop, false);
    stop_threads(server);
    end_watch(server);
    log_info("server", "stopped");
}

/* Frees what was made, in the reverse order. */
static void free_all(struct server *server)
{
    http_loop_destroy(server->loop);
    handover_destroy(server->handover);
    http_destroy(server->http);
    backend_destroy(server->backend);
    writer_destroy(server->writer);
    replicator_destroy(server->replicator);
    listener_close(&server->listener);
    stop_deinit(&server->stop);
    if (server->signal_fd >= 0) {
        (void)close(server->signal_fd);
    }
    if (server->stopped_fd >= 0) {
        (void)close(server->stopped_fd);
    }
}

static enum server_exit run(void)
{
    static struct server server = {.listener = LISTENER_INIT, .signal_fd = -1, .stopped_fd = -1};
    struct err err = ERR_INIT;
    stop_init(&server.stop);
    if (config_read(&server.config, environ, &err) != RC_OK) {
        return fail(SERVER_EXIT_CONFIGURATION, &err);
    }
    log_set_level((enum log_level)server.config.log_level);
    enum rc rc = start(&server, &err);
    enum server_exit status = exit_of(rc);
    if (rc == RC_OK) {
        notify_send(environ, "READY=1");
        wait_for_signal(&server);
        stop_all(&server);
    } else {
        status = fail(server.store_refused ? SERVER_EXIT_STORE : status, &err);
    }
    stop_threads(&server); /* where one did not start: those before it */
    free_all(&server);
    return status;
}

int main(int argc, char **argv)
{
    enum server_task task = SERVER_RUN;
    struct err err = ERR_INIT;
    if (server_options_read(argc, argv, &task, &err) != RC_OK) {
        return (int)fail(SERVER_EXIT_CONFIGURATION, &err);
    }
    switch (task) {
    case SERVER_HELP:
        server_options_print_help();
        return SERVER_EXIT_STOPPED;
    case SERVER_VERSION:
        return (int)print_version();
    case SERVER_CHECK_CONFIG:
        return (int)check_config();
    case SERVER_ASK_HEALTH:
        return (int)ask_health();
    case SERVER_RUN:
        break;
    }
    return (int)run();
}
