/* SPDX-License-Identifier: Apache-2.0 */
/* options: see options.h. The surface is a contract: scripts depend on it. */
#include "restorer/options.h"

#include "base/clk.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_DB_DEFAULT "./data/state.db"

const char options_help_text[] =
    "restore: rebuilds the database from the archive\n"
    "\n"
    "usage: restore (--to-latest | --to-time TIME | --to-position GENERATION/WAL/FRAME) "
    "[OPTION]...\n"
    "       restore --list [--generation ID] [--json]\n"
    "\n"
    "Where to:\n"
    "      --to-latest          the newest state that the archive holds\n"
    "      --to-time TIME       the last commit at or before it: 2026-11-24T18:00:00Z (RFC 3339)\n"
    "      --to-position P      exactly that commit: 00000003-9f2c41d7a6b0e355/3/164\n"
    "      --generation ID      of that history, where more than one qualifies\n"
    "\n"
    "Options:\n"
    "  -o, --output FILE        the database to make (default: $HARVEY_DB, else ./data/state.db)\n"
    "      --replace            move a database that is there aside first, and say where\n"
    "      --integrity KIND     full (default), quick or none: SQLite's check of the result; "
    "hashes\n"
    "                           and checksums of the archive are always checked\n"
    "      --jobs N             so many objects at a time, 1 to 32\n"
    "      --list               what the archive holds: generations, snapshots, ranges, holes, "
    "forks\n"
    "      --dry-run            only say what would be read, and where it would end\n"
    "      --json               one JSON object on stdout\n"
    "      --quiet              no progress, no summary\n"
    "      --help, --version\n"
    "\n"
    "The archive is HARVEY_ARCHIVE (default dir:./backup), with HARVEY_S3_* as for the server.\n"
    "An existing database is never overwritten.\n"
    "\n"
    "exit status: 0 restored and verified, 1 internal error, 2 usage or configuration, 3 nothing "
    "to\n"
    "restore, 4 the target cannot be reached (gap, damage, a choice is needed), 5 the target "
    "exists or\n"
    "is in use, 6 store unreachable or credentials refused, 7 local I/O error\n";

enum options_code {
    OPTIONS_TO_LATEST = 256,
    OPTIONS_TO_TIME,
    OPTIONS_TO_POSITION,
    OPTIONS_GENERATION,
    OPTIONS_REPLACE,
    OPTIONS_INTEGRITY,
    OPTIONS_JOBS,
    OPTIONS_LIST_ARCHIVE,
    OPTIONS_DRY_RUN,
    OPTIONS_JSON,
    OPTIONS_QUIET,
    OPTIONS_SHOW_HELP,
    OPTIONS_SHOW_VERSION,
};

static const struct option options_table[] = {
    {"to-latest", no_argument, NULL, OPTIONS_TO_LATEST},
    {"to-time", required_argument, NULL, OPTIONS_TO_TIME},
    {"to-position", required_argument, NULL, OPTIONS_TO_POSITION},
    {"generation", required_argument, NULL, OPTIONS_GENERATION},
    {"output", required_argument, NULL, 'o'},
    {"replace", no_argument, NULL, OPTIONS_REPLACE},
    {"integrity", required_argument, NULL, OPTIONS_INTEGRITY},
    {"jobs", required_argument, NULL, OPTIONS_JOBS},
    {"list", no_argument, NULL, OPTIONS_LIST_ARCHIVE},
    {"dry-run", no_argument, NULL, OPTIONS_DRY_RUN},
    {"json", no_argument, NULL, OPTIONS_JSON},
    {"quiet", no_argument, NULL, OPTIONS_QUIET},
    {"help", no_argument, NULL, OPTIONS_SHOW_HELP},
    {"version", no_argument, NULL, OPTIONS_SHOW_VERSION},
    {NULL, 0, NULL, 0},
};

/*
 * The server's table (server/config_table.c) besides what the archive needs; test_options compares.
 */
static const char *const options_server_names[] = {
    "HARVEY_DB",
    "HARVEY_LISTEN",
    "HARVEY_DOOR_SOCKET",
    "HARVEY_DOOR_CONNECTIONS",
    "HARVEY_SHIP_INTERVAL_MS",
    "HARVEY_SNAPSHOT_INTERVAL_S",
    "HARVEY_SYNCHRONOUS",
    "HARVEY_ACK",
    "HARVEY_ON_EMPTY",
    "HARVEY_ON_STALE",
    "HARVEY_ON_OUTAGE",
    "HARVEY_SPOOL_MAX_BYTES",
    "HARVEY_STOP_TIMEOUT_MS",
    "HARVEY_DRAIN_DELAY_MS",
    "HARVEY_CONNECTIONS_MAX",
    "HARVEY_IDLE_TIMEOUT_S",
    "HARVEY_REQUEST_TIMEOUT_S",
    "HARVEY_UNSAFE_FS",
    "HARVEY_LOG_LEVEL",
    "HARVEY_BIN",
    NULL,
};

struct options_state {
    int target_count;
    bool has_position;
    struct generation_id position_generation;
};

static bool options_is_in(const char *const *names, const char *name, size_t name_bytes)
{
    for (size_t i = 0; names[i] != NULL; i++) {
        if (strlen(names[i]) == name_bytes && strncmp(names[i], name, name_bytes) == 0) {
            return true;
        }
    }
    return false;
}

static enum rc options_check_environment(char *const *environment, struct err *err)
{
    for (size_t i = 0; environment[i] != NULL; i++) {
        const char *name = environment[i];
        size_t name_bytes = strcspn(name, "=");
        if (strncmp(name, "HARVEY_", strlen("HARVEY_")) != 0) {
            continue;
        }
#ifdef HARVEY_TEST_HOOKS
        if (strncmp(name, "HARVEY_TEST_", strlen("HARVEY_TEST_")) == 0) {
            continue;
        }
#endif
        if (!options_is_in(options_server_names, name, name_bytes) &&
            !options_is_in(store_config_names, name, name_bytes)) {
            return err_set(err, RC_INVALID,
                           "%.*s: no such variable; unset it, or see docs/configuration.md",
                           (int)(name_bytes < 100 ? name_bytes : 100), name);
        }
    }
    return RC_OK;
}

static enum rc options_read_integrity(const char *text, enum restore_integrity *integrity,
                                      struct err *err)
{
    if (strcmp(text, "full") == 0) {
        *integrity = RESTORE_INTEGRITY_FULL;
    } else if (strcmp(text, "quick") == 0) {
        *integrity = RESTORE_INTEGRITY_QUICK;
    } else if (strcmp(text, "none") == 0) {
        *integrity = RESTORE_INTEGRITY_NONE;
    } else {
        return err_set(err, RC_INVALID, "--integrity %.40s: allowed are full, quick, none", text);
    }
    return RC_OK;
}

static enum rc options_read_jobs(const char *text, int *jobs, struct err *err)
{
    char *end = NULL;
    long value = strtol(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || value < 1 || value > RESTORE_JOBS_MAX) {
        return err_set(err, RC_INVALID, "--jobs %.40s: allowed are 1 to %d", text,
                       RESTORE_JOBS_MAX);
    }
    *jobs = (int)value;
    return RC_OK;
}

static enum rc options_read_generation(const char *text, struct generation_id *id, struct err *err)
{
    if (!generation_id_parse(text, id, NULL)) {
        return err_set(err, RC_INVALID,
                       "--generation %.60s: an id looks like 00000003-9f2c41d7a6b0e355 "
                       "(restore --list)",
                       text);
    }
    return RC_OK;
}

static enum rc options_read_target(int code, struct options *options, struct options_state *state,
                                   struct err *err)
{
    struct restore_request *request = &options->request;
    enum rc rc = RC_OK;
    state->target_count++;
    if (code == OPTIONS_TO_TIME) {
        request->target = RESTORE_TO_TIME;
        rc = clk_parse_rfc3339(optarg, &request->target_unix_ms, err);
    } else if (code == OPTIONS_TO_POSITION) {
        request->target = RESTORE_TO_POSITION;
        state->has_position = true;
        rc = position_parse(optarg, &state->position_generation, &request->target_position, err);
    } else {
        request->target = RESTORE_TO_LATEST;
    }
    return rc == RC_OK ? RC_OK
                       : err_prefix(err, "reading %s",
                                    code == OPTIONS_TO_TIME ? "--to-time" : "--to-position");
}

static enum rc options_read_one(int code, struct options *options, struct options_state *state,
                                struct err *err)
{
    switch (code) {
    case OPTIONS_TO_LATEST:
    case OPTIONS_TO_TIME:
    case OPTIONS_TO_POSITION:
        return options_read_target(code, options, state, err);
    case OPTIONS_GENERATION:
        return options_read_generation(optarg, &options->request.generation, err);
    case 'o':
        options->request.output_path = optarg;
        return optarg[0] != '\0' ? RC_OK : err_set(err, RC_INVALID, "-o needs the name of a file");
    case OPTIONS_REPLACE:
        options->request.replace = true;
        return RC_OK;
    case OPTIONS_INTEGRITY:
        return options_read_integrity(optarg, &options->request.integrity, err);
    case OPTIONS_JOBS:
        return options_read_jobs(optarg, &options->request.jobs, err);
    case OPTIONS_LIST_ARCHIVE:
        options->action = OPTIONS_LIST;
        return RC_OK;
    case OPTIONS_DRY_RUN:
        options->request.dry_run = true;
        return RC_OK;
    case OPTIONS_JSON:
        options->json = true;
        return RC_OK;
    case OPTIONS_QUIET:
        options->quiet = true;
        return RC_OK;
    default:
        return err_set(err, RC_INTERNAL, "an option without a reader: %d", code);
    }
}

static enum rc options_check_whole(struct options *options, const struct options_state *state,
                                   struct err *err)
{
    struct restore_request *request = &options->request;
    if (options->action == OPTIONS_LIST && state->target_count > 0) {
        return err_set(err, RC_INVALID,
                       "--list shows, --to-… restores: one of them (--dry-run shows a restore)");
    }
    if (options->action == OPTIONS_LIST) {
        return RC_OK;
    }
    if (state->target_count != 1) {
        return err_set(err, RC_INVALID,
                       "say once where to: --to-latest, --to-time TIME or --to-position "
                       "GENERATION/WAL/FRAME (restore --help)");
    }
    if (state->has_position && !generation_id_is_none(&request->generation) &&
        !generation_id_equal(&request->generation, &state->position_generation)) {
        return err_set(err, RC_INVALID, "--generation and --to-position name two generations");
    }
    if (state->has_position) {
        request->generation = state->position_generation;
    }
    return RC_OK;
}

/* The command line alone; help and version end the reading. */
static enum rc options_read_arguments(int argc, char **argv, struct options *options,
                                      struct err *err)
{
    struct options_state state = {.target_count = 0};
    opterr = 0;
    optind = 0; /* glibc: begin anew */
    for (;;) {
        int last = optind > 0 ? optind : 1;
        int code = getopt_long(argc, argv, ":o:", options_table, NULL);
        if (code == -1) {
            break;
        }
        if (code == '?' || code == ':') {
            const char *shown = last < argc ? argv[last] : "";
            return err_set(err, RC_INVALID,
                           code == '?' ? "%.60s: no such option, or not with that value (restore "
                                         "--help)"
                                       : "%.60s needs a value (restore --help)",
                           shown);
        }
        if (code == OPTIONS_SHOW_HELP || code == OPTIONS_SHOW_VERSION) {
            options->action = code == OPTIONS_SHOW_HELP ? OPTIONS_HELP : OPTIONS_VERSION;
            return RC_OK;
        }
        enum rc rc = options_read_one(code, options, &state, err);
        if (rc != RC_OK) {
            return rc;
        }
    }
    if (optind < argc) {
        return err_set(err, RC_INVALID, "%.60s: only options are expected (restore --help)",
                       argv[optind]);
    }
    return options_check_whole(options, &state, err);
}

/* So that even a wrong command line is answered in the form that was asked for. */
static bool options_wants_json(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            return true;
        }
    }
    return false;
}

/* A restore's file: what -o says, else the server's variable. As with the server, a folder is none. */
static enum rc options_set_output(struct restore_request *request, store_config_lookup_fn *lookup,
                                  struct err *err)
{
    if (request->output_path == NULL) {
        const char *database = lookup("HARVEY_DB");
        bool is_set = database != NULL && database[0] != '\0'; /* an empty value is no value */
        request->output_path = is_set ? database : OPTIONS_DB_DEFAULT;
    }
    if (request->output_path[strlen(request->output_path) - 1] == '/') {
        return err_set(err, RC_INVALID,
                       "%.200s is the name of a folder: -o (or HARVEY_DB) needs the name of a file",
                       request->output_path);
    }
    return RC_OK;
}

enum rc options_read(int argc, char **argv, char *const *environment,
                     store_config_lookup_fn *lookup, struct options *options, struct err *err)
{
    memset(options, 0, sizeof *options);
    options->json = options_wants_json(argc, argv);
    enum rc rc = options_read_arguments(argc, argv, options, err);
    if (rc != RC_OK || options->action == OPTIONS_HELP || options->action == OPTIONS_VERSION) {
        return rc;
    }
    rc = options_check_environment(environment, err);
    if (rc == RC_OK) {
        rc = store_config_read(&options->store, lookup, err);
    }
    if (rc == RC_OK && options->action == OPTIONS_RESTORE) {
        rc = options_set_output(&options->request, lookup, err);
    }
    if (rc == RC_IO || rc == RC_DENIED || rc == RC_NOT_FOUND) { /* a secret's file */
        rc = RC_INVALID;
        err->rc = rc;
    }
    return rc;
}
