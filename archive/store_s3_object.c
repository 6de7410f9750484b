/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_s3_object: put, get, head and remove of one object, and the probe of the conditional put.
 *
 * A put is believed when the exchange worked, the status is 2xx and the ETag is the MD5 of what was
 * sent. Anything less (no answer, no ETag, another one, 412 where the first try may have been ours)
 * is settled by asking the store what it holds: size and ETag, and the bytes themselves where the
 * ETag says nothing.
 */
#include "archive/store_s3_internal.h"

#include "base/bytes.h"
#include "base/fsio.h"
#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORE_S3_BODY_BYTES_MAX                                                                    \
    (1u << 30) /* ours are at most 16 MiB and a little, one list 256 MiB */

/* Content-MD5 wants base64, the ETag is hexadecimal. */
struct store_s3_md5 {
    char base64[28];
    char hex[2 * HASH_MD5_BYTES + 1];
};

/* What is to be sent: always in memory, so that what was hashed is what is sent. */
struct store_s3_upload {
    const char *key; /* whole key */
    const uint8_t *bytes;
    size_t count;
    struct store_s3_md5 md5;
};

static enum rc store_s3_md5(const uint8_t *bytes, size_t count, struct store_s3_md5 *md5,
                            struct err *err)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t digest[HASH_MD5_BYTES + 2] = {0}; /* padded to whole groups of three */
    enum rc rc = hash_md5(bytes, count, digest, err);
    if (rc != RC_OK) {
        return rc;
    }
    bytes_to_hex(digest, HASH_MD5_BYTES, md5->hex);
    size_t n = 0;
    for (size_t i = 0; i < sizeof digest; i += 3) {
        uint32_t group =
            (uint32_t)digest[i] << 16 | (uint32_t)digest[i + 1] << 8 | (uint32_t)digest[i + 2];
        for (int shift = 18; shift >= 0; shift -= 6) {
            md5->base64[n++] = digits[(group >> shift) & 63];
        }
    }
    memcpy(md5->base64 + 22, "==", 3); /* 16 bytes fill 22 digits */
    return RC_OK;
}

/* ---- head ---- */

static void store_s3_send_head(struct store_s3 *s3, const char *full, struct store_s3_call *call)
{
    static const S3ResponseHandler handler = {store_s3_on_properties, store_s3_on_complete};
    memset(call, 0, sizeof *call);
    store_s3_begin(s3, call);
    S3_head_object(&s3->bucket, full, NULL, &handler, call);
    store_s3_end(call);
}

/* HEAD: *bytes and the ETag (64 bytes) of the object. */
static enum rc store_s3_look(struct store_s3 *s3, const char *full, uint64_t *bytes, char etag[64],
                             struct err *err)
{
    struct store_s3_call call;
    store_s3_send_head(s3, full, &call);
    const struct s3_answer *answer = &call.guard.answer;
    if (!store_s3_succeeded(&call)) {
        return store_s3_fail(&call, "HEAD", full, err);
    }
    if (!answer->has_length && !s3_guard_is_off()) {
        return err_set(err, RC_CORRUPT, "HEAD %s: the answer names no size", full);
    }
    *bytes = answer->length;
    memcpy(etag, answer->etag, sizeof answer->etag);
    return RC_OK;
}

/*
 * A HEAD has no body that could say whether the object is missing or the bucket, or whether it was a
 * store that answered at all: nothing is believed to be missing that a listing shows.
 */
static enum rc store_s3_look_twice(struct store_s3 *s3, const char *full, uint64_t *bytes,
                                   char etag[64], struct err *err)
{
    enum rc rc = store_s3_look(s3, full, bytes, etag, err);
    if (rc != RC_NOT_FOUND) {
        return rc;
    }
    struct err second = ERR_INIT;
    bool listed = false;
    enum rc list_rc = store_s3_is_listed(s3, full, &listed, &second);
    if (list_rc != RC_OK) {
        return err_set(err, list_rc, "%s", second.text);
    }
    if (listed) {
        return err_set(err, RC_UNAVAILABLE, "HEAD %s: 404, but the listing shows it", full);
    }
    return rc;
}

enum rc store_s3_head(struct store *store, const char *key, uint64_t *bytes, struct err *err)
{
    struct store_s3 *s3 = store_s3_of(store);
    char full[STORE_S3_KEY_BYTES];
    char etag[64];
    enum rc rc = store_s3_full_key(s3, key, full, err);
    if (rc == RC_OK) {
        rc = store_s3_look_twice(s3, full, bytes, etag, err);
    }
    return rc;
}

/* ---- get ---- */

static S3Status store_s3_on_data(int count, const char *bytes, void *arg)
{
    struct store_s3_call *call = arg;
    const struct s3_answer *answer = &call->guard.answer;
    if (call->ranged && answer->http_status != 206 && !s3_guard_is_off()) {
        call->sink_rc = err_set(call->err, RC_CORRUPT,
                                "the store sends the whole object (%ld) where a part was asked for",
                                answer->http_status);
        return S3StatusAbortedByCallback;
    }
    call->received_bytes += (uint64_t)count;
    call->sink_rc =
        call->sink(call->sink_arg, (const uint8_t *)(const void *)bytes, (size_t)count, call->err);
    return call->sink_rc == RC_OK ? S3StatusOK : S3StatusAbortedByCallback;
}

/* A part that is not the part that was asked for is worse than none. */
static bool store_s3_range_is_right(const struct s3_answer *answer, const struct store_range *range)
{
    if (!answer->has_range || answer->range_first != range->offset ||
        answer->range_last - answer->range_first + 1 != answer->body_bytes) {
        return false;
    }
    uint64_t rest = answer->range_total - range->offset;
    uint64_t want = range->length != 0 && range->length < rest ? range->length : rest;
    return answer->body_bytes == want;
}

static enum rc store_s3_fetch(struct store_s3 *s3, const char *full,
                              const struct store_range *range, store_sink_fn *sink, void *arg,
                              struct err *err)
{
    static const S3GetObjectHandler handler = {
        .responseHandler = {store_s3_on_properties, store_s3_on_complete},
        .getObjectDataCallback = store_s3_on_data,
    };
    static const S3GetConditions conditions = {
        .ifModifiedSince = -1,
        .ifNotModifiedSince = -1,
    };
    struct store_s3_call call = {.sink = sink, .sink_arg = arg, .err = err};
    call.ranged = range->offset != 0 || range->length != 0;
    call.guard.wants_body = true;
    store_s3_begin(s3, &call);
    S3_get_object(&s3->bucket, full, &conditions, range->offset, range->length, NULL, &handler,
                  &call);
    store_s3_end(&call);
    const struct s3_answer *answer = &call.guard.answer;
    if (call.sink_rc == RC_OK && answer->http_status == 416 && call.ranged && range->offset == 0) {
        return RC_OK; /* the first bytes of an object that has none */
    }
    if (call.sink_rc != RC_OK || !store_s3_succeeded(&call)) {
        return store_s3_fail(&call, "GET", full, err);
    }
    if (s3_guard_is_off()) {
        return RC_OK;
    }
    if (!s3_answer_is_whole(answer)) {
        return err_set(err, RC_UNAVAILABLE, "GET %s: %llu bytes came, and no more", full,
                       (unsigned long long)answer->body_bytes);
    }
    if ((call.ranged && !store_s3_range_is_right(answer, range)) ||
        call.received_bytes != answer->body_bytes) {
        return err_set(err, RC_CORRUPT, "GET %s: not the part that was asked for", full);
    }
    return RC_OK;
}

enum rc store_s3_get(struct store *store, const char *key, const struct store_range *range,
                     store_sink_fn *sink, void *arg, struct err *err)
{
    struct store_s3 *s3 = store_s3_of(store);
    char full[STORE_S3_KEY_BYTES];
    enum rc rc = store_s3_full_key(s3, key, full, err);
    return rc == RC_OK ? store_s3_fetch(s3, full, range, sink, arg, err) : rc;
}

/* ---- does the store hold exactly this? ---- */

struct store_s3_compare {
    const struct store_s3_upload *upload;
    uint64_t done;
    bool same;
};

static enum rc store_s3_compare_piece(void *arg, const uint8_t *bytes, size_t count,
                                      struct err *err)
{
    struct store_s3_compare *compare = arg;
    (void)err;
    if (count > compare->upload->count - compare->done ||
        memcmp(compare->upload->bytes + compare->done, bytes, count) != 0) {
        compare->same = false;
        return RC_EXISTS; /* enough seen: ends the transfer */
    }
    compare->done += count;
    return RC_OK;
}

/* *same = the object there is ours, byte for byte. RC_NOT_FOUND when there is none. */
static enum rc store_s3_holds(struct store_s3 *s3, const struct store_s3_upload *upload, bool *same,
                              struct err *err)
{
    static const struct store_range whole = {0, 0};
    uint64_t bytes = 0;
    char etag[64];
    *same = false;
    enum rc rc = store_s3_look(s3, upload->key, &bytes, etag, err);
    if (rc != RC_OK || bytes != upload->count) {
        return rc;
    }
    if (strcasecmp(etag, upload->md5.hex) == 0) {
        *same = true;
        return RC_OK;
    }
    struct store_s3_compare compare = {.upload = upload, .same = true};
    rc = store_s3_fetch(s3, upload->key, &whole, store_s3_compare_piece, &compare, err);
    if (rc == RC_EXISTS && !compare.same) {
        return RC_OK;
    }
    *same = rc == RC_OK && compare.done == upload->count;
    return rc;
}

/* ---- put ---- */

static int store_s3_on_upload(int room, char *bytes, void *arg)
{
    /* Used without the guard only: it sends the body itself. */
    struct store_s3_call *call = arg;
    size_t left = call->guard.upload_bytes - call->guard.upload_offset;
    size_t count = (size_t)room < left ? (size_t)room : left;
    if (count > 0) {
        memcpy(bytes, call->guard.upload + call->guard.upload_offset, count);
        call->guard.upload_offset += count;
    }
    return (int)count;
}

static void store_s3_send(struct store_s3 *s3, const struct store_s3_upload *upload,
                          bool if_none_match, struct store_s3_call *call)
{
    static const S3PutObjectHandler handler = {
        .responseHandler = {store_s3_on_properties, store_s3_on_complete},
        .putObjectDataCallback = store_s3_on_upload,
    };
    const S3PutProperties properties = {
        .contentType = "application/octet-stream",
        .md5 = upload->md5.base64, /* signed, and checked by the store: all that V2 has */
        .expires = -1,
        .cannedAcl = S3CannedAclPrivate,
    };
    memset(call, 0, sizeof *call);
    call->guard.if_none_match = if_none_match;
    call->guard.upload = upload->bytes;
    call->guard.upload_bytes = upload->count;
    store_s3_begin(s3, call);
    S3_put_object(&s3->bucket, upload->key, upload->count, &properties, NULL, &handler, call);
    store_s3_end(call);
}

/*
 * A 2xx answer whose ETag is not the MD5: either the store's ETags never are, or it holds something
 * else.
 */
static enum rc store_s3_settle_etag(struct store_s3 *s3, const struct store_s3_upload *upload,
                                    const struct s3_answer *answer, struct err *err)
{
    bool same = false;
    uint64_t bytes = 0;
    char etag[64];
    if (s3->etag_is_opaque && answer->etag[0] != '\0') {
        enum rc rc = store_s3_look(s3, upload->key, &bytes, etag, err);
        if (rc == RC_OK && bytes == upload->count && strcmp(etag, answer->etag) == 0) {
            return RC_OK;
        }
    }
    enum rc rc = store_s3_holds(s3, upload, &same, err);
    if (rc == RC_NOT_FOUND) {
        return err_set(err, RC_UNAVAILABLE,
                       "PUT %s: answered with success, but the store does not hold it",
                       upload->key);
    }
    if (rc == RC_OK && !same) {
        return err_set(err, RC_CORRUPT,
                       "PUT %s: answered with success, but the store holds other bytes than were "
                       "sent",
                       upload->key);
    }
    if (rc == RC_OK && answer->etag[0] != '\0') {
        s3->etag_is_opaque = true; /* next time its size is enough */
    }
    return rc;
}

/*
 * What this call has just put arrived damaged. The name is ours (the put was answered with success),
 * and a conditional put would meet the damaged object for ever: it is put over it, once. Not for "if
 * absent": a store that ignores the condition may show somebody else's object there.
 */
static enum rc store_s3_put_again(struct store_s3 *s3, const struct store_s3_upload *upload,
                                  struct err *err)
{
    struct store_s3_call call;
    store_s3_send(s3, upload, false, &call);
    if (!store_s3_succeeded(&call)) {
        return store_s3_fail(&call, "PUT", upload->key, err);
    }
    return strcasecmp(call.guard.answer.etag, upload->md5.hex) == 0
               ? RC_OK
               : store_s3_settle_etag(s3, upload, &call.guard.answer, err);
}

/*
 * 412. The same bytes are an earlier try of ours; for "if absent" that counts only when this very
 * call sent them twice: else the caller asked whether the name was free, and it was not.
 */
static enum rc store_s3_settle_taken(struct store_s3 *s3, const struct store_s3_upload *upload,
                                     bool may_be_ours, struct err *err)
{
    bool same = false;
    enum rc rc = may_be_ours ? store_s3_holds(s3, upload, &same, err) : RC_OK;
    if (rc == RC_NOT_FOUND) {
        return err_set(err, RC_UNAVAILABLE, "PUT %s: the name was taken, and now it is not",
                       upload->key);
    }
    if (rc == RC_OK && !same) {
        return err_set(err, RC_EXISTS, "PUT %s: an object lies under this name", upload->key);
    }
    return rc;
}

/* What became of a put that was sent. */
static enum rc store_s3_settle(struct store_s3 *s3, const struct store_s3_upload *upload,
                               const struct store_s3_call *call, enum store_put_mode mode,
                               struct err *err)
{
    const struct s3_answer *answer = &call->guard.answer;
    if (store_s3_succeeded(call)) {
        if (s3_guard_is_off() || strcasecmp(answer->etag, upload->md5.hex) == 0) {
            return RC_OK;
        }
        enum rc settled = store_s3_settle_etag(s3, upload, answer, err);
        return settled == RC_CORRUPT && mode == STORE_PUT_PLAIN
                   ? store_s3_put_again(s3, upload, err)
                   : settled;
    }
    enum rc rc = store_s3_fail(call, "PUT", upload->key, err);
    if (s3_guard_is_off()) {
        return rc;
    }
    if (rc == RC_EXISTS) {
        return store_s3_settle_taken(s3, upload, mode == STORE_PUT_PLAIN || answer->resent, err);
    }
    bool same = false;
    struct err second = ERR_INIT;
    if (s3_answer_is_unknown(answer) && store_s3_holds(s3, upload, &same, &second) == RC_OK &&
        same) {
        return RC_OK; /* it was stored, and only the answer was lost */
    }
    return rc;
}

/* The body in memory: the caller's own, or read from its file into the handle's. */
static enum rc store_s3_load(struct store_s3 *s3, const struct store_body *body,
                             struct store_s3_upload *upload, struct err *err)
{
    if (body->size_bytes > STORE_S3_BODY_BYTES_MAX) {
        return err_set(err, RC_LIMIT, "PUT %s: %llu bytes; the limit is %u", upload->key,
                       (unsigned long long)body->size_bytes, STORE_S3_BODY_BYTES_MAX);
    }
    upload->count = (size_t)body->size_bytes;
    upload->bytes = body->bytes;
    if (body->bytes == NULL && upload->count > 0) {
        if (upload->count > s3->body_capacity) {
            free(s3->body);
            s3->body_capacity = 0;
            s3->body = malloc(upload->count);
            if (s3->body == NULL) {
                return err_set(err, RC_NOMEM, "PUT %s: no memory for %zu bytes", upload->key,
                               upload->count);
            }
            s3->body_capacity = upload->count;
        }
        enum rc rc = fsio_read_at(body->fd, s3->body, upload->count, 0, err);
        if (rc != RC_OK) {
            return rc;
        }
        upload->bytes = s3->body;
    }
    return store_s3_md5(upload->count > 0 ? upload->bytes : (const uint8_t *)"", upload->count,
                        &upload->md5, err);
}

enum rc store_s3_put(struct store *store, const char *key, const struct store_body *body,
                     enum store_put_mode mode, struct err *err)
{
    struct store_s3 *s3 = store_s3_of(store);
    char full[STORE_S3_KEY_BYTES];
    struct store_s3_upload upload = {.key = full};
    struct store_s3_call call;
    bool conditional = store_s3_is_conditional(s3);
    enum rc rc = store_s3_full_key(s3, key, full, err);
    if (rc == RC_OK) {
        rc = store_s3_load(s3, body, &upload, err);
    }
    if (rc == RC_OK && mode == STORE_PUT_IF_ABSENT && !conditional) {
        uint64_t bytes = 0;
        char etag[64];
        rc = store_s3_look_twice(s3, full, &bytes, etag, err);
        if (rc == RC_OK) {
            return err_set(err, RC_EXISTS, "PUT %s: the name is taken", full);
        }
        rc = rc == RC_NOT_FOUND ? RC_OK : rc;
    }
    if (rc != RC_OK) {
        return rc;
    }
    store_s3_send(s3, &upload, conditional, &call);
    return store_s3_settle(s3, &upload, &call, mode, err);
}

/* ---- remove, probe ---- */

enum rc store_s3_remove(struct store *store, const char *key, struct err *err)
{
    static const S3ResponseHandler handler = {store_s3_on_properties, store_s3_on_complete};
    struct store_s3 *s3 = store_s3_of(store);
    char full[STORE_S3_KEY_BYTES];
    enum rc rc = store_s3_full_key(s3, key, full, err);
    if (rc != RC_OK) {
        return rc;
    }
    struct store_s3_call call = {.status = S3StatusInternalError};
    store_s3_begin(s3, &call);
    S3_delete_object(&s3->bucket, full, NULL, &handler, &call);
    store_s3_end(&call);
    if (store_s3_succeeded(&call)) {
        return RC_OK;
    }
    rc = store_s3_fail(&call, "DELETE", full, err);
    if (rc == RC_NOT_FOUND && strcmp(call.guard.answer.code, "NoSuchBucket") != 0) {
        return RC_OK;
    }
    return rc;
}

enum rc store_s3_probe(struct store_s3 *s3, bool *conditional, struct err *err)
{
    static const char text[] = "harvey asks whether a conditional put holds\n";
    char full[STORE_S3_KEY_BYTES];
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    char key[sizeof "probe/" + sizeof hex];
    struct store_s3_upload upload = {
        .key = full, .bytes = (const uint8_t *)text, .count = sizeof text - 1};
    struct store_s3_call call;
    *conditional = false;
    bytes_random(random, sizeof random);
    bytes_to_hex(random, sizeof random, hex);
    (void)snprintf(key, sizeof key, "probe/%s", hex);
    enum rc rc = store_s3_full_key(s3, key, full, err);
    if (rc == RC_OK) {
        rc = store_s3_md5(upload.bytes, upload.count, &upload.md5, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    store_s3_send(s3, &upload, true, &call);
    if (!store_s3_succeeded(&call)) {
        if (call.guard.answer.http_status == 501) { /* B2: the header itself is not implemented */
            return RC_OK;
        }
        rc = store_s3_fail(&call, "PUT", full, err);
        if (rc != RC_EXISTS) {
            return rc;
        }
    }
    store_s3_send(s3, &upload, true, &call);
    rc = store_s3_succeeded(&call) ? RC_OK : store_s3_fail(&call, "PUT", full, err);
    *conditional = rc == RC_EXISTS;
    /* Keys that may write and not delete are good practice: then the probe stays. */
    struct err ignored = ERR_INIT;
    (void)store_s3_remove(&s3->base, key, &ignored);
    return rc == RC_EXISTS ? RC_OK : rc;
}
