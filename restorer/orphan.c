/* SPDX-License-Identifier: Apache-2.0 */
/* orphan: see orphan.h. */
#include "restorer/orphan.h"

#include "archive/object_key.h"
#include "restorer/fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Digits of its number that an orphan's id shares with the one right behind the newest. Beside an
 * archive directory's own folders somebody may keep others, which may be unreadable, endless or huge:
 * so no listing goes through all of it. Numbers count generations, one by one: 3 of 8 digits are a
 * hundred thousand of them, more than any catalog reads.
 */
#define ORPHAN_PREFIX_DIGITS 3

struct orphan_call {
    struct store *store;
    char prefix[ORPHAN_PREFIX_DIGITS + 1];
    char start_after[GENERATION_ID_BYTES + 1];
    struct generation_id found;
};

/* Ends the listing with RC_EXISTS at the first key of ours. */
static enum rc orphan_visit(void *arg, const char *key, uint64_t bytes, struct err *err)
{
    struct orphan_call *call = arg;
    struct object_key parsed;
    (void)bytes;
    if (!object_key_parse(key, &parsed) || parsed.kind == OBJECT_GENERATION) {
        return RC_OK;
    }
    call->found = parsed.generation;
    return err_set(err, RC_EXISTS, "found");
}

static enum rc orphan_attempt(void *arg, struct err *err)
{
    struct orphan_call *call = arg;
    enum rc rc = store_list(call->store, call->prefix, call->start_after, orphan_visit, call, err);
    return rc == RC_EXISTS ? RC_OK : rc;
}

enum rc orphan_find(struct store *store, struct stop *stop, const struct generation_id *newest,
                    struct generation_id *orphan, struct err *err)
{
    struct orphan_call call = {.store = store};
    uint32_t number = generation_id_number(newest);
    struct generation_id next =
        generation_id_make(number < GENERATION_NUMBER_MAX ? number + 1 : number, (uint8_t[8]){0});
    (void)snprintf(call.prefix, sizeof call.prefix, "%.*s", ORPHAN_PREFIX_DIGITS, next.text);
    if (!generation_id_is_none(newest)) {
        /* '0' follows '/': behind every key of that generation */
        (void)snprintf(call.start_after, sizeof call.start_after, "%s0", newest->text);
    }
    enum rc rc = fetch_retry(stop, orphan_attempt, &call, err);
    *orphan = call.found;
    return rc;
}

enum rc orphan_adopt(struct catalog *catalog, const struct generation_id *id, struct err *err)
{
    size_t count = catalog->generation_count;
    size_t place = count;
    struct catalog_generation *grown =
        realloc(catalog->generations, (count + 1) * sizeof *catalog->generations);
    if (grown == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a generation");
    }
    catalog->generations = grown;
    while (place > 0 && strcmp(grown[place - 1].birth.id.text, id->text) > 0) {
        place--;
    }
    memmove(&grown[place + 1], &grown[place], (count - place) * sizeof *grown);
    memset(&grown[place], 0, sizeof *grown);
    grown[place].birth.id = *id;
    catalog->generation_count++;
    return RC_OK;
}
