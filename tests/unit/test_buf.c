/* SPDX-License-Identifier: Apache-2.0 */
/* buf: growth up to the cap and not a byte past it; contents survive. */
#include "base/buf.h"

#include "tests/unit/checks.h"

static void test_buf__grows_up_to_its_cap(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf buf;
    buf_init(&buf, 1000);
    assert_null(buf.data);
    for (size_t i = 0; i < 1000; i++) {
        uint8_t byte = (uint8_t)(i * 7);
        check_ok(buf_append(&buf, &byte, 1, &err));
        assert_true(buf.capacity <= 1000);
    }
    assert_int_equal(buf.size, 1000);
    check_fails(RC_LIMIT, buf_append(&buf, "x", 1, &err));
    check_text("1000");
    assert_int_equal(buf.size, 1000);
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(buf.data[i], (uint8_t)(i * 7));
    }
    buf_deinit(&buf);
}

static void test_buf__reserve_makes_room_in_one_step(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf buf;
    buf_init(&buf, 100000);
    check_ok(buf_reserve(&buf, 100000, &err));
    assert_int_equal(buf.capacity, 100000);
    assert_int_equal(buf.size, 0);
    const uint8_t *place = buf.data;
    check_ok(buf_append(&buf, "abc", 3, &err));
    assert_ptr_equal(buf.data, place);
    check_fails(RC_LIMIT, buf_reserve(&buf, 99998, &err));
    check_fails(RC_LIMIT, buf_reserve(&buf, SIZE_MAX, &err));
    buf_deinit(&buf);
}

static void test_buf__clear_keeps_the_memory(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf buf;
    buf_init(&buf, 4096);
    check_ok(buf_append(&buf, "abc", 3, &err));
    const uint8_t *place = buf.data;
    buf_clear(&buf);
    assert_int_equal(buf.size, 0);
    check_ok(buf_append(&buf, "de", 2, &err));
    assert_ptr_equal(buf.data, place);
    assert_memory_equal(buf.data, "de", 2);
    buf_deinit(&buf);
    assert_null(buf.data);
}

static void test_buf__nothing_needs_no_memory(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf buf;
    buf_init(&buf, 1);
    check_ok(buf_append(&buf, NULL, 0, &err));
    check_ok(buf_reserve(&buf, 0, &err));
    assert_null(buf.data);
    buf_deinit(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf__grows_up_to_its_cap),
        cmocka_unit_test(test_buf__reserve_makes_room_in_one_step),
        cmocka_unit_test(test_buf__clear_keeps_the_memory),
        cmocka_unit_test(test_buf__nothing_needs_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
