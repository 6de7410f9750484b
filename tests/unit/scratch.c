/* SPDX-License-Identifier: Apache-2.0 */
/* scratch: see scratch.h. */
#include "tests/unit/scratch.h"

#include "base/err.h"
#include "base/fsio.h"

#include <stdio.h>
#include <stdlib.h>

#define SCRATCH_NAMES 8u

void scratch_init(struct scratch *scratch)
{
    const char *parent = getenv("TMPDIR");
    int n = snprintf(scratch->dir, sizeof scratch->dir, "%s/harvey-test-XXXXXX",
                     parent != NULL && *parent != '\0' ? parent : "/tmp");
    ASSERT(n > 0 && (size_t)n < sizeof scratch->dir);
    ASSERT(mkdtemp(scratch->dir) != NULL);
}

void scratch_deinit(struct scratch *scratch)
{
    struct err err = ERR_INIT;
    ASSERT(fsio_remove_tree(scratch->dir, &err) == RC_OK);
}

const char *scratch_path(const struct scratch *scratch, const char *name)
{
    static _Thread_local char paths[SCRATCH_NAMES][FSIO_PATH_BYTES];
    static _Thread_local unsigned turn;
    char *path = paths[turn++ % SCRATCH_NAMES];
    ASSERT(fsio_join(path, FSIO_PATH_BYTES, scratch->dir, name, NULL) == RC_OK);
    return path;
}
