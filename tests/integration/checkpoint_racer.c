/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint_racer: a foreign checkpointer on the stock SQLite library that meets the WAL-reset bug
 * (https://www.sqlite.org/wal.html#walresetbug) on purpose, where nothing keeps it out.
 *
 * The bug needs a checkpoint that has read the wal-index header before a reset (M frames, all
 * backfilled), looks at nBackfill after it (0), finds no read mark, and copies once the reader at mark
 * 0 has moved on: it then notes nBackfill = M in a WAL that has a few new frames, and those are never
 * read again. Two hooks in SQLite's file methods hold the checkpoint at the two places:
 *   xUnfetch(0)              between the header and nBackfill: until the reset has come
 *   xShmLock(READ(0), EXCL)  before the copy: until nobody is at mark 0
 * Without a leader's CKPT lock around mark 0 that loses rows; with it each try gets SQLITE_BUSY.
 *
 * usage: checkpoint_racer DATABASE TRIES SECONDS
 * Ends after a try that went through, TRIES refused ones, SECONDS without a freeze to race with, or ten
 * times that; prints "refused N missed N through N". The table `other` must fill some pages of the database file.
 */
#include <fcntl.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* SQLite's wal.c and os_unix.c: byte offsets in the -shm file */
enum { BYTE_WRITE = 120, BYTE_READ0 = 123, BYTE_READ1 = 124, SLOT_READ0 = 3 };
enum { MX_FRAME_AT = 16, BACKFILL_AT = 96, SHM_BYTES = 32768 };
#define STEP_LIMIT_MS 3000

static const sqlite3_io_methods *real_methods;
static int shm_fd = -1; /* never closed: that would drop this process's locks */
static const volatile uint8_t *shm;
static bool armed, saw_reset, saw_mark0_left;

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint32_t shm_u32(size_t at)
{
    return *(const volatile uint32_t *)(shm + at);
}

static bool is_held(off_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(shm_fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* A freeze: everything backfilled, somebody at mark 0, and WRITE held. */
static bool reset_is_near(void)
{
    uint32_t frames = shm_u32(MX_FRAME_AT);
    return frames > 1000 && shm_u32(BACKFILL_AT) == frames && is_held(BYTE_READ0) &&
           is_held(BYTE_WRITE);
}
/* The writer that resets holds READ(1..4) for a moment, as a reader would. */
static bool reset_came(void)
{
    return shm_u32(BACKFILL_AT) == 0 && !is_held(BYTE_READ1);
}
static bool mark0_left(void)
{
    return !is_held(BYTE_READ0);
}

static bool wait_for(bool (*condition)(void), int64_t deadline_ms)
{
    const struct timespec pause = {.tv_nsec = 20000};
    while (!condition()) {
        if (now_ms() >= deadline_ms) {
            return false;
        }
        (void)nanosleep(&pause, NULL);
    }
    return true;
}

static int racing_unfetch(sqlite3_file *file, sqlite3_int64 offset, void *page)
{
    if (armed && page == NULL) {
        saw_reset = wait_for(reset_came, now_ms() + STEP_LIMIT_MS);
    }
    return real_methods->xUnfetch(file, offset, page);
}

static int racing_shm_lock(sqlite3_file *file, int offset, int count, int flags)
{
    if (armed && saw_reset && offset == SLOT_READ0 &&
        flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE)) {
        saw_mark0_left = wait_for(mark0_left, now_ms() + STEP_LIMIT_MS);
    }
    return real_methods->xShmLock(file, offset, count, flags);
}

static void check(bool good, sqlite3 *db, const char *what)
{
    if (!good) {
        (void)fprintf(stderr, "checkpoint_racer: %s: %s\n", what, db ? sqlite3_errmsg(db) : "");
        exit(2);
    }
}

static sqlite3 *open_database(const char *path)
{
    static sqlite3_io_methods methods;
    char shm_path[4096];
    sqlite3 *db = NULL;
    sqlite3_file *file = NULL;
    check(sqlite3_open(path, &db) == SQLITE_OK, db, "open");
    check(sqlite3_exec(db, "PRAGMA mmap_size=268435456; SELECT * FROM sqlite_schema", NULL, NULL,
                       NULL) == SQLITE_OK,
          db, "first read");
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    (void)sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
    real_methods = file->pMethods;
    methods = *real_methods;
    methods.xUnfetch = racing_unfetch;
    methods.xShmLock = racing_shm_lock;
    file->pMethods = &methods;
    (void)snprintf(shm_path, sizeof shm_path, "%s-shm", path);
    shm_fd = open(shm_path, O_RDWR | O_CLOEXEC);
    check(shm_fd >= 0, NULL, "-shm");
    void *map = mmap(NULL, SHM_BYTES, PROT_READ, MAP_SHARED, shm_fd, 0);
    check(map != MAP_FAILED, NULL, "mmap of -shm");
    shm = map;
    return db;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        return 2;
    }
    sqlite3 *db = open_database(argv[1]);
    long tries = strtol(argv[2], NULL, 10);
    int64_t patience_ms = 1000 * strtol(argv[3], NULL, 10);
    int64_t deadline_ms = now_ms() + 10 * patience_ms;
    long refused = 0, missed = 0, through = 0;
    while (through == 0 && refused < tries && now_ms() < deadline_ms) {
        /* maps the database file, which the checkpoint will unmap because the header has changed */
        (void)sqlite3_exec(db, "SELECT sum(length(x)) FROM other", NULL, NULL, NULL);
        if (!wait_for(reset_is_near, now_ms() + patience_ms)) {
            break;
        }
        uint32_t frames = shm_u32(MX_FRAME_AT);
        armed = true;
        saw_reset = saw_mark0_left = false;
        int code = sqlite3_wal_checkpoint_v2(db, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        armed = false;
        uint32_t backfilled = shm_u32(BACKFILL_AT);
        bool stale = backfilled == frames || backfilled > shm_u32(MX_FRAME_AT);
        if (code == SQLITE_BUSY) {
            refused++;
        } else if (saw_reset && saw_mark0_left && stale) {
            through++;
        } else {
            missed++;
        }
    }
    (void)printf("refused %ld missed %ld through %ld\n", refused, missed, through);
    return 0;
}
