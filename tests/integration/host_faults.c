/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_faults: an LD_PRELOAD library for harness/host.py: a host that misbehaves. Calls of chosen kinds
 * fail with a chosen errno, from the n-th arrival to the m-th, and the wall clock is stepped.
 *
 * Files count when they lie below one of the folders of HOST_FAULTS_UNDER ("a:b"); memory, threads and
 * descriptors always do. The orders stand in the file that HOST_FAULTS_FILE names, mapped here and by the
 * test, and may change at any time. A step of the clock moves what the clocks tell, and the times of files
 * that were changed after it: as on a real host, what was stamped before a step keeps its stamp.
 *
 * Thread: any; the counters are atomic.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The order is harness/host.py's too: bit n of `kinds`. */
enum kind {
    KIND_OPEN,
    KIND_MKDIR,
    KIND_LIST,
    KIND_READ,
    KIND_WRITE,
    KIND_SYNC,
    KIND_RENAME,
    KIND_UNLINK,
    KIND_GROW,
    KIND_STAT,
    KIND_MAP,
    KIND_LOCK,
    KIND_MEMORY,
    KIND_THREAD,
    KIND_DESCRIPTOR,
    KIND_UNLOCK,
};

#define STEPS_MAX 16
#define WHERE_BYTES 256
#define FDS_MAX 4096
#define FOLDERS_MAX 4
#define NS_PER_S INT64_C(1000000000)

struct step {
    int64_t real_ns;  /* it happened then, by the kernel's clock */
    int64_t shift_ns; /* and from then on the clock shows that much more */
};

struct orders {
    _Atomic uint64_t kinds;
    _Atomic uint64_t first; /* arrivals first..last fail; 0: none */
    _Atomic uint64_t last;
    _Atomic uint64_t error;
    _Atomic uint64_t arrived; /* of these kinds, so far */
    _Atomic uint64_t failed;
    _Atomic uint64_t step_count;
    struct step steps[STEPS_MAX];
    char only[WHERE_BYTES];  /* calls on paths that hold this text alone; "" is all */
    char where[WHERE_BYTES]; /* what failed last */
};

static struct orders none;
static struct orders *orders = &none;
static char folders[FOLDERS_MAX][PATH_MAX];
static char paths[FDS_MAX][WHERE_BYTES]; /* of descriptors that count; "" otherwise */

/* ---- what counts, and what fails ---- */

static bool counts_path(const char *path)
{
    for (int i = 0; i < FOLDERS_MAX && folders[i][0] != '\0'; i++) {
        if (strncmp(path, folders[i], strlen(folders[i])) == 0) {
            return true;
        }
    }
    return false;
}

static const char *path_of(int fd)
{
    return fd >= 0 && fd < FDS_MAX ? paths[fd] : "";
}

static void note_fd(int fd, const char *path)
{
    if (fd >= 0 && fd < FDS_MAX) {
        size_t size = counts_path(path) ? strnlen(path, WHERE_BYTES - 1) : 0;
        memcpy(paths[fd], path, size);
        paths[fd][size] = '\0';
    }
}

/* Not snprintf: it may be memory that is asked for. */
static void note_where(const char *call, const char *path)
{
    size_t at = 0;
    for (; *call != '\0' && at < WHERE_BYTES - 2; call++) {
        orders->where[at++] = *call;
    }
    orders->where[at++] = ' ';
    for (; *path != '\0' && at < WHERE_BYTES - 1; path++) {
        orders->where[at++] = *path;
    }
    orders->where[at] = '\0';
}

static bool fails_anywhere(enum kind kind, const char *call, const char *path)
{
    if ((atomic_load(&orders->kinds) & (UINT64_C(1) << kind)) == 0 ||
        (orders->only[0] != '\0' && strstr(path, orders->only) == NULL)) {
        return false;
    }
    uint64_t number = atomic_fetch_add(&orders->arrived, 1) + 1;
    uint64_t first = atomic_load(&orders->first);
    if (first == 0 || number < first || number > atomic_load(&orders->last)) {
        return false;
    }
    atomic_fetch_add(&orders->failed, 1);
    note_where(call, path);
    errno = (int)atomic_load(&orders->error);
    return true;
}

static bool fails(enum kind kind, const char *call, const char *path)
{
    return counts_path(path) && fails_anywhere(kind, call, path);
}

static bool fd_fails(enum kind kind, const char *call, int fd)
{
    const char *path = path_of(fd);
    return path[0] != '\0' && fails_anywhere(kind, call, path);
}

/* The next one's address; libc is there always. */
#define REAL(name)                                                                                 \
    static __typeof__(&name) real;                                                                 \
    if (real == NULL) {                                                                            \
        *(void **)(&real) = dlsym(RTLD_NEXT, #name);                                               \
    }

/* ---- files by name ---- */

static int opened(int fd, const char *path)
{
    if (fd >= 0) {
        note_fd(fd, path);
    }
    return fd;
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;           \
        va_end(rest);                                                                              \
        REAL(name)                                                                                 \
        return fails(KIND_OPEN, "open", path) ? -1 : opened(real(path, flags, mode), path);        \
    }
OPEN(open)
OPEN(open64)

int close(int fd)
{
    REAL(close)
    note_fd(fd, "");
    return real(fd);
}

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir)
    return fails(KIND_MKDIR, "mkdir", path) ? -1 : real(path, mode);
}

int scandir(const char *path, struct dirent ***list, int (*filter)(const struct dirent *),
            int (*compare)(const struct dirent **, const struct dirent **))
{
    REAL(scandir)
    return fails(KIND_LIST, "scandir", path) ? -1 : real(path, list, filter, compare);
}

int rename(const char *from, const char *to)
{
    REAL(rename)
    return fails(KIND_RENAME, "rename", to) ? -1 : real(from, to);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    REAL(renameat)
    return fails(KIND_RENAME, "renameat", to) ? -1 : real(from_dir, from, to_dir, to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    REAL(renameat2)
    return fails(KIND_RENAME, "renameat2", to) ? -1 : real(from_dir, from, to_dir, to, flags);
}

int link(const char *from, const char *to)
{
    REAL(link)
    return fails(KIND_RENAME, "link", to) ? -1 : real(from, to);
}

int unlink(const char *path)
{
    REAL(unlink)
    return fails(KIND_UNLINK, "unlink", path) ? -1 : real(path);
}

int unlinkat(int dir, const char *path, int flags)
{
    REAL(unlinkat)
    return fails(KIND_UNLINK, "unlinkat", path) ? -1 : real(dir, path, flags);
}

int rmdir(const char *path)
{
    REAL(rmdir)
    return fails(KIND_UNLINK, "rmdir", path) ? -1 : real(path);
}

int access(const char *path, int mode)
{
    REAL(access)
    return fails(KIND_STAT, "access", path) ? -1 : real(path, mode);
}

int statfs(const char *path, struct statfs *told)
{
    REAL(statfs)
    return fails(KIND_STAT, "statfs", path) ? -1 : real(path, told);
}

int statvfs(const char *path, struct statvfs *told)
{
    REAL(statvfs)
    return fails(KIND_STAT, "statvfs", path) ? -1 : real(path, told);
}

/* ---- files by descriptor ---- */

ssize_t read(int fd, void *bytes, size_t count)
{
    REAL(read)
    return fd_fails(KIND_READ, "read", fd) ? -1 : real(fd, bytes, count);
}

ssize_t pread(int fd, void *bytes, size_t count, off_t at)
{
    REAL(pread)
    return fd_fails(KIND_READ, "pread", fd) ? -1 : real(fd, bytes, count, at);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t at)
{
    REAL(pread64)
    return fd_fails(KIND_READ, "pread", fd) ? -1 : real(fd, bytes, count, at);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    REAL(write)
    return fd_fails(KIND_WRITE, "write", fd) ? -1 : real(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at)
{
    REAL(pwrite)
    return fd_fails(KIND_WRITE, "pwrite", fd) ? -1 : real(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at)
{
    REAL(pwrite64)
    return fd_fails(KIND_WRITE, "pwrite", fd) ? -1 : real(fd, bytes, count, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    REAL(pwritev)
    return fd_fails(KIND_WRITE, "pwritev", fd) ? -1 : real(fd, parts, count, at);
}

int fsync(int fd)
{
    REAL(fsync)
    return fd_fails(KIND_SYNC, "fsync", fd) ? -1 : real(fd);
}

int fdatasync(int fd)
{
    REAL(fdatasync)
    return fd_fails(KIND_SYNC, "fdatasync", fd) ? -1 : real(fd);
}

int ftruncate(int fd, off_t size)
{
    REAL(ftruncate)
    return fd_fails(KIND_GROW, "ftruncate", fd) ? -1 : real(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    REAL(ftruncate64)
    return fd_fails(KIND_GROW, "ftruncate", fd) ? -1 : real(fd, size);
}

int fallocate(int fd, int mode, off_t at, off_t size)
{
    REAL(fallocate)
    return fd_fails(KIND_GROW, "fallocate", fd) ? -1 : real(fd, mode, at, size);
}

int posix_fallocate(int fd, off_t at, off_t size)
{
    REAL(posix_fallocate)
    return fd_fails(KIND_GROW, "posix_fallocate", fd) ? errno : real(fd, at, size);
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    REAL(mmap)
    return fd_fails(KIND_MAP, "mmap", fd) ? MAP_FAILED
                                          : real(at, size, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset)
{
    REAL(mmap64)
    return fd_fails(KIND_MAP, "mmap", fd) ? MAP_FAILED
                                          : real(at, size, protection, flags, fd, offset);
}

static bool lock_fails(int fd, int command, const void *argument)
{
    if (command != F_SETLK && command != F_SETLKW && command != F_OFD_SETLK &&
        command != F_OFD_SETLKW) {
        return false;
    }
    const struct flock *lock = argument;
    return fd_fails(lock->l_type == F_UNLCK ? KIND_UNLOCK : KIND_LOCK, "fcntl", fd);
}

/* The third argument is a pointer or a number: either fits a pointer's register here. */
#define FCNTL(name)                                                                                \
    int name(int fd, int command, ...)                                                             \
    {                                                                                              \
        va_list rest;                                                                              \
        va_start(rest, command);                                                                   \
        void *argument = va_arg(rest, void *);                                                     \
        va_end(rest);                                                                              \
        REAL(name)                                                                                 \
        return lock_fails(fd, command, argument) ? -1 : real(fd, command, argument);               \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

/* ---- memory, threads, descriptors ---- */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size)
{
    return fails_anywhere(KIND_MEMORY, "malloc", "") ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails_anywhere(KIND_MEMORY, "calloc", "") ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return fails_anywhere(KIND_MEMORY, "realloc", "") ? NULL : __libc_realloc(old, size);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *argument)
{
    REAL(pthread_create)
    return fails_anywhere(KIND_THREAD, "pthread_create", "")
               ? errno
               : real(thread, attributes, run, argument);
}

int socket(int domain, int type, int protocol)
{
    REAL(socket)
    return fails_anywhere(KIND_DESCRIPTOR, "socket", "") ? -1 : real(domain, type, protocol);
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    REAL(accept4)
    return fails_anywhere(KIND_DESCRIPTOR, "accept4", "") ? -1 : real(fd, address, size, flags);
}

int epoll_create1(int flags)
{
    REAL(epoll_create1)
    return fails_anywhere(KIND_DESCRIPTOR, "epoll_create1", "") ? -1 : real(flags);
}

int eventfd(unsigned value, int flags)
{
    REAL(eventfd)
    return fails_anywhere(KIND_DESCRIPTOR, "eventfd", "") ? -1 : real(value, flags);
}

int timerfd_create(int clock, int flags)
{
    REAL(timerfd_create)
    return fails_anywhere(KIND_DESCRIPTOR, "timerfd_create", "") ? -1 : real(clock, flags);
}

/* ---- the clock ---- */

/* What the clock shows too much at that moment of the kernel's clock. */
static int64_t shift_at(int64_t real_ns)
{
    int64_t shift = 0;
    uint64_t count = atomic_load(&orders->step_count);
    for (uint64_t i = 0; i < count && i < STEPS_MAX && orders->steps[i].real_ns <= real_ns; i++) {
        shift = orders->steps[i].shift_ns;
    }
    return shift;
}

static void shift(struct timespec *at, int64_t shift_ns)
{
    int64_t ns = (int64_t)at->tv_sec * NS_PER_S + at->tv_nsec + shift_ns;
    at->tv_sec = (time_t)(ns / NS_PER_S);
    at->tv_nsec = (long)(ns % NS_PER_S);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(clock_gettime)
    int failed = real(clock, now);
    if (failed == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        shift(now, shift_at(INT64_MAX));
    }
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    (void)clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (seconds != NULL) {
        *seconds = now.tv_sec;
    }
    return now.tv_sec;
}

static int stamped(int failed, struct timespec *changed)
{
    if (failed == 0) {
        shift(changed, shift_at((int64_t)changed->tv_sec * NS_PER_S + changed->tv_nsec));
    }
    return failed;
}

#define STAT(name, type)                                                                           \
    int name(const char *restrict path, struct type *restrict told)                                \
    {                                                                                              \
        REAL(name)                                                                                 \
        return fails(KIND_STAT, #name, path) ? -1 : stamped(real(path, told), &told->st_mtim);     \
    }
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)

#define FSTAT(name, type)                                                                          \
    int name(int fd, struct type *told)                                                            \
    {                                                                                              \
        REAL(name)                                                                                 \
        return fd_fails(KIND_STAT, #name, fd) ? -1 : stamped(real(fd, told), &told->st_mtim);      \
    }
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)

int fstatat(int dir, const char *restrict path, struct stat *restrict told, int flags)
{
    REAL(fstatat)
    return fails(KIND_STAT, "fstatat", path)
               ? -1
               : stamped(real(dir, path, told, flags), &told->st_mtim);
}

/* ---- the orders ---- */

static void read_folders(const char *list)
{
    for (int i = 0; list != NULL && i < FOLDERS_MAX; i++) {
        size_t size = strcspn(list, ":");
        if (size > 0 && size < PATH_MAX) {
            memcpy(folders[i], list, size);
            folders[i][size] = '\0';
        }
        list = list[size] == ':' ? list + size + 1 : NULL;
    }
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("HOST_FAULTS_FILE");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    read_folders(getenv("HOST_FAULTS_UNDER"));
    if (fd >= 0) {
        void *mapped = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (mapped != MAP_FAILED) {
            orders = mapped;
        }
        (void)close(fd);
    }
}
