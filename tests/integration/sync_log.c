/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync_log: an LD_PRELOAD library for test_power_cut.py. Writes one line for each system call that a power
 * cut makes a difference to, in their order, into the file that SYNC_LOG names:
 *
 *   sync PATH       fsync or fdatasync of a file or folder came back
 *   name FROM TO    a file got a name (rename, link)
 *   gone PATH       a name was removed
 *   reset PATH WHAT a state record was written that says "a WAL reset follows", behind WHAT
 *
 * Thread: any; a line is one write to a file opened with O_APPEND.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINE_BYTES 8300
#define PATH_BYTES 4096

static void say(const char *format, ...)
{
    char line[LINE_BYTES];
    const char *path = getenv("SYNC_LOG");
    va_list args;
    va_start(args, format);
    int count = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    int fd = path == NULL ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd >= 0) {
        ssize_t written = write(fd, line, count < LINE_BYTES ? (size_t)count : LINE_BYTES - 1);
        (void)written;
        (void)close(fd);
    }
}

static const char *path_of(int fd, char path[PATH_BYTES])
{
    char link[64];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t count = readlink(link, path, PATH_BYTES - 1);
    path[count > 0 ? count : 0] = '\0';
    return path;
}

static int sync_and_say(int fd, long call)
{
    char path[PATH_BYTES];
    int result = (int)syscall(call, fd);
    if (result == 0) {
        say("sync %s\n", path_of(fd, path));
    }
    return result;
}

int fsync(int fd)
{
    return sync_and_say(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_and_say(fd, SYS_fdatasync);
}

int rename(const char *from, const char *to)
{
    int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (result == 0) {
        say("name %s %s\n", from, to);
    }
    return result;
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    int result = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (result == 0) {
        say("name %s %s\n", from, to);
    }
    return result;
}

int unlink(const char *path)
{
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (result == 0) {
        say("gone %s\n", path);
    }
    return result;
}

/* The record's JSON is one write of the slot's 4096 bytes (replicator/state.c). */
static void look_for_reset(int fd, const char *bytes, size_t count)
{
    static const char flag[] = "\"reset_follows\":true";
    static const char point[] = "\"reset\":[";
    char path[PATH_BYTES];
    if (count != 4096 || memmem(bytes, count, flag, sizeof flag - 1) == NULL) {
        return;
    }
    const char *what = memmem(bytes, count, point, sizeof point - 1);
    size_t length = what == NULL ? 0 : strcspn(what + sizeof point - 1, "]");
    if (length > 0) {
        say("reset %s %.*s\n", path_of(fd, path), (int)length, what + sizeof point - 1);
    }
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    ssize_t written = (ssize_t)syscall(SYS_pwrite64, fd, bytes, count, offset);
    look_for_reset(fd, bytes, count);
    return written;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t offset)
{
    return pwrite(fd, bytes, count, offset);
}
