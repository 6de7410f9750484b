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

struct orphan_look {
    char start_after[GENERATION_ID_BYTES + 1];
    struct generation_id found;
};

/* Ends the listing with RC_EXISTS at the first key of ours. */
static enum rc orphan_visit(void *arg, const char *key, uint64_t bytes, struct err *err)
{
    struct orphan_look *look = arg;
    struct object_key parsed;
    (void)bytes;
    if (!object_key_parse(key, &parsed) || parsed.kind == OBJECT_GENERATION) {
        return RC_OK;
    }
    look->found = parsed.generation;
    return err_set(err, RC_EXISTS, "found");
}

enum rc catalog_find_orphan(struct store *store, const struct generation_id *behind,
                            struct generation_id *orphan, struct err *err)
{
    struct orphan_look look = {.found = {""}};
    char digit = '0';
    enum rc rc = RC_OK;
    *orphan = (struct generation_id){""};
    if (!generation_id_is_none(behind)) {
        /* '0' follows '/': behind every key of that generation */
        (void)snprintf(look.start_after, sizeof look.start_after, "%s0", behind->text);
        digit = behind->text[0];
    }
    /* ids begin with a digit; whatever else lies in the archive is nobody's business */
    for (; rc == RC_OK && digit <= '9'; digit++) {
        const char prefix[2] = {digit, '\0'};
        rc = store_list(store, prefix, look.start_after, orphan_visit, &look, err);
    }
    if (rc == RC_EXISTS) {
        *orphan = look.found;
        rc = RC_OK;
    }
    return rc;
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
