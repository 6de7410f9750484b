/* SPDX-License-Identifier: Apache-2.0 */
/* store_s3_internal: what store_s3.c, store_s3_object.c and store_s3_list.c share. */
#ifndef HARVEY_ARCHIVE_STORE_S3_INTERNAL_H
#define HARVEY_ARCHIVE_STORE_S3_INTERNAL_H

#include "archive/s3_guard.h"
#include "archive/store.h"

#include <libs3.h>

#define STORE_S3_KEY_BYTES 1025 /* S3's limit of 1024, and the NUL */

struct store_s3 {
    struct store base;
    struct store_config config; /* copied: holds the strings that `bucket` points into */
    S3BucketContext bucket;
    bool
        credentials_are_old; /* a handle's first request, or a refusal: read again before the next */
    bool etag_is_opaque; /* this store's ETags are not the MD5 of the bytes (SSE-KMS, no-compat) */
    bool was_answered;   /* the last call: by a store, with whatever status */
    uint8_t *body;       /* owned: a file's bytes while they are sent; kept for the next one */
    size_t body_capacity;
};

/* One request: the guard's view of it and, besides, what libs3's callbacks have seen. */
struct store_s3_call {
    struct store_s3 *s3;
    struct s3_guard_call guard;
    S3Status status; /* libs3's opinion: for texts, and for the build without the guard */

    /* GET */
    store_sink_fn *sink;
    void *sink_arg;
    bool ranged;
    enum rc sink_rc;
    struct err *err; /* where the sink and the checks on the way leave their words */
    uint64_t received_bytes;
};

struct store_s3 *store_s3_of(struct store *store);

/* prefix + "/" + key. RC_LIMIT. */
RC_MUST_CHECK enum rc store_s3_full_key(const struct store_s3 *s3, const char *key,
                                        char full[STORE_S3_KEY_BYTES], struct err *err);

/* Between these two, exactly one libs3 function is called with `call` as its callback data. */
void store_s3_begin(struct store_s3 *s3, struct store_s3_call *call);
void store_s3_end(struct store_s3_call *call);

/* A 2xx answer to an exchange that worked (without the guard: libs3's opinion). */
bool store_s3_succeeded(const struct store_s3_call *call);

/* The code and words of a call that did not succeed. */
enum rc store_s3_fail(const struct store_s3_call *call, const char *what, const char *key,
                      struct err *err);

/* libs3's complete callback, and a properties callback that looks at nothing. */
void store_s3_on_complete(S3Status status, const S3ErrorDetails *details, void *arg);
S3Status store_s3_on_properties(const S3ResponseProperties *properties, void *arg);

/* Whether a probe by any handle of this process found that this bucket's conditional put holds. */
bool store_s3_is_conditional(struct store_s3 *s3);

/* The parts of the ops table that live in other files. */
enum rc store_s3_put(struct store *store, const char *key, const struct store_body *body,
                     enum store_put_mode mode, struct err *err);
enum rc store_s3_get(struct store *store, const char *key, const struct store_range *range,
                     store_sink_fn *sink, void *arg, struct err *err);
enum rc store_s3_head(struct store *store, const char *key, uint64_t *bytes, struct err *err);
enum rc store_s3_remove(struct store *store, const char *key, struct err *err);
enum rc store_s3_list(struct store *store, const char *prefix, const char *start_after,
                      store_visit_fn *visit, void *arg, struct err *err);

/* Asks for one key of the bucket: RC_OK when bucket and credentials are good. */
RC_MUST_CHECK enum rc store_s3_check_bucket(struct store_s3 *s3, struct err *err);

/* Whether a listing shows the whole key. Errors of a listing; a missing bucket is RC_NOT_FOUND. */
RC_MUST_CHECK enum rc store_s3_is_listed(struct store_s3 *s3, const char *full, bool *listed,
                                         struct err *err);

/*
 * Puts one object twice with If-None-Match: *, and removes it. *conditional = the second was
 * refused. A store that refuses the header itself (501) is RC_OK with false.
 */
RC_MUST_CHECK enum rc store_s3_probe(struct store_s3 *s3, bool *conditional, struct err *err);

#endif
