/* SPDX-License-Identifier: Apache-2.0 */
/*
 * choose_time: the generation that was live at a time. Births are walked from the newest down; the
 * first one that had begun by then was live, and whatever it goes on from or overrides was not.
 *
 * Where that one has no snapshot yet at that time it is *passed over*, and what can be had is the end of
 * what it goes on from: of its line of parents the first that can serve, up to the commit where the
 * line leaves it (the limit). Commits behind that were overridden, and so were the generations that a
 * passed-over one supersedes.
 */
#include "base/clk.h"
#include "restorer/choose_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Flags what `generation` goes on from or overrides, and what those do. */
static void choose_flag_older(const struct catalog *catalog,
                              const struct catalog_generation *generation, bool *is_older)
{
    /* Births are walked from newest to oldest: one pass reaches parents of parents too. */
    size_t top = (size_t)(generation - catalog->generations);
    for (size_t i = top + 1; i > 0; i--) {
        const struct generation_birth *birth = &catalog->generations[i - 1].birth;
        if (i - 1 != top && !is_older[i - 1]) {
            continue;
        }
        for (size_t j = 0; j + 1 < i; j++) {
            is_older[j] =
                is_older[j] || generation_birth_names(birth, &catalog->generations[j].birth.id);
        }
    }
}

/* Marks as replaced what `generation` makes old; but not its own parents, where it cannot serve itself. */
static enum rc choose_mark_replaced(const struct catalog *catalog,
                                    const struct catalog_generation *generation, bool can_serve,
                                    bool *is_replaced, struct err *err)
{
    bool *is_older = calloc(catalog->generation_count, sizeof *is_older);
    if (is_older == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a flag per generation");
    }
    choose_flag_older(catalog, generation, is_older);
    const struct catalog_generation *parent = catalog_parent(catalog, generation);
    while (!can_serve && parent != NULL) {
        is_older[parent - catalog->generations] = false;
        parent = catalog_parent(catalog, parent);
    }
    for (size_t i = 0; i < catalog->generation_count; i++) {
        is_replaced[i] = is_replaced[i] || is_older[i];
    }
    free(is_older);
    return RC_OK;
}

/* Where the line of parents of `passed_over` (may be NULL) leaves `one`; NULL when it does not reach it. */
static const struct position *choose_limit_in(const struct catalog *catalog,
                                              const struct catalog_generation *passed_over,
                                              const struct catalog_generation *one)
{
    for (const struct catalog_generation *child = passed_over; child != NULL;
         child = catalog_parent(catalog, child)) {
        if (catalog_parent(catalog, child) == one) {
            return &child->birth.parent_point.position;
        }
    }
    return NULL;
}

/* Does the generation hold a snapshot at or before the target time and the source's limit? */
static enum rc choose_reaches_time(const struct choose_source *source,
                                   struct catalog_generation *generation, bool *reaches,
                                   struct err *err)
{
    struct snapshot_manifest manifest;
    bool damaged = false;
    *reaches = false;
    enum rc rc = choose_load(source, generation, err);
    if (rc != RC_OK) {
        return rc;
    }
    snapshot_manifest_init(&manifest);
    for (size_t skip = 0; rc == RC_OK && skip < generation->snapshot_count; skip++) {
        rc = choose_snapshot(source, generation, skip, &manifest, &damaged, err);
        *reaches = rc == RC_OK;
        if (rc == RC_OK || (rc == RC_CORRUPT && !damaged)) {
            rc = RC_OK; /* found, or none old enough */
            break;
        }
        rc = rc == RC_CORRUPT ? RC_OK : rc; /* a damaged one: the next older */
    }
    snapshot_manifest_deinit(&manifest);
    return rc;
}

static enum rc choose_between(struct choose_result *result, const struct catalog_generation *one,
                              struct err *err)
{
    result->needs_choice = true;
    return err_set(err, RC_CORRUPT,
                   "two generations were live at that time: choose with --generation %s or "
                   "--generation %s",
                   result->generation->birth.id.text, one->birth.id.text);
}

/* What is said of a generation that was live then and cannot be had at that time. */
static enum rc choose_settle_passed_over(const struct catalog_generation *passed_over,
                                         const struct position *limit, struct choose_result *result,
                                         struct err *err)
{
    const char *id = passed_over->birth.id.text;
    if (limit != NULL) {
        result->has_limit = true;
        result->limit = *limit;
    } else if (passed_over->birth.has_parent) { /* its history is another, and nobody has chosen */
        result->needs_choice = true;
        return err_set(err, RC_CORRUPT,
                       "two generations were live at that time, and %s, whose first snapshot is "
                       "later, does not go on from the other: choose with --generation %s",
                       id, result->generation->birth.id.text);
    }
    result->leaves_out = true;
    (void)snprintf(result->note, CHOOSE_NOTE_BYTES,
                   "generation %s was live then, but its first snapshot is later", id);
    return RC_OK;
}

/*
 * A generation that a later one goes on from and that is gone as a whole, its birth and all: it began
 * between the one that was chosen and the first that began after the time, so it may have been live.
 */
static void choose_note_gone(const struct catalog *catalog, int64_t unix_ms,
                             struct choose_result *result)
{
    const struct catalog_generation *end = catalog->generations + catalog->generation_count;
    const struct catalog_generation *later = result->generation;
    while (later < end && later->birth.unix_ms <= unix_ms) {
        later++;
    }
    for (const struct catalog_generation *child = later; child < end; child++) {
        const struct generation_id *parent = &child->birth.parent;
        if (child->birth.has_parent && catalog_find(catalog, parent) == NULL &&
            strcmp(parent->text, result->generation->birth.id.text) > 0 &&
            strcmp(parent->text, later->birth.id.text) < 0) {
            (void)snprintf(result->note, CHOOSE_NOTE_BYTES,
                           "generation %s, which %s goes on from, is not in the archive; it may "
                           "have been live then",
                           parent->text, child->birth.id.text);
            return;
        }
    }
}

static enum rc choose_nothing_then(const struct choose_source *source,
                                   const struct catalog_generation *passed_over, struct err *err)
{
    char time[CLK_RFC3339_BYTES];
    clk_format_rfc3339(source->request->target_unix_ms, time);
    if (passed_over != NULL) {
        return err_set(err, RC_CORRUPT,
                       "generation %s was live at %s, but its first snapshot is later, and nothing "
                       "that it goes on from can be restored; `restore --list` shows what can be "
                       "reached",
                       passed_over->birth.id.text, time);
    }
    return err_set(err, RC_CORRUPT,
                   "nothing in the archive %s is as old as %s; `restore --list` shows what can be "
                   "reached",
                   source->store->url, time);
}

/* One that was live, as far as the newer ones tell: it serves, or it is passed over. */
struct choose_walk {
    const struct catalog_generation
        *passed_over;             /* the newest one that was live and cannot serve */
    const struct position *limit; /* in result->generation; may be NULL */
    bool *is_replaced;
};

static enum rc choose_visit(const struct choose_source *source, struct catalog_generation *one,
                            struct choose_walk *walk, struct choose_result *result, struct err *err)
{
    bool reaches = false;
    struct choose_source here = *source;
    here.limit = choose_limit_in(source->catalog, walk->passed_over, one);
    enum rc rc = choose_reaches_time(&here, one, &reaches, err);
    if (rc == RC_OK && reaches && result->generation != NULL) {
        rc = choose_between(result, one, err);
    } else if (rc == RC_OK && reaches) {
        result->generation = one;
        walk->limit = here.limit;
    } else if (rc == RC_OK && result->generation == NULL && walk->passed_over == NULL) {
        walk->passed_over = one;
    }
    return rc == RC_OK ? choose_mark_replaced(source->catalog, one, reaches, walk->is_replaced, err)
                       : rc;
}

enum rc choose_by_time(const struct choose_source *source, struct choose_result *result,
                       struct err *err)
{
    struct catalog *catalog = source->catalog;
    struct choose_walk walk = {.is_replaced =
                                   calloc(catalog->generation_count, sizeof *walk.is_replaced)};
    enum rc rc = RC_OK;
    if (walk.is_replaced == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a flag per generation");
    }
    for (size_t i = catalog->generation_count; i > 0 && rc == RC_OK; i--) {
        struct catalog_generation *one = &catalog->generations[i - 1];
        if (!walk.is_replaced[i - 1] && one->birth.unix_ms <= source->request->target_unix_ms) {
            rc = choose_visit(source, one, &walk, result, err);
        }
    }
    free(walk.is_replaced);
    if (rc == RC_OK && result->generation == NULL) {
        rc = choose_nothing_then(source, walk.passed_over, err);
    } else if (rc == RC_OK && walk.passed_over != NULL) {
        rc = choose_settle_passed_over(walk.passed_over, walk.limit, result, err);
    } else if (rc == RC_OK) {
        choose_note_gone(catalog, source->request->target_unix_ms, result);
    }
    return rc;
}
