/* SPDX-License-Identifier: Apache-2.0 */
/* stop: the level only rises, sleepers wake at theirs, time-outs end. A waker thread plays the signal. */
#include "base/stop.h"

#include "base/clk.h"
#include "tests/unit/checks.h"

#define LONG_MS 60000 /* never waited for: a test that reaches it hangs visibly */

static void test_stop__level_never_falls(void **state)
{
    (void)state;
    struct stop stop;
    stop_init(&stop);
    assert_int_equal(stop_level(&stop), STOP_NONE);
    stop_raise(&stop, STOP_NOW);
    stop_raise(&stop, STOP_SOON);
    stop_raise(&stop, STOP_NONE);
    assert_int_equal(stop_level(&stop), STOP_NOW);
    stop_deinit(&stop);
}

static void test_stop__wait_ends_at_its_timeout(void **state)
{
    (void)state;
    struct stop stop;
    stop_init(&stop);
    int64_t before_ms = clk_monotonic_ms();
    assert_false(stop_wait_ms(&stop, STOP_SOON, 20));
    assert_true(clk_monotonic_ms() - before_ms >= 19);
    assert_false(stop_wait_ms(&stop, STOP_SOON, 0));
    assert_false(stop_wait_ms(&stop, STOP_SOON, -5));
    stop_raise(&stop, STOP_SOON);
    assert_false(stop_wait_ms(&stop, STOP_NOW, 5)); /* not its level */
    stop_deinit(&stop);
}

static void test_stop__wait_returns_at_once_when_raised_before(void **state)
{
    (void)state;
    struct stop stop;
    stop_init(&stop);
    stop_raise(&stop, STOP_NOW);
    assert_true(stop_wait_ms(&stop, STOP_SOON, LONG_MS));
    assert_true(stop_wait_ms(&stop, STOP_NOW, LONG_MS));
    stop_deinit(&stop);
}

static void *sleeper_thread_main(void *arg)
{
    struct stop *stop = arg;
    bool reached = stop_wait_ms(stop, STOP_NOW, LONG_MS);
    return reached ? stop : NULL;
}

static void test_stop__raise_wakes_all_sleepers(void **state)
{
    (void)state;
    struct stop stop;
    pthread_t threads[4];
    stop_init(&stop);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, sleeper_thread_main, &stop), 0);
    }
    int64_t before_ms = clk_monotonic_ms();
    stop_raise(&stop, STOP_SOON); /* wakes them too early: they must sleep on */
    stop_raise(&stop, STOP_NOW);
    for (size_t i = 0; i < 4; i++) {
        void *reached = NULL;
        assert_int_equal(pthread_join(threads[i], &reached), 0);
        assert_ptr_equal(reached, &stop);
    }
    assert_true(clk_monotonic_ms() - before_ms < LONG_MS / 2);
    stop_deinit(&stop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop__level_never_falls),
        cmocka_unit_test(test_stop__wait_ends_at_its_timeout),
        cmocka_unit_test(test_stop__wait_returns_at_once_when_raised_before),
        cmocka_unit_test(test_stop__raise_wakes_all_sleepers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
