/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config: every variable with good, bad and edge values; messages that name variable, value and
 * range; unknown names; secrets that are never printed. The environment is an array of the test's.
 */
#include "server/config.h"

#include "tests/unit/checks.h"

#include "base/log.h"
#include "server/config_table.h"

#include <stdio.h>
#include <stdlib.h>

#define VARIABLES_MAX 8

static struct config config;
static struct err err;

/* Reads the configuration from the given strings ("NAME=value"), up to a NULL. */
static enum rc read_from(const char *first, const char *second)
{
    char *environment[VARIABLES_MAX] = {0};
    size_t count = 0;
    char path[] = "PATH=/bin"; /* others' variables are no business of ours */
    environment[count++] = path;
    environment[count++] = (char *)(uintptr_t)first;
    if (second != NULL) {
        environment[count++] = (char *)(uintptr_t)second;
    }
    err = (struct err)ERR_INIT;
    return config_read(&config, environment, &err);
}

static enum rc read_one(const char *setting)
{
    return read_from(setting, NULL);
}

/* The setting is refused, in one line that holds its name, its value and the hint. */
static void check_refused(const char *setting, const char *hint)
{
    char name[64];
    size_t name_bytes = strcspn(setting, "=");
    assert_true(name_bytes < sizeof name);
    memcpy(name, setting, name_bytes);
    name[name_bytes] = '\0';
    assert_int_equal(read_one(setting), RC_INVALID);
    if (strstr(err.text, name) == NULL || strstr(err.text, hint) == NULL) {
        fail_msg("%s: \"%s\" lacks the name or \"%s\"", setting, err.text, hint);
    }
    assert_null(strchr(err.text, '\n'));
}

static void test_config__defaults(void **state)
{
    (void)state;
    check_ok(read_one("HOME=/"));
    assert_string_equal(config.database_path, "./data/state.db");
    assert_string_equal(config.listen, "127.0.0.1:8080");
    assert_string_equal(config.store.url, "dir:./backup");
    assert_int_equal(config.ship_interval_ms, 1000);
    assert_int_equal(config.snapshot_interval_s, 86400);
    assert_int_equal(config.synchronous_normal, 0);
    assert_int_equal(config.on_empty, ON_EMPTY_REFUSE);
    assert_int_equal(config.on_stale, ON_STALE_REFUSE);
    assert_int_equal(config.spool_bytes_max, 1073741824);
    assert_int_equal(config.stop_timeout_ms, 8000);
    assert_int_equal(config.unsafe_fs, 0);
    assert_int_equal(config.log_level, LOG_LEVEL_INFO);
}

static void test_config__an_empty_value_is_no_value(void **state)
{
    (void)state;
    check_ok(read_from("HARVEY_ON_STALE=", "HARVEY_SHIP_INTERVAL_MS="));
    assert_int_equal(config.on_stale, ON_STALE_REFUSE);
    assert_int_equal(config.ship_interval_ms, 1000);
}

static void test_config__integers(void **state)
{
    (void)state;
    check_ok(read_one("HARVEY_SHIP_INTERVAL_MS=0"));
    assert_int_equal(config.ship_interval_ms, 0);
    check_ok(read_one("HARVEY_SHIP_INTERVAL_MS=3600000"));
    assert_int_equal(config.ship_interval_ms, 3600000);
    check_ok(read_one("HARVEY_SHIP_INTERVAL_MS=0100"));
    assert_int_equal(config.ship_interval_ms, 100);
    check_ok(read_one("HARVEY_SPOOL_MAX_BYTES=1125899906842624"));
    assert_true(config.spool_bytes_max == INT64_C(1) << 50);
    check_ok(read_from("HARVEY_CONNECTIONS_MAX=1", "HARVEY_IDLE_TIMEOUT_S=1"));
    assert_int_equal(config.connections_max, 1);
    check_refused("HARVEY_SHIP_INTERVAL_MS=3600001", "3600000");
    check_refused("HARVEY_SHIP_INTERVAL_MS=-1", "-1");
    check_refused("HARVEY_SHIP_INTERVAL_MS=+1", "+1");
    check_refused("HARVEY_SHIP_INTERVAL_MS= 1", "0 to");
    check_refused("HARVEY_SHIP_INTERVAL_MS=1 ", "0 to");
    check_refused("HARVEY_SHIP_INTERVAL_MS=1e3", "1e3");
    check_refused("HARVEY_SHIP_INTERVAL_MS=0x10", "0x10");
    check_refused("HARVEY_SHIP_INTERVAL_MS=1.5", "1.5");
    check_refused("HARVEY_SHIP_INTERVAL_MS=99999999999999999999", "9999");
    check_refused("HARVEY_SNAPSHOT_INTERVAL_S=0", "from 1");
    check_refused("HARVEY_SPOOL_MAX_BYTES=1", "1048576");
    check_refused("HARVEY_STOP_TIMEOUT_MS=600001", "600000");
    check_refused("HARVEY_CONNECTIONS_MAX=0", "from 1");
    check_refused("HARVEY_IDLE_TIMEOUT_S=0", "from 1");
    check_refused("HARVEY_REQUEST_TIMEOUT_S=soon", "soon");
}

/* Each integer of the table: its limits are taken, one beyond is not. */
static void test_config__every_integer_at_its_limits(void **state)
{
    (void)state;
    for (size_t i = 0; i < config_table_count; i++) {
        const struct config_variable *variable = &config_table[i];
        char setting[128];
        if (variable->kind != CONFIG_INTEGER) {
            continue;
        }
        (void)snprintf(setting, sizeof setting, "%s=%lld", variable->name,
                       (long long)variable->min);
        check_ok(read_one(setting));
        (void)snprintf(setting, sizeof setting, "%s=%lld", variable->name,
                       (long long)variable->max);
        check_ok(read_one(setting));
        (void)snprintf(setting, sizeof setting, "%s=%lld", variable->name,
                       (long long)variable->max + 1);
        check_refused(setting, "from");
        (void)snprintf(setting, sizeof setting, "%s=%lld", variable->name,
                       (long long)variable->min - 1);
        check_refused(setting, "from");
    }
}

static void test_config__choices(void **state)
{
    (void)state;
    check_ok(read_one("HARVEY_SYNCHRONOUS=NORMAL"));
    assert_int_equal(config.synchronous_normal, 1);
    check_ok(read_one("HARVEY_SYNCHRONOUS=FULL"));
    assert_int_equal(config.synchronous_normal, 0);
    check_ok(read_one("HARVEY_UNSAFE_FS=1"));
    assert_int_equal(config.unsafe_fs, 1);
    check_ok(read_one("HARVEY_LOG_LEVEL=error"));
    assert_int_equal(config.log_level, LOG_LEVEL_ERROR);
    check_ok(read_one("HARVEY_LOG_LEVEL=debug"));
    assert_int_equal(config.log_level, LOG_LEVEL_DEBUG);
    check_ok(read_from("HARVEY_ACK=local", "HARVEY_ON_OUTAGE=continue"));
    check_refused("HARVEY_SYNCHRONOUS=OFF", "FULL NORMAL");
    check_refused("HARVEY_SYNCHRONOUS=full", "FULL NORMAL");
    check_refused("HARVEY_SYNCHRONOUS=FULL ", "FULL NORMAL");
    check_refused("HARVEY_SYNCHRONOUS=FULL NORMAL", "one of");
    check_refused("HARVEY_UNSAFE_FS=yes", "0 1");
    check_refused("HARVEY_LOG_LEVEL=loud", "error warn info debug");
}

static void test_config__what_comes_later_is_said_to_come_later(void **state)
{
    (void)state;
    check_refused("HARVEY_ACK=archive", "not supported yet");
    check_refused("HARVEY_ON_OUTAGE=slow", "not supported yet");
    check_refused("HARVEY_ON_OUTAGE=refuse", "not supported yet");
    check_refused("HARVEY_ACK=maybe", "local archive");
}

static void test_config__policies(void **state)
{
    (void)state;
    check_ok(read_from("HARVEY_ON_EMPTY=restore", "HARVEY_ON_STALE=restore"));
    assert_int_equal(config.on_empty, ON_EMPTY_RESTORE);
    assert_int_equal(config.on_stale, ON_STALE_RESTORE);
    check_ok(read_from("HARVEY_ON_EMPTY=new:00000003-9f2c41d7a6b0e355",
                       "HARVEY_ON_STALE=fork:00000004-9f2c41d7a6b0e355"));
    assert_int_equal(config.on_empty, ON_EMPTY_NEW);
    assert_string_equal(config.on_empty_generation.text, "00000003-9f2c41d7a6b0e355");
    assert_int_equal(config.on_stale, ON_STALE_FORK);
    assert_string_equal(config.on_stale_generation.text, "00000004-9f2c41d7a6b0e355");
    check_refused("HARVEY_ON_EMPTY=new", "new:GENERATION");
    check_refused("HARVEY_ON_EMPTY=new:", "new:GENERATION");
    check_refused("HARVEY_ON_EMPTY=new:7", "new:7");
    check_refused("HARVEY_ON_EMPTY=fork:00000003-9f2c41d7a6b0e355", "new:GENERATION");
    check_refused("HARVEY_ON_STALE=fork:00000003-9F2C41D7A6B0E355", "fork:GENERATION");
    check_refused("HARVEY_ON_STALE=new:00000003-9f2c41d7a6b0e355", "fork:GENERATION");
    check_refused("HARVEY_ON_STALE=ignore", "refuse, restore");
}

static void test_config__listen(void **state)
{
    (void)state;
    static const char *const good[] = {"HARVEY_LISTEN=127.0.0.1:0", "HARVEY_LISTEN=[::1]:8080",
                                       "HARVEY_LISTEN=localhost:65535",
                                       "HARVEY_LISTEN=unix:/run/app.sock"};
    static const char *const bad[] = {
        "HARVEY_LISTEN=127.0.0.1",       "HARVEY_LISTEN=:8080",    "HARVEY_LISTEN=8080",
        "HARVEY_LISTEN=127.0.0.1:65536", "HARVEY_LISTEN=::1:8080", "HARVEY_LISTEN=[::1]",
        "HARVEY_LISTEN=127.0.0.1:",      "HARVEY_LISTEN=host:80x", "HARVEY_LISTEN=host:-1",
        "HARVEY_LISTEN=[]:80",           "HARVEY_LISTEN=host: 80", "HARVEY_LISTEN=everywhere",
        "HARVEY_LISTEN=host:000080",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        check_ok(read_one(good[i]));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        check_refused(bad[i], "HOST:PORT");
    }
    check_refused("HARVEY_LISTEN=unix:", "path");
    char setting[512];
    (void)snprintf(setting, sizeof setting, "HARVEY_LISTEN=unix:/%0150d", 1);
    check_refused(setting, "107");
    (void)snprintf(setting, sizeof setting, "HARVEY_LISTEN=%0300d:80", 1);
    check_refused(setting, "at most");
}

static void test_config__database(void **state)
{
    (void)state;
    check_ok(read_one("HARVEY_DB=state.db"));
    assert_string_equal(config.database_path, "state.db");
    check_ok(read_one("HARVEY_DB=/srv/app data/state.db"));
    check_refused("HARVEY_DB=file:state.db?immutable=1", "URI");
    check_refused("HARVEY_DB=:memory:", "file's path");
    check_refused("HARVEY_DB=data/", "file's path");
    char *setting = malloc(6000);
    assert_non_null(setting);
    (void)snprintf(setting, 6000, "HARVEY_DB=/%05000d", 1);
    check_refused(setting, "at most");
    free(setting);
}

static void test_config__unknown_names_are_refused_with_a_guess(void **state)
{
    (void)state;
    check_refused("HARVEY_SHIP_INTERVAL=1", "HARVEY_SHIP_INTERVAL_MS");
    check_refused("HARVEY_SYNCRONOUS=FULL", "HARVEY_SYNCHRONOUS");
    check_refused("HARVEY_=1", "no such variable");
    check_refused("HARVEY_NOTHING_OF_THE_KIND_AT_ALL=", "--help");
    check_refused("HARVEY_X", "no such variable"); /* no '=' at all */
    check_ok(read_one("HARVEYS_OWN=1"));
    check_ok(read_one("NOT_HARVEY_X=1"));
    check_ok(read_one("HARVEY_BIN=bin")); /* the tests' */
}

static void test_config__store_errors_come_through(void **state)
{
    (void)state;
    check_refused("HARVEY_ARCHIVE=ftp://host/dir", "ftp");
    assert_int_equal(read_one("HARVEY_ARCHIVE=s3://bucket/prefix"), RC_INVALID);
    assert_non_null(strstr(err.text, "HARVEY_S3_ENDPOINT"));
}

static void test_config__prints_all_and_no_secret(void **state)
{
    (void)state;
    char *environment[] = {(char *)(uintptr_t) "HARVEY_ARCHIVE=s3://bucket/prefix",
                           (char *)(uintptr_t) "HARVEY_S3_ENDPOINT=http://127.0.0.1:9000",
                           (char *)(uintptr_t) "HARVEY_S3_ACCESS_KEY_ID=the-key",
                           (char *)(uintptr_t) "HARVEY_S3_SECRET_ACCESS_KEY=hush-hush",
                           (char *)(uintptr_t) "HARVEY_ON_STALE=fork:00000004-9f2c41d7a6b0e355",
                           (char *)(uintptr_t) "HARVEY_ON_EMPTY=restore",
                           NULL};
    check_ok(config_read(&config, environment, &err));
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    config_print(&config, out);
    config_print_help(out);
    assert_int_equal(fclose(out), 0);
    static const char *const lines[] = {
        "HARVEY_DB=./data/state.db\n",
        "HARVEY_ARCHIVE=s3://bucket/prefix\n",
        "HARVEY_S3_ENDPOINT=http://127.0.0.1:9000\n",
        "HARVEY_S3_SECRET_ACCESS_KEY=********\n",
        "HARVEY_ON_STALE=fork:00000004-9f2c41d7a6b0e355\n",
        "HARVEY_ON_EMPTY=restore\n",
        "HARVEY_SYNCHRONOUS=FULL\n",
        "HARVEY_LOG_LEVEL=info\n",
        "HARVEY_STOP_TIMEOUT_MS=8000\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (strstr(text, lines[i]) == NULL) {
            fail_msg("not printed: %s", lines[i]);
        }
    }
    assert_null(strstr(text, "hush-hush"));
    assert_null(strstr(text, "the-key"));
    free(text);
}

static void test_config__database_alone_for_health(void **state)
{
    (void)state;
    char *environment[] = {(char *)(uintptr_t) "HARVEY_DB=/data/x.db",
                           (char *)(uintptr_t) "HARVEY_SYNCHRONOUS=nonsense", NULL};
    check_ok(config_read_database(&config, environment, &err));
    assert_string_equal(config.database_path, "/data/x.db");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config__defaults),
        cmocka_unit_test(test_config__an_empty_value_is_no_value),
        cmocka_unit_test(test_config__integers),
        cmocka_unit_test(test_config__every_integer_at_its_limits),
        cmocka_unit_test(test_config__choices),
        cmocka_unit_test(test_config__what_comes_later_is_said_to_come_later),
        cmocka_unit_test(test_config__policies),
        cmocka_unit_test(test_config__listen),
        cmocka_unit_test(test_config__database),
        cmocka_unit_test(test_config__unknown_names_are_refused_with_a_guess),
        cmocka_unit_test(test_config__store_errors_come_through),
        cmocka_unit_test(test_config__prints_all_and_no_secret),
        cmocka_unit_test(test_config__database_alone_for_health),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
