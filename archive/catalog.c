/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog: see catalog.h. Here: listings and small objects, and the latest snapshot. The contiguous
 * run is in catalog_run.c, forks between generations in catalog_fork.c. Format:
 * docs/archive-format.md, "Keys".
 */
#include "archive/catalog.h"

#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CATALOG_GENERATIONS_MAX 100000u  /* one a minute for two months: something is wrong */
#define CATALOG_SNAPSHOTS_MAX 1000000u   /* of one generation */
#define CATALOG_SEGMENTS_MAX 100000000u  /* of one generation: ten a second for four months */
#define CATALOG_HEADER_FIRST_BYTES 4096u /* holds the header of three hundred capture passes */

/* Makes room for one more element of `size` bytes; the array doubles. */
static enum rc catalog_grow(void **array, size_t count, size_t size, size_t count_max,
                            const char *what, struct err *err)
{
    if (count >= count_max) {
        return err_set(err, RC_LIMIT, "more than %zu %s", count_max, what);
    }
    if (count != 0 && (count & (count - 1)) != 0) { /* full only at powers of two */
        return RC_OK;
    }
    void *grown = reallocarray(*array, count == 0 ? 1 : count * 2, size);
    if (grown == NULL) {
        return err_set(err, RC_NOMEM, "no memory for %zu %s", count * 2, what);
    }
    *array = grown;
    return RC_OK;
}

/* ---- generations ---- */

void catalog_init(struct catalog *catalog)
{
    memset(catalog, 0, sizeof *catalog);
}

static void catalog_forget_lists(struct catalog_generation *generation)
{
    free(generation->snapshots);
    free(generation->segments);
    generation->loaded = false;
    generation->term_highest = 0;
    generation->term_highest_tag[0] = '\0';
    generation->snapshot_count = 0;
    generation->snapshots = NULL;
    generation->segment_count = 0;
    generation->segments = NULL;
}

void catalog_deinit(struct catalog *catalog)
{
    for (size_t i = 0; i < catalog->generation_count; i++) {
        catalog_forget_lists(&catalog->generations[i]);
    }
    free(catalog->generations);
    catalog_init(catalog);
}

/* Numbers are noted first and births are read afterwards: a visitor may not use the store. */
static enum rc catalog_note_generation(void *arg, const char *key, uint64_t bytes, struct err *err)
{
    struct catalog *catalog = arg;
    struct object_key parsed;
    (void)bytes;
    if (!object_key_parse(key, &parsed) || parsed.kind != OBJECT_GENERATION) {
        return RC_OK;
    }
    void *array = catalog->generations;
    enum rc rc = catalog_grow(&array, catalog->generation_count, sizeof *catalog->generations,
                              CATALOG_GENERATIONS_MAX, "generations", err);
    if (rc != RC_OK) {
        return rc;
    }
    ASSERT(array != NULL);
    catalog->generations = array;
    struct catalog_generation *generation = &catalog->generations[catalog->generation_count++];
    memset(generation, 0, sizeof *generation);
    /* until its birth is read, the number stands where the id will */
    (void)snprintf(generation->birth.id.text, sizeof generation->birth.id.text, "%u",
                   parsed.generation_number);
    return RC_OK;
}

static enum rc catalog_read_birth(struct catalog_generation *generation, struct store *store,
                                  struct buf *json, struct err *err)
{
    char text[OBJECT_KEY_BYTES];
    struct object_key key = {.kind = OBJECT_GENERATION};
    key.generation_number = (uint32_t)strtoul(generation->birth.id.text, NULL, 10);
    object_key_format(&key, text);
    buf_clear(json);
    enum rc rc = store_get_buf(store, text, json, err);
    if (rc == RC_LIMIT) {
        return err_set(err, RC_CORRUPT, "%s is larger than a birth can be", text);
    }
    if (rc == RC_NOT_FOUND) {
        return err_set(err, RC_CORRUPT, "%s was listed, but is gone", text);
    }
    if (rc != RC_OK) {
        return rc;
    }
    rc = generation_birth_decode(json->data, json->size, &generation->birth, err);
    if (rc != RC_OK) {
        return err_prefix(err, "reading %s", text);
    }
    if (generation_id_number(&generation->birth.id) != key.generation_number) {
        return err_set(err, RC_CORRUPT, "%s is the birth of generation %s", text,
                       generation->birth.id.text);
    }
    return RC_OK;
}

/* Reads each birth, twice where the first answer is none: a proxy may have sent something else. */
static enum rc catalog_read_each_birth(struct catalog *catalog, struct store *store,
                                       struct buf *json, struct err *err)
{
    size_t kept = 0;
    for (size_t i = 0; i < catalog->generation_count; i++) {
        struct catalog_generation *generation = &catalog->generations[i];
        struct generation_birth numbered = generation->birth;
        enum rc rc = catalog_read_birth(generation, store, json, err);
        if (rc == RC_CORRUPT) {
            generation->birth = numbered;
            rc = catalog_read_birth(generation, store, json, err);
        }
        if (rc != RC_OK && rc != RC_CORRUPT) {
            return rc;
        }
        if (rc == RC_OK) {
            catalog->generations[kept++] = *generation;
        } else if (catalog->damaged_count++ == 0) {
            (void)snprintf(catalog->damaged, sizeof catalog->damaged, "%.250s", err->text);
        }
    }
    catalog->generation_count = kept;
    return RC_OK;
}

enum rc catalog_read_births(struct catalog *catalog, struct store *store, struct err *err)
{
    char prefix[OBJECT_KEY_BYTES];
    struct buf json;
    struct err local_err = ERR_INIT;
    err = err != NULL ? err : &local_err;
    catalog_deinit(catalog);
    object_key_generations_prefix(prefix);
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    enum rc rc = store_list(store, prefix, "", catalog_note_generation, catalog, err);
    if (rc == RC_OK) {
        rc = catalog_read_each_birth(catalog, store, &json, err);
    }
    buf_deinit(&json);
    if (rc != RC_OK) {
        catalog_deinit(catalog);
    }
    return rc;
}

enum rc catalog_read_generations(struct catalog *catalog, struct store *store, struct err *err)
{
    enum rc rc = catalog_read_births(catalog, store, err);
    if (rc == RC_OK && catalog->damaged_count > 0) {
        rc = err_set(err, RC_CORRUPT, "%s", catalog->damaged);
        catalog_deinit(catalog);
    }
    return rc;
}

struct catalog_generation *catalog_find(const struct catalog *catalog,
                                        const struct generation_id *id)
{
    for (size_t i = 0; i < catalog->generation_count; i++) {
        if (generation_id_equal(&catalog->generations[i].birth.id, id)) {
            return &catalog->generations[i];
        }
    }
    return NULL;
}

const struct catalog_generation *catalog_parent(const struct catalog *catalog,
                                                const struct catalog_generation *one)
{
    const struct catalog_generation *parent =
        one->birth.has_parent ? catalog_find(catalog, &one->birth.parent) : NULL;
    return parent != NULL && parent < one ? parent : NULL; /* births come in order: no circle */
}

/* ---- the lists of one generation ---- */

static enum rc catalog_note_lead(void *arg, const char *key, uint64_t bytes, struct err *err)
{
    struct catalog_generation *generation = arg;
    struct object_key parsed;
    (void)bytes;
    (void)err;
    if (object_key_parse(key, &parsed) && parsed.kind == OBJECT_LEAD &&
        parsed.term > generation->term_highest) {
        generation->term_highest = parsed.term;
    }
    return RC_OK;
}

/* The highest claim's tag tells two leads apart that took the same term. */
static enum rc catalog_read_highest_claim(struct catalog_generation *generation,
                                          struct store *store, struct err *err)
{
    char text[OBJECT_KEY_BYTES];
    struct object_key key = {.kind = OBJECT_LEAD, .term = generation->term_highest};
    struct lead_claim claim = {.term = 0};
    struct buf json;
    key.generation = generation->birth.id;
    object_key_format(&key, text);
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    enum rc rc = store_get_buf(store, text, &json, err);
    if (rc == RC_LIMIT) {
        rc = err_set(err, RC_CORRUPT, "%s is larger than a claim can be", text);
    } else if (rc == RC_NOT_FOUND) {
        rc = err_set(err, RC_CORRUPT, "%s was listed, but is gone", text);
    } else if (rc == RC_OK) {
        rc = lead_claim_decode(json.data, json.size, &claim, err);
        rc = rc == RC_OK ? rc : err_prefix(err, "reading %s", text);
    }
    buf_deinit(&json);
    if (rc != RC_OK) {
        return rc;
    }
    if (claim.term != generation->term_highest ||
        !generation_id_equal(&claim.generation, &generation->birth.id)) {
        return err_set(err, RC_CORRUPT, "%s is the claim of term %u of generation %s", text,
                       claim.term, claim.generation.text);
    }
    memcpy(generation->term_highest_tag, claim.tag, sizeof claim.tag);
    return RC_OK;
}

/* A snapshot's objects follow each other in the listing: position and tag lead their names. */
static enum rc catalog_note_snapshot(void *arg, const char *key, uint64_t bytes, struct err *err)
{
    struct catalog_generation *generation = arg;
    struct object_key parsed;
    if (!object_key_parse(key, &parsed) ||
        (parsed.kind != OBJECT_SNAPSHOT_PART && parsed.kind != OBJECT_SNAPSHOT_COMPLETE)) {
        return RC_OK;
    }
    size_t count = generation->snapshot_count;
    struct catalog_snapshot *snapshot = count > 0 ? &generation->snapshots[count - 1] : NULL;
    if (snapshot == NULL || position_compare(snapshot->position, parsed.position) != 0 ||
        strcmp(snapshot->tag, parsed.tag) != 0) {
        void *array = generation->snapshots;
        enum rc rc = catalog_grow(&array, count, sizeof *generation->snapshots,
                                  CATALOG_SNAPSHOTS_MAX, "snapshots", err);
        if (rc != RC_OK) {
            return rc;
        }
        ASSERT(array != NULL);
        generation->snapshots = array;
        snapshot = &generation->snapshots[generation->snapshot_count++];
        memset(snapshot, 0, sizeof *snapshot);
        snapshot->position = parsed.position;
        memcpy(snapshot->tag, parsed.tag, sizeof snapshot->tag);
    }
    if (parsed.kind == OBJECT_SNAPSHOT_COMPLETE) {
        snapshot->complete = true;
    } else {
        snapshot->part_count++;
        snapshot->object_bytes += bytes;
    }
    return RC_OK;
}

static enum rc catalog_note_segment(void *arg, const char *key, uint64_t bytes, struct err *err)
{
    struct catalog_generation *generation = arg;
    struct object_key parsed;
    if (!object_key_parse(key, &parsed) || parsed.kind != OBJECT_SEGMENT) {
        return RC_OK;
    }
    void *array = generation->segments;
    enum rc rc = catalog_grow(&array, generation->segment_count, sizeof *generation->segments,
                              CATALOG_SEGMENTS_MAX, "WAL objects", err);
    if (rc != RC_OK) {
        return rc;
    }
    ASSERT(array != NULL);
    generation->segments = array;
    struct catalog_segment *segment = &generation->segments[generation->segment_count++];
    *segment = (struct catalog_segment){
        .wal_no = parsed.position.wal_no,
        .first_frame_no = parsed.first_frame_no,
        .last_frame_no = parsed.position.frame_no,
        .term = parsed.term,
        .unix_ms = parsed.unix_ms,
        .object_bytes = bytes,
    };
    memcpy(segment->lead_tag, parsed.tag, sizeof segment->lead_tag);
    return RC_OK;
}

static int catalog_compare_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

/* By (wal_no, first, term); the rest only makes the order total. */
static int catalog_compare_segments(const void *a, const void *b)
{
    const struct catalog_segment *x = a;
    const struct catalog_segment *y = b;
    int order = catalog_compare_u64(x->wal_no, y->wal_no);
    order = order != 0 ? order : catalog_compare_u64(x->first_frame_no, y->first_frame_no);
    order = order != 0 ? order : catalog_compare_u64(x->term, y->term);
    order = order != 0 ? order : catalog_compare_u64(x->last_frame_no, y->last_frame_no);
    order = order != 0 ? order : catalog_compare_u64((uint64_t)x->unix_ms, (uint64_t)y->unix_ms);
    return order != 0 ? order : strcmp(x->lead_tag, y->lead_tag);
}

static enum rc catalog_list_snapshots(struct catalog_generation *generation, struct store *store,
                                      struct err *err)
{
    char prefix[OBJECT_KEY_BYTES];
    free(generation->snapshots);
    generation->snapshots = NULL;
    generation->snapshot_count = 0;
    object_key_snapshots_prefix(&generation->birth.id, prefix);
    return store_list(store, prefix, "", catalog_note_snapshot, generation, err);
}

static enum rc catalog_list_segments(struct catalog_generation *generation, struct store *store,
                                     uint32_t wal_no_from, struct err *err)
{
    char prefix[OBJECT_KEY_BYTES];
    char start_after[OBJECT_KEY_BYTES + 16] = "";
    object_key_wal_prefix(&generation->birth.id, prefix);
    if (wal_no_from > 1) { /* the WAL's folder itself sorts right before its objects */
        (void)snprintf(start_after, sizeof start_after, "%s%010u/", prefix, wal_no_from);
    }
    enum rc rc = store_list(store, prefix, start_after, catalog_note_segment, generation, err);
    if (rc == RC_OK && generation->segment_count > 1) {
        qsort(generation->segments, generation->segment_count, sizeof *generation->segments,
              catalog_compare_segments);
    }
    return rc;
}

enum rc catalog_load_lists(struct catalog_generation *generation, struct store *store,
                           uint32_t wal_no_from, struct err *err)
{
    char prefix[OBJECT_KEY_BYTES];
    catalog_forget_lists(generation);
    object_key_leads_prefix(&generation->birth.id, prefix);
    enum rc rc = store_list(store, prefix, "", catalog_note_lead, generation, err);
    if (rc == RC_OK) {
        rc = catalog_list_snapshots(generation, store, err);
    }
    if (rc == RC_OK) {
        rc = catalog_list_segments(generation, store, wal_no_from, err);
    }
    if (rc != RC_OK) {
        catalog_forget_lists(generation);
        return rc;
    }
    generation->loaded = true;
    return RC_OK;
}

enum rc catalog_load_generation(struct catalog_generation *generation, struct store *store,
                                uint32_t wal_no_from, struct err *err)
{
    enum rc rc = catalog_load_lists(generation, store, wal_no_from, err);
    if (rc == RC_OK && generation->term_highest > 0) {
        rc = catalog_read_highest_claim(generation, store, err);
    }
    if (rc != RC_OK) {
        catalog_forget_lists(generation);
    }
    return rc;
}

/* ---- the latest ---- */

const struct catalog_snapshot *catalog_latest_snapshot(const struct catalog_generation *generation,
                                                       const struct position *limit)
{
    for (size_t i = generation->snapshot_count; i > 0; i--) {
        const struct catalog_snapshot *snapshot = &generation->snapshots[i - 1];
        if (snapshot->complete &&
            (limit == NULL || position_compare(snapshot->position, *limit) <= 0)) {
            return snapshot;
        }
    }
    return NULL;
}

enum rc catalog_find_latest(struct catalog *catalog, struct store *store,
                            struct catalog_generation **found, struct err *err)
{
    *found = NULL;
    for (size_t i = catalog->generation_count; i > 0; i--) {
        struct catalog_generation *generation = &catalog->generations[i - 1];
        if (!generation->loaded) {
            enum rc rc = catalog_list_snapshots(generation, store, err);
            if (rc != RC_OK) {
                return rc;
            }
        }
        if (catalog_latest_snapshot(generation, NULL) != NULL) {
            *found = generation;
            return RC_OK;
        }
    }
    return RC_OK;
}

/* ---- one header ---- */

static enum rc catalog_append(void *arg, const uint8_t *bytes, size_t count, struct err *err)
{
    return buf_append(arg, bytes, count, err);
}

/* GETs what is missing to make `want` bytes of the object. */
static enum rc catalog_fetch_head(struct store *store, const char *key, size_t want,
                                  uint64_t object_bytes, struct buf *head, struct err *err)
{
    if (want > object_bytes) {
        want = (size_t)object_bytes;
    }
    if (want <= head->size) {
        return err_set(err, RC_CORRUPT, "%s ends inside its header", key);
    }
    struct store_range range = {.offset = head->size, .length = want - head->size};
    return store_get(store, key, &range, catalog_append, head, err);
}

static enum rc catalog_read_header_once(const struct generation_id *generation,
                                        const struct catalog_segment *segment, struct store *store,
                                        struct segment_header *header, struct err *err)
{
    char name[OBJECT_KEY_BYTES];
    char own_name[OBJECT_KEY_BYTES];
    struct object_key key = {
        .kind = OBJECT_SEGMENT,
        .generation = *generation,
        .position = {segment->wal_no, segment->last_frame_no},
        .first_frame_no = segment->first_frame_no,
        .term = segment->term,
        .unix_ms = segment->unix_ms,
    };
    struct buf head;
    size_t need = CATALOG_HEADER_FIRST_BYTES;
    size_t header_bytes = 0;
    memcpy(key.tag, segment->lead_tag, sizeof key.tag);
    object_key_format(&key, name);
    buf_init(&head, SEGMENT_HEADER_BYTES_MAX);
    enum rc rc = RC_LIMIT;
    for (int i = 0; i < 3 && rc == RC_LIMIT; i++) { /* segment.h: two calls may want more */
        rc = catalog_fetch_head(store, name, need, segment->object_bytes, &head, err);
        if (rc == RC_OK) {
            rc = segment_header_decode(head.data, head.size, header, &header_bytes, &need, err);
            rc = rc == RC_CORRUPT ? err_prefix(err, "reading %s", name) : rc;
        }
    }
    buf_deinit(&head);
    if (rc == RC_LIMIT) {
        return err_set(err, RC_CORRUPT, "%s has a header without end", name);
    }
    if (rc == RC_NOT_FOUND) {
        return err_set(err, RC_CORRUPT, "%s was listed, but is gone", name);
    }
    if (rc != RC_OK) {
        return rc;
    }
    segment_key(header, &key);
    object_key_format(&key, own_name);
    if (strcmp(name, own_name) != 0) {
        return err_set(err, RC_CORRUPT, "%s holds the object %s", name, own_name);
    }
    return RC_OK;
}

enum rc catalog_read_header(const struct generation_id *generation,
                            const struct catalog_segment *segment, struct store *store,
                            struct segment_header *header, struct err *err)
{
    enum rc rc = catalog_read_header_once(generation, segment, store, header, err);
    /* One wrong answer is no damage: a proxy on the way may have answered with something else. */
    return rc == RC_CORRUPT ? catalog_read_header_once(generation, segment, store, header, err)
                            : rc;
}
