/* SPDX-License-Identifier: Apache-2.0 */
/* target: see target.h. With --replace: under which names the old things go aside, and back. */
#include "restorer/target_internal.h"

#include "base/buf.h"
#include "base/clk.h"
#include "base/failpoint.h"

#include <stdio.h>
#include <string.h>

#define TARGET_ASIDE_MARK ".before-restore-"
#define TARGET_ASIDE_TRIES 1000

_Static_assert(TARGET_MARK_BYTES >= sizeof TARGET_ASIDE_MARK + CLK_RFC3339_BYTES + 8,
               "a mark, its time and a number");

/* What --replace moves, in this order, and back in the reverse one: four files. The -harvey folder,
 * unless we have just made it, changes places with the new one. */
enum { TARGET_FILES = 4, TARGET_MOVED_MAX = 5 };
static int target_moved_names(const struct target *target, const char *names[TARGET_MOVED_MAX])
{
    names[0] = target->sidecar.database;
    names[1] = target->sidecar.wal;
    names[2] = target->sidecar.shm;
    names[3] = target->sidecar.journal;
    names[4] = target->sidecar.dir;
    return target->made_sidecar ? TARGET_MOVED_MAX - 1 : TARGET_MOVED_MAX;
}

/* "20261124T180000Z": no colons, which make a path awkward to type and to mount. */
static void target_compact_time(char *text, size_t text_bytes)
{
    char time[CLK_RFC3339_BYTES];
    size_t used = 0;
    clk_format_rfc3339(clk_unix_ms(), time);
    for (const char *c = time; *c != '\0' && *c != '.' && used + 2 < text_bytes; c++) {
        if (*c != '-' && *c != ':') {
            text[used] = *c;
            used++;
        }
    }
    text[used] = 'Z';
    text[used + 1] = '\0';
}

enum rc target_aside_name(const struct target *target, const char *name, const char *mark,
                          char path[FSIO_PATH_BYTES], struct err *err)
{
    char stem[FSIO_PATH_BYTES];
    enum rc rc = target_name(stem, target->sidecar.database, mark, "", err);
    return rc == RC_OK ? target_name(path, stem, "", name + strlen(target->sidecar.database), err)
                       : rc;
}

/* True when nothing of what is there now has a namesake under this mark. */
static bool target_mark_is_free(const struct target *target, const char *mark)
{
    char path[FSIO_PATH_BYTES];
    const char *names[TARGET_MOVED_MAX];
    int count = target_moved_names(target, names);
    for (int i = 0; i < count; i++) {
        if (target_has_entry(names[i]) &&
            (target_aside_name(target, names[i], mark, path, NULL) != RC_OK ||
             target_has_entry(path))) {
            return false;
        }
    }
    return true;
}

/*
 * The mark of a restore that died while it moved things aside: with its -wal under another name than
 * its own the old database would lack its last commits. False when there was none.
 */
static bool target_resume_mark(const struct target *target, char mark[TARGET_MARK_BYTES])
{
    char path[FSIO_PATH_BYTES];
    struct buf text;
    buf_init(&text, TARGET_MARK_BYTES - 1);
    bool found = !target_has_entry(target->sidecar.database) &&
                 target_name(path, target->sidecar.dir, TARGET_REPLACING, "", NULL) == RC_OK &&
                 fsio_read_regular(path, &text, NULL) == RC_OK &&
                 text.size > strlen(TARGET_ASIDE_MARK);
    if (found) {
        memcpy(mark, text.data, text.size);
        mark[text.size] = '\0';
        found = strncmp(mark, TARGET_ASIDE_MARK, strlen(TARGET_ASIDE_MARK)) == 0 &&
                strlen(mark) == text.size && strchr(mark, '/') == NULL &&
                target_mark_is_free(target, mark);
    }
    buf_deinit(&text);
    return found;
}

/* A mark under which none of the names is taken. */
static enum rc target_new_mark(const struct target *target, char mark[TARGET_MARK_BYTES],
                               struct err *err)
{
    char time[CLK_RFC3339_BYTES];
    char path[FSIO_PATH_BYTES];
    const char *names[TARGET_MOVED_MAX];
    int count = target_moved_names(target, names);
    target_compact_time(time, sizeof time);
    for (int number = 1; number <= TARGET_ASIDE_TRIES; number++) {
        int n = number == 1
                    ? snprintf(mark, TARGET_MARK_BYTES, "%s%s", TARGET_ASIDE_MARK, time)
                    : snprintf(mark, TARGET_MARK_BYTES, "%s%s-%d", TARGET_ASIDE_MARK, time, number);
        bool is_taken = n < 0 || n >= TARGET_MARK_BYTES;
        for (int i = 0; i < count && !is_taken; i++) {
            enum rc rc = target_aside_name(target, names[i], mark, path, err);
            if (rc != RC_OK) {
                return rc;
            }
            is_taken = target_has_entry(path);
        }
        if (!is_taken) {
            return RC_OK;
        }
    }
    return err_set(err, RC_LIMIT, "no free name beside %s to move it to", target->sidecar.database);
}

enum rc target_choose_mark(const struct target *target, char mark[TARGET_MARK_BYTES],
                           struct err *err)
{
    return target_resume_mark(target, mark) ? RC_OK : target_new_mark(target, mark, err);
}

void target_move_back(const struct target *target, const char *mark)
{
    char path[FSIO_PATH_BYTES];
    const char *names[TARGET_MOVED_MAX];
    (void)target_moved_names(target, names);
    for (int i = TARGET_FILES; i > 0; i--) {
        if (target_aside_name(target, names[i - 1], mark, path, NULL) == RC_OK &&
            target_has_entry(path)) {
            enum rc rc = fsio_rename_new(path, names[i - 1], NULL);
            (void)rc;
        }
    }
}

enum rc target_move_aside(const struct target *target, const char *mark, char *moved_aside,
                          struct err *err)
{
    char path[FSIO_PATH_BYTES];
    const char *names[TARGET_MOVED_MAX];
    (void)target_moved_names(target, names);
    for (int i = 0; i < TARGET_FILES; i++) {
        if (!target_has_entry(names[i])) {
            continue;
        }
        enum rc rc = target_aside_name(target, names[i], mark, path, err);
        if (rc == RC_OK) {
            rc = fsio_rename_new(names[i], path, err);
        }
        if (rc != RC_OK) {
            return rc;
        }
        if (moved_aside[0] == '\0') {
            memcpy(moved_aside, path, strlen(path) + 1);
        }
        FAILPOINT("restore_moved_aside");
    }
    return fsio_sync_dir(target->dir, err);
}
