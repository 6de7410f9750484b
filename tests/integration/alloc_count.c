/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc_count: an LD_PRELOAD library for test_costs.py that counts allocations by who asks: the
 * program itself, libmicrohttpd, libsqlite3, all else. The counts lie in the file that
 * ALLOC_COUNT_FILE names, as 64-bit words in that order, and can be read at any time.
 *
 * Thread: any; the counters are atomic.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum asker { ASKER_PROGRAM, ASKER_MICROHTTPD, ASKER_SQLITE, ASKER_OTHER, ASKER_COUNT };

#define RANGES_MAX 16

static struct range {
    uintptr_t first;
    uintptr_t end;
    enum asker asker;
} ranges[RANGES_MAX];
static atomic_uint range_count; /* of ranges that are whole */

static _Atomic uint64_t no_file[ASKER_COUNT]; /* before, and where, there is no file */
static _Atomic uint64_t *counts = no_file;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

static void count_one(void *caller)
{
    uintptr_t at = (uintptr_t)caller;
    enum asker asker = ASKER_OTHER;
    unsigned known = atomic_load(&range_count);
    for (unsigned i = 0; i < known; i++) {
        if (at >= ranges[i].first && at < ranges[i].end) {
            asker = ranges[i].asker;
        }
    }
    atomic_fetch_add(&counts[asker], 1);
}

void *malloc(size_t size)
{
    count_one(__builtin_return_address(0));
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    count_one(__builtin_return_address(0));
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    count_one(__builtin_return_address(0));
    return __libc_realloc(old, size);
}

/* libc's own would be told as libc's. */
char *strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    count_one(__builtin_return_address(0));
    char *copy = __libc_malloc(bytes);
    return copy == NULL ? NULL : memcpy(copy, text, bytes);
}

static int note_object(struct dl_phdr_info *info, size_t size, void *is_first)
{
    (void)size;
    int *first = is_first;
    enum asker asker = ASKER_OTHER;
    if (*first) {
        asker = ASKER_PROGRAM;
    } else if (strstr(info->dlpi_name, "libmicrohttpd") != NULL) {
        asker = ASKER_MICROHTTPD;
    } else if (strstr(info->dlpi_name, "libsqlite3") != NULL) {
        asker = ASKER_SQLITE;
    }
    *first = 0;
    for (int i = 0; asker != ASKER_OTHER && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        unsigned known = atomic_load(&range_count);
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X) != 0 && known < RANGES_MAX) {
            ranges[known].first = info->dlpi_addr + part->p_vaddr;
            ranges[known].end = ranges[known].first + part->p_memsz;
            ranges[known].asker = asker;
            atomic_store(&range_count, known + 1);
        }
    }
    return 0;
}

__attribute__((constructor)) static void begin(void)
{
    int first = 1;
    (void)dl_iterate_phdr(note_object, &first);
    const char *path = getenv("ALLOC_COUNT_FILE");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        void *mapped = mmap(NULL, sizeof no_file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (mapped != MAP_FAILED) {
            counts = mapped;
        }
        (void)close(fd);
    }
}
