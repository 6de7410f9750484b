/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server_options: the command line of `server`: what to do, and nothing else; all settings are in
 * the environment.
 *
 * Thread: main.
 */
#ifndef HARVEY_SERVER_SERVER_OPTIONS_H
#define HARVEY_SERVER_SERVER_OPTIONS_H

#include "base/err.h"

enum server_task {
    SERVER_RUN,
    SERVER_HELP,
    SERVER_VERSION,
    SERVER_CHECK_CONFIG,
    SERVER_ASK_HEALTH,
};

/* RC_INVALID with one line. The last option wins. */
RC_MUST_CHECK enum rc server_options_read(int argc, char **argv, enum server_task *task,
                                          struct err *err);

void server_options_print_help(void);

#endif
