/* SPDX-License-Identifier: Apache-2.0 */
/* backoff: pauses lie in their step, steps double up to the cap, a reset begins anew. */
#include "base/backoff.h"

#include "tests/unit/checks.h"

static void check_step(struct backoff *backoff, int64_t step_ms)
{
    int64_t pause_ms = backoff_next_ms(backoff);
    if (pause_ms < step_ms / 2 || pause_ms > step_ms) {
        fail_msg("a pause of %lld ms in a step of %lld", (long long)pause_ms, (long long)step_ms);
    }
}

static void test_backoff__doubles_up_to_the_cap(void **state)
{
    (void)state;
    struct backoff backoff;
    backoff_init(&backoff, 100, 1000);
    check_step(&backoff, 100);
    check_step(&backoff, 200);
    check_step(&backoff, 400);
    check_step(&backoff, 800);
    for (int i = 0; i < 1000; i++) {
        check_step(&backoff, 1000);
    }
}

static void test_backoff__reset_begins_anew(void **state)
{
    (void)state;
    struct backoff backoff;
    backoff_init(&backoff, 100, 100000);
    for (int i = 0; i < 8; i++) {
        (void)backoff_next_ms(&backoff);
    }
    backoff_reset(&backoff);
    check_step(&backoff, 100);
    check_step(&backoff, 200);
}

static void test_backoff__pauses_differ(void **state)
{
    (void)state;
    struct backoff backoff;
    backoff_init(&backoff, 10000, 10000);
    int64_t first_ms = backoff_next_ms(&backoff);
    bool differs = false;
    for (int i = 0; i < 20; i++) {
        differs = differs || backoff_next_ms(&backoff) != first_ms;
    }
    assert_true(differs);
}

static void test_backoff__never_answers_zero(void **state)
{
    (void)state;
    struct backoff backoff;
    backoff_init(&backoff, 1, 2);
    for (int i = 0; i < 100; i++) {
        assert_in_range(backoff_next_ms(&backoff), 1, 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backoff__doubles_up_to_the_cap),
        cmocka_unit_test(test_backoff__reset_begins_anew),
        cmocka_unit_test(test_backoff__pauses_differ),
        cmocka_unit_test(test_backoff__never_answers_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
