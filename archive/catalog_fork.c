/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog_fork: two histories that began at the same generation and were never settled. Rules:
 * docs/archive-format.md, "Forks, and what is latest".
 */
#include "archive/catalog.h"

#include <stdlib.h>

static bool catalog_birth_supersedes(const struct generation_birth *birth,
                                     const struct generation_id *id)
{
    for (uint32_t i = 0; i < birth->supersedes_count; i++) {
        if (generation_id_equal(&birth->supersedes[i], id)) {
            return true;
        }
    }
    return false;
}

static bool catalog_is_superseded(const struct catalog *catalog, const struct generation_id *id)
{
    for (size_t i = 0; i < catalog->generation_count; i++) {
        if (catalog_birth_supersedes(&catalog->generations[i].birth, id)) {
            return true;
        }
    }
    return false;
}

static bool catalog_is_child(const struct catalog_generation *child,
                             const struct catalog_generation *parent)
{
    return child->birth.has_parent && generation_id_equal(&child->birth.parent, &parent->birth.id);
}

/*
 * A branch is settled when its root, or every one of its tips, was superseded by name: who
 * overrides a history names its newest generation. A child has a higher number than its parent, so
 * going from the newest down meets every child before its parent.
 */
static void catalog_mark_alive(const struct catalog *catalog, bool *alive)
{
    for (size_t i = catalog->generation_count; i > 0; i--) {
        const struct catalog_generation *one = &catalog->generations[i - 1];
        bool has_child = false;
        bool child_alive = false;
        for (size_t j = i; j < catalog->generation_count; j++) {
            if (catalog_is_child(&catalog->generations[j], one)) {
                has_child = true;
                child_alive = child_alive || alive[j];
            }
        }
        alive[i - 1] =
            !catalog_is_superseded(catalog, &one->birth.id) && (!has_child || child_alive);
    }
}

/* A living branch that begins where `own` began and is not `own`. */
static const struct catalog_generation *catalog_find_sibling(const struct catalog *catalog,
                                                             const bool *alive,
                                                             const struct catalog_generation *own)
{
    for (size_t i = catalog->generation_count; i > 0; i--) {
        const struct catalog_generation *other = &catalog->generations[i - 1];
        if (other != own && alive[i - 1] && other->birth.has_parent &&
            generation_id_equal(&other->birth.parent, &own->birth.parent)) {
            return other;
        }
    }
    return NULL;
}

enum rc catalog_find_fork(const struct catalog *catalog, const struct catalog_generation **a,
                          const struct catalog_generation **b, struct err *err)
{
    *a = NULL;
    *b = NULL;
    if (catalog->generation_count < 2) {
        return RC_OK;
    }
    bool *alive = calloc(catalog->generation_count, sizeof *alive);
    if (alive == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a flag per generation");
    }
    catalog_mark_alive(catalog, alive);
    /* Only the line that leads to the newest generation matters: that is what "latest" follows. */
    const struct catalog_generation *own = &catalog->generations[catalog->generation_count - 1];
    while (own != NULL && own->birth.has_parent && *a == NULL) {
        const struct catalog_generation *parent = catalog_find(catalog, &own->birth.parent);
        if (alive[own - catalog->generations]) {
            const struct catalog_generation *other = catalog_find_sibling(catalog, alive, own);
            if (other != NULL) {
                bool own_is_older = own < other;
                *a = own_is_older ? own : other;
                *b = own_is_older ? other : own;
            }
        }
        own = parent != NULL && parent < own ? parent : NULL; /* numbers fall: no circle */
    }
    free(alive);
    return RC_OK;
}
