/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lost: the generations that left objects but whose birth is not there. One is put before anything else
 * of its generation, so it was lost; and with it, what it says of parents and forks.
 *
 * They are looked for behind the newest birth and in each gap of the births' numbers. A gap alone is no
 * loss: a generation that was noted and never put leaves one.
 *
 * Thread: the owner's.
 */
#ifndef HARVEY_RESTORER_LOST_H
#define HARVEY_RESTORER_LOST_H

#include "archive/catalog.h"
#include "archive/position.h"
#include "archive/store.h"
#include "base/err.h"
#include "base/stop.h"

#include <stdbool.h>
#include <stddef.h>

#define LOST_MAX 256 /* no more are looked for: each of them costs two requests */

struct lost {
    size_t count;
    struct generation_id ids[LOST_MAX]; /* the oldest first */
    /*
     * Of them, those that may be the latest, or whose birth may have told of a fork: where no later generation is
     * there, or one that does not go on from it, or override it, itself or by its parents.
     */
    size_t open_count;
    bool is_open[LOST_MAX];
};

/*
 * `catalog`: its births are read; they are not changed. One LIST, and one for each gap, so one in a
 * healthy archive. A birth that is there and cannot be read is damaged, not lost. Errors of the store.
 */
RC_MUST_CHECK enum rc lost_find(const struct catalog *catalog, struct store *store,
                                struct stop *stop, struct lost *lost, struct err *err);

#endif
