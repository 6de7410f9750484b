/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options: bin/restore's command line and environment: what is accepted, and that every refusal
 * names the option or variable, the value and the cure.
 */
#include "restorer/options.h"

#include "server/config_table.h"
#include "tests/unit/checks.h"

#include <stdio.h>
#include <stdlib.h>

#define ARGS_MAX 12
#define ID "00000003-9f2c41d7a6b0e355"

static struct err err;
static char *const *environment;

static const char *lookup(const char *name)
{
    size_t count = strlen(name);
    for (size_t i = 0; environment[i] != NULL; i++) {
        if (strncmp(environment[i], name, count) == 0 && environment[i][count] == '=') {
            return environment[i] + count + 1;
        }
    }
    return NULL;
}

static enum rc read_with(char *const *variables, const char *const *words, struct options *options)
{
    static char copies[ARGS_MAX][128];
    char *argv[ARGS_MAX + 2] = {NULL};
    int argc = 1;
    char program[] = "restore";
    argv[0] = program;
    for (; words[argc - 1] != NULL; argc++) {
        strcpy(copies[argc], words[argc - 1]);
        argv[argc] = copies[argc];
    }
    environment = variables;
    err = (struct err)ERR_INIT;
    return options_read(argc, argv, variables, lookup, options, &err);
}

#define WORDS(...)                                                                                 \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

static char *const no_variables[] = {NULL};

static void test_options__targets(void **state)
{
    (void)state;
    struct options options;
    check_ok(read_with(no_variables, WORDS("--to-latest"), &options));
    assert_int_equal(options.action, OPTIONS_RESTORE);
    assert_int_equal(options.request.target, RESTORE_TO_LATEST);
    assert_string_equal(options.request.output_path, "./data/state.db");
    assert_string_equal(options.store.url, "dir:./backup");
    assert_int_equal(options.request.integrity, RESTORE_INTEGRITY_FULL);

    check_ok(read_with(no_variables, WORDS("--to-time", "1970-01-01T00:00:01.5Z"), &options));
    assert_int_equal(options.request.target, RESTORE_TO_TIME);
    assert_int_equal(options.request.target_unix_ms, 1500);

    check_ok(
        read_with(no_variables, WORDS("--to-position=" ID "/3/164", "--generation", ID), &options));
    assert_int_equal(options.request.target, RESTORE_TO_POSITION);
    assert_int_equal(options.request.target_position.wal_no, 3);
    assert_int_equal(options.request.target_position.frame_no, 164);
    assert_string_equal(options.request.generation.text, ID);
}

static void test_options__everything_else(void **state)
{
    (void)state;
    struct options options;
    check_ok(read_with(no_variables,
                       WORDS("--to-latest", "-o", "x.db", "--replace", "--integrity", "quick",
                             "--jobs", "32", "--dry-run", "--json", "--quiet"),
                       &options));
    assert_string_equal(options.request.output_path, "x.db");
    assert_true(options.request.replace && options.request.dry_run);
    assert_true(options.json && options.quiet);
    assert_int_equal(options.request.integrity, RESTORE_INTEGRITY_QUICK);
    assert_int_equal(options.request.jobs, 32);
    check_ok(read_with(no_variables, WORDS("--list", "--generation", ID), &options));
    assert_int_equal(options.action, OPTIONS_LIST);
    check_ok(read_with(no_variables, WORDS("--help"), &options));
    assert_int_equal(options.action, OPTIONS_HELP);
    check_ok(read_with(no_variables, WORDS("--version"), &options));
    assert_int_equal(options.action, OPTIONS_VERSION);
}

static void test_options__refusals(void **state)
{
    (void)state;
    static const struct {
        const char *words[5];
        const char *part;
    } cases[] = {
        {{NULL}, "--to-latest"},
        {{"--to-latest", "--to-latest"}, "once"},
        {{"--to-latest", "--to-time", "2026-01-01T00:00:00Z"}, "once"},
        {{"--to-time"}, "--to-time needs a value"},
        {{"--to-time", "noon"}, "noon"},
        {{"--to-position", "1/2"}, "1/2"},
        {{"--to-position", ID "/1"}, "GENERATION"},
        {{"--to-latest", "--jobs", "0"}, "1 to 32"},
        {{"--to-latest", "--jobs", "33"}, "1 to 32"},
        {{"--to-latest", "--jobs", "3x"}, "3x"},
        {{"--to-latest", "--jobs", "-3"}, "1 to 32"},
        {{"--to-latest", "--integrity", "some"}, "full, quick, none"},
        {{"--to-latest", "--generation", "seven"}, "seven"},
        {{"--to-position", ID "/1/1", "--generation", "00000004-9f2c41d7a6b0e355"}, "two"},
        {{"--to-latest", "surplus"}, "surplus"},
        {{"--frobnicate"}, "--frobnicate"},
        {{"-x"}, "-x"},
        {{"--to-latest", "-o", ""}, "-o"},
        {{"--to-latest", "-o", "missing/"}, "missing/"},
        {{"--to-latest", "-o", "/"}, "/"},
        {{"--list", "--to-latest"}, "--list"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct options options;
        check_fails(RC_INVALID, read_with(no_variables, cases[i].words, &options));
        check_text(cases[i].part);
        assert_null(strchr(err.text, '\n'));
    }
}

static void test_options__environment(void **state)
{
    (void)state;
    struct options options;
    char db[] = "HARVEY_DB=/d/s.db";
    char db_folder[] = "HARVEY_DB=/d/";
    char archive[] = "HARVEY_ARCHIVE=dir:/a";
    char server[] = "HARVEY_SHIP_INTERVAL_MS=nonsense of the server's";
    char other[] = "HARVEYISH=1";
    char unknown[] = "HARVEY_ARCHIV=dir:/a";
    char bad[] = "HARVEY_ARCHIVE=ftp://x";
    char *const good[] = {db, archive, server, other, NULL};
    check_ok(read_with(good, WORDS("--to-latest"), &options));
    assert_string_equal(options.request.output_path, "/d/s.db");
    assert_string_equal(options.store.url, "dir:/a");
    check_ok(read_with(good, WORDS("--to-latest", "-o", "mine.db"), &options));
    assert_string_equal(options.request.output_path, "mine.db");
    char *const misspelt[] = {db, unknown, NULL};
    check_fails(RC_INVALID, read_with(misspelt, WORDS("--to-latest"), &options));
    check_text("HARVEY_ARCHIV:");
    check_ok(read_with(misspelt, WORDS("--help"), &options)); /* help is always given */
    char *const folder[] = {db_folder, NULL};
    check_fails(RC_INVALID, read_with(folder, WORDS("--to-latest"), &options));
    check_text("/d/");
    check_ok(read_with(folder, WORDS("--to-latest", "-o", "mine.db"), &options));
    check_ok(read_with(folder, WORDS("--list"), &options)); /* writes nowhere */
    char *const wrong[] = {bad, NULL};
    check_fails(RC_INVALID, read_with(wrong, WORDS("--to-latest", "--json"), &options));
    check_text("ftp://x");
    assert_true(options.json);
}

/* restore runs in the server's environment: whatever the server knows is no error here. */
static void test_options__every_variable_of_the_server(void **state)
{
    (void)state;
    for (size_t i = 0; i < config_table_count; i++) {
        struct options options;
        char variable[128];
        (void)snprintf(variable, sizeof variable, "%s=", config_table[i].name);
        char *const variables[] = {variable, NULL};
        check_ok(read_with(variables, WORDS("--to-latest"), &options));
        assert_string_equal(options.request.output_path, "./data/state.db"); /* "" = not set */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options__targets),
        cmocka_unit_test(test_options__everything_else),
        cmocka_unit_test(test_options__refusals),
        cmocka_unit_test(test_options__environment),
        cmocka_unit_test(test_options__every_variable_of_the_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
