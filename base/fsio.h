/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsio: the file operations that durability hangs on, each done right once: whole reads and writes,
 * replace-by-rename with fsync of file and directory, exclusive create, directory listing, free
 * space, and the kind of filesystem.
 *
 * Every path is used as given. Descriptors are opened O_CLOEXEC. Never call any of this on a live
 * database file or its -shm: closing such a descriptor drops SQLite's POSIX locks
 * (https://www.sqlite.org/howtocorrupt.html, 2.2). fsio_stat is safe.
 *
 * Errors: RC_IO with errno and the path; RC_NOT_FOUND for ENOENT; RC_EXISTS for EEXIST; RC_DENIED
 * for EACCES, EPERM, EROFS; RC_LIMIT where a maximum is named.
 * Thread: any.
 */
#ifndef HARVEY_BASE_FSIO_H
#define HARVEY_BASE_FSIO_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Sets err from errno for a failed call on `path`, choosing the code as said above. */
enum rc fsio_fail(struct err *err, const char *what, const char *path);

/* open(2) with O_CLOEXEC, which never waits (a FIFO: RC_IO); *fd is the caller's to close. */
RC_MUST_CHECK enum rc fsio_open(const char *path, int flags, mode_t mode, int *fd, struct err *err);

/* Reads exactly `count` bytes at `offset`; RC_CORRUPT when the file ends before. */
RC_MUST_CHECK enum rc fsio_read_at(int fd, void *bytes, size_t count, uint64_t offset,
                                   struct err *err);

/* Writes all of it, going on after short writes and EINTR. */
RC_MUST_CHECK enum rc fsio_write_at(int fd, const void *bytes, size_t count, uint64_t offset,
                                    struct err *err);

/* Appends the whole file to `buf` (whose cap is the limit: RC_LIMIT). */
RC_MUST_CHECK enum rc fsio_read_file(const char *path, struct buf *buf, struct err *err);

/* The same of a file that should be one of ours: what is no regular file (a pipe would wait for ever) is RC_CORRUPT. */
RC_MUST_CHECK enum rc fsio_read_regular(const char *path, struct buf *buf, struct err *err);

/* fsync of a directory, so that names made or removed in it last. */
RC_MUST_CHECK enum rc fsio_sync_dir(const char *path, struct err *err);

/* fdatasync of a file by name. */
RC_MUST_CHECK enum rc fsio_sync_file(const char *path, struct err *err);

/*
 * Writes `path` as a whole or not at all: temporary name beside it (suffix ".tmp-<pid>-<8 hex>"),
 * write, with `durable` fsync of the file, rename, with `durable` fsync of the directory.
 */
RC_MUST_CHECK enum rc fsio_replace_file(const char *path, const void *bytes, size_t count,
                                        bool durable, struct err *err);

/*
 * renameat2(RENAME_NOREPLACE); where the filesystem lacks it link and unlink, or, for a directory, a look
 * and a rename. RC_EXISTS.
 */
RC_MUST_CHECK enum rc fsio_rename_new(const char *from, const char *to, struct err *err);

/*
 * Two names of one directory change places: renameat2(RENAME_EXCHANGE), both are there all the time.
 * Where the filesystem lacks it, by three renames.
 */
RC_MUST_CHECK enum rc fsio_exchange(const char *a, const char *b, struct err *err);

/* Makes the directory, 0755 cut by the umask; its parent exists. Existing is fine: *made says which. */
RC_MUST_CHECK enum rc fsio_make_dir(const char *path, bool *made, struct err *err);

/* Makes the directory and its missing parents, 0755 cut by the umask. Existing is fine. */
RC_MUST_CHECK enum rc fsio_make_dirs(const char *path, struct err *err);

/* unlink(2); a missing file is fine. */
RC_MUST_CHECK enum rc fsio_remove_file(const char *path, struct err *err);

/* Removes a directory and all below it; a missing one is fine. Never follows symbolic links. */
RC_MUST_CHECK enum rc fsio_remove_tree(const char *path, struct err *err);

struct fsio_stat {
    bool exists;
    bool is_dir;
    bool is_file; /* a regular one */
    uint64_t device;
    uint64_t inode;
    uint64_t links;
    uint64_t size_bytes;
    int64_t mtime_ns;
};

/* stat(2), never opening the file. A missing file is RC_OK with exists = false. */
RC_MUST_CHECK enum rc fsio_stat(const char *path, struct fsio_stat *stat, struct err *err);

/*
 * Calls visit(arg, name, is_dir) for each entry of the directory, in strcmp order, without "." and
 * "..". Stops at the first visit that does not return RC_OK and returns its code. RC_NOT_FOUND.
 */
typedef enum rc fsio_visit_fn(void *arg, const char *name, bool is_dir, struct err *err);
RC_MUST_CHECK enum rc fsio_list_dir(const char *path, fsio_visit_fn *visit, void *arg,
                                    struct err *err);

/* Bytes that this process may still write on the filesystem of `path`. */
RC_MUST_CHECK enum rc fsio_free_bytes(const char *path, uint64_t *free_bytes, struct err *err);

enum fsio_fs_kind {
    FSIO_FS_LOCAL,    /* ext4, xfs, btrfs, zfs, f2fs: safe for a database in WAL mode */
    FSIO_FS_VOLATILE, /* tmpfs: locks work, nothing lasts */
    FSIO_FS_NETWORK, /* nfs, smb, 9p, fuse, vboxsf, ceph: locks or shared memory not to be trusted */
    FSIO_FS_OVERLAY, /* a container's own root: dies with it */
    FSIO_FS_UNKNOWN,
};

/* Kind by statfs(2) magic number of an existing directory; `name` (>= 32 bytes) gets a word for it. */
RC_MUST_CHECK enum rc fsio_fs_kind(const char *path, enum fsio_fs_kind *kind, char *name,
                                   size_t name_bytes, struct err *err);

/* Writes a + "/" + b (or only a when b is "") into path; RC_LIMIT when it does not fit. */
RC_MUST_CHECK enum rc fsio_join(char *path, size_t path_bytes, const char *a, const char *b,
                                struct err *err);

/* Directory part of `path` into `dir` ("." when there is none). RC_LIMIT. */
RC_MUST_CHECK enum rc fsio_dirname(const char *path, char *dir, size_t dir_bytes, struct err *err);

#define FSIO_PATH_BYTES 4096

#endif
