/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start_scene: what a start looks at, laid out in a scratch directory: the sidecar, its spool and its state,
 * and a directory archive that nobody has prepared yet. The database is the test's to make.
 */
#ifndef HARVEY_TESTS_UNIT_START_SCENE_H
#define HARVEY_TESTS_UNIT_START_SCENE_H

#include "tests/unit/scratch.h"

#include "replicator/start.h"

struct start_scene {
    struct scratch scratch;
    struct replicator_config config;
    struct sidecar sidecar;
    struct spool spool;
    struct state shared;
    struct store *store;
    struct start_plan plan;
};
extern struct start_scene scene;

void start_scene_set_up(void);
void start_scene_tear_down(void);

/* Looks and decides anew: scene.plan must have this action, by this row, with this in its reason ("" is in any). */
void start_scene_decide(enum start_action action, int row, const char *reason);

/* Puts an object into the archive, which is made where it is not. */
void start_scene_put(const struct object_key *key, const void *bytes, size_t count);

#endif
