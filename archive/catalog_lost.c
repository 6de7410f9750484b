/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog_lost: what shows that an archive held more than it does. An archive whose only birth, or only
 * complete.json, is gone must not look like one that never held anything.
 */
#include "archive/catalog.h"

#include "archive/segment.h"

#include <stdio.h>
#include <stdlib.h>

#define LOST_HEADERS_MAX 16 /* the newest objects: twice the window that crashes leave holes in */

/*
 * Digits of its number that an orphan's id shares with the one right behind the newest. Beside an archive
 * directory's own folders somebody may keep others, which may be unreadable, endless or huge: so no listing goes
 * through all of it. Numbers count generations, one by one: 3 of 8 digits are a hundred thousand of them, more
 * than any catalog reads.
 */
#define ORPHAN_PREFIX_DIGITS 3

/* Ends the listing with RC_EXISTS at the first key of ours. */
static enum rc orphan_visit(void *arg, const char *key, uint64_t bytes, struct err *err)
{
    struct generation_id *found = arg;
    struct object_key parsed;
    (void)bytes;
    if (!object_key_parse(key, &parsed) || parsed.kind == OBJECT_GENERATION) {
        return RC_OK;
    }
    *found = parsed.generation;
    return err_set(err, RC_EXISTS, "found");
}

enum rc catalog_find_orphan(struct store *store, const struct generation_id *behind,
                            struct generation_id *orphan, struct err *err)
{
    char prefix[ORPHAN_PREFIX_DIGITS + 1];
    char start_after[GENERATION_ID_BYTES + 1] = "";
    uint32_t number = generation_id_number(behind);
    struct generation_id next =
        generation_id_make(number < GENERATION_NUMBER_MAX ? number + 1 : number, (uint8_t[8]){0});
    *orphan = (struct generation_id){""};
    (void)snprintf(prefix, sizeof prefix, "%.*s", ORPHAN_PREFIX_DIGITS, next.text);
    if (!generation_id_is_none(behind)) {
        /* '0' follows '/': behind every key of that generation */
        (void)snprintf(start_after, sizeof start_after, "%s0", behind->text);
    }
    enum rc rc = store_list(store, prefix, start_after, orphan_visit, orphan, err);
    return rc == RC_EXISTS ? RC_OK : rc;
}

/* One of the newest segments says that something of the generation was archived. */
static enum rc lost_look(const struct catalog_generation *generation, struct store *store,
                         bool *lost, struct err *err)
{
    struct segment_header *header = malloc(sizeof *header);
    if (header == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a header");
    }
    enum rc rc = RC_OK;
    size_t count = generation->segment_count;
    for (size_t i = 0; i < count && i < LOST_HEADERS_MAX && !*lost && rc == RC_OK; i++) {
        rc = catalog_read_header(&generation->birth.id, &generation->segments[count - 1 - i], store,
                                 header, err);
        *lost = rc == RC_OK && header->archived.position.wal_no > 0;
        rc = rc == RC_CORRUPT || rc == RC_NOT_FOUND ? RC_OK : rc; /* one that says nothing */
    }
    free(header);
    return rc;
}

enum rc catalog_lost_snapshot(const struct generation_id *id, struct store *store, bool *lost,
                              struct err *err)
{
    struct catalog own = {.generation_count =
                              1}; /* lists of its own: others may point into theirs */
    *lost = false;
    own.generations = calloc(1, sizeof *own.generations);
    if (own.generations == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a generation");
    }
    own.generations[0].birth.id = *id;
    enum rc rc = catalog_load_lists(&own.generations[0], store, 1, err);
    if (rc == RC_OK && catalog_latest_snapshot(&own.generations[0], NULL) == NULL) {
        rc = lost_look(&own.generations[0], store, lost, err);
    }
    catalog_deinit(&own);
    return rc;
}
