/* SPDX-License-Identifier: Apache-2.0 */
/* sidecar: the names beside a database, and the two paths that cannot have any. */
#include "archive/sidecar.h"

#include "tests/unit/checks.h"

#include <stdlib.h>

static void test_sidecar__names_lie_beside_the_database(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct sidecar *sidecar = calloc(1, sizeof *sidecar);
    assert_non_null(sidecar);
    check_ok(sidecar_init(sidecar, "data/state.db", &err));
    assert_string_equal(sidecar->database, "data/state.db");
    assert_string_equal(sidecar->wal, "data/state.db-wal");
    assert_string_equal(sidecar->shm, "data/state.db-shm");
    assert_string_equal(sidecar->journal, "data/state.db-journal");
    assert_string_equal(sidecar->dir, "data/state.db-harvey");
    assert_string_equal(sidecar->leader_lock, "data/state.db-harvey/leader.lock");
    assert_string_equal(sidecar->serving_lock, "data/state.db-harvey/serving.lock");
    assert_string_equal(sidecar->open_lock, "data/state.db-harvey/open.lock");
    assert_string_equal(sidecar->state, "data/state.db-harvey/state");
    assert_string_equal(sidecar->spool, "data/state.db-harvey/spool");
    assert_string_equal(sidecar->snapshot, "data/state.db-harvey/snapshot");
    assert_string_equal(sidecar->restored, "data/state.db-harvey/restored.json");
    assert_string_equal(sidecar->health_socket, "data/state.db-harvey/health.sock");
    free(sidecar);
}

static void test_sidecar__refuses_impossible_paths(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct sidecar *sidecar = calloc(1, sizeof *sidecar);
    char path[FSIO_PATH_BYTES];
    assert_non_null(sidecar);
    check_fails(RC_INVALID, sidecar_init(sidecar, "", &err));
    memset(path, 'x', sizeof path);
    path[FSIO_PATH_BYTES - 63] = '\0';
    check_fails(RC_LIMIT, sidecar_init(sidecar, path, &err));
    path[FSIO_PATH_BYTES - 64] = '\0';
    check_ok(sidecar_init(sidecar, path, &err));
    assert_int_equal(strlen(sidecar->restored),
                     FSIO_PATH_BYTES - 64 + strlen("-harvey/restored.json"));
    free(sidecar);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sidecar__names_lie_beside_the_database),
        cmocka_unit_test(test_sidecar__refuses_impossible_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
