/* SPDX-License-Identifier: Apache-2.0 */
/* spool: see spool.h. */
#include "replicator/spool.h"

#include "base/failpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum rc spool_open(struct spool *spool, const char *dir, struct err *err)
{
    ASSERT(strlen(dir) < sizeof spool->dir);
    memcpy(spool->dir, dir, strlen(dir) + 1);
    char tmp[FSIO_PATH_BYTES];
    enum rc rc = fsio_join(tmp, sizeof tmp, dir, ".tmp", err);
    return rc != RC_OK ? rc : fsio_make_dirs(tmp, err);
}

enum rc spool_path(const struct spool *spool, const char *key, char path[FSIO_PATH_BYTES],
                   struct err *err)
{
    return fsio_join(path, FSIO_PATH_BYTES, spool->dir, key, err);
}

#define SPOOL_NAME_TRIES 8

/*
 * Renames; the folder of a WAL is made when its first segment comes. spool_remove may take the empty
 * folder away again at that very moment, hence the tries.
 */
static enum rc spool_name(const char *tmp, const char *path, const char *dir, struct err *err)
{
    for (int attempt = 0; attempt < SPOOL_NAME_TRIES; attempt++) {
        if (rename(tmp, path) == 0) {
            return RC_OK;
        }
        enum rc rc =
            errno == ENOENT ? fsio_make_dirs(dir, err) : fsio_fail(err, "cannot name", path);
        if (rc != RC_OK) {
            return rc;
        }
    }
    return err_set(err, RC_IO, "cannot name %s: its folder goes away again and again", path);
}

enum rc spool_write(struct spool *spool, const char *key, const void *object, size_t count,
                    struct err *err)
{
    char path[FSIO_PATH_BYTES];
    char dir[FSIO_PATH_BYTES];
    char tmp[FSIO_PATH_BYTES];
    char name[64];
    int fd = -1;
    enum rc rc;
    (void)snprintf(name, sizeof name, ".tmp/%d-%d", getpid(), gettid());
    if ((rc = spool_path(spool, key, path, err)) != RC_OK ||
        (rc = fsio_join(tmp, sizeof tmp, spool->dir, name, err)) != RC_OK ||
        (rc = fsio_dirname(path, dir, sizeof dir, err)) != RC_OK ||
        (rc = fsio_open(tmp, O_WRONLY | O_CREAT | O_TRUNC, 0644, &fd, err)) != RC_OK) {
        return rc;
    }
    if ((rc = fsio_write_at(fd, object, count, 0, err)) != RC_OK) {
        goto done;
    }
    FAILPOINT("spool_written");
    rc = spool_name(tmp, path, dir, err);
done:
    (void)close(fd);
    if (rc != RC_OK) {
        (void)unlink(tmp);
        return err_prefix(err, "spooling %s", key);
    }
    FAILPOINT("spool_named");
    return RC_OK;
}

enum rc spool_sync(const struct spool *spool, const char *key, struct err *err)
{
    char path[FSIO_PATH_BYTES];
    enum rc rc;
    if ((rc = spool_path(spool, key, path, err)) != RC_OK ||
        (rc = fsio_sync_file(path, err)) != RC_OK) {
        return rc;
    }
    /* every folder from the file's up to the spool itself: any of them may be new */
    size_t root_length = strlen(spool->dir);
    for (char *slash = strrchr(path, '/'); slash != NULL && (size_t)(slash - path) >= root_length;
         slash = strrchr(path, '/')) {
        *slash = '\0';
        if ((rc = fsio_sync_dir(path, err)) != RC_OK) {
            return rc;
        }
    }
    return RC_OK;
}

enum rc spool_remove(const struct spool *spool, const char *key, struct err *err)
{
    char path[FSIO_PATH_BYTES];
    char dir[FSIO_PATH_BYTES];
    enum rc rc;
    if ((rc = spool_path(spool, key, path, err)) != RC_OK ||
        (rc = fsio_remove_file(path, err)) != RC_OK ||
        (rc = fsio_dirname(path, dir, sizeof dir, err)) != RC_OK) {
        return rc;
    }
    (void)rmdir(dir); /* goes when the last segment of a WAL does; else ENOTEMPTY, which is fine */
    return RC_OK;
}
