/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_s3: see store_s3.h. Here: libs3's start and the guard's self-test, handles, the frame
 * around every request, and prepare (bucket, credentials, the probe). Objects are in
 * store_s3_object.c, the listing in store_s3_list.c; those three are the only files that call
 * libs3.
 */
#include "archive/store_s3.h"

#include "archive/store_config.h"
#include "archive/store_s3_internal.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORE_S3_CONNECT_TIMEOUT_MS 5000
#define STORE_S3_REQUEST_TIMEOUT_MS 60000

/*
 * Nobody listens on tcpmux. Should somebody, the self-test still holds: it asks whether the request
 * came by the guard, not what became of it.
 */
#define STORE_S3_CLOSED_PORT "127.0.0.1:1"
#define STORE_S3_CLOSED_PORT_TIMEOUT_MS 2000

/* What holds for the process; guarded by the mutex. S3_initialize is not thread-safe. */
static struct {
    pthread_mutex_t mutex;
    bool initialized;
    bool tested;
    /* The last probe's result: other handles on the same bucket need not probe again. */
    bool probed;
    bool conditional;
    char endpoint[sizeof((struct store_config *)0)->endpoint];
    char bucket[sizeof((struct store_config *)0)->bucket];
} store_s3_process = {.mutex = PTHREAD_MUTEX_INITIALIZER};

struct store_s3 *store_s3_of(struct store *store)
{
    return (struct store_s3 *)(void *)store;
}

/* ---- the frame around a request ---- */

void store_s3_on_complete(S3Status status, const S3ErrorDetails *details, void *arg)
{
    struct store_s3_call *call = arg;
    (void)details; /* the guard keeps error bodies away from libs3: there are none */
    call->status = status;
}

S3Status store_s3_on_properties(const S3ResponseProperties *properties, void *arg)
{
    struct store_s3_call *call = arg;
    if (s3_guard_is_off()) { /* else the guard keeps headers to itself, and these are empty */
        call->guard.answer.length = properties->contentLength;
    }
    return S3StatusOK;
}

void store_s3_begin(struct store_s3 *s3, struct store_s3_call *call)
{
    struct err ignored;
    if (s3->credentials_are_old) { /* a mounted secret may have been changed; else they stay */
        s3->credentials_are_old = store_config_renew_credentials(&s3->config, &ignored) != RC_OK;
    }
    call->s3 = s3;
    call->status = S3StatusInternalError;
    call->guard.stop = s3->base.stop;
    call->guard.ca_file = s3->config.ca_file;
    call->guard.connect_timeout_ms = s3->config.connect_timeout_ms;
    call->guard.request_timeout_ms = s3->config.request_timeout_ms;
    s3_guard_begin(&call->guard);
}

void store_s3_end(struct store_s3_call *call)
{
    s3_guard_end(&call->guard);
    call->s3->base.request_count += call->guard.performed_count;
    call->s3->was_answered = call->guard.answer.http_status != 0;
    if (call->guard.answer.http_status == 401 || call->guard.answer.http_status == 403) {
        call->s3->credentials_are_old = true;
    }
    ASSERT(call->guard.performed_count <= 1);
}

bool store_s3_succeeded(const struct store_s3_call *call)
{
    return s3_guard_is_off() ? call->status == S3StatusOK
                             : s3_answer_is_success(&call->guard.answer);
}

/*
 * Stores that refuse Signature V2 in words that change from year to year, or not in words at all.
 */
static bool store_s3_host_wants_v4(const char *endpoint)
{
    static const char *const hosts[] = {".amazonaws.com", ".cloudflarestorage.com",
                                        ".backblazeb2.com"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        if (strstr(endpoint, hosts[i]) != NULL) {
            return true;
        }
    }
    return false;
}

/* What libs3 says where the guard has no say: it made no request, or a test took the guard out. */
static enum rc store_s3_status_rc(S3Status status)
{
    switch ((int)status) {
    case S3StatusOutOfMemory:
        return RC_NOMEM;
    case S3StatusErrorNoSuchKey:
    case S3StatusErrorNoSuchBucket:
    case S3StatusHttpErrorNotFound:
        return RC_NOT_FOUND;
    case S3StatusErrorPreconditionFailed:
        return RC_EXISTS;
    case S3StatusErrorAccessDenied:
        return RC_DENIED;
    default:
        return s3_guard_is_off() ? RC_UNAVAILABLE : RC_INVALID;
    }
}

enum rc store_s3_fail(const struct store_s3_call *call, const char *what, const char *key,
                      struct err *err)
{
    if (call->sink_rc != RC_OK) { /* ours, and its words are in place */
        return call->sink_rc;
    }
    if (call->guard.performed_count > 0 && !s3_guard_is_off()) {
        struct err failure = ERR_INIT;
        enum rc rc = s3_answer_fail(&call->guard.answer, what, key, &failure);
        bool refused = rc == RC_DENIED || rc == RC_INVALID;
        if (refused && !s3_answer_wants_v4(&call->guard.answer) &&
            store_s3_host_wants_v4(call->s3->config.endpoint)) {
            return err_set(err, rc, "%s; it wants Signature V4, not supported yet (AWS, R2, B2)",
                           failure.text);
        }
        return err_set(err, rc, "%s", failure.text);
    }
    return err_set(err, store_s3_status_rc(call->status), "%s %s: libs3 says %s", what, key,
                   S3_get_status_name(call->status));
}

enum rc store_s3_full_key(const struct store_s3 *s3, const char *key, char full[STORE_S3_KEY_BYTES],
                          struct err *err)
{
    const char *prefix = s3->config.prefix;
    int n = snprintf(full, STORE_S3_KEY_BYTES, "%s%s%s", prefix, *prefix == '\0' ? "" : "/", key);
    if (n < 0 || n >= STORE_S3_KEY_BYTES) {
        return err_set(err, RC_LIMIT, "the key %.100s is too long with its prefix", key);
    }
    return RC_OK;
}

/* ---- start of the process's libs3, and the guard's self-test ---- */

static enum rc store_s3_self_test(struct err *err)
{
    static const S3BucketContext nowhere = {
        .hostName = STORE_S3_CLOSED_PORT,
        .bucketName = "self-test",
        .protocol = S3ProtocolHTTP,
        .uriStyle = S3UriStylePath,
        .accessKeyId = "self-test",
        .secretAccessKey = "self-test",
    };
    static const S3ResponseHandler handler = {store_s3_on_properties, store_s3_on_complete};
    struct store_s3_call call = {.status = S3StatusInternalError};
    call.guard.connect_timeout_ms = STORE_S3_CLOSED_PORT_TIMEOUT_MS;
    call.guard.request_timeout_ms = STORE_S3_CLOSED_PORT_TIMEOUT_MS;
    s3_guard_begin(&call.guard);
    S3_head_object(&nowhere, "self-test", NULL, &handler, &call);
    s3_guard_end(&call.guard);
    if (call.guard.performed_count != 1) {
        return err_set(err, RC_INTERNAL,
                       "the guard around libs3 did not see its own test request: this program was "
                       "linked without --wrap=curl_easy_setopt,--wrap=curl_easy_perform");
    }
    return RC_OK;
}

static enum rc store_s3_start_locked(struct err *err)
{
    if (!store_s3_process.initialized) {
        if (curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK ||
            S3_initialize("harvey", S3_INIT_ALL, NULL) != S3StatusOK) {
            return err_set(err, RC_INTERNAL, "libcurl or libs3 cannot be initialised");
        }
        store_s3_process.initialized = true;
    }
    if (!store_s3_process.tested) {
        enum rc rc = store_s3_self_test(err);
        if (rc != RC_OK) {
            return rc;
        }
        store_s3_process.tested = true;
    }
    return RC_OK;
}

/* ---- what the probe found, for all handles on the same bucket ---- */

static bool store_s3_is_probed_locked(const struct store_s3 *s3)
{
    return store_s3_process.probed && strcmp(store_s3_process.endpoint, s3->config.endpoint) == 0 &&
           strcmp(store_s3_process.bucket, s3->config.bucket) == 0;
}

bool store_s3_is_conditional(struct store_s3 *s3)
{
    ASSERT(pthread_mutex_lock(&store_s3_process.mutex) == 0);
    if (store_s3_is_probed_locked(s3)) {
        s3->base.features = store_s3_process.conditional ? STORE_CONDITIONAL_PUT : 0;
    }
    ASSERT(pthread_mutex_unlock(&store_s3_process.mutex) == 0);
    return (s3->base.features & STORE_CONDITIONAL_PUT) != 0;
}

static void store_s3_set_conditional(struct store_s3 *s3, bool conditional)
{
    s3->base.features = conditional ? STORE_CONDITIONAL_PUT : 0;
    ASSERT(pthread_mutex_lock(&store_s3_process.mutex) == 0);
    store_s3_process.probed = true;
    store_s3_process.conditional = conditional;
    memcpy(store_s3_process.endpoint, s3->config.endpoint, sizeof store_s3_process.endpoint);
    memcpy(store_s3_process.bucket, s3->config.bucket, sizeof store_s3_process.bucket);
    ASSERT(pthread_mutex_unlock(&store_s3_process.mutex) == 0);
}

/* ---- prepare ---- */

/* RC_OK also when the bucket is there already. */
static enum rc store_s3_create_bucket(struct store_s3 *s3, struct err *err)
{
    static const S3ResponseHandler handler = {store_s3_on_properties, store_s3_on_complete};
    struct store_s3_call call = {.status = S3StatusInternalError};
    store_s3_begin(s3, &call);
    S3_create_bucket(s3->bucket.protocol, s3->bucket.accessKeyId, s3->bucket.secretAccessKey,
                     s3->bucket.hostName, s3->bucket.bucketName, S3CannedAclPrivate, NULL, NULL,
                     &handler, &call);
    store_s3_end(&call);
    if (store_s3_succeeded(&call)) {
        return RC_OK;
    }
    enum rc rc = store_s3_fail(&call, "PUT of the bucket", s3->config.bucket, err);
    /* Ours, or somebody else's: the check that follows finds out whether we may use it. */
    return rc == RC_EXISTS ? RC_OK : rc;
}

static enum rc store_s3_reach(struct store_s3 *s3, bool create, struct err *err)
{
    enum rc rc = store_s3_check_bucket(s3, err);
    if (rc == RC_NOT_FOUND && create) {
        rc = store_s3_create_bucket(s3, err);
        if (rc == RC_OK) {
            rc = store_s3_check_bucket(s3, err);
        }
    }
    if (rc == RC_NOT_FOUND) {
        return err_set(err, RC_NOT_FOUND, "no bucket %s at %s", s3->config.bucket,
                       s3->config.endpoint);
    }
    if (rc != RC_OK || !create) {
        return rc;
    }
    bool conditional = false;
    rc = store_s3_probe(s3, &conditional, err);
    if (rc == RC_OK) {
        store_s3_set_conditional(s3, conditional);
    }
    return rc;
}

/* Who answers "not like that" (400, 501, a redirect) to all that we can ask refuses us as much as who says 403. */
static enum rc store_s3_prepare(struct store *store, bool create, struct err *err)
{
    struct store_s3 *s3 = store_s3_of(store);
    s3->was_answered = false;
    enum rc rc = store_s3_reach(s3, create, err);
    if (rc == RC_INVALID && s3->was_answered) {
        rc = RC_DENIED;
        err->rc = rc;
    }
    return rc;
}

/* ---- handles ---- */

static void store_s3_destroy(struct store *store)
{
    struct store_s3 *s3 = store_s3_of(store);
    free(s3->body);
    explicit_bzero(&s3->config, sizeof s3->config);
    free(s3);
}

static const struct store_ops store_s3_ops = {
    .destroy = store_s3_destroy,
    .prepare = store_s3_prepare,
    .put = store_s3_put,
    .get = store_s3_get,
    .head = store_s3_head,
    .list = store_s3_list,
    .remove = store_s3_remove,
};

/* "http://minio:9000" -> protocol and "minio:9000"; store_config has checked its form. */
static enum rc store_s3_set_address(struct store_s3 *s3, struct err *err)
{
    struct store_config *config = &s3->config;
    bool https = strncmp(config->endpoint, "https://", 8) == 0;
    const char *host = strstr(config->endpoint, "://");
    if (host == NULL || (!https && strncmp(config->endpoint, "http://", 7) != 0)) {
        return err_set(err, RC_INVALID,
                       "'%s' is no address of a store: expected http:// or https://",
                       config->endpoint);
    }
    s3->bucket = (S3BucketContext){
        .hostName = host + 3,
        .bucketName = config->bucket,
        .protocol = https ? S3ProtocolHTTPS : S3ProtocolHTTP,
        .uriStyle = S3UriStylePath,
        .accessKeyId = config->access_key_id,
        .secretAccessKey = config->secret_access_key,
    };
    S3Status status = S3_validate_bucket_name(config->bucket, S3UriStylePath);
    if (status != S3StatusOK) {
        return err_set(err, RC_INVALID, "'%s' cannot be the name of a bucket (%s)", config->bucket,
                       S3_get_status_name(status));
    }
    return RC_OK;
}

enum rc store_s3_create(const struct store_config *config, struct store **store, struct err *err)
{
    *store = NULL;
    struct store_s3 *s3 = calloc(1, sizeof *s3);
    if (s3 == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a store");
    }
    s3->base.ops = &store_s3_ops;
    s3->config = *config; /* as the process was started with: perhaps days ago */
    s3->credentials_are_old = true;
    memcpy(s3->base.url, config->url, sizeof s3->base.url);
    if (s3->config.connect_timeout_ms <= 0) {
        s3->config.connect_timeout_ms = STORE_S3_CONNECT_TIMEOUT_MS;
    }
    if (s3->config.request_timeout_ms <= 0) {
        s3->config.request_timeout_ms = STORE_S3_REQUEST_TIMEOUT_MS;
    }
    ASSERT(pthread_mutex_lock(&store_s3_process.mutex) == 0);
    enum rc rc = store_s3_start_locked(err);
    ASSERT(pthread_mutex_unlock(&store_s3_process.mutex) == 0);
    if (rc == RC_OK) {
        (void)store_s3_is_conditional(s3);
    }
    if (rc == RC_OK) {
        rc = store_s3_set_address(s3, err);
    }
    if (rc != RC_OK) {
        store_s3_destroy(&s3->base);
        return rc;
    }
    *store = &s3->base;
    return RC_OK;
}
