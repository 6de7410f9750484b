/* SPDX-License-Identifier: Apache-2.0 */
/* server_options: see server_options.h. */
#include "server/server_options.h"

#include "server/config.h"

#include <getopt.h>
#include <stdio.h>

enum rc server_options_read(int argc, char **argv, enum server_task *task, struct err *err)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, SERVER_HELP},
        {"version", no_argument, NULL, SERVER_VERSION},
        {"check-config", no_argument, NULL, SERVER_CHECK_CONFIG},
        {"health", no_argument, NULL, SERVER_ASK_HEALTH},
        {NULL, 0, NULL, 0},
    };
    *task = SERVER_RUN;
    optind = 0; /* glibc: start over (tests call this more than once) */
    opterr = 0;
    for (;;) {
        int at = optind == 0 ? 1 : optind;
        int option = getopt_long(argc, argv, "+:h", options, NULL);
        switch (option) {
        case -1:
            return optind == argc
                       ? RC_OK
                       : err_set(err, RC_INVALID, "%.64s: no arguments are taken (server --help)",
                                 argv[optind]);
        case 'h':
            *task = SERVER_HELP;
            break;
        case SERVER_HELP:
        case SERVER_VERSION:
        case SERVER_CHECK_CONFIG:
        case SERVER_ASK_HEALTH:
            *task = (enum server_task)option;
            break;
        default:
            return err_set(err, RC_INVALID, "%.64s: no such option (server --help)", argv[at]);
        }
    }
}

void server_options_print_help(void)
{
    (void)printf(
        "usage: server [--check-config | --health | --version | --help]\n"
        "\n"
        "A web server on SQLite that replicates itself. Without an option it runs until SIGTERM.\n"
        "  --check-config  prints the effective configuration, secrets masked\n"
        "  --health        asks the server that runs on HARVEY_DB: exit 0 ready, 1 not\n"
        "  --version       prints versions\n"
        "\n"
        "exit status: 0 stopped, 1 internal, 2 configuration, 6 store or credentials refused at\n"
        "start, 7 local I/O\n"
        "\n");
    config_print_help(stdout);
}
