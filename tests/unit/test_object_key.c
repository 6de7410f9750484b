/* SPDX-License-Identifier: Apache-2.0 */
/*
 * object_key: known names both ways; then whatever one changed character makes of a name is either no
 * name, or another name in the one form that exists.
 */
#include "archive/object_key.h"

#include "tests/unit/checks.h"
#include "tests/unit/guarded.h"

#include <stdio.h>

#define ID "00000003-9f2c41d7a6b0e355"

static const struct {
    const char *text;
    struct object_key key;
} samples[] = {
    {"generations/00000003.json", {.kind = OBJECT_GENERATION, .generation_number = 3}},
    {"generations/99999999.json",
     {.kind = OBJECT_GENERATION, .generation_number = GENERATION_NUMBER_MAX}},
    {ID "/snapshots/0000000002-0000000041-0badcafe/part-0000000012.db.zst",
     {.kind = OBJECT_SNAPSHOT_PART,
      .generation = {ID},
      .position = {2, 41},
      .part_no = 12,
      .tag = "0badcafe"}},
    {ID "/snapshots/0000000001-0000000000-0badcafe/complete.json",
     {.kind = OBJECT_SNAPSHOT_COMPLETE, .generation = {ID}, .position = {1, 0}, .tag = "0badcafe"}},
    {ID "/wal/0000000003/0000000011-0000000164-1795543200123-0000000002-5e1ec7ed.wal.zst",
     {.kind = OBJECT_SEGMENT,
      .generation = {ID},
      .position = {3, 164},
      .first_frame_no = 11,
      .term = 2,
      .unix_ms = 1795543200123,
      .tag = "5e1ec7ed"}},
    {ID "/wal/4294967295/4294967295-4294967295-9999999999999-4294967295-ffffffff.wal.zst",
     {.kind = OBJECT_SEGMENT,
      .generation = {ID},
      .position = {UINT32_MAX, UINT32_MAX},
      .first_frame_no = UINT32_MAX,
      .term = UINT32_MAX,
      .unix_ms = 9999999999999,
      .tag = "ffffffff"}},
    {ID "/leads/0000000002.json", {.kind = OBJECT_LEAD, .generation = {ID}, .term = 2}},
};
#define SAMPLES (sizeof samples / sizeof samples[0])

static void check_same(const struct object_key *a, const struct object_key *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->generation_number, b->generation_number);
    assert_string_equal(a->generation.text, b->generation.text);
    assert_int_equal(position_compare(a->position, b->position), 0);
    assert_int_equal(a->first_frame_no, b->first_frame_no);
    assert_int_equal(a->part_no, b->part_no);
    assert_int_equal(a->term, b->term);
    assert_int_equal(a->unix_ms, b->unix_ms);
    assert_string_equal(a->tag, b->tag);
}

static void test_object_key__writes_known_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        char text[OBJECT_KEY_BYTES];
        object_key_format(&samples[i].key, text);
        assert_string_equal(text, samples[i].text);
    }
}

static void test_object_key__reads_known_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        struct object_key key;
        assert_true(object_key_parse(samples[i].text, &key));
        check_same(&key, &samples[i].key);
    }
}

static void test_object_key__refuses_other_names(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "/",
        "generations",
        "generations/",
        "generations/00000000.json",
        "generations/0000003.json",
        "generations/000000003.json",
        "generations/00000003.json.tmp",
        "/generations/00000003.json",
        "generations/00000003.json/",
        ID,
        ID "/",
        ID "/compact/anything",
        ID "/wal/0000000003",
        ID "/wal/0000000000/0000000011-0000000164-1795543200123-0000000002-5e1ec7ed.wal.zst",
        ID "/wal/0000000003/0000000000-0000000164-1795543200123-0000000002-5e1ec7ed.wal.zst",
        ID "/wal/0000000003/0000000165-0000000164-1795543200123-0000000002-5e1ec7ed.wal.zst",
        ID "/wal/0000000003/0000000011-0000000164-1795543200123-0000000000-5e1ec7ed.wal.zst",
        ID "/wal/0000000003/0000000011-0000000164-1795543200123-0000000002-5E1ec7ed.wal.zst",
        ID "/wal/0000000003/0000000011-0000000164-179554320012-0000000002-5e1ec7ed.wal.zst",
        ID "/wal/0000000003/0000000011-4294967296-1795543200123-0000000002-5e1ec7ed.wal.zst",
        ID "/wal/0000000003/0000000011-0000000164-1795543200123-0000000002-5e1ec7ed.wal.zst.tmp",
        ID "/wal/0000000003/0000000011-0000000164-1795543200123-0000000002-5e1ec7ed.wal",
        ID "/snapshots/0000000002-0000000000-0badcafe/complete.json", /* frame 0 of WAL 2 */
        ID "/snapshots/0000000002-0000000041-0badcafe/part-0000000000.db.zst",
        ID "/snapshots/0000000002-0000000041-0badcafe/",
        ID "/snapshots/0000000002-0000000041/complete.json",
        ID "/leads/0000000000.json",
        ID "/leads/2.json",
        "00000000-9f2c41d7a6b0e355/leads/0000000002.json",
        "probe/1234",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct object_key key;
        if (object_key_parse(texts[i], &key)) {
            fail_msg("\"%s\" was taken for a name", texts[i]);
        }
        assert_int_equal(key.kind, OBJECT_OTHER);
        assert_string_equal(key.generation.text, "");
    }
}

static void test_object_key__every_prefix_is_refused(void **state)
{
    (void)state;
    struct guarded guarded;
    guarded_init(&guarded, OBJECT_KEY_BYTES);
    for (size_t i = 0; i < SAMPLES; i++) {
        for (size_t count = 0; count < strlen(samples[i].text); count++) {
            struct object_key key;
            char *text = (char *)guarded_place(&guarded, samples[i].text, count + 1);
            text[count] = '\0';
            assert_false(object_key_parse(text, &key));
        }
    }
    guarded_deinit(&guarded);
}

static void test_object_key__has_one_spelling_per_object(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        char text[OBJECT_KEY_BYTES];
        size_t count = strlen(samples[i].text);
        memcpy(text, samples[i].text, count + 1);
        for (size_t at = 0; at < count; at++) {
            for (int c = 1; c < 256; c++) {
                struct object_key key;
                char again[OBJECT_KEY_BYTES];
                text[at] = (char)c;
                if (object_key_parse(text, &key)) {
                    object_key_format(&key, again);
                    assert_string_equal(again, text);
                }
            }
            text[at] = samples[i].text[at];
        }
    }
}

static void test_object_key__names_sort_as_positions(void **state)
{
    (void)state;
    static const uint32_t numbers[] = {1, 2, 9, 10, 99, 100, 65535, 1000000, UINT32_MAX};
    char before[OBJECT_KEY_BYTES] = "";
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        for (size_t j = 0; j < sizeof numbers / sizeof numbers[0]; j++) {
            struct object_key key = samples[4].key;
            char text[OBJECT_KEY_BYTES];
            key.position = (struct position){numbers[i], numbers[j]};
            key.first_frame_no = numbers[j];
            object_key_format(&key, text);
            assert_true(strcmp(before, text) < 0);
            memcpy(before, text, sizeof before);
        }
    }
}

static void test_object_key__prefixes_lead_their_names(void **state)
{
    (void)state;
    struct generation_id id = {ID};
    char prefix[OBJECT_KEY_BYTES];
    object_key_generations_prefix(prefix);
    assert_string_equal(prefix, "generations/");
    object_key_snapshots_prefix(&id, prefix);
    assert_string_equal(prefix, ID "/snapshots/");
    object_key_wal_prefix(&id, prefix);
    assert_string_equal(prefix, ID "/wal/");
    object_key_leads_prefix(&id, prefix);
    assert_string_equal(prefix, ID "/leads/");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_object_key__writes_known_names),
        cmocka_unit_test(test_object_key__reads_known_names),
        cmocka_unit_test(test_object_key__refuses_other_names),
        cmocka_unit_test(test_object_key__every_prefix_is_refused),
        cmocka_unit_test(test_object_key__has_one_spelling_per_object),
        cmocka_unit_test(test_object_key__names_sort_as_positions),
        cmocka_unit_test(test_object_key__prefixes_lead_their_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
