/* SPDX-License-Identifier: Apache-2.0 */
/* preflight: see preflight.h. Why these filesystems: docs/configuration.md, HARVEY_UNSAFE_FS. */
#include "server/preflight.h"

#include "base/fsio.h"
#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The real path of the longest part that exists, and the rest as it stands. */
static enum rc resolve(const char *path, char *real, size_t real_bytes, struct err *err)
{
    char head[FSIO_PATH_BYTES];
    char found[PATH_MAX];
    size_t bytes = strlen(path);
    if (bytes >= sizeof head) {
        return err_set(err, RC_LIMIT, "the path is too long: %.64s...", path);
    }
    memcpy(head, path, bytes + 1);
    while (realpath(bytes > 0 ? head : path[0] == '/' ? "/" : ".", found) == NULL) {
        if (errno != ENOENT || bytes == 0) {
            return fsio_fail(err, "cannot look at", path);
        }
        while (bytes > 0 && head[bytes - 1] == '/') { /* slashes at the end */
            bytes--;
        }
        while (bytes > 0 && head[bytes - 1] != '/') { /* the last name */
            bytes--;
        }
        head[bytes] = '\0';
    }
    return fsio_join(real, real_bytes, strcmp(found, "/") == 0 ? "" : found, path + bytes, err);
}

/* True when `path` is `dir` or below it. */
static bool is_inside(const char *path, const char *dir)
{
    size_t bytes = strlen(dir);
    return strcmp(dir, "/") == 0 ||
           (strncmp(path, dir, bytes) == 0 && (path[bytes] == '\0' || path[bytes] == '/'));
}

static enum rc check_archive(const struct config *config, const char *dir, struct err *err)
{
    char database_dir[FSIO_PATH_BYTES];
    char archive_dir[FSIO_PATH_BYTES];
    if (config->store.off || config->store.is_s3) {
        return RC_OK;
    }
    enum rc rc = resolve(dir, database_dir, sizeof database_dir, err);
    if (rc == RC_OK) {
        rc = resolve(config->store.dir, archive_dir, sizeof archive_dir, err);
    }
    if (rc == RC_OK && is_inside(archive_dir, database_dir)) {
        rc = err_set(err, RC_INVALID,
                     "HARVEY_ARCHIVE=%.200s: lies inside the database's directory (%.150s), and "
                     "would be lost with it; choose another directory",
                     config->store.url, dir);
    }
    return rc;
}

/* Makes the last part only: a typing error must not grow a tree. */
static enum rc make_directory(const char *dir, struct err *err)
{
    if (mkdir(dir, S_IRWXU | S_IRGRP | S_IXGRP | S_IROTH | S_IXOTH) != 0 && errno != EEXIST) {
        enum rc rc = fsio_fail(err, "cannot make the database's directory", dir);
        if (rc == RC_NOT_FOUND) {
            err->rc = rc = RC_IO; /* nothing that could be expected */
        }
        return rc;
    }
    return RC_OK;
}

static enum rc check_database(const char *path, struct err *err)
{
    struct fsio_stat stat;
    enum rc rc = fsio_stat(path, &stat, err);
    if (rc == RC_OK && stat.exists && stat.is_dir) {
        rc = err_set(err, RC_INVALID, "HARVEY_DB=%.200s: is a directory, must be a file", path);
    }
    return rc;
}

static enum rc check_writable(const char *dir, struct err *err)
{
    if (access(dir, W_OK | X_OK) != 0) {
        enum rc rc = fsio_fail(err, "cannot write in the database's directory", dir);
        if (rc == RC_NOT_FOUND) {
            err->rc = rc = RC_IO; /* nothing that could be expected */
        }
        return rc;
    }
    return RC_OK;
}

/* Of a directory archive that exists already, or the directory in which it will be made. */
static void note_same_filesystem(const struct config *config, const char *dir)
{
    char archive_dir[FSIO_PATH_BYTES];
    struct fsio_stat archive = {0};
    struct fsio_stat database = {0};
    struct err ignored;
    if (config->store.off || config->store.is_s3) {
        return;
    }
    (void)snprintf(archive_dir, sizeof archive_dir, "%s", config->store.dir);
    while (fsio_stat(archive_dir, &archive, &ignored) == RC_OK && !archive.exists) {
        char parent[FSIO_PATH_BYTES];
        if (fsio_dirname(archive_dir, parent, sizeof parent, &ignored) != RC_OK ||
            strcmp(parent, archive_dir) == 0) {
            return;
        }
        memcpy(archive_dir, parent, sizeof archive_dir);
    }
    if (fsio_stat(dir, &database, &ignored) == RC_OK && archive.device == database.device) {
        log_warn("server",
                 "the archive lies on the database's own filesystem: it survives the "
                 "volume, not the disk  archive=%s",
                 config->store.url);
    }
}

static const char *danger_of(enum fsio_fs_kind kind)
{
    switch (kind) {
    case FSIO_FS_NETWORK:
        return "a filesystem whose locks and shared memory SQLite cannot trust";
    case FSIO_FS_OVERLAY:
        return "a container's own filesystem, which dies with it: mount a volume there";
    case FSIO_FS_UNKNOWN:
        return "a filesystem that is not known to be safe for SQLite";
    case FSIO_FS_LOCAL:
    case FSIO_FS_VOLATILE:
        break;
    }
    return NULL;
}

static enum rc check_filesystem(const struct config *config, const char *dir,
                                struct preflight *result, struct err *err)
{
    enum fsio_fs_kind kind = FSIO_FS_UNKNOWN;
    enum rc rc = fsio_fs_kind(dir, &kind, result->filesystem, sizeof result->filesystem, err);
    if (rc != RC_OK) {
        return rc;
    }
    const char *danger = danger_of(kind);
    result->unsafe_filesystem = danger != NULL;
    if (kind == FSIO_FS_VOLATILE) {
        log_warn("server", "the database lies in memory and is gone with the machine  dir=%s fs=%s",
                 dir, result->filesystem);
    }
    if (danger != NULL && config->unsafe_fs == 0) {
        return err_set(err, RC_IO,
                       "HARVEY_DB=%.150s: %s is %s; choose a local disk (HARVEY_UNSAFE_FS=1 allows "
                       "it all the same)",
                       config->database_path, result->filesystem, danger);
    }
    if (danger != NULL) {
        log_warn("server", "HARVEY_UNSAFE_FS=1: %s  dir=%s fs=%s", danger, dir, result->filesystem);
    }
    return RC_OK;
}

enum rc preflight_check(const struct config *config, struct preflight *result, struct err *err)
{
    char dir[FSIO_PATH_BYTES];
    enum rc rc = fsio_dirname(config->database_path, dir, sizeof dir, err);
    if (rc == RC_OK) {
        rc = check_archive(config, dir, err);
    }
    if (rc == RC_OK) {
        rc = make_directory(dir, err);
    }
    if (rc == RC_OK) {
        rc = check_writable(dir, err);
    }
    if (rc == RC_OK) {
        rc = check_filesystem(config, dir, result, err);
    }
    if (rc == RC_OK) {
        rc = check_database(config->database_path, err);
    }
    if (rc == RC_OK) {
        note_same_filesystem(config, dir);
    }
    return rc;
}
