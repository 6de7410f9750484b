/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_config: every form of HARVEY_ARCHIVE and HARVEY_S3_*, the order in which credentials are
 * looked for, and that no message shows a secret.
 */
#include "archive/store_config.h"

#include "base/fsio.h"

#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <stdio.h>
#include <stdlib.h>

#define SECRET "s3cr3t/never+shown="
#define VARIABLES_MAX 16

/* The environment of the running test: name, value, name, value … */
static const char *variables[2 * VARIABLES_MAX];

static const char *lookup(const char *name)
{
    for (size_t i = 0; i < VARIABLES_MAX; i++) {
        if (variables[2 * i] != NULL && strcmp(variables[2 * i], name) == 0) {
            return variables[2 * i + 1];
        }
    }
    return NULL;
}

static void clear(void)
{
    memset(variables, 0, sizeof variables);
}

static void set(const char *name, const char *value)
{
    size_t free_index = VARIABLES_MAX;
    for (size_t i = VARIABLES_MAX; i > 0; i--) {
        const char *there = variables[2 * (i - 1)];
        if (there == NULL || strcmp(there, name) == 0) {
            free_index = i - 1;
        }
        if (there != NULL && strcmp(there, name) == 0) {
            break;
        }
    }
    assert_true(free_index < VARIABLES_MAX);
    variables[2 * free_index] = name;
    variables[2 * free_index + 1] = value;
}

static void set_bucket(void)
{
    clear();
    set("HARVEY_ARCHIVE", "s3://harvey/demo");
    set("HARVEY_S3_ENDPOINT", "http://minio:9000");
    set("HARVEY_S3_ACCESS_KEY_ID", "key");
    set("HARVEY_S3_SECRET_ACCESS_KEY", SECRET);
}

static void test_store_config__default_is_a_directory(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct store_config config;
    clear();
    check_ok(store_config_read(&config, lookup, &err));
    assert_false(config.off);
    assert_false(config.is_s3);
    assert_string_equal(config.dir, "./backup");
    assert_string_equal(config.url, "dir:./backup");
    set("HARVEY_ARCHIVE", ""); /* empty is not set */
    check_ok(store_config_read(&config, lookup, &err));
    assert_string_equal(config.dir, "./backup");
    set("HARVEY_ARCHIVE", "dir:/var/backups/harvey//");
    check_ok(store_config_read(&config, lookup, &err));
    assert_string_equal(config.dir, "/var/backups/harvey");
    set("HARVEY_ARCHIVE", "dir:/");
    check_ok(store_config_read(&config, lookup, &err));
    assert_string_equal(config.dir, "/");
    set("HARVEY_ARCHIVE", "none");
    check_ok(store_config_read(&config, lookup, &err));
    assert_true(config.off);
}

static void test_store_config__bucket(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct store_config config;
    set_bucket();
    check_ok(store_config_read(&config, lookup, &err));
    assert_true(config.is_s3);
    assert_string_equal(config.bucket, "harvey");
    assert_string_equal(config.prefix, "demo");
    assert_string_equal(config.endpoint, "http://minio:9000");
    assert_string_equal(config.access_key_id, "key");
    assert_string_equal(config.secret_access_key, SECRET);
    assert_string_equal(config.ca_file, "");
    static const char *const forms[][2] = {
        {"s3://harvey", ""},          {"s3://harvey/", ""},
        {"s3://harvey//a/b/", "a/b"}, {"s3://harvey/A-1._x", "A-1._x"},
        {"s3://harvey/a///", "a"},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        set("HARVEY_ARCHIVE", forms[i][0]);
        check_ok(store_config_read(&config, lookup, &err));
        assert_string_equal(config.prefix, forms[i][1]);
    }
}

static void test_store_config__refuses_archives(void **state)
{
    static const char *const bad[] = {
        "backup",
        "dir:",
        "dir:/a\xff",
        "dir:/caf\xe9",
        "s3://",
        "s3:///x",
        "s3://ab",
        "s3://Harvey",
        "s3://-abc",
        "s3://abc-",
        "s3://a..b",
        "s3://abc.",
        "s3://harvey/a b",
        "s3://harvey/a//b",
        "s3://harvey/..",
        "s3://harvey/.x",
        "s3://harvey/a%20",
        "http://minio",
        "None",
    };
    char longest[700];
    struct err err = ERR_INIT;
    struct store_config config;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        set_bucket();
        set("HARVEY_ARCHIVE", bad[i]);
        if (store_config_read(&config, lookup, &err) != RC_INVALID) {
            fail_msg("%s was taken", bad[i]);
        }
        check_text("HARVEY_ARCHIVE='");
        check_text(bad[i]);
    }
    memset(longest, 'x', sizeof longest);
    memcpy(longest, "dir:/", 5);
    longest[sizeof longest - 1] = '\0';
    set("HARVEY_ARCHIVE", longest);
    check_fails(RC_INVALID, store_config_read(&config, lookup, &err));
}

static void test_store_config__endpoints(void **state)
{
    static const char *const good[] = {
        "http://127.0.0.1:9000", "https://s3.example.com", "http://[::1]:9000",
        "http://minio/",         "https://HOST_1:65535",
    };
    static const char *const bad[] = {
        "minio:9000",       "ftp://minio",
        "http://",          "https:///",
        "http://minio:0",   "http://minio:65536",
        "http://minio:",    "http://minio:9000/path",
        "http://u:p@minio", "http://mi nio",
        "http://[::1",      "http://minio?x",
        "http://:9000",     "http://minio:90000000000000000000",
    };
    struct err err = ERR_INIT;
    struct store_config config;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        set_bucket();
        set("HARVEY_S3_ENDPOINT", good[i]);
        check_ok(store_config_read(&config, lookup, &err));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        set_bucket();
        set("HARVEY_S3_ENDPOINT", bad[i]);
        if (store_config_read(&config, lookup, &err) != RC_INVALID) {
            fail_msg("%s was taken", bad[i]);
        }
        check_text("HARVEY_S3_ENDPOINT='");
    }
    set("HARVEY_S3_ENDPOINT", NULL);
    check_fails(RC_INVALID, store_config_read(&config, lookup, &err));
    check_text("HARVEY_S3_ENDPOINT is not set");
}

static void test_store_config__where_credentials_come_from(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct store_config config;
    set_bucket();
    set("AWS_ACCESS_KEY_ID", "aws-key");
    set("AWS_SECRET_ACCESS_KEY", "aws-secret");
    check_ok(store_config_read(&config, lookup, &err));
    assert_string_equal(config.access_key_id, "key");
    set("HARVEY_S3_ACCESS_KEY_ID", NULL); /* half of each would be somebody's else */
    check_fails(RC_INVALID, store_config_read(&config, lookup, &err));
    check_text("HARVEY_S3_ACCESS_KEY_ID");
    set("HARVEY_S3_SECRET_ACCESS_KEY", NULL);
    check_ok(store_config_read(&config, lookup, &err));
    assert_string_equal(config.access_key_id, "aws-key");
    assert_string_equal(config.secret_access_key, "aws-secret");
    set("AWS_SECRET_ACCESS_KEY", NULL);
    check_fails(RC_INVALID, store_config_read(&config, lookup, &err));
    check_text("AWS_SECRET_ACCESS_KEY");
    set("AWS_ACCESS_KEY_ID", NULL);
    check_fails(RC_INVALID, store_config_read(&config, lookup, &err));
    check_text("are not set");
}

static void write_file(const char *path, const char *text)
{
    struct err err = ERR_INIT;
    check_ok(fsio_replace_file(path, text, strlen(text), false, &err));
}

static void test_store_config__secret_files(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct store_config config;
    struct scratch scratch;
    scratch_init(&scratch);
    const char *path = scratch_path(&scratch, "secret");
    set_bucket();
    set("HARVEY_S3_SECRET_ACCESS_KEY_FILE", path);
    check_fails(RC_INVALID, store_config_read(&config, lookup, &err));
    check_text("both set");
    set("HARVEY_S3_SECRET_ACCESS_KEY", NULL);
    check_fails(RC_NOT_FOUND, store_config_read(&config, lookup, &err));
    check_text("HARVEY_S3_SECRET_ACCESS_KEY_FILE");
    write_file(path, SECRET "\r\n");
    check_ok(store_config_read(&config, lookup, &err));
    assert_string_equal(config.secret_access_key, SECRET);
    write_file(path, "\n");
    check_fails(RC_INVALID, store_config_read(&config, lookup, &err));
    write_file(path, SECRET "\n" SECRET);
    check_fails(RC_INVALID, store_config_read(&config, lookup, &err));
    assert_null(strstr(err.text, SECRET));
    char large[5000];
    memset(large, 'x', sizeof large);
    large[sizeof large - 1] = '\0';
    write_file(path, large);
    check_fails(RC_INVALID, store_config_read(&config, lookup, &err));
    scratch_deinit(&scratch);
}

static void test_store_config__renews_what_came_from_files(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct store_config config;
    struct scratch scratch;
    scratch_init(&scratch);
    set_bucket();
    set("HARVEY_S3_ACCESS_KEY_ID", NULL);
    set("HARVEY_S3_SECRET_ACCESS_KEY", NULL);
    set("HARVEY_S3_ACCESS_KEY_ID_FILE", scratch_path(&scratch, "key"));
    set("HARVEY_S3_SECRET_ACCESS_KEY_FILE", scratch_path(&scratch, "secret"));
    write_file(scratch_path(&scratch, "key"), "old-key");
    write_file(scratch_path(&scratch, "secret"), "old-secret");
    check_ok(store_config_read(&config, lookup, &err));
    write_file(scratch_path(&scratch, "key"), "new-key\n");
    write_file(scratch_path(&scratch, "secret"), "\n"); /* half written: both stay */
    check_fails(RC_INVALID, store_config_renew_credentials(&config, &err));
    assert_string_equal(config.access_key_id, "old-key");
    assert_string_equal(config.secret_access_key, "old-secret");
    write_file(scratch_path(&scratch, "secret"), "new-secret\n");
    check_ok(store_config_renew_credentials(&config, &err));
    assert_string_equal(config.access_key_id, "new-key");
    assert_string_equal(config.secret_access_key, "new-secret");

    set_bucket(); /* from variables: nothing to read again */
    check_ok(store_config_read(&config, lookup, &err));
    check_ok(store_config_renew_credentials(&config, &err));
    assert_string_equal(config.secret_access_key, SECRET);
    scratch_deinit(&scratch);
}

static void test_store_config__shows_no_secret(void **state)
{
    static const char *const bad[] = {SECRET " ", "line\n" SECRET, "\xc3\xa4" SECRET};
    struct err err = ERR_INIT;
    struct store_config config;
    char longest[STORE_SECRET_BYTES + 1];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        set_bucket();
        set("HARVEY_S3_SECRET_ACCESS_KEY", bad[i]);
        check_fails(RC_INVALID, store_config_read(&config, lookup, &err));
        assert_null(strstr(err.text, "s3cr3t"));
        check_text("HARVEY_S3_SECRET_ACCESS_KEY");
    }
    memset(longest, 'x', sizeof longest);
    longest[STORE_SECRET_BYTES] = '\0';
    set("HARVEY_S3_SECRET_ACCESS_KEY", longest);
    check_fails(RC_INVALID, store_config_read(&config, lookup, &err));
    longest[STORE_SECRET_BYTES - 1] = '\0';
    check_ok(store_config_read(&config, lookup, &err));
}

static void test_store_config__ca_file(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct store_config config;
    struct scratch scratch;
    scratch_init(&scratch);
    set_bucket();
    set("HARVEY_S3_CA_FILE", scratch_path(&scratch, "ca.pem"));
    check_fails(RC_INVALID, store_config_read(&config, lookup, &err));
    check_text("HARVEY_S3_CA_FILE='");
    write_file(scratch_path(&scratch, "ca.pem"), "certificates");
    check_ok(store_config_read(&config, lookup, &err));
    assert_string_equal(config.ca_file, scratch_path(&scratch, "ca.pem"));
    set("HARVEY_S3_CA_FILE", scratch.dir);
    check_fails(RC_INVALID, store_config_read(&config, lookup, &err));
    scratch_deinit(&scratch);
}

static void test_store_config__bucket_settings_mean_nothing_elsewhere(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct store_config config;
    clear();
    set("HARVEY_ARCHIVE", "dir:/b");
    set("HARVEY_S3_ENDPOINT", "nonsense");
    check_ok(store_config_read(&config, lookup, &err));
    assert_string_equal(config.endpoint, "");
}

static void test_store_config__names_are_listed(void **state)
{
    (void)state;
    size_t count = 0;
    while (store_config_names[count] != NULL) {
        assert_int_equal(strncmp(store_config_names[count], "HARVEY_", 7), 0);
        count++;
    }
    assert_int_equal(count, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_config__default_is_a_directory),
        cmocka_unit_test(test_store_config__bucket),
        cmocka_unit_test(test_store_config__refuses_archives),
        cmocka_unit_test(test_store_config__endpoints),
        cmocka_unit_test(test_store_config__where_credentials_come_from),
        cmocka_unit_test(test_store_config__secret_files),
        cmocka_unit_test(test_store_config__renews_what_came_from_files),
        cmocka_unit_test(test_store_config__shows_no_secret),
        cmocka_unit_test(test_store_config__ca_file),
        cmocka_unit_test(test_store_config__bucket_settings_mean_nothing_elsewhere),
        cmocka_unit_test(test_store_config__names_are_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
