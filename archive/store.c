/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store: dispatch to the kinds of store, and what is the same for all of them: the check of keys,
 * and whole objects in memory. See store.h.
 */
#include "archive/store.h"

#include "archive/store_dir.h"
#include "archive/store_s3.h"
#include "base/buf.h"

#include <string.h>

/*
 * S3's own limit is 1024 bytes with the prefix; a path segment is a file name in MinIO and in dir:.
 */
#define STORE_KEY_BYTES_MAX 512u
#define STORE_KEY_SEGMENT_BYTES_MAX 200u

static bool store_char_is_valid(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

bool store_key_is_valid(const char *key)
{
    size_t segment_bytes = 0;
    const char *p = key;
    for (; *p != '\0'; p++) {
        if (*p == '/') {
            if (segment_bytes == 0) {
                return false;
            }
            segment_bytes = 0;
            continue;
        }
        /* No hidden names: "." and ".." would change the path, ".tmp" is the directory store's. */
        if (!store_char_is_valid(*p) || (*p == '.' && segment_bytes == 0)) {
            return false;
        }
        segment_bytes++;
        if (segment_bytes > STORE_KEY_SEGMENT_BYTES_MAX) {
            return false;
        }
    }
    return segment_bytes > 0 && (size_t)(p - key) <= STORE_KEY_BYTES_MAX;
}

static enum rc store_check_key(const char *key, struct err *err)
{
    if (!store_key_is_valid(key)) {
        return err_set(err, RC_INVALID, "'%.100s' is not a key of an archive", key);
    }
    return RC_OK;
}

/* A prefix is the beginning of a key: it may be empty, or end anywhere in a segment. */
static enum rc store_check_prefix(const char *prefix, struct err *err)
{
    for (const char *p = prefix; *p != '\0'; p++) {
        if (!store_char_is_valid(*p) && *p != '/') {
            return err_set(err, RC_INVALID, "'%.100s' is not the beginning of a key", prefix);
        }
    }
    if (strlen(prefix) > STORE_KEY_BYTES_MAX) {
        return err_set(err, RC_INVALID, "'%.100s…' is too long for a key", prefix);
    }
    return RC_OK;
}

enum rc store_open(const struct store_config *config, struct stop *stop, struct store **store,
                   struct err *err)
{
    *store = NULL;
    if (config->off) {
        return err_set(err, RC_INVALID, "the archive is switched off: there is no store to open");
    }
    enum rc rc =
        config->is_s3 ? store_s3_create(config, store, err) : store_dir_create(config, store, err);
    if (rc == RC_OK) {
        (*store)->stop = stop;
    }
    return rc;
}

void store_close(struct store *store)
{
    if (store != NULL) {
        store->ops->destroy(store);
    }
}

enum rc store_prepare(struct store *store, bool create, struct err *err)
{
    return store->ops->prepare(store, create, err);
}

enum rc store_put(struct store *store, const char *key, const struct store_body *body,
                  enum store_put_mode mode, struct err *err)
{
    ASSERT(body->bytes != NULL || body->fd >= 0 || body->size_bytes == 0);
    enum rc rc = store_check_key(key, err);
    return rc == RC_OK ? store->ops->put(store, key, body, mode, err) : rc;
}

enum rc store_get(struct store *store, const char *key, const struct store_range *range,
                  store_sink_fn *sink, void *arg, struct err *err)
{
    static const struct store_range whole = {0, 0};
    enum rc rc = store_check_key(key, err);
    return rc == RC_OK ? store->ops->get(store, key, range != NULL ? range : &whole, sink, arg, err)
                       : rc;
}

enum rc store_head(struct store *store, const char *key, uint64_t *bytes, struct err *err)
{
    enum rc rc = store_check_key(key, err);
    return rc == RC_OK ? store->ops->head(store, key, bytes, err) : rc;
}

enum rc store_list(struct store *store, const char *prefix, const char *start_after,
                   store_visit_fn *visit, void *arg, struct err *err)
{
    enum rc rc = store_check_prefix(prefix, err);
    if (rc == RC_OK) {
        rc = store_check_prefix(start_after, err);
    }
    return rc == RC_OK ? store->ops->list(store, prefix, start_after, visit, arg, err) : rc;
}

enum rc store_remove(struct store *store, const char *key, struct err *err)
{
    enum rc rc = store_check_key(key, err);
    return rc == RC_OK ? store->ops->remove(store, key, err) : rc;
}

static enum rc store_append_to_buf(void *arg, const uint8_t *bytes, size_t count, struct err *err)
{
    return buf_append(arg, bytes, count, err);
}

enum rc store_get_buf(struct store *store, const char *key, struct buf *buf, struct err *err)
{
    size_t size_before = buf->size;
    enum rc rc = store_get(store, key, NULL, store_append_to_buf, buf, err);
    if (rc != RC_OK) {
        buf->size = size_before; /* half an object is none */
    }
    return rc;
}

enum rc store_put_bytes(struct store *store, const char *key, const void *bytes, size_t count,
                        enum store_put_mode mode, struct err *err)
{
    struct store_body body = {.bytes = bytes, .fd = -1, .size_bytes = count};
    return store_put(store, key, &body, mode, err);
}
