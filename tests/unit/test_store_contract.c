/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store contract: what store.h promises, asked of a directory, and of a real bucket when
 * HARVEY_TEST_S3_ENDPOINT, _BUCKET, _KEY_ID, _SECRET (and _CA_FILE) say where one is:
 * tests/integration/test_store_s3.py starts a MinIO and sets them.
 * Each test works under a prefix of its own, so a bucket need not be empty.
 */
#include "archive/store.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/fsio.h"

#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define RACERS 8
#define MANY 2100 /* more than two pages of a bucket's listing */

struct fixture {
    struct scratch scratch;
    struct store_config config;
    struct store *store;
};

static bool use_s3;

static const char *s3_env(const char *name)
{
    char whole[64];
    (void)snprintf(whole, sizeof whole, "HARVEY_TEST_S3_%s", name);
    const char *value = getenv(whole);
    return value == NULL ? "" : value;
}

static void make_config(struct fixture *fixture)
{
    struct store_config *config = &fixture->config;
    uint8_t random[8];
    char hex[17];
    memset(config, 0, sizeof *config);
    bytes_random(random, sizeof random);
    bytes_to_hex(random, sizeof random, hex);
    config->is_s3 = use_s3;
    if (!use_s3) {
        (void)snprintf(config->dir, sizeof config->dir, "%s/deep/archive", fixture->scratch.dir);
        (void)snprintf(config->url, sizeof config->url, "dir:%.400s", config->dir);
        return;
    }
    (void)snprintf(config->endpoint, sizeof config->endpoint, "%s", s3_env("ENDPOINT"));
    (void)snprintf(config->bucket, sizeof config->bucket, "%s", s3_env("BUCKET"));
    (void)snprintf(config->access_key_id, sizeof config->access_key_id, "%s", s3_env("KEY_ID"));
    (void)snprintf(config->secret_access_key, sizeof config->secret_access_key, "%s",
                   s3_env("SECRET"));
    (void)snprintf(config->ca_file, sizeof config->ca_file, "%s", s3_env("CA_FILE"));
    (void)snprintf(config->prefix, sizeof config->prefix, "contract/%s", hex);
    (void)snprintf(config->url, sizeof config->url, "s3://%s/%s", config->bucket, config->prefix);
}

static int setup(void **state)
{
    struct err err = ERR_INIT;
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    scratch_init(&fixture->scratch);
    make_config(fixture);
    check_ok(store_open(&fixture->config, NULL, &fixture->store, &err));
    check_ok(store_prepare(fixture->store, true, &err));
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    store_close(fixture->store);
    scratch_deinit(&fixture->scratch);
    free(fixture);
    return 0;
}

static void put(struct fixture *fixture, const char *key, const char *text)
{
    struct err err = ERR_INIT;
    check_ok(store_put_bytes(fixture->store, key, text, strlen(text), STORE_PUT_PLAIN, &err));
}

static void assert_object(struct fixture *fixture, const char *key, const void *bytes, size_t count)
{
    struct err err = ERR_INIT;
    struct buf buf;
    uint64_t size = 0;
    buf_init(&buf, 64u << 20);
    check_ok(store_get_buf(fixture->store, key, &buf, &err));
    assert_int_equal(buf.size, count);
    assert_true(count == 0 || memcmp(buf.data, bytes, count) == 0);
    check_ok(store_head(fixture->store, key, &size, &err));
    assert_int_equal(size, count);
    buf_deinit(&buf);
}

/* ---- objects ---- */

static void test_store__gives_back_what_was_put(void **state)
{
    struct fixture *fixture = *state;
    static const size_t sizes[] = {0, 1, 4096, (1u << 20) - 1, 1u << 20, 5000001};
    struct err err = ERR_INIT;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *bytes = malloc(sizes[i] + 1);
        char key[64];
        assert_non_null(bytes);
        for (size_t j = 0; j < sizes[i]; j++) {
            bytes[j] = (uint8_t)(j * 7 + j / 255);
        }
        (void)snprintf(key, sizeof key, "a/b-%zu/c.d_e", i);
        check_ok(store_put_bytes(fixture->store, key, bytes, sizes[i], STORE_PUT_PLAIN, &err));
        assert_object(fixture, key, bytes, sizes[i]);
        free(bytes);
    }
}

static void test_store__puts_a_file(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    const char *path = scratch_path(&fixture->scratch, "body");
    size_t count = 300001;
    uint8_t *bytes = calloc(1, count);
    struct store_body body = {.fd = -1, .size_bytes = count};
    assert_non_null(bytes);
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (uint8_t)(i % 251);
    }
    check_ok(fsio_replace_file(path, bytes, count, false, &err));
    check_ok(fsio_open(path, O_RDONLY, 0, &body.fd, &err));
    assert_int_equal(lseek(body.fd, 77, SEEK_SET), 77); /* read from offset 0 all the same */
    check_ok(store_put(fixture->store, "file", &body, STORE_PUT_PLAIN, &err));
    check_ok(store_put(fixture->store, "file", &body, STORE_PUT_PLAIN, &err));
    assert_object(fixture, "file", bytes, count);
    body.size_bytes = count + 1; /* the file is shorter than was said */
    check_fails(RC_CORRUPT, store_put(fixture->store, "file2", &body, STORE_PUT_PLAIN, &err));
    uint64_t size = 0;
    check_fails(RC_NOT_FOUND, store_head(fixture->store, "file2", &size, &err));
    (void)close(body.fd);
    free(bytes);
}

static void test_store__put_again_is_harmless(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, "again", "the same");
    put(fixture, "again", "the same");
    assert_object(fixture, "again", "the same", 8);
}

static void test_store__put_leaves_another_object_alone(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    if ((fixture->store->features & STORE_CONDITIONAL_PUT) == 0) {
        skip();
    }
    put(fixture, "other", "mine");
    check_fails(RC_EXISTS,
                store_put_bytes(fixture->store, "other", "not!", 4, STORE_PUT_PLAIN, &err));
    check_fails(RC_EXISTS,
                store_put_bytes(fixture->store, "other", "longer", 6, STORE_PUT_PLAIN, &err));
    assert_object(fixture, "other", "mine", 4);
}

static void test_store__put_if_absent(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    check_ok(store_put_bytes(fixture->store, "claim", "a", 1, STORE_PUT_IF_ABSENT, &err));
    check_fails(RC_EXISTS,
                store_put_bytes(fixture->store, "claim", "b", 1, STORE_PUT_IF_ABSENT, &err));
    check_fails(RC_EXISTS,
                store_put_bytes(fixture->store, "claim", "a", 1, STORE_PUT_IF_ABSENT, &err));
    assert_object(fixture, "claim", "a", 1);
}

struct racer {
    const struct store_config *config;
    pthread_barrier_t *barrier;
    int number;
    int wins;
    int losses;
};

static void *racer_thread_main(void *arg)
{
    struct racer *racer = arg;
    struct err err = ERR_INIT;
    struct store *store = NULL;
    char text[16];
    int n = snprintf(text, sizeof text, "racer %d", racer->number);
    if (store_open(racer->config, NULL, &store, &err) != RC_OK) {
        return NULL;
    }
    for (int round = 0; round < 5; round++) {
        char key[32];
        (void)snprintf(key, sizeof key, "race/%d", round);
        (void)pthread_barrier_wait(racer->barrier);
        enum rc rc = store_put_bytes(store, key, text, (size_t)n, STORE_PUT_IF_ABSENT, &err);
        racer->wins += rc == RC_OK;
        racer->losses += rc == RC_EXISTS;
    }
    store_close(store);
    return NULL;
}

static void test_store__one_of_many_racers_wins(void **state)
{
    struct fixture *fixture = *state;
    pthread_t threads[RACERS];
    struct racer racers[RACERS];
    pthread_barrier_t barrier;
    int wins = 0;
    int losses = 0;
    if ((fixture->store->features & STORE_CONDITIONAL_PUT) == 0) {
        skip();
    }
    assert_int_equal(pthread_barrier_init(&barrier, NULL, RACERS), 0);
    for (int i = 0; i < RACERS; i++) {
        racers[i] = (struct racer){.config = &fixture->config, .barrier = &barrier, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, racer_thread_main, &racers[i]), 0);
    }
    for (int i = 0; i < RACERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        wins += racers[i].wins;
        losses += racers[i].losses;
    }
    assert_int_equal(pthread_barrier_destroy(&barrier), 0);
    assert_int_equal(wins, 5);
    assert_int_equal(losses, 5 * (RACERS - 1));
}

static void test_store__missing_objects(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct buf buf;
    uint64_t size = 0;
    buf_init(&buf, 1024);
    check_fails(RC_NOT_FOUND, store_get_buf(fixture->store, "no/such", &buf, &err));
    check_fails(RC_NOT_FOUND, store_head(fixture->store, "no/such", &size, &err));
    put(fixture, "is/there", "x");
    check_fails(RC_NOT_FOUND, store_head(fixture->store, "is", &size, &err));
    check_fails(RC_NOT_FOUND, store_get_buf(fixture->store, "is/there/not", &buf, &err));
    assert_null(strstr(err.text, "bucket"));
    check_ok(store_remove(fixture->store, "no/such", &err));
    buf_deinit(&buf);
}

static void test_store__remove(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    uint64_t size = 0;
    put(fixture, "gone/soon", "x");
    check_ok(store_remove(fixture->store, "gone/soon", &err));
    check_fails(RC_NOT_FOUND, store_head(fixture->store, "gone/soon", &size, &err));
    put(fixture, "gone/soon", "and back");
    assert_object(fixture, "gone/soon", "and back", 8);
}

/* ---- ranges and sinks ---- */

static enum rc append(void *arg, const uint8_t *bytes, size_t count, struct err *err)
{
    return buf_append(arg, bytes, count, err);
}

static void assert_range(struct fixture *fixture, const char *key, uint64_t offset, uint64_t length,
                         const char *wanted)
{
    struct err err = ERR_INIT;
    struct buf buf;
    struct store_range range = {offset, length};
    buf_init(&buf, 1024);
    check_ok(store_get(fixture->store, key, &range, append, &buf, &err));
    assert_int_equal(buf.size, strlen(wanted));
    assert_true(buf.size == 0 || memcmp(buf.data, wanted, buf.size) == 0);
    buf_deinit(&buf);
}

static void test_store__ranges(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct buf buf;
    put(fixture, "range", "0123456789");
    put(fixture, "empty", "");
    assert_range(fixture, "range", 0, 4, "0123");
    assert_range(fixture, "range", 3, 4, "3456");
    assert_range(fixture, "range", 3, 0, "3456789");
    assert_range(fixture, "range", 8, 100, "89"); /* cut at the end */
    assert_range(fixture, "range", 0, 100, "0123456789");
    assert_range(fixture, "empty", 0, 100, "");
    buf_init(&buf, 1024);
    struct store_range beyond = {10, 1};
    check_fails(RC_INVALID, store_get(fixture->store, "range", &beyond, append, &buf, &err));
    assert_int_equal(buf.size, 0);
    buf_deinit(&buf);
}

static enum rc refuse(void *arg, const uint8_t *bytes, size_t count, struct err *err)
{
    (void)bytes;
    (void)count;
    (*(int *)arg)++;
    return err_set(err, RC_CORRUPT, "the sink has seen enough");
}

static void test_store__a_sink_ends_the_call(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct buf buf;
    int calls = 0;
    put(fixture, "sink", "0123456789");
    check_fails(RC_CORRUPT, store_get(fixture->store, "sink", NULL, refuse, &calls, &err));
    check_text("the sink has seen enough");
    assert_int_equal(calls, 1);
    buf_init(&buf, 9);
    check_fails(RC_LIMIT, store_get_buf(fixture->store, "sink", &buf, &err));
    assert_int_equal(buf.size, 0);
    buf_deinit(&buf);
    assert_object(fixture, "sink", "0123456789", 10); /* the handle works on */
}

/* ---- listing ---- */

struct listing {
    char text[4096];
    size_t count;
    size_t stop_after; /* 0 = never */
    char last[STORE_URL_BYTES];
};

static enum rc note(void *arg, const char *key, uint64_t bytes, struct err *err)
{
    struct listing *listing = arg;
    size_t used = strlen(listing->text);
    assert_true(strcmp(key, listing->last) > 0);
    (void)snprintf(listing->last, sizeof listing->last, "%s", key);
    if (used + strlen(key) + 32 < sizeof listing->text) {
        (void)snprintf(listing->text + used, sizeof listing->text - used, "%s=%llu ", key,
                       (unsigned long long)bytes);
    }
    listing->count++;
    if (listing->count == listing->stop_after) {
        return err_set(err, RC_LIMIT, "seen enough");
    }
    return RC_OK;
}

static void assert_list(struct fixture *fixture, const char *prefix, const char *start_after,
                        const char *wanted)
{
    struct err err = ERR_INIT;
    struct listing listing = {.count = 0};
    check_ok(store_list(fixture->store, prefix, start_after, note, &listing, &err));
    assert_string_equal(listing.text, wanted);
}

/* More than the buffer may hold: what came of it before that was seen is not left in it. */
static void test_store__half_an_object_is_none(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct buf buf;
    uint8_t *large = calloc(1, 300000);
    assert_non_null(large);
    check_ok(store_put_bytes(fixture->store, "large", large, 300000, STORE_PUT_PLAIN, &err));
    buf_init(&buf, 200000);
    check_ok(buf_append(&buf, "before", 6, &err));
    check_fails(RC_LIMIT, store_get_buf(fixture->store, "large", &buf, &err));
    assert_int_equal(buf.size, 6);
    buf_deinit(&buf);
    free(large);
}

static void test_store__lists_in_order_of_whole_keys(void **state)
{
    struct fixture *fixture = *state;
    assert_list(fixture, "", "", "");
    /* '-' and '.' sort before '/', digits and letters after it. */
    static const char *const keys[] = {"b/2",  "a/x",    "a-b",  "a.b",    "a0",
                                       "b/10", "a/x-/y", "a/x0", "b/2.d/e"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        put(fixture, keys[i], keys[i]);
    }
    assert_list(fixture, "", "", "a-b=3 a.b=3 a/x=3 a/x-/y=6 a/x0=4 a0=2 b/10=4 b/2=3 b/2.d/e=7 ");
    assert_list(fixture, "a", "", "a-b=3 a.b=3 a/x=3 a/x-/y=6 a/x0=4 a0=2 ");
    assert_list(fixture, "a/", "", "a/x=3 a/x-/y=6 a/x0=4 ");
    assert_list(fixture, "a/x-", "", "a/x-/y=6 ");
    assert_list(fixture, "b/2", "", "b/2=3 b/2.d/e=7 ");
    assert_list(fixture, "b/2.d/", "", "b/2.d/e=7 ");
    assert_list(fixture, "c", "", "");
    assert_list(fixture, "", "a/x", "a/x-/y=6 a/x0=4 a0=2 b/10=4 b/2=3 b/2.d/e=7 ");
    assert_list(fixture, "", "a/x-", "a/x-/y=6 a/x0=4 a0=2 b/10=4 b/2=3 b/2.d/e=7 ");
    assert_list(fixture, "", "a/", "a/x=3 a/x-/y=6 a/x0=4 a0=2 b/10=4 b/2=3 b/2.d/e=7 ");
    assert_list(fixture, "b/", "b/10", "b/2=3 b/2.d/e=7 ");
    assert_list(fixture, "b/", "b/9", "");
    assert_list(fixture, "b/", "a", "b/10=4 b/2=3 b/2.d/e=7 ");
}

static void test_store__a_visitor_ends_the_listing(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct listing listing = {.stop_after = 2};
    put(fixture, "k/1", "");
    put(fixture, "k/2", "");
    put(fixture, "k/3", "");
    check_fails(RC_LIMIT, store_list(fixture->store, "k/", "", note, &listing, &err));
    assert_int_equal(listing.count, 2);
}

static void test_store__lists_many(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct listing listing = {.count = 0};
    for (int i = 0; i < MANY; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "many/%06d", i);
        put(fixture, key, "x");
    }
    check_ok(store_list(fixture->store, "many/", "", note, &listing, &err));
    assert_int_equal(listing.count, MANY);
    struct listing rest = {.count = 0};
    check_ok(store_list(fixture->store, "many/", "many/000999", note, &rest, &err));
    assert_int_equal(rest.count, MANY - 1000);
}

/* ---- keys, stop, prepare ---- */

static void test_store__refuses_bad_keys(void **state)
{
    struct fixture *fixture = *state;
    static const char *const keys[] = {"",       "/",      "/a",   "a/",  "a//b", ".",   "..",
                                       "a/../b", ".tmp/x", "a/.b", "a b", "a+b",  "a%b", "ä"};
    struct err err = ERR_INIT;
    struct listing listing = {.count = 0};
    uint64_t size = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        check_fails(RC_INVALID,
                    store_put_bytes(fixture->store, keys[i], "x", 1, STORE_PUT_PLAIN, &err));
        check_fails(RC_INVALID, store_head(fixture->store, keys[i], &size, &err));
    }
    check_fails(RC_INVALID, store_list(fixture->store, "a b", "", note, &listing, &err));
}

static void test_store__stop_now_ends_a_call(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct stop stop;
    struct store *store = NULL;
    struct buf buf;
    put(fixture, "stop", "0123456789");
    stop_init(&stop);
    buf_init(&buf, 1024);
    check_ok(store_open(&fixture->config, &stop, &store, &err));
    stop_raise(&stop, STOP_SOON); /* what is under way is finished */
    check_ok(store_get_buf(store, "stop", &buf, &err));
    stop_raise(&stop, STOP_NOW);
    check_fails(RC_STOPPED, store_get_buf(store, "stop", &buf, &err));
    store_close(store);
    stop_deinit(&stop);
    buf_deinit(&buf);
}

static void test_store__prepare_makes_or_misses(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct store_config config = fixture->config;
    struct store *store = NULL;
    struct listing listing = {.count = 0};
    uint64_t size = 0;
    if (use_s3) {
        (void)snprintf(config.bucket, sizeof config.bucket, "new-%.16s", config.prefix + 9);
    } else {
        (void)snprintf(config.dir, sizeof config.dir, "%s/new/one", fixture->scratch.dir);
    }
    check_ok(store_open(&config, NULL, &store, &err));
    check_fails(RC_NOT_FOUND, store_prepare(store, false, &err));
    check_text(use_s3 ? "no bucket" : "no archive directory");
    check_fails(RC_NOT_FOUND, store_list(store, "", "", note, &listing, &err));
    check_fails(RC_NOT_FOUND, store_head(store, "x", &size, &err));
    check_text(use_s3 ? "bucket" : "no archive directory");
    check_fails(RC_NOT_FOUND, store_put_bytes(store, "x", "x", 1, STORE_PUT_PLAIN, &err));
    check_text(use_s3 ? "bucket" : "no archive directory");
    check_ok(store_prepare(store, true, &err));
    check_ok(store_prepare(store, true, &err)); /* it is ours already */
    check_ok(store_prepare(store, false, &err));
    check_ok(store_list(store, "", "", note, &listing, &err));
    assert_int_equal(listing.count, 0); /* the probe is gone again */
    assert_true(store->request_count > 0);
    store_close(store);
}

static int run(const char *name, bool s3)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_store__gives_back_what_was_put, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__puts_a_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__put_again_is_harmless, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__put_leaves_another_object_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_store__put_if_absent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__one_of_many_racers_wins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__missing_objects, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__remove, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__ranges, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__a_sink_ends_the_call, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__half_an_object_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__lists_in_order_of_whole_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__a_visitor_ends_the_listing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__lists_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__refuses_bad_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__stop_now_ends_a_call, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store__prepare_makes_or_misses, setup, teardown),
    };
    use_s3 = s3;
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
    int failed = run("store_dir", false);
    if (*s3_env("ENDPOINT") == '\0') {
        (void)printf("store_s3: no bucket given; test_store_s3.py runs these tests on MinIO\n");
        return failed;
    }
    return failed + run("store_s3", true);
}
