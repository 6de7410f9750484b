/* SPDX-License-Identifier: Apache-2.0 */
/* spooled: see spooled.h. The spool has the names of an archive, so it is read as one. */
#include "restorer/spooled.h"

#include "archive/object_key.h"
#include "archive/store.h"

#include <stdio.h>
#include <string.h>

struct spooled {
    struct position end;
    size_t count;
};

static enum rc spooled_visit(void *arg, const char *key, uint64_t bytes, struct err *err)
{
    struct spooled *spooled = arg;
    struct object_key parsed;
    (void)bytes;
    (void)err;
    if (object_key_parse(key, &parsed) && parsed.kind == OBJECT_SEGMENT &&
        position_compare(parsed.position, spooled->end) > 0) {
        spooled->count++;
    }
    return RC_OK;
}

size_t spooled_objects_beyond(const char *spool_path, const struct generation_id *generation,
                              struct position end)
{
    struct store_config config = {.is_s3 = false};
    struct store *store = NULL;
    struct spooled spooled = {.end = end};
    char prefix[OBJECT_KEY_BYTES];
    struct err err = ERR_INIT;
    int n = snprintf(config.dir, sizeof config.dir, "%s", spool_path);
    int m = snprintf(config.url, sizeof config.url, "dir:%s", spool_path);
    if (n < 0 || (size_t)n >= sizeof config.dir || m < 0 || (size_t)m >= sizeof config.url) {
        return 0;
    }
    enum rc rc = store_open(&config, NULL, &store, &err);
    if (rc == RC_OK) {
        rc = store_prepare(store, false, &err);
    }
    if (rc == RC_OK) {
        object_key_wal_prefix(generation, prefix);
        rc = store_list(store, prefix, "", spooled_visit, &spooled, &err);
    }
    store_close(store);
    return rc == RC_OK ? spooled.count : 0;
}
