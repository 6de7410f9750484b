/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config: the environment, read once in main and checked, as a plain struct. docs/configuration.md
 * and `server --help` list the variables; the table in config_table.c is what both come from.
 *
 * A HARVEY_* name that is not in the table is refused: a typing error must not switch a safety off.
 * An empty value counts as not set (a compose file passes such through).
 *
 * Thread: main, before any other starts. Nothing else in the server calls getenv.
 */
#ifndef HARVEY_SERVER_CONFIG_H
#define HARVEY_SERVER_CONFIG_H

#include "archive/store.h"
#include "base/err.h"
#include "base/fsio.h"
#include "replicator/replicator.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define CONFIG_LISTEN_BYTES 256

struct config {
    char database_path[FSIO_PATH_BYTES];
    char listen[CONFIG_LISTEN_BYTES];      /* HOST:PORT, [IPV6]:PORT or unix:PATH; checked */
    char door_socket[CONFIG_LISTEN_BYTES]; /* "": no door */
    struct store_config store;
    int64_t ship_interval_ms;
    int64_t snapshot_interval_s;
    int64_t spool_bytes_max;
    int64_t stop_timeout_ms;
    int64_t drain_delay_ms;
    int64_t connections_max;
    int64_t idle_timeout_s;     /* a connection without a request */
    int64_t request_timeout_s;  /* from a request's first byte to its last */
    int64_t synchronous_normal; /* 0 or 1, as the next ones */
    int64_t unsafe_fs;
    int64_t door_drain; /* 0 pass, 1 drain */
    int64_t log_level;  /* enum log_level */
    int64_t ack;        /* 0 local */
    int64_t on_outage;  /* 0 continue */
    enum replicator_on_empty on_empty;
    struct generation_id on_empty_generation;
    enum replicator_on_stale on_stale;
    struct generation_id on_stale_generation;
};

/*
 * Reads "NAME=value" strings, NULL-terminated (environ). RC_INVALID with one line: variable, value
 * (secrets masked), allowed range. RC_IO, RC_DENIED, RC_NOT_FOUND: a secret's file.
 */
RC_MUST_CHECK enum rc config_read(struct config *config, char *const *environment, struct err *err);

/* Only HARVEY_DB, for --health: the rest of the environment may be wrong then. RC_INVALID. */
RC_MUST_CHECK enum rc config_read_database(struct config *config, char *const *environment,
                                           struct err *err);

/* The effective configuration as NAME=value lines, secrets masked. */
void config_print(const struct config *config, FILE *out);

/* The variables with default, range and meaning: the second half of --help. */
void config_print_help(FILE *out);

#endif
