/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_dir_list: the listing of a directory archive, in byte order of the whole keys, as a bucket
 * gives it. A folder sorts as its name with the slash: "a-b" comes before "a/x" ('-' < '/'), while
 * the plain names would say "a" before "a-b".
 */
#include "archive/store_dir_internal.h"

#include "base/fsio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORE_DIR_DEPTH_MAX 32 /* folders in a key; ours have four */

struct store_dir_walk {
    struct store *store;
    const char *root;
    const char *prefix;
    const char *start_after;
    store_visit_fn *visit;
    void *arg;
};

/* The entries of one folder; a folder's name ends with its slash. */
struct store_dir_names {
    char **names; /* owned, each too */
    size_t count;
    size_t capacity;
};

static void store_dir_names_deinit(struct store_dir_names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        free(names->names[i]);
    }
    free(names->names);
}

static enum rc store_dir_names_add(void *arg, const char *name, bool is_dir, struct err *err)
{
    struct store_dir_names *names = arg;
    if (!store_key_is_valid(name)) { /* .tmp, lost+found, somebody's notes */
        return RC_OK;
    }
    if (names->count == names->capacity) {
        size_t capacity = names->capacity == 0 ? 64 : names->capacity * 2;
        char **grown = reallocarray(names->names, capacity, sizeof *grown);
        if (grown == NULL) {
            return err_set(err, RC_NOMEM, "no memory for a listing of %zu names", capacity);
        }
        names->names = grown;
        names->capacity = capacity;
    }
    size_t count = strlen(name);
    char *copy = malloc(count + 2);
    if (copy == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a listing");
    }
    memcpy(copy, name, count);
    copy[count] = is_dir ? '/' : '\0';
    copy[count + 1] = '\0';
    names->names[names->count++] = copy;
    return RC_OK;
}

static int store_dir_name_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* False when no key that begins with `folder` (which ends with a slash) can be asked for. */
static bool store_dir_walk_wants(const struct store_dir_walk *walk, const char *folder)
{
    size_t count = strlen(folder);
    size_t prefix_count = strlen(walk->prefix);
    size_t common = count < prefix_count ? count : prefix_count;
    if (strncmp(folder, walk->prefix, common) != 0) {
        return false;
    }
    return strncmp(folder, walk->start_after, count) >= 0; /* equal: start_after lies inside */
}

static enum rc store_dir_walk_object(const struct store_dir_walk *walk, const char *key,
                                     struct err *err)
{
    char path[FSIO_PATH_BYTES];
    struct fsio_stat stat;
    if (strncmp(key, walk->prefix, strlen(walk->prefix)) != 0 ||
        strcmp(key, walk->start_after) <= 0) {
        return RC_OK;
    }
    enum rc rc = fsio_join(path, sizeof path, walk->root, key, err);
    if (rc == RC_OK) {
        rc = fsio_stat(path, &stat, err);
    }
    if (rc == RC_OK && walk->store->stop != NULL && stop_level(walk->store->stop) >= STOP_NOW) {
        rc = err_set(err, RC_STOPPED, "stopped");
    }
    if (rc != RC_OK || !stat.exists || stat.is_dir) { /* removed since, or a link to a folder */
        return rc;
    }
    return walk->visit(walk->arg, key, stat.size_bytes, err);
}

/* `folder` is "" or ends with a slash. Recursion is as deep as a key has folders. */
static enum rc store_dir_walk_folder(const struct store_dir_walk *walk, const char *folder,
                                     int depth, struct err *err)
{
    struct store_dir_names names = {NULL, 0, 0};
    char path[FSIO_PATH_BYTES];
    if (depth > STORE_DIR_DEPTH_MAX) {
        return err_set(err, RC_LIMIT, "more than %d folders inside each other: %.200s",
                       STORE_DIR_DEPTH_MAX, folder);
    }
    enum rc rc = fsio_join(path, sizeof path, walk->root, folder, err);
    if (rc == RC_OK) {
        rc = fsio_list_dir(path, store_dir_names_add, &names, err);
    }
    if (rc == RC_NOT_FOUND && depth > 0) {
        rc = RC_OK; /* removed since its parent was read */
        goto done;
    }
    if (rc == RC_OK && names.count > 1) {
        qsort(names.names, names.count, sizeof *names.names, store_dir_name_compare);
    }
    for (size_t i = 0; rc == RC_OK && i < names.count; i++) {
        char key[STORE_DIR_KEY_BYTES];
        int count = snprintf(key, sizeof key, "%s%s", folder, names.names[i]);
        if (count <= 0 || (size_t)count >= sizeof key) {
            continue; /* longer than any key of ours */
        }
        if (key[count - 1] != '/') {
            rc = store_dir_walk_object(walk, key, err);
        } else if (store_dir_walk_wants(walk, key)) {
            rc = store_dir_walk_folder(walk, key, depth + 1, err);
        }
    }
done:
    store_dir_names_deinit(&names);
    return rc;
}

enum rc store_dir_list(struct store *store, const char *prefix, const char *start_after,
                       store_visit_fn *visit, void *arg, struct err *err)
{
    struct store_dir_walk walk = {
        .store = store,
        .root = store_dir_root(store),
        .prefix = prefix,
        .start_after = start_after,
        .visit = visit,
        .arg = arg,
    };
    store->request_count++;
    enum rc rc = store_dir_check(store, err);
    return rc == RC_OK ? store_dir_walk_folder(&walk, "", 0, err) : rc;
}
