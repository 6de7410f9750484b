/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_dir: see store_dir.h. Trusts the filesystem to keep what was fsynced, and nothing about who
 * else is in the directory: names that are no keys, and other kinds of files, are passed over.
 */
#include "archive/store_dir.h"

#include "archive/store_dir_internal.h"
#include "base/bytes.h"
#include "base/clk.h"
#include "base/failpoint.h"
#include "base/fsio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STORE_DIR_TMP ".tmp" /* begins with a dot: no key can, so no listing shows it */
#define STORE_DIR_CHUNK_BYTES (64u << 10)
#define STORE_DIR_STALE_NS ((int64_t)24 * 3600 * 1000000000) /* no put takes a day */

struct store_dir {
    struct store base;
    char root[STORE_URL_BYTES];
    char tmp[FSIO_PATH_BYTES];
    /* The folder whose whole line of parents this handle has fsynced: a parent that somebody else
     * made, and did not live to fsync, must not carry our object away with it. */
    char synced_dir[FSIO_PATH_BYTES];
    uint8_t chunk[STORE_DIR_CHUNK_BYTES];
};

static struct store_dir *store_dir_of(struct store *store)
{
    return (struct store_dir *)(void *)store;
}

static enum rc store_dir_check_stop(const struct store_dir *dir, struct err *err)
{
    if (dir->base.stop != NULL && stop_level(dir->base.stop) >= STOP_NOW) {
        return err_set(err, RC_STOPPED, "stopped");
    }
    return RC_OK;
}

/* A missing root is not an empty archive: the mount may be gone. */
static enum rc store_dir_check_root(const struct store_dir *dir, struct err *err)
{
    struct fsio_stat stat;
    enum rc rc = fsio_stat(dir->root, &stat, err);
    if (rc == RC_OK && !stat.exists) {
        rc = err_set(err, RC_NOT_FOUND, "no archive directory %s", dir->root);
    } else if (rc == RC_OK && !stat.is_dir) {
        rc = err_set(err, RC_INVALID, "the archive %s is not a directory", dir->root);
    }
    return rc;
}

/* What a failed open of an object means: the object is missing, or the whole archive. */
static enum rc store_dir_no_object(const struct store_dir *dir, const char *key, struct err *err)
{
    enum rc rc = store_dir_check_root(dir, err);
    return rc != RC_OK ? rc : err_set(err, RC_NOT_FOUND, "no object %s in %s", key, dir->root);
}

static enum rc store_dir_path(const struct store_dir *dir, const char *key,
                              char path[FSIO_PATH_BYTES], struct err *err)
{
    return fsio_join(path, FSIO_PATH_BYTES, dir->root, key, err);
}

/* ---- making folders that last ---- */

/* fsyncs every folder from `from` (a prefix of `path`, in bytes) down to the parent of `path`. */
static enum rc store_dir_sync_line(const char *path, size_t from, struct err *err)
{
    char part[FSIO_PATH_BYTES];
    size_t count = strlen(path);
    ASSERT(from <= count && count < sizeof part);
    memcpy(part, path, count + 1);
    for (size_t i = from; i < count; i++) {
        if (part[i] != '/' || i == 0) {
            continue;
        }
        part[i] = '\0';
        enum rc rc = fsio_sync_dir(part, err);
        if (rc != RC_OK) {
            return rc;
        }
        part[i] = '/';
    }
    return RC_OK;
}

/* The object's folder, made where missing; all parents down from the root are fsynced once. */
static enum rc store_dir_make_parent(struct store_dir *dir, const char *path,
                                     char parent[FSIO_PATH_BYTES], struct err *err)
{
    enum rc rc = fsio_dirname(path, parent, FSIO_PATH_BYTES, err);
    if (rc != RC_OK || strcmp(parent, dir->synced_dir) == 0) {
        return rc;
    }
    rc = fsio_make_dirs(parent, err);
    if (rc == RC_OK) {
        rc = store_dir_sync_line(path, strlen(dir->root), err);
    }
    if (rc == RC_OK) {
        memcpy(dir->synced_dir, parent, strlen(parent) + 1);
    }
    return rc;
}

/*
 * The root and those of its parents that are missing, with fsync of each parent that got a child.
 */
static enum rc store_dir_make_root(const struct store_dir *dir, struct err *err)
{
    char ancestor[FSIO_PATH_BYTES];
    char above[FSIO_PATH_BYTES];
    memcpy(ancestor, dir->root, strlen(dir->root) + 1);
    struct fsio_stat stat;
    enum rc rc = fsio_stat(ancestor, &stat, err);
    while (rc == RC_OK && !stat.exists) {
        rc = fsio_dirname(ancestor, above, sizeof above, err);
        if (rc == RC_OK) {
            memcpy(ancestor, above, strlen(above) + 1);
            rc = fsio_stat(ancestor, &stat, err);
        }
    }
    if (rc == RC_OK) {
        rc = fsio_make_dirs(dir->root, err);
    }
    if (rc != RC_OK || strcmp(ancestor, dir->root) == 0) {
        return rc;
    }
    rc = fsio_sync_dir(ancestor, err);
    size_t from = strcmp(ancestor, ".") == 0 ? 0 : strlen(ancestor) + 1;
    return rc != RC_OK ? rc : store_dir_sync_line(dir->root, from, err);
}

/* Removes what a killed put left long ago; that it cannot be removed harms nobody. */
static enum rc store_dir_sweep_visit(void *arg, const char *name, bool is_dir, struct err *err)
{
    struct store_dir *dir = arg;
    char path[FSIO_PATH_BYTES];
    struct fsio_stat stat;
    if (!is_dir && fsio_join(path, sizeof path, dir->tmp, name, err) == RC_OK &&
        fsio_stat(path, &stat, err) == RC_OK && stat.exists &&
        stat.mtime_ns < clk_coarse_unix_ns() - STORE_DIR_STALE_NS) {
        (void)unlink(path);
    }
    return RC_OK;
}

static enum rc store_dir_prepare(struct store *store, bool create, struct err *err)
{
    struct store_dir *dir = store_dir_of(store);
    store->request_count++;
    if (!create) {
        return store_dir_check_root(dir, err);
    }
    enum rc rc = store_dir_make_root(dir, err);
    if (rc == RC_OK) {
        rc = store_dir_check_root(dir, err);
    }
    if (rc == RC_OK) {
        rc = fsio_make_dirs(dir->tmp, err);
    }
    if (rc == RC_OK) {
        rc = fsio_list_dir(dir->tmp, store_dir_sweep_visit, dir, err);
    }
    return rc;
}

/* ---- put ---- */

static enum rc store_dir_copy_body(struct store_dir *dir, const struct store_body *body, int fd,
                                   struct err *err)
{
    if (body->bytes != NULL) {
        return fsio_write_at(fd, body->bytes, (size_t)body->size_bytes, 0, err);
    }
    uint64_t done = 0;
    while (done < body->size_bytes) {
        uint64_t left = body->size_bytes - done;
        size_t count = left < sizeof dir->chunk ? (size_t)left : sizeof dir->chunk;
        enum rc rc = store_dir_check_stop(dir, err);
        if (rc == RC_OK) {
            rc = fsio_read_at(body->fd, dir->chunk, count, done, err);
        }
        if (rc == RC_OK) {
            rc = fsio_write_at(fd, dir->chunk, count, done, err);
        }
        if (rc != RC_OK) {
            return rc;
        }
        done += count;
    }
    return RC_OK;
}

/* Writes and fsyncs the body under a name of its own in .tmp/; on failure nothing stays. */
static enum rc store_dir_write_tmp(struct store_dir *dir, const struct store_body *body,
                                   char path[FSIO_PATH_BYTES], struct err *err)
{
    uint8_t random[8];
    char name[2 * sizeof random + 1];
    bytes_random(random, sizeof random); /* pids repeat between containers that share a volume */
    bytes_to_hex(random, sizeof random, name);
    int fd = -1;
    enum rc rc = store_dir_check_root(dir, err); /* only prepare makes it: a mount may be gone */
    if (rc == RC_OK) {
        rc = fsio_make_dirs(dir->tmp, err);
    }
    if (rc == RC_OK) {
        rc = fsio_join(path, FSIO_PATH_BYTES, dir->tmp, name, err);
    }
    if (rc == RC_OK) {
        rc = fsio_open(path, O_WRONLY | O_CREAT | O_EXCL, 0644, &fd, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    rc = store_dir_copy_body(dir, body, fd, err);
    if (rc == RC_OK && fsync(fd) != 0) {
        rc = fsio_fail(err, "cannot fsync", path);
    }
    if (close(fd) != 0 && rc == RC_OK) {
        rc = fsio_fail(err, "cannot close", path);
    }
    if (rc != RC_OK) {
        (void)unlink(path);
    }
    return rc;
}

/* Reads `count` bytes of a body into `bytes`. */
static enum rc store_dir_body_piece(const struct store_body *body, uint64_t offset, uint8_t *bytes,
                                    size_t count, struct err *err)
{
    if (body->bytes != NULL) {
        memcpy(bytes, (const uint8_t *)body->bytes + offset, count);
        return RC_OK;
    }
    return fsio_read_at(body->fd, bytes, count, offset, err);
}

/* *same = the file holds exactly the body. */
static enum rc store_dir_compare(struct store_dir *dir, const char *path,
                                 const struct store_body *body, bool *same, struct err *err)
{
    *same = false;
    struct fsio_stat stat;
    enum rc rc = fsio_stat(path, &stat, err);
    if (rc != RC_OK || !stat.exists || stat.is_dir || stat.size_bytes != body->size_bytes) {
        return rc;
    }
    int fd = -1;
    rc = fsio_open(path, O_RDONLY, 0, &fd, err);
    if (rc != RC_OK) {
        return rc;
    }
    size_t half = sizeof dir->chunk / 2;
    *same = true;
    for (uint64_t done = 0; rc == RC_OK && *same && done < body->size_bytes;) {
        uint64_t left = body->size_bytes - done;
        size_t count = left < half ? (size_t)left : half;
        rc = store_dir_body_piece(body, done, dir->chunk, count, err);
        if (rc == RC_OK) {
            rc = fsio_read_at(fd, dir->chunk + half, count, done, err);
        }
        *same = rc == RC_OK && memcmp(dir->chunk, dir->chunk + half, count) == 0;
        done += count;
    }
    (void)close(fd);
    return rc;
}

/* The name was taken. The same bytes under it are an earlier try of this very put. */
static enum rc store_dir_put_again(struct store_dir *dir, const char *key, const char *path,
                                   const struct store_body *body, enum store_put_mode mode,
                                   struct err *err)
{
    if (mode == STORE_PUT_IF_ABSENT) {
        return err_set(err, RC_EXISTS, "the object %s exists", key);
    }
    bool same = false;
    enum rc rc = store_dir_compare(dir, path, body, &same, err);
    if (rc == RC_OK && !same) {
        rc = err_set(err, RC_EXISTS, "another object lies under %s and is left as it is", key);
    }
    return rc;
}

static enum rc store_dir_put(struct store *store, const char *key, const struct store_body *body,
                             enum store_put_mode mode, struct err *err)
{
    struct store_dir *dir = store_dir_of(store);
    char path[FSIO_PATH_BYTES];
    char parent[FSIO_PATH_BYTES];
    char tmp[FSIO_PATH_BYTES];
    store->request_count++;
    enum rc rc = store_dir_check_root(dir, err);
    if (rc == RC_OK) {
        rc = store_dir_path(dir, key, path, err);
    }
    if (rc == RC_OK) {
        rc = store_dir_write_tmp(dir, body, tmp, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    FAILPOINT("store_file_written");
    rc = store_dir_make_parent(dir, path, parent, err);
    if (rc == RC_OK) {
        rc = fsio_rename_new(tmp, path, err);
    }
    if (rc == RC_NOT_FOUND) {
        /* Somebody removed the folder that we had made: forget it, the next try makes it again. */
        dir->synced_dir[0] = '\0';
        rc = err_set(err, RC_IO, "the folder of %s vanished", path);
    }
    if (rc != RC_OK) {
        (void)unlink(tmp);
    }
    if (rc == RC_EXISTS) {
        rc = store_dir_put_again(dir, key, path, body, mode, err);
    }
    /* Also after an earlier try: it may have died before this fsync. */
    return rc == RC_OK ? fsio_sync_dir(parent, err) : rc;
}

/* ---- get, head, remove ---- */

static enum rc store_dir_send(struct store_dir *dir, int fd, uint64_t offset, uint64_t end,
                              store_sink_fn *sink, void *arg, struct err *err)
{
    while (offset < end) {
        uint64_t left = end - offset;
        size_t count = left < sizeof dir->chunk ? (size_t)left : sizeof dir->chunk;
        enum rc rc = store_dir_check_stop(dir, err);
        if (rc == RC_OK) {
            rc = fsio_read_at(fd, dir->chunk, count, offset, err);
        }
        if (rc == RC_OK) {
            rc = sink(arg, dir->chunk, count, err);
        }
        if (rc != RC_OK) {
            return rc;
        }
        offset += count;
    }
    return RC_OK;
}

static enum rc store_dir_stat_object(const struct store_dir *dir, const char *key,
                                     char path[FSIO_PATH_BYTES], uint64_t *bytes, struct err *err)
{
    struct fsio_stat stat;
    enum rc rc = store_dir_path(dir, key, path, err);
    if (rc == RC_OK) {
        rc = fsio_stat(path, &stat, err);
    }
    if (rc == RC_IO && err != NULL && err->sys_errno == ENOTDIR) { /* a parent is an object */
        return store_dir_no_object(dir, key, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    if (!stat.exists || stat.is_dir) {
        return store_dir_no_object(dir, key, err);
    }
    if (!stat.is_file) { /* a pipe, say: nobody waits for who writes into it */
        return err_set(err, RC_CORRUPT, "%s is not a file", path);
    }
    *bytes = stat.size_bytes;
    return RC_OK;
}

static enum rc store_dir_get(struct store *store, const char *key, const struct store_range *range,
                             store_sink_fn *sink, void *arg, struct err *err)
{
    struct store_dir *dir = store_dir_of(store);
    char path[FSIO_PATH_BYTES];
    uint64_t size = 0;
    int fd = -1;
    store->request_count++;
    enum rc rc = store_dir_stat_object(dir, key, path, &size, err);
    if (rc == RC_OK && range->offset > 0 && range->offset >= size) {
        rc = err_set(err, RC_INVALID, "%s has %llu bytes, none from %llu on", key,
                     (unsigned long long)size, (unsigned long long)range->offset);
    }
    if (rc == RC_OK) {
        rc = fsio_open(path, O_RDONLY, 0, &fd, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    uint64_t end = size;
    if (range->length != 0 && range->length < size - range->offset) {
        end = range->offset + range->length;
    }
    rc = store_dir_send(dir, fd, range->offset, end, sink, arg, err);
    (void)close(fd);
    return rc;
}

static enum rc store_dir_head(struct store *store, const char *key, uint64_t *bytes,
                              struct err *err)
{
    char path[FSIO_PATH_BYTES];
    store->request_count++;
    return store_dir_stat_object(store_dir_of(store), key, path, bytes, err);
}

static enum rc store_dir_remove(struct store *store, const char *key, struct err *err)
{
    struct store_dir *dir = store_dir_of(store);
    char path[FSIO_PATH_BYTES];
    char parent[FSIO_PATH_BYTES];
    store->request_count++;
    enum rc rc = store_dir_check_root(dir, err);
    if (rc == RC_OK) {
        rc = store_dir_path(dir, key, path, err);
    }
    if (rc == RC_OK) {
        rc = fsio_dirname(path, parent, sizeof parent, err);
    }
    if (rc == RC_OK) {
        rc = fsio_remove_file(path, err);
    }
    if (rc == RC_OK) {
        rc = fsio_sync_dir(parent, err);
    }
    return rc == RC_NOT_FOUND ? RC_OK : rc; /* no folder: no object either, as in a bucket */
}

static void store_dir_destroy(struct store *store)
{
    free(store_dir_of(store));
}

const char *store_dir_root(const struct store *store)
{
    return ((const struct store_dir *)(const void *)store)->root;
}

enum rc store_dir_check(const struct store *store, struct err *err)
{
    return store_dir_check_root((const struct store_dir *)(const void *)store, err);
}

static const struct store_ops store_dir_ops = {
    .destroy = store_dir_destroy,
    .prepare = store_dir_prepare,
    .put = store_dir_put,
    .get = store_dir_get,
    .head = store_dir_head,
    .list = store_dir_list,
    .remove = store_dir_remove,
};

enum rc store_dir_create(const struct store_config *config, struct store **store, struct err *err)
{
    *store = NULL;
    size_t count = strnlen(config->dir, sizeof config->dir);
    while (count > 1 && config->dir[count - 1] == '/') {
        count--;
    }
    if (count == 0 || count >= sizeof config->dir) {
        return err_set(err, RC_INVALID, "the archive directory has no name");
    }
    struct store_dir *dir = calloc(1, sizeof *dir);
    if (dir == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a store");
    }
    dir->base.ops = &store_dir_ops;
    dir->base.features = STORE_CONDITIONAL_PUT;
    memcpy(dir->base.url, config->url, sizeof dir->base.url);
    memcpy(dir->root, config->dir, count);
    enum rc rc = fsio_join(dir->tmp, sizeof dir->tmp, dir->root, STORE_DIR_TMP, err);
    if (rc != RC_OK) {
        free(dir);
        return rc;
    }
    *store = &dir->base;
    return RC_OK;
}
