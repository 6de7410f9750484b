/* SPDX-License-Identifier: Apache-2.0 */
/* start_scene: see start_scene.h. */
#include "tests/unit/start_scene.h"

#include "tests/unit/checks.h"

#include "base/fsio.h"

#include <stdio.h>

struct start_scene scene;

void start_scene_set_up(void)
{
    struct err err = ERR_INIT;
    scratch_init(&scene.scratch);
    struct replicator_config *config = &scene.config;
    *config = (struct replicator_config){.database_path = scene.sidecar.database, .version = "0"};
    (void)snprintf(config->store.dir, sizeof config->store.dir, "%s",
                   scratch_path(&scene.scratch, "archive"));
    (void)snprintf(config->store.url, sizeof config->store.url, "dir:%.500s", config->store.dir);
    check_ok(sidecar_init(&scene.sidecar, scratch_path(&scene.scratch, "state.db"), &err));
    check_ok(fsio_make_dirs(scene.sidecar.dir, &err));
    check_ok(spool_open(&scene.spool, scene.sidecar.spool, &err));
    check_ok(state_open(&scene.shared, scene.sidecar.state, &err));
    check_ok(store_open(&config->store, NULL, &scene.store, &err));
    start_plan_init(&scene.plan);
}

void start_scene_tear_down(void)
{
    start_plan_deinit(&scene.plan);
    store_close(scene.store);
    state_close(&scene.shared);
    scratch_deinit(&scene.scratch);
}

void start_scene_decide(enum start_action action, int row, const char *reason)
{
    struct err err = ERR_INIT;
    const struct start_input input = {&scene.config, &scene.sidecar, &scene.spool, &scene.shared,
                                      scene.store};
    struct start_plan *plan = &scene.plan;
    start_plan_deinit(plan);
    start_plan_init(plan);
    check_ok(start_decide(&input, plan, &err));
    if (plan->action != action || plan->row != row || strstr(plan->reason, reason) == NULL) {
        fail_msg("action %d by row %d, wanted %d by row %d, \"%s\": %s", (int)plan->action,
                 plan->row, (int)action, row, reason, plan->reason);
    }
    assert_true(plan->reason[0] != '\0');
}

void start_scene_put(const struct object_key *key, const void *bytes, size_t count)
{
    struct err err = ERR_INIT;
    char text[OBJECT_KEY_BYTES];
    object_key_format(key, text);
    check_ok(store_prepare(scene.store, true, &err));
    check_ok(store_put_bytes(scene.store, text, bytes, count, STORE_PUT_PLAIN, &err));
}
