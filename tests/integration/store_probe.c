/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_probe: store calls from the command line, for test_store_faults.py, which builds it with test
 * hooks: with HARVEY_TEST_S3_GUARD_OFF it shows what libs3 says when nobody guards it.
 *
 *   store_probe [-t REQUEST_MS] [-c CONNECT_MS] [-s STOP_AFTER_MS] COMMAND [, COMMAND]...
 *   COMMAND: prepare | create | put KEY TEXT | big KEY BYTES | absent KEY TEXT | get KEY |
 *            range KEY OFFSET LENGTH | head KEY | list PREFIX | remove KEY | features
 *
 * HARVEY_ARCHIVE and HARVEY_S3_* say which store. One line per command: code, then what came or why
 * not; exit 0 when all were made, whatever they returned.
 */
#include "archive/store.h"
#include "archive/store_config.h"
#include "base/buf.h"
#include "base/clk.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROBE_BYTES_MAX (64u << 20)

static int64_t stop_after_ms;

static const char *lookup(const char *name)
{
    return getenv(name);
}

static enum rc append_key(void *arg, const char *key, uint64_t bytes, struct err *err)
{
    char size[32];
    int n = snprintf(size, sizeof size, "=%" PRIu64 " ", bytes);
    enum rc rc = buf_append(arg, key, strlen(key), err);
    return rc == RC_OK ? buf_append(arg, size, (size_t)n, err) : rc;
}

static enum rc append_bytes(void *arg, const uint8_t *bytes, size_t count, struct err *err)
{
    return buf_append(arg, bytes, count, err);
}

static void *stopper_thread_main(void *arg)
{
    clk_pause_ms(stop_after_ms);
    stop_raise(arg, STOP_NOW);
    return NULL;
}

static enum rc put_big(struct store *store, const char *key, size_t count, struct err *err)
{
    uint8_t *bytes = malloc(count);
    if (bytes == NULL) {
        return err_set(err, RC_NOMEM, "no memory");
    }
    memset(bytes, 'x', count);
    enum rc rc = store_put_bytes(store, key, bytes, count, STORE_PUT_PLAIN, err);
    free(bytes);
    return rc;
}

/* Words of one command; the output goes to `out`. */
static enum rc run(struct store *store, char **word, int count, struct buf *out, struct err *err)
{
    const char *name = word[0];
    const char *key = count > 1 ? word[1] : "";
    const char *text = count > 2 ? word[2] : "";
    uint64_t bytes = 0;
    char number[32];
    if (strcmp(name, "prepare") == 0 || strcmp(name, "create") == 0) {
        return store_prepare(store, strcmp(name, "create") == 0, err);
    }
    if (strcmp(name, "put") == 0 || strcmp(name, "absent") == 0) {
        return store_put_bytes(store, key, text, strlen(text),
                               *name == 'a' ? STORE_PUT_IF_ABSENT : STORE_PUT_PLAIN, err);
    }
    if (strcmp(name, "big") == 0) {
        return put_big(store, key, strtoul(text, NULL, 10), err);
    }
    if (strcmp(name, "get") == 0) {
        return store_get_buf(store, key, out, err);
    }
    if (strcmp(name, "range") == 0) {
        struct store_range range = {strtoul(text, NULL, 10),
                                    count > 3 ? strtoul(word[3], NULL, 10) : 0};
        return store_get(store, key, &range, append_bytes, out, err);
    }
    if (strcmp(name, "list") == 0) {
        return store_list(store, key, "", append_key, out, err);
    }
    if (strcmp(name, "remove") == 0) {
        return store_remove(store, key, err);
    }
    if (strcmp(name, "features") == 0) {
        bytes = store->features;
    } else if (strcmp(name, "head") == 0) {
        enum rc rc = store_head(store, key, &bytes, err);
        if (rc != RC_OK) {
            return rc;
        }
    } else {
        return err_set(err, RC_INVALID, "no such command: %s", name);
    }
    int n = snprintf(number, sizeof number, "%" PRIu64, bytes);
    return buf_append(out, number, (size_t)n, err);
}

static void run_all(struct store *store, char **word, int count)
{
    while (count > 0) {
        struct err err = ERR_INIT;
        struct buf out;
        int n = 0;
        while (n < count && strcmp(word[n], ",") != 0) {
            n++;
        }
        buf_init(&out, PROBE_BYTES_MAX);
        enum rc rc = run(store, word, n, &out, &err);
        (void)printf("%s %.*s%s\n", rc_name(rc), (int)out.size,
                     out.data != NULL ? (const char *)out.data : "", rc == RC_OK ? "" : err.text);
        (void)fflush(stdout);
        buf_deinit(&out);
        word += n + 1;
        count -= n + 1;
    }
}

int main(int argc, char **argv)
{
    struct store_config config;
    struct err err = ERR_INIT;
    struct store *store = NULL;
    struct stop stop;
    pthread_t stopper;
    int64_t request_ms = 0;
    int64_t connect_ms = 0;
    int option;
    while ((option = getopt(argc, argv, "+t:c:s:")) != -1) {
        if (option == '?') {
            return 2;
        }
        *(option == 't'   ? &request_ms
          : option == 'c' ? &connect_ms
                          : &stop_after_ms) = strtol(optarg, NULL, 10);
    }
    stop_init(&stop);
    if (store_config_read(&config, lookup, &err) != RC_OK) {
        (void)printf("%s %s\n", rc_name(err.rc), err.text);
        return 1;
    }
    config.request_timeout_ms = request_ms;
    config.connect_timeout_ms = connect_ms;
    if (store_open(&config, &stop, &store, &err) != RC_OK) {
        (void)printf("%s %s\n", rc_name(err.rc), err.text);
        return 1;
    }
    bool stops =
        stop_after_ms > 0 && pthread_create(&stopper, NULL, stopper_thread_main, &stop) == 0;
    run_all(store, argv + optind, argc - optind);
    if (stops) {
        (void)pthread_join(stopper, NULL);
    }
    store_close(store);
    stop_deinit(&stop);
    return 0;
}
