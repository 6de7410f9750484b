/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_s3_list: listings of a bucket, ListObjects version 1 with a marker and never a delimiter
 * (libs3 garbles common prefixes). A page is handed on only after its answer turned out to be one
 * complete document: libs3 calls back while it reads, and reports a cut page as a whole one (D4).
 */
#include "archive/store_s3_internal.h"

#include "base/buf.h"
#include "base/bytes.h"

#include <stdio.h>
#include <string.h>

#define STORE_S3_PAGE_BYTES_MAX (8u << 20) /* S3 sends 1000 keys of at most 1 KiB */
#define STORE_S3_PAGES_MAX 1000000u        /* a thousand million objects */
#define STORE_S3_CALLBACK_KEYS 32 /* libs3 calls back for so many keys, then for the rest */

/* The keys of one page: for each its size (8 bytes), the key, a NUL. */
struct store_s3_page {
    struct store_s3_call call; /* first: libs3's callbacks get it */
    struct buf entries;
    size_t count;
    bool truncated;
    struct err *err;
};

static struct store_s3_page *store_s3_page_of(void *arg)
{
    return arg;
}

static S3Status store_s3_on_keys(int truncated, const char *next_marker, int count,
                                 const S3ListBucketContent *contents, int prefix_count,
                                 const char **prefixes, void *arg)
{
    struct store_s3_page *page = store_s3_page_of(arg);
    (void)next_marker; /* empty unless the store sends one; the last key serves */
    (void)prefix_count;
    (void)prefixes;
    page->truncated = truncated != 0; /* right in the last call of a page only */
    for (int i = 0; i < count && page->call.sink_rc == RC_OK; i++) {
        uint8_t size[8];
        bytes_put_u64(size, contents[i].size);
        page->call.sink_rc = buf_append(&page->entries, size, sizeof size, page->err);
        if (page->call.sink_rc == RC_OK) {
            page->call.sink_rc =
                buf_append(&page->entries, contents[i].key, strlen(contents[i].key) + 1, page->err);
        }
        page->count++;
    }
    return page->call.sink_rc == RC_OK ? S3StatusOK : S3StatusAbortedByCallback;
}

/* One page of the keys after `marker`; max_keys 0 = as many as the store likes. */
static enum rc store_s3_fetch_page(struct store_s3 *s3, const char *prefix, const char *marker,
                                   int max_keys, struct store_s3_page *page, struct err *err)
{
    static const S3ListBucketHandler handler = {
        .responseHandler = {store_s3_on_properties, store_s3_on_complete},
        .listBucketCallback = store_s3_on_keys,
    };
    page->count = 0;
    page->truncated = false;
    page->err = err;
    buf_clear(&page->entries);
    memset(&page->call, 0, sizeof page->call);
    page->call.guard.wants_body = true;
    page->call.guard.is_xml = true;
    page->call.guard.body_bytes_max = STORE_S3_PAGE_BYTES_MAX;
    store_s3_begin(s3, &page->call);
    S3_list_bucket(&s3->bucket, prefix, *marker == '\0' ? NULL : marker, NULL, max_keys, NULL,
                   &handler, page);
    store_s3_end(&page->call);
    if (page->call.sink_rc != RC_OK || !store_s3_succeeded(&page->call)) {
        return store_s3_fail(&page->call, "LIST", *prefix == '\0' ? s3->config.bucket : prefix,
                             err);
    }
    if (!s3_guard_is_off() && !s3_answer_is_listing(&page->call.guard.answer)) {
        return err_set(err, RC_UNAVAILABLE,
                       "LIST %s: the answer is not one whole listing (%llu bytes)", prefix,
                       (unsigned long long)page->call.guard.answer.body_bytes);
    }
    if (page->count == 0 && s3_answer_has_more(&page->call.guard.answer)) {
        return err_set(err, RC_UNAVAILABLE, "LIST %s: the store has more keys, and names none",
                       prefix);
    }
    return RC_OK;
}

/*
 * Whether another page follows. A store may say so behind the keys; where they fill libs3's last
 * callback there is none to come that would tell us: the page behind the last key does.
 */
static bool store_s3_may_follow(const struct store_s3_page *page)
{
    return page->count > 0 && (page->truncated || page->count % STORE_S3_CALLBACK_KEYS == 0);
}

struct store_s3_walk {
    struct store_s3 *s3;
    char prefix[STORE_S3_KEY_BYTES]; /* the whole one, the configured part included */
    char marker[STORE_S3_KEY_BYTES]; /* the last key seen, or where to begin */
    size_t own_count;                /* bytes of the configured prefix and its slash */
    store_visit_fn *visit;
    void *arg;
};

/*
 * Keys must come in order, below the prefix and after the marker: else the pages could run in a
 * circle.
 */
static enum rc store_s3_visit_page(struct store_s3_walk *walk, const struct store_s3_page *page,
                                   struct err *err)
{
    size_t offset = 0;
    for (size_t i = 0; i < page->count; i++) {
        ASSERT(page->entries.size - offset > 8);
        uint64_t size = bytes_get_u64(page->entries.data + offset);
        const char *key = (const char *)page->entries.data + offset + 8;
        size_t count = strlen(key);
        offset += 8 + count + 1;
        if (count >= sizeof walk->marker || strcmp(key, walk->marker) <= 0 ||
            strncmp(key, walk->prefix, strlen(walk->prefix)) != 0) {
            return err_set(err, RC_CORRUPT,
                           "LIST %s: the store answers with %.100s after %.100s, out of order or "
                           "not asked for",
                           walk->prefix, key, walk->marker);
        }
        memcpy(walk->marker, key, count + 1);
        const char *own = key + walk->own_count;
        if (!store_key_is_valid(own)) { /* somebody else's: no name that we could have put */
            continue;
        }
        enum rc rc = walk->visit(walk->arg, own, size, err);
        if (rc != RC_OK) {
            return rc;
        }
    }
    return RC_OK;
}

static enum rc store_s3_walk_pages(struct store_s3_walk *walk, struct err *err)
{
    struct store_s3_page page = {.count = 0};
    enum rc rc = RC_OK;
    bool more = true;
    buf_init(&page.entries, STORE_S3_PAGE_BYTES_MAX);
    for (unsigned n = 0; rc == RC_OK && more; n++) {
        if (n == STORE_S3_PAGES_MAX) {
            rc = err_set(err, RC_LIMIT, "LIST %s: more than %u pages", walk->prefix,
                         STORE_S3_PAGES_MAX);
            break;
        }
        rc = store_s3_fetch_page(walk->s3, walk->prefix, walk->marker, 0, &page, err);
        if (rc == RC_OK) {
            rc = store_s3_visit_page(walk, &page, err);
        }
        more = store_s3_may_follow(&page);
    }
    buf_deinit(&page.entries);
    return rc;
}

enum rc store_s3_list(struct store *store, const char *prefix, const char *start_after,
                      store_visit_fn *visit, void *arg, struct err *err)
{
    struct store_s3 *s3 = store_s3_of(store);
    struct store_s3_walk walk = {.s3 = s3, .visit = visit, .arg = arg};
    enum rc rc = store_s3_full_key(s3, prefix, walk.prefix, err);
    if (rc == RC_OK && *start_after != '\0') {
        rc = store_s3_full_key(s3, start_after, walk.marker, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    /*
     * MinIO wants a marker to lie below the prefix (else 501). One before it asks for all of them,
     * one behind it for none.
     */
    if (strncmp(walk.marker, walk.prefix, strlen(walk.prefix)) != 0) {
        if (strcmp(walk.marker, walk.prefix) > 0) {
            return RC_OK;
        }
        walk.marker[0] = '\0';
    }
    size_t configured = strlen(s3->config.prefix);
    walk.own_count = configured == 0 ? 0 : configured + 1;
    return store_s3_walk_pages(&walk, err);
}

enum rc store_s3_is_listed(struct store_s3 *s3, const char *full, bool *listed, struct err *err)
{
    struct store_s3_page page = {.count = 0};
    buf_init(&page.entries, STORE_S3_PAGE_BYTES_MAX);
    enum rc rc = store_s3_fetch_page(s3, full, "", 1, &page, err);
    *listed = rc == RC_OK && page.count > 0 && page.entries.size > 8 &&
              strcmp((const char *)page.entries.data + 8, full) == 0;
    buf_deinit(&page.entries);
    return rc;
}

enum rc store_s3_check_bucket(struct store_s3 *s3, struct err *err)
{
    struct store_s3_page page = {.count = 0};
    char prefix[STORE_S3_KEY_BYTES];
    enum rc rc = store_s3_full_key(s3, "", prefix, err);
    if (rc != RC_OK) {
        return rc;
    }
    buf_init(&page.entries, STORE_S3_PAGE_BYTES_MAX);
    rc = store_s3_fetch_page(s3, prefix, "", 1, &page, err);
    buf_deinit(&page.entries);
    return rc;
}
