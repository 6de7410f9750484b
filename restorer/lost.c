/* SPDX-License-Identifier: Apache-2.0 */
/* lost: see lost.h. */
#include "restorer/lost.h"

#include "archive/object_key.h"
#include "restorer/fetch.h"
#include "restorer/orphan.h"

struct lost_call {
    struct store *store;
    char key[OBJECT_KEY_BYTES];
    bool is_there;
};

static enum rc lost_head_attempt(void *arg, struct err *err)
{
    struct lost_call *call = arg;
    uint64_t bytes = 0;
    enum rc rc = store_head(call->store, call->key, &bytes, err);
    call->is_there = rc == RC_OK;
    return rc == RC_NOT_FOUND ? RC_OK : rc;
}

/* Is there a birth under the orphan's number that the catalog lacks? Damaged, or put a moment ago. */
static enum rc lost_has_birth(const struct catalog *catalog, struct store *store, struct stop *stop,
                              const struct generation_id *orphan, bool *has_birth, struct err *err)
{
    struct lost_call call = {.store = store};
    struct object_key key = {.kind = OBJECT_GENERATION,
                             .generation_number = generation_id_number(orphan)};
    *has_birth = false;
    for (size_t i = 0; i < catalog->generation_count; i++) {
        if (generation_id_number(&catalog->generations[i].birth.id) == key.generation_number) {
            return RC_OK; /* that one is another generation's */
        }
    }
    object_key_format(&key, call.key);
    enum rc rc = fetch_retry(stop, lost_head_attempt, &call, err);
    *has_birth = call.is_there;
    return rc;
}

/* The generation, or one that it goes on from, goes on from `id` or overrides it. */
static bool lost_is_before(const struct catalog *catalog,
                           const struct catalog_generation *generation,
                           const struct generation_id *id)
{
    const struct catalog_generation *one = generation;
    while (one != NULL && !generation_birth_names(&one->birth, id)) {
        one = catalog_parent(catalog, one);
    }
    return one != NULL;
}

static bool lost_is_open(const struct catalog *catalog, const struct generation_id *id)
{
    bool has_later = false;
    for (size_t i = 0; i < catalog->generation_count; i++) {
        const struct catalog_generation *one = &catalog->generations[i];
        bool is_later = generation_id_number(&one->birth.id) > generation_id_number(id);
        if (is_later && !lost_is_before(catalog, one, id)) {
            return true;
        }
        has_later = has_later || is_later;
    }
    return !has_later;
}

/* The orphans behind generation `from` (none = of all), up to the next one that has a birth. */
static enum rc lost_look_behind(const struct catalog *catalog, struct store *store,
                                struct stop *stop, struct generation_id from, struct lost *lost,
                                struct err *err)
{
    while (lost->count < LOST_MAX) {
        struct generation_id orphan;
        bool has_birth = false;
        enum rc rc = orphan_find(store, stop, &from, &orphan, err);
        if (rc != RC_OK || generation_id_is_none(&orphan) || catalog_find(catalog, &orphan)) {
            return rc;
        }
        rc = lost_has_birth(catalog, store, stop, &orphan, &has_birth, err);
        if (rc != RC_OK) {
            return rc;
        }
        if (!has_birth) {
            bool is_open = lost_is_open(catalog, &orphan);
            lost->is_open[lost->count] = is_open;
            lost->open_count += is_open ? 1 : 0;
            lost->ids[lost->count++] = orphan;
        }
        from = orphan;
    }
    return RC_OK;
}

enum rc lost_find(const struct catalog *catalog, struct store *store, struct stop *stop,
                  struct lost *lost, struct err *err)
{
    struct generation_id before = {""};
    uint32_t number_before = 0;
    enum rc rc = RC_OK;
    lost->count = lost->open_count = 0;
    for (size_t i = 0; rc == RC_OK && i <= catalog->generation_count; i++) {
        bool is_end = i == catalog->generation_count;
        const struct generation_id *next = is_end ? NULL : &catalog->generations[i].birth.id;
        if (is_end || generation_id_number(next) - number_before > 1) {
            rc = lost_look_behind(catalog, store, stop, before, lost, err);
        }
        if (!is_end) {
            before = *next;
            number_before = generation_id_number(next);
        }
    }
    return rc;
}
