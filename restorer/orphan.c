/* SPDX-License-Identifier: Apache-2.0 */
/* orphan: see orphan.h. */
#include "restorer/orphan.h"

#include "restorer/fetch.h"

#include <stdlib.h>
#include <string.h>

struct orphan_call {
    struct store *store;
    const struct generation_id *newest;
    struct generation_id *found;
};

static enum rc orphan_attempt(void *arg, struct err *err)
{
    struct orphan_call *call = arg;
    return catalog_find_orphan(call->store, call->newest, call->found, err);
}

enum rc orphan_find(struct store *store, struct stop *stop, const struct generation_id *newest,
                    struct generation_id *orphan, struct err *err)
{
    struct orphan_call call = {store, newest, orphan};
    return fetch_retry(stop, orphan_attempt, &call, err);
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
