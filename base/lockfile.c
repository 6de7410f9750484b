/* SPDX-License-Identifier: Apache-2.0 */
/* lockfile: see lockfile.h. */
#include "base/lockfile.h"

#include "base/fsio.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCKFILE_MODE 0644

/* The whole file. l_pid must be 0 for OFD commands. */
static struct flock lockfile_whole(short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET};
}

/* True while `path` still names the file behind `fd`: a lock on a removed file protects nothing. */
static bool lockfile_is_at(int fd, const char *path)
{
    struct stat ours;
    struct stat there;
    return fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_ino == there.st_ino &&
           ours.st_dev == there.st_dev;
}

static enum rc lockfile_take(struct lockfile *lock, const char *path, short type, struct err *err)
{
    ASSERT(lock->fd == -1);
    int fd = -1;
    enum rc rc = fsio_open(path, O_RDWR | O_CREAT, LOCKFILE_MODE, &fd, err);
    if (rc != RC_OK) {
        return rc;
    }
    struct flock whole = lockfile_whole(type);
    if (fcntl(fd, F_OFD_SETLK, &whole) != 0) {
        rc = errno == EAGAIN || errno == EACCES
                 ? err_set(err, RC_BUSY, "%s is locked by another process", path)
                 : err_set_errno(err, RC_IO, "cannot lock %s", path);
    } else if (!lockfile_is_at(fd, path)) {
        rc = err_set(err, RC_BUSY, "%s was removed while it was being locked", path);
    }
    if (rc != RC_OK) {
        (void)close(fd);
        return rc;
    }
    lock->fd = fd;
    return RC_OK;
}

enum rc lockfile_try(struct lockfile *lock, const char *path, struct err *err)
{
    return lockfile_take(lock, path, F_WRLCK, err);
}

enum rc lockfile_share(struct lockfile *lock, const char *path, struct err *err)
{
    return lockfile_take(lock, path, F_RDLCK, err);
}

/* Would anybody's lock keep this one out? */
static enum rc lockfile_ask(const char *path, struct flock range, struct err *err)
{
    int fd = -1;
    enum rc rc = fsio_open(path, O_RDONLY, 0, &fd, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (fcntl(fd, F_OFD_GETLK, &range) != 0) {
        rc = err_set_errno(err, RC_IO, "cannot ask for the lock on %s", path);
    } else if (range.l_type != F_UNLCK) {
        rc = err_set(err, RC_BUSY, "%s is locked by another process", path);
    }
    (void)close(fd);
    return rc;
}

enum rc lockfile_probe(const char *path, struct err *err)
{
    return lockfile_ask(path, lockfile_whole(F_WRLCK), err);
}

enum rc lockfile_probe_byte(const char *path, int64_t offset, struct err *err)
{
    const struct flock byte = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = offset, .l_len = 1};
    return lockfile_ask(path, byte, err);
}

void lockfile_release(struct lockfile *lock)
{
    if (lock->fd >= 0) {
        (void)close(
            lock->fd); /* the last descriptor of the description: the kernel frees the lock */
        lock->fd = -1;
    }
}
