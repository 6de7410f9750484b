/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore_main: bin/restore. Reads the options, runs the restorer, says what came of it.
 *
 * SIGINT, SIGTERM and SIGHUP are taken by one thread that raises the stop flag; the restore then ends
 * as after any other error, its temporary file removed.
 */
#include "base/err.h"
#include "base/hash.h"
#include "base/stop.h"
#include "restorer/list.h"
#include "restorer/options.h"
#include "restorer/progress_bar.h"
#include "restorer/report.h"
#include "restorer/restorer.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifndef HARVEY_VERSION
#define HARVEY_VERSION "unknown"
#endif

static void *signal_thread_main(void *arg)
{
    struct stop *stop = arg;
    sigset_t signals;
    int number = 0;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGHUP);
    while (sigwait(&signals, &number) == 0) {
        stop_raise(stop, STOP_NOW);
    }
    return NULL;
}

/* Blocks them in every thread to come, and starts the one that takes them. */
static enum rc start_signal_thread(struct stop *stop, struct err *err)
{
    sigset_t signals;
    pthread_t thread;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGHUP);
    ASSERT(pthread_sigmask(SIG_BLOCK, &signals, NULL) == 0);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is an error like a full disk */
    if (pthread_create(&thread, NULL, signal_thread_main, stop) != 0) {
        return err_set(err, RC_NOMEM, "cannot start a thread: no memory, or too many threads");
    }
    ASSERT(pthread_detach(thread) == 0); /* it lives as long as the process */
    return RC_OK;
}

static int run_restore(struct options *options, struct stop *stop)
{
    struct progress_bar bar = {.phase = NULL};
    struct restore_result result;
    struct err err = ERR_INIT;
    options->request.stop = stop;
    if (!options->quiet && !options->request.dry_run && isatty(STDERR_FILENO) == 1) {
        options->request.progress = progress_bar_draw;
        options->request.progress_arg = &bar;
    }
    enum rc rc = restorer_run(&options->store, &options->request, &result, &err);
    progress_bar_clear(&bar);
    return rc == RC_OK ? report_result(options, &result) : report_error(options, &result, &err);
}

static const char *lookup_variable(const char *name)
{
    return getenv(name);
}

int main(int argc, char **argv)
{
    static struct options options;
    static struct stop stop; /* outlives the signal thread */
    struct err err = ERR_INIT;
    stop_init(&stop);
    enum rc rc = options_read(argc, argv, environ, lookup_variable, &options, &err);
    if (rc == RC_OK && options.action == OPTIONS_HELP) {
        return fputs(options_help_text, stdout) == EOF || fflush(stdout) != 0 ? 1 : 0;
    }
    if (rc == RC_OK && options.action == OPTIONS_VERSION) {
        printf("restore %s\n", HARVEY_VERSION);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    if (rc == RC_OK) {
        rc = start_signal_thread(&stop, &err);
    }
    if (rc == RC_OK) {
        rc = hash_begin(&err);
    }
    if (rc == RC_OK && options.action == OPTIONS_RESTORE) {
        return run_restore(&options, &stop);
    }
    if (rc == RC_OK) {
        rc = list_run(&options, &stop, &err);
    }
    return rc == RC_OK ? (fflush(stdout) == 0 ? 0 : 1) : report_error(&options, NULL, &err);
}
