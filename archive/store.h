/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store: where the archive lies, behind one interface: a bucket (store_s3) or a directory
 * (store_dir). Both pass the same contract tests (tests/unit/test_store_contract.c).
 *
 * Keys are relative to the configured prefix and match [A-Za-z0-9._/-]+; no key is a folder of
 * another. An object is written once and never changed: putting the same bytes under the same key
 * again is harmless, and that is what a retry does.
 *
 * Promises: put returns RC_OK only when the store has confirmed the whole object (a directory: file
 * and directory fsynced). get returns RC_OK only when every byte of the object (or range) was
 * delivered. list returns RC_OK only when the listing was whole. No call retries by itself except
 * to find out an unknown outcome (head after a lost reply); pauses are the caller's
 * (base/backoff.h). Every call ends: at its time-out, or a second later for each 16 KiB that moved.
 *
 * Errors of every call: RC_UNAVAILABLE, RC_TIMEOUT (come back), RC_DENIED (credentials,
 * permissions, clock skew; the text names which), RC_NOT_FOUND (get, head: the object; all: the
 * bucket, whose text says "bucket"), RC_EXISTS (put if absent), RC_INVALID (address), RC_LIMIT
 * (quota, size), RC_IO (directory), RC_CORRUPT (an answer that cannot be right), RC_STOPPED (the
 * stop flag).
 *
 * Thread: a handle belongs to one thread at a time; open one per thread.
 */
#ifndef HARVEY_ARCHIVE_STORE_H
#define HARVEY_ARCHIVE_STORE_H

#include "base/err.h"
#include "base/stop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_URL_BYTES 512
#define STORE_SECRET_BYTES 256

/* What HARVEY_ARCHIVE and HARVEY_S3_* say; filled by store_config_read (store_config.h). */
struct store_config {
    bool off; /* "none" */
    bool is_s3;
    char url[STORE_URL_BYTES]; /* as configured: "s3://BUCKET/PREFIX" or "dir:PATH" */
    char dir[STORE_URL_BYTES];
    char bucket[64];
    char prefix[256];   /* "" or without leading and trailing slash */
    char endpoint[256]; /* "http://minio:9000" */
    char access_key_id[STORE_SECRET_BYTES];
    char secret_access_key[STORE_SECRET_BYTES]; /* never logged */
    char access_key_id_file[STORE_URL_BYTES];   /* where it came from; "" = a variable */
    char secret_access_key_file[STORE_URL_BYTES];
    char ca_file[STORE_URL_BYTES]; /* "" = the system's */
    int64_t connect_timeout_ms;    /* 0 = default 5000 */
    int64_t request_timeout_ms;    /* 0 = default 60000; what moves earns more (s3_guard.h) */
};

enum store_feature {
    STORE_CONDITIONAL_PUT =
        1u << 0, /* the probe at store_prepare passed: put-if-absent is atomic */
};

enum store_put_mode {
    STORE_PUT_PLAIN,     /* the same bytes again are RC_OK; where the feature holds, other bytes
                          * under the key are RC_EXISTS and stay as they are */
    STORE_PUT_IF_ABSENT, /* RC_EXISTS when the key is taken; without the feature: head, then put */
};

/*
 * A body of known size: memory (bytes != NULL) or a file (fd >= 0, read from offset 0). Borrowed.
 */
struct store_body {
    const void *bytes;
    int fd;
    uint64_t size_bytes;
};

/*
 * A part of an object; length 0 = to its end. A part that reaches past the end is cut there;
 * one that begins at or past it (and not at 0) is RC_INVALID.
 */
struct store_range {
    uint64_t offset;
    uint64_t length;
};

/* Receives the object's bytes in order; a code other than RC_OK ends the call and is returned. */
typedef enum rc store_sink_fn(void *arg, const uint8_t *bytes, size_t count, struct err *err);

/* Called for each key below the prefix, in byte order; `bytes` = the object's size. */
typedef enum rc store_visit_fn(void *arg, const char *key, uint64_t bytes, struct err *err);

struct store;

/*
 * True for a key that may be put: [A-Za-z0-9._/-], no empty segment, none that begins with a dot,
 * at most 512 bytes. What a listing shows beyond that is not ours and is passed over.
 */
bool store_key_is_valid(const char *key);

/* The implementations' table: one per kind of store. */
struct store_ops {
    void (*destroy)(struct store *store);
    enum rc (*prepare)(struct store *store, bool create, struct err *err);
    enum rc (*put)(struct store *store, const char *key, const struct store_body *body,
                   enum store_put_mode mode, struct err *err);
    enum rc (*get)(struct store *store, const char *key, const struct store_range *range,
                   store_sink_fn *sink, void *arg, struct err *err);
    enum rc (*head)(struct store *store, const char *key, uint64_t *bytes, struct err *err);
    enum rc (*list)(struct store *store, const char *prefix, const char *start_after,
                    store_visit_fn *visit, void *arg, struct err *err);
    enum rc (*remove)(struct store *store, const char *key, struct err *err);
};

/* The first member of each implementation's struct. */
struct store {
    const struct store_ops *ops;
    uint32_t features; /* enum store_feature, known after a prepare with create (by any handle) */
    char url[STORE_URL_BYTES];
    struct stop *stop;      /* borrowed, may be NULL: STOP_NOW ends a call under way */
    uint64_t request_count; /* calls that went out, for benchmarks and tests */
};

/*
 * Makes a handle; talks to nobody yet. `stop` is borrowed and may be NULL.
 * RC_INVALID, RC_NOMEM; RC_INTERNAL when the S3 guard's self-test fails (store_s3.h).
 */
RC_MUST_CHECK enum rc store_open(const struct store_config *config, struct stop *stop,
                                 struct store **store, struct err *err);
void store_close(struct store *store); /* NULL is legal */

/*
 * Reaches the store. With `create` (the server): makes bucket or directory where missing and probes
 * whether a conditional put holds; the probe writes one object, "probe/<random>", and removes it.
 * Without (the restore tool): RC_NOT_FOUND when bucket or directory is missing.
 * RC_DENIED also where the store refuses the requests themselves (400, 501, a redirect): then RC_INVALID means
 * that we could not ask.
 */
RC_MUST_CHECK enum rc store_prepare(struct store *store, bool create, struct err *err);

RC_MUST_CHECK enum rc store_put(struct store *store, const char *key, const struct store_body *body,
                                enum store_put_mode mode, struct err *err);
RC_MUST_CHECK enum rc store_get(struct store *store, const char *key,
                                const struct store_range *range, store_sink_fn *sink, void *arg,
                                struct err *err);
RC_MUST_CHECK enum rc store_head(struct store *store, const char *key, uint64_t *bytes,
                                 struct err *err);
/* prefix "" = all; start_after "" = from the beginning. */
RC_MUST_CHECK enum rc store_list(struct store *store, const char *prefix, const char *start_after,
                                 store_visit_fn *visit, void *arg, struct err *err);
RC_MUST_CHECK enum rc store_remove(struct store *store, const char *key, struct err *err);

/* The whole object appended to `buf` (its cap is the limit: RC_LIMIT). */
struct buf;
RC_MUST_CHECK enum rc store_get_buf(struct store *store, const char *key, struct buf *buf,
                                    struct err *err);
RC_MUST_CHECK enum rc store_put_bytes(struct store *store, const char *key, const void *bytes,
                                      size_t count, enum store_put_mode mode, struct err *err);

#endif
