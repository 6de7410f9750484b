/* SPDX-License-Identifier: Apache-2.0 */
/*
 * choose: see choose.h. Here: the snapshot, and the generation that is named or the latest. The one that
 * was live at a time is in choose_time.c.
 */
#include "restorer/choose.h"

#include "base/buf.h"
#include "base/clk.h"
#include "restorer/choose_internal.h"
#include "restorer/fetch.h"
#include "restorer/lost.h"
#include "restorer/orphan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHOOSE_SNAPSHOTS_ONLY UINT32_MAX /* as wal_no_from: no WAL has that number */
#define CHOOSE_NAMED_MAX 4               /* generations named in a message */

/* ---- calls that are repeated when the store does not answer ---- */

struct choose_call {
    const struct choose_source *source;
    struct catalog_generation *generation;
    struct catalog_generation *found;
};

static enum rc choose_load_attempt(void *arg, struct err *err)
{
    struct choose_call *call = arg;
    return catalog_load_lists(call->generation, call->source->store, CHOOSE_SNAPSHOTS_ONLY, err);
}

static enum rc choose_latest_attempt(void *arg, struct err *err)
{
    struct choose_call *call = arg;
    return catalog_find_latest(call->source->catalog, call->source->store, &call->found, err);
}

enum rc choose_load(const struct choose_source *source, struct catalog_generation *generation,
                    struct err *err)
{
    struct choose_call call = {.source = source, .generation = generation};
    return fetch_retry(source->stop, choose_load_attempt, &call, err);
}

/* ---- snapshots ---- */

struct choose_manifest_call {
    const struct choose_source *source;
    const struct generation_id *generation;
    const struct catalog_snapshot *snapshot;
    const char *name; /* of its complete.json */
    struct buf json;
    struct snapshot_manifest *manifest;
};

/* The manifest belongs to its name, and all its parts were listed. */
static enum rc choose_check_manifest(const struct choose_manifest_call *call, struct err *err)
{
    const struct snapshot_manifest *manifest = call->manifest;
    const struct catalog_snapshot *snapshot = call->snapshot;
    if (!generation_id_equal(&manifest->generation, call->generation) ||
        position_compare(manifest->point.position, snapshot->position) != 0 ||
        strcmp(manifest->tag, snapshot->tag) != 0) {
        return err_set(err, RC_CORRUPT, "%s belongs to another snapshot than its name says",
                       call->name);
    }
    if (snapshot->part_count < manifest->part_count) {
        return err_set(err, RC_CORRUPT, "the snapshot of %s has %u parts, %u of them are missing",
                       call->name, manifest->part_count,
                       manifest->part_count - snapshot->part_count);
    }
    return RC_OK;
}

static enum rc choose_manifest_attempt(void *arg, struct err *err)
{
    struct choose_manifest_call *call = arg;
    buf_clear(&call->json);
    enum rc rc = store_get_buf(call->source->store, call->name, &call->json, err);
    if (rc == RC_NOT_FOUND) {
        return err_set(err, RC_CORRUPT, "%s was listed, but is gone", call->name);
    }
    if (rc == RC_LIMIT) {
        return err_set(err, RC_CORRUPT, "%s is larger than a manifest can be", call->name);
    }
    if (rc == RC_OK) {
        rc = snapshot_manifest_decode(call->json.data, call->json.size, call->manifest, err);
    }
    if (rc == RC_OK) {
        rc = choose_check_manifest(call, err);
    }
    return rc == RC_CORRUPT ? err_prefix(err, "reading %s", call->name) : rc;
}

enum rc choose_read_manifest(const struct choose_source *source,
                             const struct generation_id *generation,
                             const struct catalog_snapshot *snapshot,
                             struct snapshot_manifest *manifest, struct err *err)
{
    char name[OBJECT_KEY_BYTES];
    struct object_key key = {.kind = OBJECT_SNAPSHOT_COMPLETE,
                             .generation = *generation,
                             .position = snapshot->position};
    struct choose_manifest_call call = {source, generation, snapshot, name, .manifest = manifest};
    memcpy(key.tag, snapshot->tag, sizeof key.tag);
    object_key_format(&key, name);
    buf_init(&call.json, snapshot_json_bytes_max(snapshot->part_count));
    enum rc rc = fetch_retry(source->stop, choose_manifest_attempt, &call, err);
    buf_deinit(&call.json);
    return rc;
}

/* True when the snapshot may be the base of what is wanted, as far as its name tells. */
static bool choose_is_candidate(const struct choose_source *source,
                                const struct catalog_snapshot *snapshot)
{
    const struct restore_request *request = source->request;
    bool is_in_history =
        source->limit == NULL || position_compare(snapshot->position, *source->limit) <= 0;
    return snapshot->complete && is_in_history &&
           (request->target != RESTORE_TO_POSITION ||
            position_compare(snapshot->position, request->target_position) <= 0);
}

static enum rc choose_none_old_enough(const struct choose_source *source,
                                      const struct generation_id *generation, struct err *err)
{
    char wanted[POSITION_TEXT_BYTES];
    if (source->request->target == RESTORE_TO_POSITION) {
        position_format(generation, source->request->target_position, wanted);
    } else if (source->limit != NULL) {
        position_format(generation, *source->limit, wanted);
    } else {
        char time[CLK_RFC3339_BYTES];
        clk_format_rfc3339(source->request->target_unix_ms, time);
        (void)snprintf(wanted, sizeof wanted, "%s", time);
    }
    return err_set(err, RC_CORRUPT,
                   "generation %s holds no usable snapshot at or before %s; `restore --list` shows "
                   "what can be reached",
                   generation->text, wanted);
}

enum rc choose_snapshot(const struct choose_source *source,
                        const struct catalog_generation *generation, size_t skip,
                        struct snapshot_manifest *manifest, bool *damaged, struct err *err)
{
    const struct restore_request *request = source->request;
    *damaged = false;
    for (size_t i = generation->snapshot_count; i > 0; i--) {
        const struct catalog_snapshot *snapshot = &generation->snapshots[i - 1];
        if (!choose_is_candidate(source, snapshot)) {
            continue;
        }
        if (request->target != RESTORE_TO_TIME && skip > 0) {
            skip--;
            continue;
        }
        snapshot_manifest_deinit(manifest);
        snapshot_manifest_init(manifest);
        enum rc rc = choose_read_manifest(source, &generation->birth.id, snapshot, manifest, err);
        *damaged = rc == RC_CORRUPT;
        if (rc != RC_OK && rc != RC_CORRUPT) {
            return rc;
        }
        if (rc == RC_OK && request->target == RESTORE_TO_TIME &&
            manifest->unix_ms > request->target_unix_ms) {
            continue;
        }
        if (request->target == RESTORE_TO_TIME && skip > 0) {
            skip--;
            continue;
        }
        return rc;
    }
    *damaged = false;
    return choose_none_old_enough(source, &generation->birth.id, err);
}

/* ---- generations ---- */

/* Up to CHOOSE_NAMED_MAX ids, the newest first: " A, B …". */
static void choose_name_some(const struct catalog *catalog, char *text, size_t text_bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < catalog->generation_count && i < CHOOSE_NAMED_MAX; i++) {
        const struct catalog_generation *one =
            &catalog->generations[catalog->generation_count - 1 - i];
        int n =
            snprintf(text + used, text_bytes - used, "%s%s", i > 0 ? ", " : "", one->birth.id.text);
        if (n < 0 || (size_t)n >= text_bytes - used) {
            return;
        }
        used += (size_t)n;
    }
}

static enum rc choose_unknown(const struct choose_source *source, struct err *err)
{
    char known[CHOOSE_NAMED_MAX * (GENERATION_ID_BYTES + 2)];
    choose_name_some(source->catalog, known, sizeof known);
    return err_set(err, RC_NOT_FOUND, "the archive %s holds no generation %s%s%s (restore --list)",
                   source->store->url, source->request->generation.text,
                   known[0] != '\0' ? "; its newest are " : "", known);
}

struct choose_lost_call {
    const struct choose_source *source;
    const struct generation_id *id;
    bool lost;
};

static enum rc choose_lost_attempt(void *arg, struct err *err)
{
    struct choose_lost_call *call = arg;
    return catalog_lost_snapshot(call->id, call->source->store, &call->lost, err);
}

/* RC_CORRUPT when the generation, which holds no complete snapshot, says itself that it held one. */
static enum rc choose_check_snapshot_lost(const struct choose_source *source,
                                          const struct generation_id *id, struct err *err)
{
    struct choose_lost_call call = {.source = source, .id = id};
    enum rc rc = fetch_retry(source->stop, choose_lost_attempt, &call, err);
    if (rc == RC_OK && call.lost) {
        rc = err_set(err, RC_CORRUPT,
                     "generation %s held a complete snapshot, its objects say, and holds none: "
                     "the snapshot is lost",
                     id->text);
    }
    return rc;
}

/* The generation that was asked for; one whose birth is lost may still have everything else. */
static enum rc choose_given(const struct choose_source *source, struct choose_result *result,
                            struct err *err)
{
    const struct generation_id *id = &source->request->generation;
    enum rc rc = RC_OK;
    bool is_known = catalog_find(source->catalog, id) != NULL;
    if (!is_known) {
        rc = orphan_adopt(source->catalog, id, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    result->generation = catalog_find(source->catalog, id);
    rc = choose_load(source, result->generation, err);
    if (rc == RC_OK && catalog_latest_snapshot(result->generation, NULL) == NULL) {
        rc = is_known ? choose_check_snapshot_lost(source, id, err) : RC_OK;
        if (rc != RC_OK) {
            return rc;
        }
        return is_known ? err_set(err, RC_NOT_FOUND,
                                  "generation %s holds no complete snapshot yet: nothing to "
                                  "restore in it",
                                  id->text)
                        : choose_unknown(source, err);
    }
    if (rc == RC_OK && !is_known) {
        (void)snprintf(result->note, CHOOSE_NOTE_BYTES,
                       "the birth of generation %s is missing or damaged", id->text);
    }
    return rc;
}

/* Nor a birth that cannot be read: it may be the newest's, or tell of a fork. */
static enum rc choose_check_births(const struct choose_source *source, struct choose_result *result,
                                   struct err *err)
{
    const struct catalog *catalog = source->catalog;
    char known[CHOOSE_NAMED_MAX * (GENERATION_ID_BYTES + 2)];
    if (catalog->damaged_count == 0) {
        return RC_OK;
    }
    result->needs_choice = true;
    choose_name_some(catalog, known, sizeof known);
    return err_set(err, RC_CORRUPT,
                   "%zu birth%s cannot be read (%.200s): choose with --generation ID%s%s",
                   catalog->damaged_count, catalog->damaged_count == 1 ? "" : "s", catalog->damaged,
                   known[0] != '\0' ? "; readable are, the newest first: " : "", known);
}

/* Appends "--generation ID", behind `between` where something stands there already. */
static void choose_append(char *text, size_t text_bytes, const char *between,
                          const struct generation_id *id)
{
    size_t used = strlen(text);
    (void)snprintf(text + used, text_bytes - used, "%s--generation %s", used > 0 ? between : "",
                   id->text);
}

/* Without --generation nothing may be passed over in silence: a birth that was lost needs a choice. */
static enum rc choose_check_lost(const struct choose_source *source, struct choose_result *result,
                                 struct err *err)
{
    const struct catalog *catalog = source->catalog;
    char choices[(CHOOSE_NAMED_MAX + 1) * (GENERATION_ID_BYTES + 20)] = "";
    struct lost lost;
    enum rc rc = lost_find(catalog, source->store, source->stop, &lost, err);
    bool wants_latest = source->request->target == RESTORE_TO_LATEST;
    if (rc != RC_OK || (wants_latest ? lost.open_count : lost.count) == 0) {
        return rc;
    }
    for (size_t i = 0; i < lost.count && i < CHOOSE_NAMED_MAX; i++) {
        choose_append(choices, sizeof choices, ", ", &lost.ids[lost.count - 1 - i]);
    }
    if (catalog->generation_count > 0) {
        choose_append(choices, sizeof choices, " or ",
                      &catalog->generations[catalog->generation_count - 1].birth.id);
    }
    result->needs_choice = true;
    return err_set(err, RC_CORRUPT,
                   "the archive holds objects of %zu generation%s whose birth is missing; choose "
                   "with %s (restore --list)",
                   lost.count, lost.count == 1 ? "" : "s", choices);
}

/* A newer generation cannot be restored yet; where it goes on from may be an earlier commit than
 * the end that is restored instead. */
static void choose_note_newer(const struct catalog_generation *newest, char *note)
{
    char from[POSITION_TEXT_BYTES] = "nothing";
    if (newest->birth.has_parent) {
        position_format(&newest->birth.parent, newest->birth.parent_point.position, from);
    }
    (void)snprintf(
        note, CHOOSE_NOTE_BYTES,
        "generation %s is newer, but holds no complete snapshot yet (it goes on from %s)",
        newest->birth.id.text, from);
}

/* The generations newer than `found` (NULL = all), none of which holds a complete snapshot. */
static enum rc choose_check_newer(const struct choose_source *source,
                                  const struct catalog_generation *found,
                                  struct choose_result *result, struct err *err)
{
    const struct catalog *catalog = source->catalog;
    enum rc rc = RC_OK;
    for (size_t i = catalog->generation_count; i > 0 && rc == RC_OK; i--) {
        const struct catalog_generation *one = &catalog->generations[i - 1];
        if (one == found) {
            return RC_OK;
        }
        rc = choose_check_snapshot_lost(source, &one->birth.id, err);
    }
    if (rc == RC_CORRUPT && found != NULL) {
        result->needs_choice = true;
        rc = err_prefix(err, "choose with --generation %s", found->birth.id.text);
    }
    return rc;
}

static enum rc choose_latest(const struct choose_source *source, struct choose_result *result,
                             struct err *err)
{
    const struct catalog *catalog = source->catalog;
    const struct catalog_generation *a = NULL;
    const struct catalog_generation *b = NULL;
    struct choose_call call = {.source = source};
    enum rc rc = catalog_find_fork(catalog, &a, &b, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (a != NULL) {
        result->needs_choice = true;
        return err_set(err, RC_CORRUPT,
                       "the history forks: %s and %s both go on from generation %s; choose one "
                       "with --generation %s or --generation %s",
                       a->birth.id.text, b->birth.id.text, a->birth.parent.text, a->birth.id.text,
                       b->birth.id.text);
    }
    rc = fetch_retry(source->stop, choose_latest_attempt, &call, err);
    if (rc == RC_OK) {
        rc = choose_check_newer(source, call.found, result, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    if (call.found == NULL) {
        return err_set(err, RC_NOT_FOUND,
                       "the archive %s holds no complete snapshot yet: nothing to restore",
                       source->store->url);
    }
    const struct catalog_generation *newest = &catalog->generations[catalog->generation_count - 1];
    if (newest != call.found) {
        choose_note_newer(newest, result->note);
        result->leaves_out = true;
    }
    result->generation = call.found;
    return RC_OK;
}

enum rc choose_generation(const struct choose_source *source, struct choose_result *result,
                          struct err *err)
{
    *result = (struct choose_result){.generation = NULL};
    if (!generation_id_is_none(&source->request->generation)) {
        return choose_given(source, result, err);
    }
    ASSERT(source->request->target != RESTORE_TO_POSITION);
    enum rc rc = choose_check_births(source, result, err);
    if (rc == RC_OK) {
        rc = choose_check_lost(source, result, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    if (source->catalog->generation_count == 0) {
        return err_set(err, RC_NOT_FOUND, "the archive %s is empty: nothing to restore",
                       source->store->url);
    }
    return source->request->target == RESTORE_TO_TIME ? choose_by_time(source, result, err)
                                                      : choose_latest(source, result, err);
}
