/* SPDX-License-Identifier: Apache-2.0 */
/* verify: see verify.h. https://www.sqlite.org/pragma.html#pragma_integrity_check */
#include "restorer/verify.h"

#include "base/clk.h"
#include "base/fsio.h"

#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define VERIFY_TICK_MS 100
/* Indexes are looked up at random: a cache that holds their upper levels, and far below the limit on
 * memory. No mmap: mapped pages would count. */
#define VERIFY_CACHE_PRAGMA "PRAGMA cache_size=-20480"

struct verify {
    enum restore_integrity integrity;
    char uri[3 * FSIO_PATH_BYTES + 64];
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t is_changed;
    /* guarded by mutex: */
    sqlite3 *db; /* while it may be interrupted */
    bool is_done;
    enum rc rc;
    struct err err;
};

/* file: URI of any path: every byte that means something in one is escaped. */
static enum rc verify_set_uri(struct verify *verify, const char *path, struct err *err)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
    static const char query[] = "?mode=ro&immutable=1";
    /* An absolute path gets an empty authority, so that one with two slashes is not taken for one. */
    int n = snprintf(verify->uri, sizeof verify->uri, "file:%s", path[0] == '/' ? "//" : "./");
    size_t used = (size_t)n;
    for (const char *c = path; *c != '\0'; c++) {
        if (used + 3 + sizeof query > sizeof verify->uri) {
            return err_set(err, RC_LIMIT, "the path %.80s… is too long", path);
        }
        if (strchr(plain, *c) != NULL) {
            verify->uri[used] = *c;
            used++;
        } else {
            (void)snprintf(verify->uri + used, 4, "%%%02X", (unsigned)(unsigned char)*c);
            used += 3;
        }
    }
    memcpy(verify->uri + used, query, sizeof query);
    return RC_OK;
}

static enum rc verify_translate(sqlite3 *db, int code, struct err *err)
{
    const char *text = db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(code);
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return err_set(err, RC_CORRUPT, "the restored file is not a sound database: %s", text);
    case SQLITE_INTERRUPT:
        return err_set(err, RC_STOPPED, "interrupted");
    case SQLITE_NOMEM:
        return err_set(err, RC_NOMEM, "no memory for the integrity check");
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
        return err_set(err, RC_IO, "cannot read the restored file: %s", text);
    default:
        return err_set(err, RC_INTERNAL,
                       "the integrity check cannot run: %s (--integrity none leaves it out)", text);
    }
}

/* Runs the check on an open database; anything but one row "ok" is damage. */
static enum rc verify_check(const struct verify *verify, sqlite3 *db, struct err *err)
{
    sqlite3_stmt *statement = NULL;
    const char *sql = verify->integrity == RESTORE_INTEGRITY_QUICK ? "PRAGMA quick_check(1)"
                                                                   : "PRAGMA integrity_check(1)";
    int code = sqlite3_exec(db, VERIFY_CACHE_PRAGMA, NULL, NULL, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_exec(db, "PRAGMA mmap_size=0", NULL, NULL, NULL);
    }
    if (code == SQLITE_OK) {
        code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    }
    enum rc rc = RC_OK;
    if (code != SQLITE_OK) {
        rc = verify_translate(db, code, err);
    } else {
        code = sqlite3_step(statement);
        const char *said =
            code == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
        if (code != SQLITE_ROW) {
            rc = verify_translate(db, code, err);
        } else if (said == NULL || strcmp(said, "ok") != 0) {
            rc = err_set(err, RC_CORRUPT,
                         "the archive is sound, but the database in it fails %s: %.200s "
                         "(--integrity none restores it as it is)",
                         sql, said != NULL ? said : "no answer");
        }
    }
    (void)sqlite3_finalize(statement);
    for (char *c = err != NULL ? err->text : NULL; c != NULL && *c != '\0'; c++) {
        *c = *c == '\n' ? ' ' : *c; /* one line */
    }
    return rc;
}

static void *verify_thread_main(void *arg)
{
    struct verify *verify = arg;
    sqlite3 *db = NULL;
    struct err err = ERR_INIT;
    enum rc rc;
    int code = sqlite3_open_v2(verify->uri, &db,
                               SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        rc = verify_translate(db, code, &err);
    } else {
        ASSERT(pthread_mutex_lock(&verify->mutex) == 0);
        verify->db = db;
        ASSERT(pthread_mutex_unlock(&verify->mutex) == 0);
        rc = verify_check(verify, db, &err);
    }
    ASSERT(pthread_mutex_lock(&verify->mutex) == 0);
    verify->db = NULL;
    verify->rc = rc;
    verify->err = err;
    verify->is_done = true;
    ASSERT(pthread_cond_signal(&verify->is_changed) == 0);
    ASSERT(pthread_mutex_unlock(&verify->mutex) == 0);
    (void)sqlite3_close(db);
    return NULL;
}

enum rc verify_start(const char *path, enum restore_integrity integrity, struct verify **verify,
                     struct err *err)
{
    *verify = NULL;
    if (integrity == RESTORE_INTEGRITY_NONE) {
        return RC_OK;
    }
    struct verify *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the integrity check");
    }
    made->integrity = integrity;
    enum rc rc = verify_set_uri(made, path, err);
    if (rc != RC_OK) {
        free(made);
        return rc;
    }
    pthread_condattr_t attr;
    ASSERT(pthread_condattr_init(&attr) == 0);
    ASSERT(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    ASSERT(pthread_cond_init(&made->is_changed, &attr) == 0);
    ASSERT(pthread_condattr_destroy(&attr) == 0);
    ASSERT(pthread_mutex_init(&made->mutex, NULL) == 0);
    if (pthread_create(&made->thread, NULL, verify_thread_main, made) != 0) {
        ASSERT(pthread_cond_destroy(&made->is_changed) == 0);
        ASSERT(pthread_mutex_destroy(&made->mutex) == 0);
        free(made);
        return err_set(err, RC_NOMEM, "cannot start a thread");
    }
    *verify = made;
    return RC_OK;
}

enum rc verify_finish(struct verify *verify, struct stop *stop, void (*tick)(void *arg),
                      void *tick_arg, struct err *err)
{
    if (verify == NULL) {
        return RC_OK;
    }
    ASSERT(pthread_mutex_lock(&verify->mutex) == 0);
    while (!verify->is_done) {
        struct timespec deadline = clk_deadline(VERIFY_TICK_MS);
        int waited = pthread_cond_timedwait(&verify->is_changed, &verify->mutex, &deadline);
        if (stop != NULL && stop_level(stop) >= STOP_NOW && verify->db != NULL) {
            sqlite3_interrupt(verify->db);
        }
        if (waited == ETIMEDOUT && tick != NULL) {
            ASSERT(pthread_mutex_unlock(&verify->mutex) == 0);
            tick(tick_arg);
            ASSERT(pthread_mutex_lock(&verify->mutex) == 0);
        }
    }
    ASSERT(pthread_mutex_unlock(&verify->mutex) == 0);
    ASSERT(pthread_join(verify->thread, NULL) == 0);
    enum rc rc = verify->rc;
    if (rc != RC_OK && err != NULL) {
        *err = verify->err;
    }
    ASSERT(pthread_cond_destroy(&verify->is_changed) == 0);
    ASSERT(pthread_mutex_destroy(&verify->mutex) == 0);
    free(verify);
    return rc;
}
