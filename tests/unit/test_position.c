/* SPDX-License-Identifier: Apache-2.0 */
/* position: ids, order, and the text form that people type. */
#include "archive/position.h"

#include "tests/unit/checks.h"
#include "tests/unit/guarded.h"

#define ID "00000003-9f2c41d7a6b0e355"

static void test_position__makes_and_reads_ids(void **state)
{
    (void)state;
    static const uint8_t random[8] = {0x9f, 0x2c, 0x41, 0xd7, 0xa6, 0xb0, 0xe3, 0x55};
    struct generation_id made = generation_id_make(3, random);
    assert_string_equal(made.text, ID);
    struct generation_id read;
    uint32_t number = 0;
    assert_true(generation_id_parse(ID, &read, &number));
    assert_int_equal(number, 3);
    assert_true(generation_id_equal(&made, &read));
    assert_int_equal(generation_id_number(&read), 3);
    assert_true(generation_id_parse(read.text, &read, NULL)); /* onto itself */
    struct generation_id other = generation_id_make(GENERATION_NUMBER_MAX, random);
    assert_false(generation_id_equal(&made, &other));
    assert_int_equal(generation_id_number(&other), GENERATION_NUMBER_MAX);
}

static void test_position__none_is_no_id(void **state)
{
    (void)state;
    struct generation_id none = {""};
    assert_true(generation_id_is_none(&none));
    assert_int_equal(generation_id_number(&none), 0);
    assert_false(generation_id_parse("", &none, NULL));
}

static void test_position__refuses_other_ids(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "00000000-9f2c41d7a6b0e355",  "0000003-9f2c41d7a6b0e355",   "00000003-9F2c41d7a6b0e355",
        "00000003_9f2c41d7a6b0e355",  "00000003-9f2c41d7a6b0e35",   "00000003-9f2c41d7a6b0e3555",
        " 0000003-9f2c41d7a6b0e355",  "+0000003-9f2c41d7a6b0e355",  "00000003-9f2c41d7a6b0e35g",
        "00000003-9f2c41d7a6b0e355/", "x00000003-9f2c41d7a6b0e355",
    };
    struct generation_id id = {"untouched"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_false(generation_id_parse(texts[i], &id, NULL));
        assert_string_equal(id.text, "untouched");
    }
}

static void test_position__every_prefix_of_an_id_is_refused(void **state)
{
    (void)state;
    struct guarded guarded;
    struct generation_id id;
    guarded_init(&guarded, 64);
    for (size_t count = 0; count < strlen(ID); count++) {
        char *text = (char *)guarded_place(&guarded, ID, count + 1);
        text[count] = '\0';
        assert_false(generation_id_parse(text, &id, NULL));
    }
    assert_true(generation_id_parse((char *)guarded_place(&guarded, ID, sizeof ID), &id, NULL));
    guarded_deinit(&guarded);
}

static void test_position__orders_by_wal_then_frame(void **state)
{
    (void)state;
    struct position a = {1, 900};
    struct position b = {2, 1};
    struct position c = {2, 2};
    assert_true(position_compare(a, b) < 0);
    assert_true(position_compare(b, c) < 0);
    assert_true(position_compare(c, a) > 0);
    assert_int_equal(position_compare(b, b), 0);
    assert_true(position_compare((struct position){1, 0}, (struct position){1, UINT32_MAX}) < 0);
}

static void test_position__points_need_equal_checksums(void **state)
{
    (void)state;
    struct wal_point a = {{1, 2}, {3, 4}};
    struct wal_point b = {{1, 2}, {3, 5}};
    struct wal_point c = {{1, 3}, {3, 4}};
    assert_true(wal_point_equal(a, a));
    assert_false(wal_point_equal(a, b));
    assert_false(wal_point_equal(a, c));
    assert_false(wal_checksum_equal((struct wal_checksum){3, 4}, (struct wal_checksum){4, 3}));
}

static void check_round_trip(const char *text, uint32_t wal_no, uint32_t frame_no,
                             const char *again)
{
    struct err err = ERR_INIT;
    struct generation_id id;
    struct position position;
    char written[POSITION_TEXT_BYTES];
    check_ok(position_parse(text, &id, &position, &err));
    assert_int_equal(position.wal_no, wal_no);
    assert_int_equal(position.frame_no, frame_no);
    position_format(&id, position, written);
    assert_string_equal(written, again);
}

static void test_position__reads_what_it_writes(void **state)
{
    (void)state;
    check_round_trip(ID "/3/164", 3, 164, ID "/3/164");
    check_round_trip(ID "/1/0", 1, 0, ID "/1/0");
    check_round_trip(ID "/0000000003/0000000164", 3, 164, ID "/3/164"); /* copied from a name */
    check_round_trip(ID "/4294967295/4294967295", UINT32_MAX, UINT32_MAX,
                     ID "/4294967295/4294967295");
}

static void test_position__refuses_other_texts(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        ID,
        "00000003-9f2c41d7a6b0e355/",
        ID "/3",
        ID "/3/",
        ID "/3/164/",
        ID "/3/16x",
        ID "//164",
        ID "/0/1",
        ID "/2/0",
        ID "/-3/164",
        ID "/3/ 164",
        ID "/3-164",
        "3/164",
        ID " /3/16",
        ID "/4294967296/1",
        ID "/3/00000000164",
        ID "/3/99999999999999999999",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct err err = ERR_INIT;
        struct generation_id id = {"untouched"};
        struct position position = {77, 77};
        if (position_parse(texts[i], &id, &position, &err) != RC_INVALID) {
            fail_msg("\"%s\" was taken for a position", texts[i]);
        }
        check_text("GENERATION/WAL_NO/FRAME_NO");
        assert_string_equal(id.text, "untouched");
        assert_int_equal(position.wal_no, 77);
    }
}

static void test_position__every_prefix_stays_inside_the_text(void **state)
{
    (void)state;
    static const char whole[] = ID "/3/164";
    struct guarded guarded;
    guarded_init(&guarded, 64);
    for (size_t count = 0; count < sizeof whole - 1; count++) {
        struct err err = ERR_INIT;
        struct generation_id id;
        struct position position;
        char *text = (char *)guarded_place(&guarded, whole, count + 1);
        text[count] = '\0';
        bool valid = count > strlen(ID "/3/");
        assert_int_equal(position_parse(text, &id, &position, &err), valid ? RC_OK : RC_INVALID);
    }
    guarded_deinit(&guarded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_position__makes_and_reads_ids),
        cmocka_unit_test(test_position__none_is_no_id),
        cmocka_unit_test(test_position__refuses_other_ids),
        cmocka_unit_test(test_position__every_prefix_of_an_id_is_refused),
        cmocka_unit_test(test_position__orders_by_wal_then_frame),
        cmocka_unit_test(test_position__points_need_equal_checksums),
        cmocka_unit_test(test_position__reads_what_it_writes),
        cmocka_unit_test(test_position__refuses_other_texts),
        cmocka_unit_test(test_position__every_prefix_stays_inside_the_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
