/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of the open-loop client: read from the command line, validated, then only read.
 * Loopback only: any address outside 127.0.0.0/8 and ::1 is refused here, before a socket exists.
 */
#ifndef OPENLOOP_OPTIONS_H
#define OPENLOOP_OPTIONS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#define OPENLOOP_RATE_MAX 200000
#define OPENLOOP_SECONDS_MAX 86400
#define OPENLOOP_REQUESTS_MAX 1000000000
#define OPENLOOP_CONNECTIONS_MAX 20000
#define OPENLOOP_TIMEOUT_MS_MAX 600000
#define OPENLOOP_BODY_BYTES_MAX 65536
#define OPENLOOP_HOST_BYTES 64
#define OPENLOOP_PATH_BYTES 512

enum openloop_mode {
    OPENLOOP_MODE_BUSY,  /* keep-alive, few connections that rest only milliseconds */
    OPENLOOP_MODE_IDLE,  /* keep-alive, many connections, each idle most of the time */
    OPENLOOP_MODE_FRESH, /* a new connection for every request, Connection: close */
};

struct openloop_options {
    enum openloop_mode mode;
    bool post;
    bool json;
    bool rows_from_status;
    bool quiet;
    bool help;
    int64_t rate;          /* requests per second */
    int64_t request_count; /* from --requests, or rate * seconds */
    int64_t connection_count;
    int64_t timeout_ms; /* for a connection, and again for the answer */
    struct sockaddr_storage address;
    socklen_t address_bytes;
    char host[OPENLOOP_HOST_BYTES]; /* "127.0.0.1:8080", as in the Host header */
    char path[OPENLOOP_PATH_BYTES];
    const char *body;       /* borrowed from argv, may be NULL */
    const char *svg_file;   /* borrowed, may be NULL */
    const char *marks_file; /* borrowed, may be NULL */
};

/*
 * Reads argv (borrowed: keep it as long as the options). RC_INVALID with a text that names the
 * option and its range; RC_DENIED for an address that is not loopback.
 */
RC_MUST_CHECK enum rc openloop_options_parse(struct openloop_options *options, int argc,
                                             char *const *argv, struct err *err);

/* "busy", "idle" or "fresh". */
const char *openloop_options_mode_name(enum openloop_mode mode);

/* Prints the help text. */
void openloop_options_print_help(FILE *out);

#endif
