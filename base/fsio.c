/* SPDX-License-Identifier: Apache-2.0 */
/* fsio: see fsio.h. Directories and kinds of filesystem are in fsio_dir.c. */
#include "base/fsio.h"

#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FSIO_FILE_MODE 0644
#define FSIO_TMP_TRIES_MAX                                                                         \
    8 /* of 2^32 names: more than one is taken only if somebody plays tricks */

enum rc fsio_fail(struct err *err, const char *what, const char *path)
{
    enum rc rc = RC_IO;
    switch (errno) {
    case ENOENT:
        rc = RC_NOT_FOUND;
        break;
    case EEXIST:
        rc = RC_EXISTS;
        break;
    case EACCES:
    case EPERM:
    case EROFS:
        rc = RC_DENIED;
        break;
    default:
        break;
    }
    return err_set_errno(err, rc, "%s %s", what, path);
}

enum rc fsio_open(const char *path, int flags, mode_t mode, int *fd, struct err *err)
{
    int opened = -1;
    struct stat stat;
    do {
        opened = open(path, flags | O_CLOEXEC | O_NONBLOCK, mode);
    } while (opened < 0 && errno == EINTR);
    if (opened < 0) {
        return fsio_fail(err, "cannot open", path);
    }
    if (fstat(opened, &stat) == 0 && S_ISFIFO(stat.st_mode)) {
        (void)close(opened);
        return err_set(err, RC_IO, "%s is a FIFO, not a file", path);
    }
    *fd = opened;
    return RC_OK;
}

enum rc fsio_read_at(int fd, void *bytes, size_t count, uint64_t offset, struct err *err)
{
    size_t done = 0;
    while (done < count) {
        ssize_t n = pread(fd, (uint8_t *)bytes + done, count - done, (off_t)(offset + done));
        if (n == 0) {
            return err_set(err, RC_CORRUPT,
                           "the file ends at byte %" PRIu64 ", %zu bytes from %" PRIu64
                           " on were wanted",
                           offset + done, count, offset);
        }
        if (n < 0 && errno != EINTR) {
            return err_set_errno(err, RC_IO, "cannot read %zu bytes at %" PRIu64, count, offset);
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return RC_OK;
}

enum rc fsio_write_at(int fd, const void *bytes, size_t count, uint64_t offset, struct err *err)
{
    size_t done = 0;
    while (done < count) {
        ssize_t n = pwrite(fd, (const uint8_t *)bytes + done, count - done, (off_t)(offset + done));
        if (n == 0) {
            errno = EIO; /* POSIX leaves it open; going on would spin */
            n = -1;
        }
        if (n < 0 && errno != EINTR) {
            return err_set_errno(err, RC_IO, "cannot write %zu bytes at %" PRIu64, count, offset);
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return RC_OK;
}

/* Reads to the end of the file. A full buffer asks with one byte on the stack before it grows. */
static enum rc fsio_read_rest(int fd, const char *path, struct buf *buf, struct err *err)
{
    for (;;) {
        uint8_t probe;
        size_t room = buf->capacity - buf->size;
        ssize_t n = room > 0 ? read(fd, buf->data + buf->size, room) : read(fd, &probe, 1);
        if (n == 0) {
            return RC_OK;
        }
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return fsio_fail(err, "cannot read", path);
        }
        if (room > 0) {
            buf->size += (size_t)n;
            continue;
        }
        enum rc rc = buf_append(buf, &probe, 1, err);
        if (rc != RC_OK) {
            return rc;
        }
    }
}

enum rc fsio_read_file(const char *path, struct buf *buf, struct err *err)
{
    int fd = -1;
    enum rc rc = fsio_open(path, O_RDONLY, 0, &fd, err);
    if (rc != RC_OK) {
        return rc;
    }
    struct stat st;
    if (fstat(fd, &st) != 0) {
        rc = fsio_fail(err, "cannot stat", path);
        goto done;
    }
    /* The size is only a hint (a file of /proc says 0); reading goes on to the end. */
    if (S_ISREG(st.st_mode) && st.st_size > 0) {
        rc = buf_reserve(buf, (size_t)st.st_size, err);
    }
    if (rc == RC_OK) {
        rc = fsio_read_rest(fd, path, buf, err);
    }
    if (rc == RC_LIMIT || rc == RC_NOMEM) {
        rc = err_prefix(err, "reading %s", path);
    }
done:
    (void)close(fd);
    return rc;
}

enum rc fsio_read_regular(const char *path, struct buf *buf, struct err *err)
{
    struct fsio_stat stat;
    enum rc rc = fsio_stat(path, &stat, err);
    if (rc == RC_OK && stat.exists && !stat.is_file) {
        rc = err_set(err, RC_CORRUPT, "%s is no file", path);
    }
    return rc != RC_OK ? rc : fsio_read_file(path, buf, err);
}

enum rc fsio_sync_dir(const char *path, struct err *err)
{
    int fd = -1;
    enum rc rc = fsio_open(path, O_RDONLY | O_DIRECTORY, 0, &fd, err);
    if (rc != RC_OK) {
        return rc;
    }
    /* Some filesystems know no fsync of a directory and say EINVAL: there is no more to be had. */
    if (fsync(fd) != 0 && errno != EINVAL) {
        rc = fsio_fail(err, "cannot fsync the directory", path);
    }
    (void)close(fd);
    return rc;
}

enum rc fsio_sync_file(const char *path, struct err *err)
{
    int fd = -1;
    enum rc rc = fsio_open(path, O_RDONLY, 0, &fd, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (fdatasync(fd) != 0) {
        rc = fsio_fail(err, "cannot fdatasync", path);
    }
    (void)close(fd);
    return rc;
}

/*
 * Creates a file of our own beside `path`. The number in its name is random: processes of two
 * containers can share a directory and have the same pid.
 */
static enum rc fsio_create_tmp(const char *path, char *tmp, size_t tmp_bytes, int *fd,
                               struct err *err)
{
    for (int i = 0; i < FSIO_TMP_TRIES_MAX; i++) {
        uint8_t random[4];
        bytes_random(random, sizeof random);
        int n = snprintf(tmp, tmp_bytes, "%s.tmp-%ld-%08x", path, (long)getpid(),
                         bytes_get_u32(random));
        if (n < 0 || (size_t)n >= tmp_bytes) {
            return err_set(err, RC_LIMIT, "the path %.80s… is longer than %zu bytes", path,
                           tmp_bytes);
        }
        enum rc rc = fsio_open(tmp, O_WRONLY | O_CREAT | O_EXCL, FSIO_FILE_MODE, fd, err);
        if (rc != RC_EXISTS) {
            return rc;
        }
    }
    return err_set(err, RC_IO, "no free temporary name beside %s", path);
}

enum rc fsio_replace_file(const char *path, const void *bytes, size_t count, bool durable,
                          struct err *err)
{
    char tmp[FSIO_PATH_BYTES];
    char dir[FSIO_PATH_BYTES];
    int fd = -1;
    enum rc rc = fsio_dirname(path, dir, sizeof dir, err);
    if (rc == RC_OK) {
        rc = fsio_create_tmp(path, tmp, sizeof tmp, &fd, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    rc = fsio_write_at(fd, bytes, count, 0, err);
    if (rc != RC_OK) {
        rc = err_prefix(err, "writing %s", tmp);
        goto done;
    }
    if (durable && fsync(fd) != 0) {
        rc = fsio_fail(err, "cannot fsync", tmp);
        goto done;
    }
    int closed = close(fd);
    fd = -1;
    if (closed != 0 && errno != EINTR) { /* Linux has closed it even then (close(2)) */
        rc = fsio_fail(err, "cannot close", tmp);
        goto done;
    }
    if (rename(tmp, path) != 0) {
        rc = fsio_fail(err, "cannot rename the new file to", path);
        goto done;
    }
    return durable ? fsio_sync_dir(dir, err) : RC_OK;
done:
    if (fd >= 0) {
        (void)close(fd);
    }
    (void)unlink(tmp);
    return rc;
}

enum rc fsio_rename_new(const char *from, const char *to, struct err *err)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
        return RC_OK;
    }
    if (errno != EINVAL && errno != ENOSYS) {
        return fsio_fail(err, "cannot rename a file to", to);
    }
    struct stat entry;
    if (lstat(from, &entry) == 0 && S_ISDIR(entry.st_mode)) { /* has no second name to take */
        errno = EEXIST;
        return lstat(to, &entry) == 0 || rename(from, to) != 0
                   ? fsio_fail(err, "cannot rename a directory to", to)
                   : RC_OK;
    }
    if (link(from, to) != 0) {
        return fsio_fail(err, "cannot link a file as", to);
    }
    /* Both names are there now; if the old one cannot be removed, the new one must not stay either. */
    if (unlink(from) != 0) {
        enum rc rc = fsio_fail(err, "cannot remove the old name", from);
        (void)unlink(to);
        return rc;
    }
    return RC_OK;
}

enum rc fsio_exchange(const char *a, const char *b, struct err *err)
{
    char aside[FSIO_PATH_BYTES];
    if (renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) == 0) {
        return RC_OK;
    }
    if (errno != EINVAL && errno != ENOSYS) {
        return fsio_fail(err, "cannot exchange with another name", b);
    }
    int n = snprintf(aside, sizeof aside, "%s.exchange", a);
    if (n < 0 || (size_t)n >= sizeof aside) {
        return err_set(err, RC_LIMIT, "the path %.80s… is too long", a);
    }
    enum rc rc = fsio_rename_new(b, aside, err);
    if (rc != RC_OK) {
        return rc;
    }
    rc = fsio_rename_new(a, b, err);
    enum rc second = fsio_rename_new(aside, rc == RC_OK ? a : b, rc == RC_OK ? err : NULL);
    return rc == RC_OK ? second : rc;
}

enum rc fsio_remove_file(const char *path, struct err *err)
{
    if (unlink(path) != 0 && errno != ENOENT) {
        return fsio_fail(err, "cannot remove", path);
    }
    return RC_OK;
}

enum rc fsio_stat(const char *path, struct fsio_stat *result, struct err *err)
{
    struct stat st;
    *result = (struct fsio_stat){.exists = false};
    if (stat(path, &st) != 0) {
        return errno == ENOENT ? RC_OK : fsio_fail(err, "cannot stat", path);
    }
    *result = (struct fsio_stat){
        .exists = true,
        .is_dir = S_ISDIR(st.st_mode),
        .is_file = S_ISREG(st.st_mode),
        .device = st.st_dev,
        .inode = st.st_ino,
        .links = st.st_nlink,
        .size_bytes = (uint64_t)st.st_size,
        .mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
    };
    return RC_OK;
}

enum rc fsio_join(char *path, size_t path_bytes, const char *a, const char *b, struct err *err)
{
    int n = snprintf(path, path_bytes, "%s%s%s", a, *b == '\0' ? "" : "/", b);
    if (n < 0 || (size_t)n >= path_bytes) {
        return err_set(err, RC_LIMIT, "the path %.80s…/%.80s is longer than %zu bytes", a, b,
                       path_bytes);
    }
    return RC_OK;
}

enum rc fsio_dirname(const char *path, char *dir, size_t dir_bytes, struct err *err)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') { /* slashes at the end name the same thing */
        end--;
    }
    while (end > 0 && path[end - 1] != '/') { /* the last name */
        end--;
    }
    while (end > 1 && path[end - 1] == '/') { /* the slashes before it, but not the root's */
        end--;
    }
    const char *from = end == 0 ? "." : path;
    size_t count = end == 0 ? 1 : end;
    if (count >= dir_bytes) {
        return err_set(err, RC_LIMIT, "the path %.80s… is longer than %zu bytes", path, dir_bytes);
    }
    memcpy(dir, from, count);
    dir[count] = '\0';
    return RC_OK;
}
