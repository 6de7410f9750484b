/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_table: every variable of the server, in the order in which --help lists them. config.c
 * reads by it. Variables of the store are read by archive/store_config; they stand here for --help.
 *
 * Thread: any (constant data).
 */
#ifndef HARVEY_SERVER_CONFIG_TABLE_H
#define HARVEY_SERVER_CONFIG_TABLE_H

#include <stddef.h>
#include <stdint.h>

enum config_kind {
    CONFIG_INTEGER,  /* min..max, into an int64_t */
    CONFIG_CHOICE,   /* one of `choices` (blank separated), its index into an int64_t */
    CONFIG_DATABASE, /* a file's path */
    CONFIG_LISTEN,   /* an address */
    CONFIG_SOCKET,   /* a Unix socket's path, or nothing */
    CONFIG_ON_EMPTY,
    CONFIG_ON_STALE,
    CONFIG_STORE,  /* read by archive/store_config */
    CONFIG_SECRET, /* the same, and never printed */
    CONFIG_TEST,   /* read by the tests, not by the server */
};

struct config_variable {
    const char *name;
    enum config_kind kind;
    const char *fallback; /* NULL: none */
    size_t offset;        /* of the field in struct config */
    int64_t min;
    int64_t max;
    const char *choices;
    int64_t choices_supported; /* the first so many may be chosen yet */
    const char *allowed; /* for --help and messages, where min..max or choices do not say it */
    const char *help;
};

extern const struct config_variable config_table[];
extern const size_t config_table_count;

#endif
