/* SPDX-License-Identifier: Apache-2.0 */
/* fsio_dir: the part of fsio.h that works on directories and filesystems. */
#include "base/fsio.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define FSIO_DIR_MODE 0755
#define FSIO_TREE_FDS_MAX 16 /* descriptors that a walk holds; deeper trees are only slower */

static bool fsio_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* A parent may exist although mkdir says EACCES or EROFS instead of EEXIST: what counts is the look. */
enum rc fsio_make_dir(const char *path, bool *made, struct err *err)
{
    *made = mkdir(path, FSIO_DIR_MODE) == 0;
    if (*made) {
        return RC_OK;
    }
    int saved = errno;
    if (fsio_is_dir(path)) {
        return RC_OK;
    }
    errno = saved == EEXIST ? ENOTDIR : saved;
    return fsio_fail(err, "cannot make the directory", path);
}

enum rc fsio_make_dirs(const char *path, struct err *err)
{
    char part[FSIO_PATH_BYTES];
    bool made = false;
    size_t count = strlen(path);
    if (count == 0 || count >= sizeof part) {
        return err_set(err, RC_LIMIT, "a directory's path has 1 to %d bytes, not %zu",
                       FSIO_PATH_BYTES - 1, count);
    }
    struct err missing;
    if (fsio_make_dir(path, &made, &missing) == RC_OK) {
        return RC_OK; /* mostly it is there, or its parent is: two system calls instead of two for each part */
    }
    memcpy(part, path, count + 1);
    for (size_t i = 1; i < count; i++) {
        if (part[i] != '/') {
            continue;
        }
        part[i] = '\0';
        enum rc rc = fsio_make_dir(part, &made, err);
        if (rc != RC_OK) {
            return rc;
        }
        part[i] = '/';
    }
    return fsio_make_dir(part, &made, err);
}

static int fsio_remove_visit(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

enum rc fsio_remove_tree(const char *path, struct err *err)
{
    if (nftw(path, fsio_remove_visit, FSIO_TREE_FDS_MAX, FTW_DEPTH | FTW_PHYS) != 0 &&
        errno != ENOENT) {
        return fsio_fail(err, "cannot remove the tree", path);
    }
    return RC_OK;
}

static int fsio_name_is_real(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

/* Not alphasort: that one follows the locale, and keys are ordered by their bytes. */
static int fsio_name_compare(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* Some filesystems leave d_type empty. A symbolic link is not a directory here. */
static bool fsio_entry_is_dir(const char *path, const struct dirent *entry)
{
    if (entry->d_type != DT_UNKNOWN) {
        return entry->d_type == DT_DIR;
    }
    char whole[FSIO_PATH_BYTES];
    struct stat st;
    return fsio_join(whole, sizeof whole, path, entry->d_name, NULL) == RC_OK &&
           lstat(whole, &st) == 0 && S_ISDIR(st.st_mode);
}

enum rc fsio_list_dir(const char *path, fsio_visit_fn *visit, void *arg, struct err *err)
{
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, fsio_name_is_real, fsio_name_compare);
    if (count < 0) {
        return fsio_fail(err, "cannot list", path);
    }
    enum rc rc = RC_OK;
    for (int i = 0; i < count; i++) {
        if (rc == RC_OK) {
            rc = visit(arg, entries[i]->d_name, fsio_entry_is_dir(path, entries[i]), err);
        }
        free(entries[i]);
    }
    free(entries);
    return rc;
}

enum rc fsio_free_bytes(const char *path, uint64_t *free_bytes, struct err *err)
{
    struct statvfs fs;
    if (statvfs(path, &fs) != 0) {
        return fsio_fail(err, "cannot ask for the free space of", path);
    }
    /* A tmpfs without a limit says that it has no blocks at all. */
    *free_bytes = fs.f_blocks == 0 ? UINT64_MAX : (uint64_t)fs.f_bavail * fs.f_frsize;
    return RC_OK;
}

/* Magic numbers: statfs(2) and linux/magic.h; written out, since the older headers lack some. */
static const struct fsio_fs {
    uint32_t magic;
    enum fsio_fs_kind kind;
    const char *name;
} fsio_filesystems[] = {
    {0x0000ef53, FSIO_FS_LOCAL, "ext4"},      {0x58465342, FSIO_FS_LOCAL, "xfs"},
    {0x9123683e, FSIO_FS_LOCAL, "btrfs"},     {0x2fc12fc1, FSIO_FS_LOCAL, "zfs"},
    {0xf2f52010, FSIO_FS_LOCAL, "f2fs"},      {0xca451a4e, FSIO_FS_LOCAL, "bcachefs"},
    {0x3153464a, FSIO_FS_LOCAL, "jfs"},       {0x01021994, FSIO_FS_VOLATILE, "tmpfs"},
    {0x858458f6, FSIO_FS_VOLATILE, "ramfs"},  {0x00006969, FSIO_FS_NETWORK, "nfs"},
    {0x0000517b, FSIO_FS_NETWORK, "smb"},     {0xff534d42, FSIO_FS_NETWORK, "cifs"},
    {0xfe534d42, FSIO_FS_NETWORK, "smb2"},    {0x01021997, FSIO_FS_NETWORK, "9p"},
    {0x65735546, FSIO_FS_NETWORK, "fuse"},    {0x786f4256, FSIO_FS_NETWORK, "vboxsf"},
    {0x00c36400, FSIO_FS_NETWORK, "ceph"},    {0x5346414f, FSIO_FS_NETWORK, "afs"},
    {0x794c7630, FSIO_FS_OVERLAY, "overlay"},
};

enum rc fsio_fs_kind(const char *path, enum fsio_fs_kind *kind, char *name, size_t name_bytes,
                     struct err *err)
{
    struct statfs fs;
    if (statfs(path, &fs) != 0) {
        return fsio_fail(err, "cannot ask for the filesystem of", path);
    }
    uint32_t magic = (uint32_t)fs.f_type; /* a signed long that holds 32 bits */
    *kind = FSIO_FS_UNKNOWN;
    (void)snprintf(name, name_bytes, "0x%08x", magic);
    for (size_t i = 0; i < sizeof fsio_filesystems / sizeof fsio_filesystems[0]; i++) {
        if (fsio_filesystems[i].magic == magic) {
            *kind = fsio_filesystems[i].kind;
            (void)snprintf(name, name_bytes, "%s", fsio_filesystems[i].name);
            break;
        }
    }
    return RC_OK;
}
