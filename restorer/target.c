/* SPDX-License-Identifier: Apache-2.0 */
/* target: see target.h. */
#include "restorer/target_internal.h"

#include "base/buf.h"
#include "base/clk.h"
#include "base/failpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TARGET_TEMP_MARK ".restoring-"
#define TARGET_LOOK_MS 3000 /* a waiting server's look at the archive takes milliseconds */
#define TARGET_LOOK_PAUSE_MS 10
#define TARGET_OPEN_BYTE                                                                           \
    128 /* of the -shm: whoever has the database open in WAL mode shares a lock on it */
#define TARGET_FILE_MODE 0644

/* Whatever goes wrong here is local: only the store's refusals are RC_DENIED or RC_NOT_FOUND. */
static enum rc target_local(enum rc rc, struct err *err)
{
    if (rc == RC_DENIED || rc == RC_NOT_FOUND) {
        rc = RC_IO;
        if (err != NULL) {
            err->rc = rc;
        }
    }
    return rc;
}

bool target_has_entry(const char *path)
{
    struct stat entry;
    return lstat(path, &entry) == 0;
}

static enum rc target_refuse(const struct sidecar *sidecar, struct err *err)
{
    const char *names[] = {sidecar->database, sidecar->wal, sidecar->shm, sidecar->journal};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (target_has_entry(names[i])) {
            return err_set(err, RC_EXISTS,
                           "%s exists and is left as it is; --replace moves it aside, -o FILE "
                           "restores elsewhere",
                           names[i]);
        }
    }
    return RC_OK;
}

static enum rc target_busy(const struct sidecar *sidecar, struct err *err)
{
    return err_set(err, RC_BUSY,
                   "a live server (or another restore) holds %s: stop it first, or restore "
                   "elsewhere with -o FILE",
                   sidecar->leader_lock);
}

/*
 * A database that somebody has open is not taken from under him: a server that serves beside the leader holds no
 * lock of ours, nor does a foreign program, and both go on writing into the file that was moved. SQLite's own
 * lock says it: the "dead man switch" byte (os_unix.c, UNIX_SHM_DMS).
 */
static enum rc target_check_closed(const struct sidecar *sidecar, struct err *err)
{
    enum rc rc = lockfile_probe_byte(sidecar->shm, TARGET_OPEN_BYTE, err);
    if (rc == RC_BUSY) {
        return err_set(err, RC_BUSY,
                       "a live server or another program has %s open: stop it first, or restore "
                       "elsewhere with -o FILE",
                       sidecar->database);
    }
    return rc == RC_NOT_FOUND ? RC_OK : rc;
}

/*
 * False when somebody keeps the lock that long. A server that waits for this very restore holds none,
 * but takes it for a moment whenever it looks whether the restore has come.
 */
static bool target_await_free(const struct sidecar *sidecar, int64_t wait_ms)
{
    int64_t deadline = clk_monotonic_ms() + wait_ms;
    while (lockfile_probe(sidecar->leader_lock, NULL) == RC_BUSY) {
        if (clk_monotonic_ms() >= deadline) {
            return false;
        }
        clk_pause_ms(TARGET_LOOK_PAUSE_MS);
    }
    return true;
}

/* The refusals that need no lock: nothing has been made yet. */
static enum rc target_check_free(const struct sidecar *sidecar, bool replace, struct err *err)
{
    struct stat entry;
    char dir[FSIO_PATH_BYTES];
    enum rc rc = fsio_dirname(sidecar->database, dir, sizeof dir, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (stat(dir, &entry) != 0) {
        return err_set_errno(err, RC_IO, "cannot restore into the directory %s (make it first)",
                             dir);
    }
    if (stat(sidecar->database, &entry) == 0 && !S_ISREG(entry.st_mode)) {
        return err_set(err, RC_EXISTS, "%s exists and is no database file", sidecar->database);
    }
    bool may_be_looking = replace || !target_has_entry(sidecar->database);
    if (!target_await_free(sidecar, may_be_looking ? TARGET_LOOK_MS : 0)) {
        return target_busy(sidecar, err);
    }
    return replace ? RC_OK : target_refuse(sidecar, err);
}

/* ---- names ---- */

enum rc target_name(char path[FSIO_PATH_BYTES], const char *stem, const char *mark,
                    const char *tail, struct err *err)
{
    int n = snprintf(path, FSIO_PATH_BYTES, "%s%s%s", stem, mark, tail);
    if (n < 0 || n >= FSIO_PATH_BYTES) {
        return err_set(err, RC_LIMIT, "the path %.80s… is too long", stem);
    }
    return RC_OK;
}

static enum rc target_set_names(struct target *target, const char *path, struct err *err)
{
    char pid[24];
    (void)snprintf(pid, sizeof pid, "%ld", (long)getpid());
    enum rc rc = sidecar_init(&target->sidecar, path, err);
    if (rc == RC_OK) {
        rc = fsio_dirname(path, target->dir, sizeof target->dir, err);
    }
    if (rc == RC_OK) {
        rc = target_name(target->temp, path, TARGET_TEMP_MARK, pid, err);
    }
    if (rc == RC_OK) {
        rc = target_name(target->new_sidecar, target->sidecar.dir, TARGET_TEMP_MARK, pid, err);
    }
    return rc;
}

/* ---- leftovers of killed restores ---- */

/* Does `name` say <stem>.restoring-<digits>? */
static bool target_is_leftover(const char *name, const char *stem)
{
    size_t stem_bytes = strlen(stem);
    size_t mark_bytes = strlen(TARGET_TEMP_MARK);
    if (strncmp(name, stem, stem_bytes) != 0 ||
        strncmp(name + stem_bytes, TARGET_TEMP_MARK, mark_bytes) != 0) {
        return false;
    }
    const char *digits = name + stem_bytes + mark_bytes;
    return digits[0] != '\0' && strspn(digits, "0123456789") == strlen(digits);
}

static const char *target_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static enum rc target_sweep_visit(void *arg, const char *name, bool is_dir, struct err *err)
{
    const struct target *target = arg;
    char path[FSIO_PATH_BYTES];
    bool is_file = !is_dir && target_is_leftover(name, target_base_name(target->sidecar.database));
    bool is_folder = is_dir && target_is_leftover(name, target_base_name(target->sidecar.dir));
    if (!is_file && !is_folder) {
        return RC_OK;
    }
    enum rc rc = fsio_join(path, sizeof path, target->dir, name, err);
    if (rc != RC_OK) {
        return rc;
    }
    return is_folder ? fsio_remove_tree(path, err) : fsio_remove_file(path, err);
}

/* ---- opening ---- */

/* What root makes in somebody's folder belongs to the folder's owner, whose server will open it. */
static enum rc target_give_to_owner(const struct target *target, const char *path, struct err *err)
{
    struct stat dir;
    if (geteuid() != 0 || stat(target->dir, &dir) != 0 || dir.st_uid == 0) {
        return RC_OK;
    }
    if (lchown(path, dir.st_uid, dir.st_gid) != 0) {
        return err_set_errno(err, RC_IO, "cannot give %s to the owner of %s", path, target->dir);
    }
    return RC_OK;
}

/*
 * One try at the lock. `made_sidecar` goes by mkdir's own word: of several restores that begin at once
 * only the one that made the folder may remove it again.
 */
static enum rc target_try_lock(struct target *target, struct err *err)
{
    struct sidecar *sidecar = &target->sidecar;
    bool made = false;
    enum rc rc = fsio_make_dir(sidecar->dir, &made, err);
    target->made_sidecar = target->made_sidecar || made;
    if (rc == RC_OK) {
        rc = lockfile_try(&target->lock, sidecar->leader_lock, err);
    }
    if (rc == RC_BUSY) {
        target->made_sidecar = false; /* somebody else is in there */
    }
    if (rc == RC_NOT_FOUND) {
        target->made_sidecar = false;
        return err_set(err, RC_BUSY, "%s was removed again", sidecar->dir); /* by who made it */
    }
    return rc;
}

static enum rc target_lock(struct target *target, struct err *err)
{
    struct sidecar *sidecar = &target->sidecar;
    int64_t deadline = clk_monotonic_ms() + TARGET_LOOK_MS;
    enum rc rc = target_try_lock(target, err);
    while (rc == RC_BUSY && target_await_free(sidecar, deadline - clk_monotonic_ms()) &&
           clk_monotonic_ms() < deadline) {
        rc = target_try_lock(target, err); /* it was only a look: once more */
    }
    if (rc == RC_BUSY) {
        return target_busy(sidecar, err);
    }
    if (rc == RC_OK && target->made_sidecar) {
        rc = target_give_to_owner(target, sidecar->dir, err);
    }
    return rc == RC_OK ? target_give_to_owner(target, sidecar->leader_lock, err) : rc;
}

enum rc target_open(struct target *target, const char *path, bool replace, struct err *err)
{
    *target = (struct target){
        .lock = LOCKFILE_INIT, .new_lock = LOCKFILE_INIT, .replace = replace, .fd = -1};
    enum rc rc = target_set_names(target, path, err);
    if (rc == RC_OK) {
        rc = target_check_free(&target->sidecar, replace, err);
    }
    if (rc == RC_OK) {
        rc = target_lock(target, err);
    }
    if (rc == RC_OK) { /* now that nobody else can be at it */
        rc = replace ? target_check_closed(&target->sidecar, err)
                     : target_refuse(&target->sidecar, err);
    }
    if (rc == RC_OK) {
        rc = fsio_list_dir(target->dir, target_sweep_visit, target, err);
    }
    if (rc == RC_OK) {
        rc = fsio_open(target->temp, O_RDWR | O_CREAT | O_EXCL, TARGET_FILE_MODE, &target->fd, err);
    }
    if (rc == RC_OK) {
        rc = target_give_to_owner(target, target->temp, err);
    }
    rc = target_local(rc, err);
    if (rc != RC_OK) {
        target_close(target);
    }
    return rc;
}

enum rc target_check_space(const struct target *target, uint64_t bytes, struct err *err)
{
    uint64_t free_bytes = 0;
    if (ftruncate(target->fd, 0) != 0) { /* what an earlier try wrote is room, too */
        return err_set_errno(err, RC_IO, "cannot empty %s", target->temp);
    }
    enum rc rc = target_local(fsio_free_bytes(target->dir, &free_bytes, err), err);
    if (rc == RC_OK && free_bytes < bytes) {
        return err_set(err, RC_LIMIT,
                       "not enough space: %s has %" PRIu64
                       " bytes free, the database needs %" PRIu64
                       ": make room, or restore elsewhere with -o FILE",
                       target->dir, free_bytes, bytes);
    }
    return rc;
}

/* ---- the last step ---- */

static enum rc target_write_marker(const struct target *target, const char *path,
                                   struct restored_marker *marker, struct err *err)
{
    struct stat file;
    struct buf json;
    if (fstat(target->fd, &file) != 0) {
        return fsio_fail(err, "cannot stat", target->temp);
    }
    marker->inode = (uint64_t)file.st_ino;
    marker->size_bytes = (uint64_t)file.st_size;
    marker->mtime_ns = (int64_t)file.st_mtim.tv_sec * 1000000000 + file.st_mtim.tv_nsec;
    marker->unix_ms = clk_unix_ms();
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    enum rc rc = restored_marker_encode(marker, &json, err);
    if (rc == RC_OK) {
        rc = fsio_replace_file(path, json.data, json.size, true, err);
    }
    buf_deinit(&json);
    if (rc == RC_OK) {
        rc = target_give_to_owner(target, path, err);
    }
    if (rc == RC_OK) {
        FAILPOINT("restore_marker_written");
    }
    return rc;
}

static enum rc target_rename(struct target *target, struct err *err)
{
    enum rc rc = fsio_rename_new(target->temp, target->sidecar.database, err);
    if (rc != RC_OK) {
        return rc == RC_EXISTS
                   ? err_set(err, RC_EXISTS, "%s appeared during the restore and is left as it is",
                             target->sidecar.database)
                   : rc;
    }
    FAILPOINT("restore_renamed");
    rc = fsio_sync_dir(target->dir, err);
    /* a failure leaves nothing: back, while our lock keeps every server from it */
    target->is_done =
        rc == RC_OK || fsio_rename_new(target->sidecar.database, target->temp, NULL) != RC_OK;
    return rc == RC_OK || !target->is_done
               ? rc
               : err_prefix(err, "%s is whole, but may not outlive a power cut",
                            target->sidecar.database);
}

/* The new -harvey folder under its temporary name: lock held, marker durable. */
static enum rc target_make_new_sidecar(struct target *target, struct restored_marker *marker,
                                       struct err *err)
{
    char path[FSIO_PATH_BYTES];
    enum rc rc = fsio_make_dirs(target->new_sidecar, err);
    if (rc == RC_OK) {
        rc = target_name(path, target->new_sidecar, "/",
                         target_base_name(target->sidecar.leader_lock), err);
    }
    if (rc == RC_OK) {
        rc = lockfile_try(&target->new_lock, path, err);
    }
    if (rc == RC_OK) {
        rc = target_give_to_owner(target, target->new_sidecar, err);
    }
    if (rc == RC_OK) {
        rc = target_give_to_owner(target, path, err);
    }
    if (rc == RC_OK) {
        rc = target_name(path, target->new_sidecar, "/", target_base_name(target->sidecar.restored),
                         err);
    }
    return rc == RC_OK ? target_write_marker(target, path, marker, err) : rc;
}

/*
 * The new -harvey folder takes the name that the old one will have, then both change places: at no
 * moment is there none, which a server or another restore would make anew and lock for itself.
 */
static enum rc target_swap_sidecar(const struct target *target, const char *aside, struct err *err)
{
    enum rc rc = fsio_rename_new(target->new_sidecar, aside, err);
    if (rc != RC_OK) {
        return rc;
    }
    rc = fsio_exchange(aside, target->sidecar.dir, err);
    if (rc != RC_OK) {
        enum rc back = fsio_rename_new(aside, target->new_sidecar, NULL);
        (void)back;
    }
    return rc;
}

static void target_swap_sidecar_back(const struct target *target, const char *aside)
{
    if (fsio_exchange(aside, target->sidecar.dir, NULL) == RC_OK) {
        enum rc rc = fsio_rename_new(aside, target->new_sidecar, NULL);
        (void)rc; /* our caller's error is the news */
    }
}

/* Old things aside, new folder in, new database in; all of it back when a step fails. */
static enum rc target_swap(struct target *target, const char *mark, char *moved_aside,
                           struct err *err)
{
    char aside[FSIO_PATH_BYTES];
    char replacing[FSIO_PATH_BYTES];
    bool is_new_folder_in = false;
    enum rc rc = target_aside_name(target, target->sidecar.dir, mark, aside, err);
    if (rc == RC_OK) {
        rc = target_name(replacing, target->sidecar.dir, TARGET_REPLACING, "", err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    rc = fsio_replace_file(replacing, mark, strlen(mark), true, err);
    if (rc == RC_OK) {
        rc = target_move_aside(target, mark, moved_aside, err);
    }
    if (rc == RC_OK && !target->made_sidecar) {
        rc = target_swap_sidecar(target, aside, err);
        is_new_folder_in = rc == RC_OK;
    }
    if (is_new_folder_in && moved_aside[0] == '\0') {
        memcpy(moved_aside, aside, strlen(aside) + 1);
    }
    if (rc == RC_OK) {
        rc = target_rename(target, err);
    }
    if (rc != RC_OK && !target->is_done) {
        if (is_new_folder_in) {
            target_swap_sidecar_back(target, aside);
        }
        target_move_back(target, mark);
        moved_aside[0] = '\0';
    }
    bool is_aside = is_new_folder_in && target->is_done; /* it went there with the old folder */
    if (!is_aside || target_name(replacing, aside, TARGET_REPLACING, "", NULL) == RC_OK) {
        (void)unlink(replacing);
    }
    return rc;
}

enum rc target_commit(struct target *target, struct restored_marker *marker, char *moved_aside,
                      struct err *err)
{
    char mark[TARGET_MARK_BYTES];
    moved_aside[0] = '\0';
    ASSERT(target->fd >= 0 && target->lock.fd >= 0);
    enum rc rc = target->replace && !target->made_sidecar
                     ? target_make_new_sidecar(target, marker, err)
                     : target_write_marker(target, target->sidecar.restored, marker, err);
    if (rc == RC_OK && target->replace) {
        rc = target_check_closed(&target->sidecar, err);
    }
    if (rc == RC_OK && target->replace) {
        rc = target_choose_mark(target, mark, err);
        if (rc == RC_OK) {
            rc = target_swap(target, mark, moved_aside, err);
        }
    } else if (rc == RC_OK) {
        rc = target_rename(target, err);
    }
    return target_local(rc, err);
}

void target_close(struct target *target)
{
    if (target->fd >= 0) {
        (void)close(target->fd);
        target->fd = -1;
        if (!target->is_done) {
            (void)unlink(target->temp);
        }
    }
    if (target->new_lock.fd >= 0 && !target->is_done) {
        enum rc rc = fsio_remove_tree(target->new_sidecar, NULL);
        (void)rc; /* the next restore sweeps it */
    }
    if (target->made_sidecar && !target->is_done) {
        if (target->lock.fd >= 0) {
            /* Our folder, our lock, and nobody in it: a server that waits holds no lock. */
            (void)unlink(target->sidecar.restored);
            (void)unlink(target->sidecar.leader_lock);
        }
        (void)rmdir(target->sidecar.dir);
    }
    lockfile_release(&target->new_lock);
    lockfile_release(&target->lock);
}
