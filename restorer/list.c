/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list: see list.h. One JSON tree is made; --json prints it, else the text is made from it, so both
 * say the same.
 */
#include "restorer/list.h"

#include "archive/catalog.h"
#include "base/clk.h"
#include "restorer/choose.h"
#include "restorer/fetch.h"
#include "restorer/lost.h"
#include "restorer/orphan.h"
#include "restorer/progress_bar.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define LIST_WINDOW_DEFAULT 1u

struct list {
    const struct options *options;
    struct stop *stop;
    struct store *store;
    struct catalog catalog;
    struct lost lost;             /* adopted by the catalog: they are listed as the others are */
    struct generation_id fork[2]; /* none = there is none */
    struct catalog_generation *current;
    struct catalog_run *run;
    uint32_t wal_no;
};

/* ---- reading, repeated when the store does not answer ---- */

static enum rc list_prepare_attempt(void *arg, struct err *err)
{
    struct list *list = arg;
    return store_prepare(list->store, false, err);
}

static enum rc list_births_attempt(void *arg, struct err *err)
{
    struct list *list = arg;
    catalog_deinit(&list->catalog);
    catalog_init(&list->catalog);
    return catalog_read_births(&list->catalog, list->store, err);
}

static enum rc list_load_attempt(void *arg, struct err *err)
{
    struct list *list = arg;
    return catalog_load_lists(list->current, list->store, 1, err);
}

static enum rc list_run_attempt(void *arg, struct err *err)
{
    struct list *list = arg;
    uint32_t window = list->current->birth.window;
    catalog_run_deinit(list->run);
    catalog_run_init(list->run);
    return catalog_find_run(list->current, list->store, list->wal_no,
                            window > 0 ? window : LIST_WINDOW_DEFAULT, list->run, err);
}

/* Births, the fork that they tell of, and what lies there without one. */
static enum rc list_read_generations(struct list *list, struct err *err)
{
    const struct catalog_generation *a = NULL;
    const struct catalog_generation *b = NULL;
    enum rc rc = fetch_retry(list->stop, list_births_attempt, list, err);
    if (rc == RC_OK) {
        rc = catalog_find_fork(&list->catalog, &a, &b, err);
    }
    if (a != NULL) {
        list->fork[0] = a->birth.id;
        list->fork[1] = b->birth.id;
    }
    if (rc == RC_OK) {
        rc = lost_find(&list->catalog, list->store, list->stop, &list->lost, err);
    }
    for (size_t i = 0; i < list->lost.count && rc == RC_OK; i++) {
        rc = orphan_adopt(&list->catalog, &list->lost.ids[i], err);
    }
    return rc;
}

static bool list_is_lost(const struct list *list, const struct generation_id *id)
{
    for (size_t i = 0; i < list->lost.count; i++) {
        if (generation_id_equal(&list->lost.ids[i], id)) {
            return true;
        }
    }
    return false;
}

/* ---- the tree ---- */

static json_t *list_time(int64_t unix_ms)
{
    char text[CLK_RFC3339_BYTES];
    clk_format_rfc3339(unix_ms, text);
    return json_string(text);
}

static json_t *list_position(const struct generation_id *id, uint32_t wal_no, uint32_t frame_no)
{
    char text[POSITION_TEXT_BYTES];
    position_format(id, (struct position){wal_no, frame_no}, text);
    return json_string(text);
}

static json_t *list_ids(const struct generation_id *ids, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        (void)json_array_append_new(array, json_string(ids[i].text));
    }
    return array;
}

/* Words of people or machines: whatever is not UTF-8 is not worth an error here. */
static json_t *list_text(const char *text)
{
    json_t *string = text[0] != '\0' ? json_string(text) : json_null();
    return string != NULL ? string : json_string("?");
}

/* One snapshot; what its manifest says, or that it is damaged. No answer is an error, and no damage. */
static enum rc list_one_snapshot(const struct list *list, const struct catalog_snapshot *snapshot,
                                 json_t **object, struct err *err)
{
    const struct generation_id *id = &list->current->birth.id;
    struct choose_source source = {.store = list->store, .stop = list->stop};
    struct snapshot_manifest manifest;
    enum rc rc = RC_OK;
    snapshot_manifest_init(&manifest);
    if (snapshot->complete) {
        rc = choose_read_manifest(&source, id, snapshot, &manifest, err);
    }
    bool is_damaged = rc == RC_CORRUPT;
    if (rc == RC_OK || is_damaged) {
        *object = json_pack(
            "{s:o, s:b, s:b, s:I, s:I, s:o, s:o}", "position",
            list_position(id, snapshot->position.wal_no, snapshot->position.frame_no), "complete",
            snapshot->complete ? 1 : 0, "damaged", is_damaged ? 1 : 0, "parts",
            (json_int_t)snapshot->part_count, "bytes", (json_int_t)snapshot->object_bytes, "time",
            snapshot->complete && !is_damaged ? list_time(manifest.unix_ms) : json_null(), "detail",
            is_damaged ? list_text(err->text) : json_null());
        rc = RC_OK;
    }
    snapshot_manifest_deinit(&manifest);
    return rc;
}

static enum rc list_snapshots(const struct list *list, json_t **array, struct err *err)
{
    enum rc rc = RC_OK;
    *array = json_array();
    for (size_t i = 0; i < list->current->snapshot_count && rc == RC_OK; i++) {
        json_t *object = NULL;
        rc = list_one_snapshot(list, &list->current->snapshots[i], &object, err);
        if (rc == RC_OK) {
            (void)json_array_append_new(*array, object);
        }
    }
    return rc;
}

static json_t *list_one_range(const struct catalog_generation *generation, size_t first,
                              size_t last)
{
    uint64_t bytes = 0;
    for (size_t i = first; i <= last; i++) {
        bytes += generation->segments[i].object_bytes;
    }
    const struct catalog_segment *a = &generation->segments[first];
    const struct catalog_segment *b = &generation->segments[last];
    return json_pack("{s:o, s:o, s:I, s:I, s:o, s:o}", "first",
                     list_position(&generation->birth.id, a->wal_no, a->first_frame_no), "last",
                     list_position(&generation->birth.id, b->wal_no, b->last_frame_no), "objects",
                     (json_int_t)last - (json_int_t)first + 1, "bytes", (json_int_t)bytes,
                     "first_time", list_time(a->unix_ms), "last_time", list_time(b->unix_ms));
}

/* Does b follow a, as far as names tell? */
static bool list_follows(const struct catalog_segment *a, const struct catalog_segment *b)
{
    bool same_wal = b->wal_no == a->wal_no && b->first_frame_no == a->last_frame_no + 1;
    bool next_wal = b->wal_no == a->wal_no + 1 && b->first_frame_no == 1;
    return same_wal || next_wal;
}

static json_t *list_ranges(const struct catalog_generation *generation)
{
    json_t *array = json_array();
    size_t first = 0;
    for (size_t i = 0; i < generation->segment_count; i++) {
        bool is_end = i + 1 == generation->segment_count ||
                      !list_follows(&generation->segments[i], &generation->segments[i + 1]);
        if (is_end) {
            (void)json_array_append_new(array, list_one_range(generation, first, i));
            first = i + 1;
        }
    }
    return array;
}

static const char *list_end_name(enum catalog_end end)
{
    static const char *const names[] = {[CATALOG_END_CLEAN] = "clean",
                                        [CATALOG_END_CRASH] = "crash",
                                        [CATALOG_END_DAMAGE] = "damage",
                                        [CATALOG_END_FORK] = "fork"};
    return names[end];
}

/* The end of the run behind the latest complete snapshot; null where there is nothing to say. */
static enum rc list_end(struct list *list, json_t **object, struct err *err)
{
    struct catalog_run run;
    const struct catalog_snapshot *snapshot = catalog_latest_snapshot(list->current, NULL);
    const struct generation_id *id = &list->current->birth.id;
    catalog_run_init(&run);
    list->run = &run;
    list->wal_no = snapshot != NULL ? snapshot->position.wal_no : 1;
    enum rc rc = fetch_retry(list->stop, list_run_attempt, list, err);
    if (rc == RC_OK) {
        bool is_empty = run.segment_count == 0;
        bool is_clean = run.end_kind == CATALOG_END_CLEAN;
        *object = json_pack(
            "{s:s, s:o, s:o, s:o, s:I, s:o}", "kind", list_end_name(run.end_kind), "position",
            is_empty ? json_null()
                     : list_position(id, run.end.position.wal_no, run.end.position.frame_no),
            "time", is_empty ? json_null() : list_time(run.end_unix_ms), "hole",
            is_clean ? json_null()
                     : list_position(id, run.hole_first.wal_no, run.hole_first.frame_no),
            "objects_beyond", (json_int_t)run.beyond_count, "detail", list_text(run.detail));
    } else if (rc == RC_CORRUPT) {
        *object =
            json_pack("{s:s, s:n, s:n, s:n, s:I, s:o}", "kind", "damage", "position", "time",
                      "hole", "objects_beyond", (json_int_t)0, "detail", list_text(err->text));
        rc = RC_OK;
    }
    catalog_run_deinit(&run);
    return rc;
}

static enum rc list_generation(struct list *list, json_t **object, struct err *err)
{
    const struct generation_birth *birth = &list->current->birth;
    json_t *end = NULL;
    json_t *snapshots = NULL;
    enum rc rc = fetch_retry(list->stop, list_load_attempt, list, err);
    if (rc == RC_OK) {
        rc = list_end(list, &end, err);
    }
    if (rc == RC_OK) {
        rc = list_snapshots(list, &snapshots, err);
    }
    if (rc != RC_OK) {
        json_decref(end);
        json_decref(snapshots);
        return rc;
    }
    json_t *supersedes = list_ids(birth->supersedes, birth->supersedes_count);
    bool is_lost = list_is_lost(list, &birth->id);
    *object = json_pack(
        "{s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o}", "generation",
        birth->id.text, "latest", 0, "parent",
        birth->has_parent ? json_string(birth->parent.text) : json_null(), "parent_position",
        birth->has_parent ? list_position(&birth->parent, birth->parent_point.position.wal_no,
                                          birth->parent_point.position.frame_no)
                          : json_null(),
        "cause", is_lost ? json_null() : json_string(generation_cause_name(birth->cause)),
        "cause_detail", list_text(birth->cause_detail), "host", list_text(birth->host), "began",
        is_lost ? json_null() : list_time(birth->unix_ms), "leads",
        (json_int_t)list->current->term_highest, "snapshots", snapshots, "ranges",
        list_ranges(list->current), "end", end);
    if (supersedes != NULL && *object != NULL) {
        (void)json_object_set(*object, "supersedes", supersedes);
    }
    json_decref(supersedes);
    return RC_OK;
}

/* Marks the newest generation with a complete snapshot; the array is in the catalog's order. */
static void list_mark_latest(const struct list *list, json_t *generations)
{
    for (size_t i = list->catalog.generation_count; i > 0; i--) {
        const struct catalog_generation *one = &list->catalog.generations[i - 1];
        if (!one->loaded || catalog_latest_snapshot(one, NULL) == NULL) {
            continue;
        }
        for (size_t j = 0; j < json_array_size(generations); j++) {
            json_t *object = json_array_get(generations, j);
            const char *id = json_string_value(json_object_get(object, "generation"));
            if (id != NULL && strcmp(id, one->birth.id.text) == 0) {
                (void)json_object_set_new(object, "latest", json_true());
            }
        }
        return;
    }
}

static enum rc list_make_tree(struct list *list, json_t **tree, struct err *err)
{
    const struct generation_id *only = &list->options->request.generation;
    json_t *generations = json_array();
    enum rc rc = RC_OK;
    for (size_t i = 0; i < list->catalog.generation_count && rc == RC_OK; i++) {
        json_t *object = NULL;
        list->current = &list->catalog.generations[i];
        if (!generation_id_is_none(only) && !generation_id_equal(only, &list->current->birth.id)) {
            continue;
        }
        rc = list_generation(list, &object, err);
        if (rc == RC_OK) {
            (void)json_array_append_new(generations, object);
        }
    }
    if (rc == RC_OK && json_array_size(generations) == 0 && list->catalog.damaged_count == 0) {
        rc = list->catalog.generation_count == 0
                 ? err_set(err, RC_NOT_FOUND, "the archive %s is empty", list->store->url)
                 : err_set(err, RC_NOT_FOUND, "the archive %s holds no generation %s",
                           list->store->url, only->text);
    }
    if (rc != RC_OK) {
        json_decref(generations);
        return rc;
    }
    if (generation_id_is_none(only) && list->lost.open_count == 0) {
        list_mark_latest(list, generations);
    }
    json_t *fork = generation_id_is_none(&list->fork[0])
                       ? json_null()
                       : json_pack("[s, s]", list->fork[0].text, list->fork[1].text);
    *tree = json_pack(
        "{s:s, s:o, s:o, s:I, s:o, s:o, s:I}", "archive", list->store->url, "generations",
        generations, "fork", fork, "damaged_births", (json_int_t)list->catalog.damaged_count,
        "damage", list->catalog.damaged_count > 0 ? list_text(list->catalog.damaged) : json_null(),
        "lost_births", list_ids(list->lost.ids, list->lost.count), "lost_births_open",
        (json_int_t)list->lost.open_count);
    return *tree != NULL ? RC_OK : err_set(err, RC_NOMEM, "no memory for the list");
}

/* ---- the text ---- */

static const char *list_get(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "-";
}

/* "3/164" of "00000001-…/3/164": inside a generation's block its id is known. */
static const char *list_get_short(const json_t *object, const char *key)
{
    const char *text = list_get(object, key);
    const char *slash = strchr(text, '/');
    return slash != NULL ? slash + 1 : text;
}

static void list_print_size(const json_t *object, char size[PROGRESS_BAR_SIZE_BYTES])
{
    progress_bar_format_size((uint64_t)json_integer_value(json_object_get(object, "bytes")), size);
}

/* A snapshot that a restore can begin with, as far as its manifest tells. */
static bool list_has_base(const json_t *object)
{
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(object, "snapshots"), i, item)
    {
        if (json_is_true(json_object_get(item, "complete")) &&
            !json_is_true(json_object_get(item, "damaged"))) {
            return true;
        }
    }
    return false;
}

static void list_print_generation(const json_t *object)
{
    char size[PROGRESS_BAR_SIZE_BYTES];
    size_t i;
    const json_t *item;
    printf("generation %s%s\n", list_get(object, "generation"),
           json_is_true(json_object_get(object, "latest")) ? "  (latest)" : "");
    if (json_is_null(json_object_get(object, "began"))) {
        printf("  began      unknown: its birth is missing");
    } else {
        printf("  began      %s on %s: %s", list_get(object, "began"), list_get(object, "host"),
               list_get(object, "cause"));
    }
    if (json_is_string(json_object_get(object, "parent_position"))) {
        printf(", from %s", list_get(object, "parent_position"));
    }
    printf("\n");
    json_array_foreach(json_object_get(object, "snapshots"), i, item)
    {
        list_print_size(item, size);
        printf("  snapshot   %-24s %s  %" JSON_INTEGER_FORMAT " parts, %s%s\n",
               list_get_short(item, "position"), list_get(item, "time"),
               json_integer_value(json_object_get(item, "parts")), size,
               json_is_true(json_object_get(item, "damaged"))     ? ", DAMAGED"
               : !json_is_true(json_object_get(item, "complete")) ? ", not complete"
                                                                  : "");
    }
    json_array_foreach(json_object_get(object, "ranges"), i, item)
    {
        char range[64];
        list_print_size(item, size);
        (void)snprintf(range, sizeof range, "%.30s - %.30s", list_get_short(item, "first"),
                       list_get_short(item, "last"));
        printf("  wal        %-24s %s - %s  %" JSON_INTEGER_FORMAT " objects, %s\n", range,
               list_get(item, "first_time"), list_get(item, "last_time"),
               json_integer_value(json_object_get(item, "objects")), size);
    }
    const json_t *end = json_object_get(object, "end");
    const char *kind = list_get(end, "kind");
    if (strcmp(kind, "clean") == 0 && !list_has_base(object)) {
        printf("  not restorable: no complete snapshot\n");
    } else if (strcmp(kind, "clean") == 0) {
        printf("  restorable to %s\n", list_get(end, "position"));
    } else {
        printf("  %-10s at %s: %s\n", strcmp(kind, "fork") == 0 ? "FORK" : "HOLE",
               list_get_short(end, "hole"), list_get(end, "detail"));
    }
}

static void list_print(const json_t *tree)
{
    size_t i;
    const json_t *item;
    const json_t *fork = json_object_get(tree, "fork");
    bool needs_choice = json_integer_value(json_object_get(tree, "lost_births_open")) > 0;
    printf("archive %s\n", list_get(tree, "archive"));
    json_array_foreach(json_object_get(tree, "generations"), i, item)
    {
        list_print_generation(item);
    }
    if (json_integer_value(json_object_get(tree, "damaged_births")) > 0) {
        printf("DAMAGED: %" JSON_INTEGER_FORMAT " birth(s): %s\n",
               json_integer_value(json_object_get(tree, "damaged_births")),
               list_get(tree, "damage"));
    }
    json_array_foreach(json_object_get(tree, "lost_births"), i, item)
    {
        printf("LOST: the birth of generation %s; %s\n", json_string_value(item),
               needs_choice ? "--to-latest and --to-time need --generation"
                            : "--to-time needs --generation");
    }
    if (json_is_array(fork)) {
        printf("FORK: %s and %s go on from the same generation; --to-latest needs --generation\n",
               json_string_value(json_array_get(fork, 0)),
               json_string_value(json_array_get(fork, 1)));
    }
}

enum rc list_run(const struct options *options, struct stop *stop, struct err *err)
{
    struct list list = {.options = options, .stop = stop};
    json_t *tree = NULL;
    catalog_init(&list.catalog);
    enum rc rc = options->store.off
                     ? err_set(err, RC_INVALID, "HARVEY_ARCHIVE is none: there is nothing to list")
                     : store_open(&options->store, stop, &list.store, err);
    if (rc == RC_OK) {
        rc = fetch_retry(stop, list_prepare_attempt, &list, err);
    }
    if (rc == RC_OK) {
        rc = list_read_generations(&list, err);
    }
    if (rc == RC_OK) {
        rc = list_make_tree(&list, &tree, err);
    }
    if (rc == RC_OK && options->json) {
        rc = json_dumpf(tree, stdout, JSON_INDENT(2)) == 0 && fputc('\n', stdout) != EOF
                 ? RC_OK
                 : err_set(err, RC_IO, "cannot write the list to stdout");
    } else if (rc == RC_OK) {
        list_print(tree);
    }
    json_decref(tree);
    catalog_deinit(&list.catalog);
    store_close(list.store);
    return rc;
}
