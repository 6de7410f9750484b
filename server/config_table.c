/* SPDX-License-Identifier: Apache-2.0 */
/* config_table: see config_table.h. Meanings at length: docs/configuration.md. */
#include "server/config_table.h"

#include "server/config.h"

#include <limits.h>

#define FIELD(name) offsetof(struct config, name)

#define INTEGER(variable, field, initial, least, most, text)                                       \
    {                                                                                              \
        .name = (variable), .kind = CONFIG_INTEGER, .fallback = (initial), .offset = FIELD(field), \
        .min = (least), .max = (most), .help = (text)                                              \
    }
#define CHOICE(variable, field, initial, words, supported, text)                                   \
    {                                                                                              \
        .name = (variable), .kind = CONFIG_CHOICE, .fallback = (initial), .offset = FIELD(field),  \
        .choices = (words), .choices_supported = (supported), .help = (text)                       \
    }
#define STORE(variable, initial, range, text)                                                      \
    {                                                                                              \
        .name = (variable), .kind = CONFIG_STORE, .fallback = (initial), .allowed = (range),       \
        .help = (text)                                                                             \
    }
#define SECRET(variable, range, text)                                                              \
    {                                                                                              \
        .name = (variable), .kind = CONFIG_SECRET, .allowed = (range), .help = (text)              \
    }

const struct config_variable config_table[] = {
    {.name = "HARVEY_DB",
     .kind = CONFIG_DATABASE,
     .fallback = "./data/state.db",
     .offset = FIELD(database_path),
     .allowed = "a file's path",
     .help = "database; <file>-harvey/ beside it holds lock, state and spool"},
    {.name = "HARVEY_LISTEN",
     .kind = CONFIG_LISTEN,
     .fallback = "127.0.0.1:8080",
     .offset = FIELD(listen),
     .allowed = "HOST:PORT, [IPV6]:PORT or unix:PATH (port 0: the kernel chooses, see the log)",
     .help = "address of the app"},
    {.name = "HARVEY_DOOR_SOCKET",
     .kind = CONFIG_SOCKET,
     .offset = FIELD(door_socket),
     .allowed = "a socket's path",
     .help = "the door that has the listening socket; HARVEY_LISTEN is not used then"},
    CHOICE("HARVEY_DOOR_CONNECTIONS", door_drain, "pass", "pass drain", 2,
           "live connections at a stop: passed on to the door, or closed after their answer"),
    STORE("HARVEY_ARCHIVE", "dir:./backup", "s3://BUCKET/PREFIX, dir:PATH or none",
          "where the backup goes; none: replication off"),
    STORE("HARVEY_S3_ENDPOINT", NULL, "http://HOST[:PORT] or https://HOST[:PORT]",
          "required with s3://"),
    SECRET("HARVEY_S3_ACCESS_KEY_ID", "text", "also AWS_ACCESS_KEY_ID"),
    STORE("HARVEY_S3_ACCESS_KEY_ID_FILE", NULL, "a file's path", "a file that holds it"),
    SECRET("HARVEY_S3_SECRET_ACCESS_KEY", "text", "also AWS_SECRET_ACCESS_KEY"),
    STORE("HARVEY_S3_SECRET_ACCESS_KEY_FILE", NULL, "a file's path", "a file that holds it"),
    STORE("HARVEY_S3_CA_FILE", NULL, "a file's path", "trust for https (default: the system's)"),
    INTEGER("HARVEY_SHIP_INTERVAL_MS", ship_interval_ms, "1000", 0, 3600000,
            "shortest time between two upload starts; 0: whenever a lane is free"),
    INTEGER("HARVEY_SNAPSHOT_INTERVAL_S", snapshot_interval_s, "86400", 1, 31536000,
            "longest time between two snapshots"),
    CHOICE("HARVEY_SYNCHRONOUS", synchronous_normal, "FULL", "FULL NORMAL", 2,
           "SQLite's meaning: FULL survives a power cut"),
    CHOICE("HARVEY_ACK", ack, "local", "local archive", 1,
           "when an insert is answered: after the local commit, or when the archive has it"),
    {.name = "HARVEY_ON_EMPTY",
     .kind = CONFIG_ON_EMPTY,
     .fallback = "refuse",
     .offset = FIELD(on_empty),
     .allowed = "refuse, restore or new:GENERATION",
     .help = "the database is missing, but the archive holds one"},
    {.name = "HARVEY_ON_STALE",
     .kind = CONFIG_ON_STALE,
     .fallback = "refuse",
     .offset = FIELD(on_stale),
     .allowed = "refuse, restore or fork:GENERATION",
     .help = "the database is not proven to continue the archive"},
    CHOICE("HARVEY_ON_OUTAGE", on_outage, "continue", "continue slow refuse", 1,
           "the store is away and the spool is full"),
    INTEGER("HARVEY_SPOOL_MAX_BYTES", spool_bytes_max, "1073741824", 1 << 20, INT64_C(1) << 50,
            "cap of the local spool"),
    INTEGER("HARVEY_STOP_TIMEOUT_MS", stop_timeout_ms, "8000", 0, 600000,
            "how long a stop may go on shipping (below Docker's 10 s)"),
    INTEGER("HARVEY_DRAIN_DELAY_MS", drain_delay_ms, "0", 0, 60000,
            "how long a stop serves on while /readyz says no: for a balancer that asks it"),
    INTEGER("HARVEY_CONNECTIONS_MAX", connections_max, "8192", 1, 1000000,
            "open HTTP connections; more are answered 503"),
    INTEGER("HARVEY_IDLE_TIMEOUT_S", idle_timeout_s, "30", 1, 86400,
            "a connection without a request is closed after that"),
    INTEGER("HARVEY_REQUEST_TIMEOUT_S", request_timeout_s, "10", 1, 86400,
            "a request must have arrived whole by then (408)"),
    CHOICE("HARVEY_UNSAFE_FS", unsafe_fs, "0", "0 1", 2,
           "1: allow a filesystem that is otherwise refused; red in the status"),
    CHOICE("HARVEY_LOG_LEVEL", log_level, "info", "error warn info debug", 4, "what is logged"),
    {.name = "HARVEY_BIN", .kind = CONFIG_TEST}, /* where the test suite finds the programs */
};

const size_t config_table_count = sizeof config_table / sizeof config_table[0];
