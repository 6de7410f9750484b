/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog: listings, births, claims and snapshots of archives made up in a directory; the latest
 * generation; forks between generations. The contiguous run is in test_catalog_run.c.
 */
#include "archive/catalog.h"
#include "archive/snapshot_format.h"

#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include <stdio.h>
#include <stdlib.h>

struct fixture {
    struct scratch scratch;
    struct store *store;
    struct catalog catalog;
};

static int setup(void **state)
{
    struct err err = ERR_INIT;
    struct store_config config = {.off = false};
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    scratch_init(&fixture->scratch);
    (void)snprintf(config.dir, sizeof config.dir, "%s/archive", fixture->scratch.dir);
    check_ok(store_open(&config, NULL, &fixture->store, &err));
    check_ok(store_prepare(fixture->store, true, &err));
    catalog_init(&fixture->catalog);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    catalog_deinit(&fixture->catalog);
    store_close(fixture->store);
    scratch_deinit(&fixture->scratch);
    free(fixture);
    return 0;
}

static void put_text(struct fixture *fixture, const char *key, const char *text)
{
    struct err err = ERR_INIT;
    check_ok(store_put_bytes(fixture->store, key, text, strlen(text), STORE_PUT_PLAIN, &err));
}

/* The id of generation `number`, always the same. */
static struct generation_id id_of(uint32_t number)
{
    uint8_t random[8] = {0xab, 0, 0, 0, 0, 0, 0, (uint8_t)number};
    return generation_id_make(number, random);
}

static void fill_birth(struct generation_birth *birth, uint32_t number, uint32_t parent)
{
    memset(birth, 0, sizeof *birth);
    birth->id = id_of(number);
    birth->cause = parent == 0 ? CAUSE_FIRST_START : CAUSE_RESTORED;
    birth->page_size_bytes = 4096;
    birth->window = 8;
    birth->unix_ms = 1795543200123;
    if (parent != 0) {
        birth->has_parent = true;
        birth->parent = id_of(parent);
        birth->parent_point = (struct wal_point){{1, 5}, {1, 2}};
    }
}

static void put_birth_as(struct fixture *fixture, const struct generation_birth *birth,
                         uint32_t number)
{
    struct err err = ERR_INIT;
    struct buf json;
    char text[OBJECT_KEY_BYTES];
    struct object_key key = {.kind = OBJECT_GENERATION, .generation_number = number};
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    check_ok(generation_birth_encode(birth, &json, &err));
    object_key_format(&key, text);
    check_ok(store_put_bytes(fixture->store, text, json.data, json.size, STORE_PUT_PLAIN, &err));
    buf_deinit(&json);
}

/* `supersedes` 0 = none. */
static void put_birth(struct fixture *fixture, uint32_t number, uint32_t parent,
                      uint32_t supersedes)
{
    struct generation_birth birth;
    fill_birth(&birth, number, parent);
    if (supersedes != 0) {
        birth.supersedes_count = 1;
        birth.supersedes[0] = id_of(supersedes);
    }
    put_birth_as(fixture, &birth, number);
}

static void put_claim(struct fixture *fixture, uint32_t generation, uint32_t term,
                      uint32_t claimed_term, const char *tag)
{
    struct err err = ERR_INIT;
    struct buf json;
    char text[OBJECT_KEY_BYTES];
    struct object_key key = {.kind = OBJECT_LEAD, .generation = id_of(generation), .term = term};
    struct lead_claim claim = {.generation = id_of(generation),
                               .term = claimed_term,
                               .start = {{1, 0}, {0, 0}},
                               .host = "host",
                               .boot_id = "boot",
                               .pid = 7,
                               .unix_ms = 1795543200123};
    memcpy(claim.tag, tag, OBJECT_TAG_BYTES);
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    check_ok(lead_claim_encode(&claim, &json, &err));
    object_key_format(&key, text);
    check_ok(store_put_bytes(fixture->store, text, json.data, json.size, STORE_PUT_PLAIN, &err));
    buf_deinit(&json);
}

/* part 0 = complete.json */
static void put_snapshot(struct fixture *fixture, uint32_t generation, uint32_t wal_no,
                         uint32_t frame_no, const char *tag, uint32_t part)
{
    char text[OBJECT_KEY_BYTES];
    struct object_key key = {
        .kind = part == 0 ? OBJECT_SNAPSHOT_COMPLETE : OBJECT_SNAPSHOT_PART,
        .generation = id_of(generation),
        .position = {wal_no, frame_no},
        .part_no = part,
    };
    memcpy(key.tag, tag, OBJECT_TAG_BYTES);
    object_key_format(&key, text);
    put_text(fixture, text, "twelve bytes");
}

static void put_segment_name(struct fixture *fixture, uint32_t generation, uint32_t wal_no,
                             uint32_t first, uint32_t last, uint32_t term)
{
    char text[OBJECT_KEY_BYTES];
    struct object_key key = {
        .kind = OBJECT_SEGMENT,
        .generation = id_of(generation),
        .position = {wal_no, last},
        .first_frame_no = first,
        .term = term,
        .unix_ms = 1795543200123,
        .tag = "5e1ec7ed",
    };
    object_key_format(&key, text);
    put_text(fixture, text, "no segment");
}

static void test_catalog__empty_archive(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct catalog_generation *found = NULL;
    const struct catalog_generation *a = NULL;
    const struct catalog_generation *b = NULL;
    check_ok(catalog_read_generations(&fixture->catalog, fixture->store, &err));
    assert_int_equal(fixture->catalog.generation_count, 0);
    check_ok(catalog_find_latest(&fixture->catalog, fixture->store, &found, &err));
    assert_null(found);
    check_ok(catalog_find_fork(&fixture->catalog, &a, &b, &err));
    assert_null(a);
}

static void test_catalog__reads_generations_in_order(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    put_text(fixture, "generations/readme.txt", "passed over");
    for (uint32_t number = 12; number > 0; number--) {
        put_birth(fixture, number, number - 1, 0);
    }
    check_ok(catalog_read_generations(&fixture->catalog, fixture->store, &err));
    check_ok(catalog_read_generations(&fixture->catalog, fixture->store, &err)); /* replaces */
    assert_int_equal(fixture->catalog.generation_count, 12);
    for (uint32_t i = 0; i < 12; i++) {
        assert_int_equal(generation_id_number(&fixture->catalog.generations[i].birth.id), i + 1);
        assert_int_equal(fixture->catalog.generations[i].birth.window, 8);
    }
    struct generation_id id = id_of(7);
    assert_ptr_equal(catalog_find(&fixture->catalog, &id), &fixture->catalog.generations[6]);
    id = id_of(13);
    assert_null(catalog_find(&fixture->catalog, &id));
}

static void test_catalog__damaged_births(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct generation_birth birth;
    put_text(fixture, "generations/00000002.json", "{");
    check_fails(RC_CORRUPT, catalog_read_generations(&fixture->catalog, fixture->store, &err));
    check_text("generations/00000002.json");
    assert_int_equal(fixture->catalog.generation_count, 0);
    check_ok(store_remove(fixture->store, "generations/00000002.json", &err));
    fill_birth(&birth, 3, 0);
    put_birth_as(fixture, &birth, 4); /* under another number */
    check_fails(RC_CORRUPT, catalog_read_generations(&fixture->catalog, fixture->store, &err));
}

static void test_catalog__loads_one_generation(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    put_birth(fixture, 1, 0, 0);
    put_claim(fixture, 1, 2, 2, "22222222");
    put_claim(fixture, 1, 10, 10, "aaaaaaaa");
    put_snapshot(fixture, 1, 1, 0, "00000001", 1);
    put_snapshot(fixture, 1, 1, 0, "00000001", 2);
    put_snapshot(fixture, 1, 1, 0, "00000001", 0);
    put_snapshot(fixture, 1, 2, 9, "00000002", 0);
    put_snapshot(fixture, 1, 2, 9, "00000003", 1); /* the same place, unfinished */
    put_segment_name(fixture, 1, 1, 1, 5, 10);
    put_segment_name(fixture, 1, 1, 1, 7, 2);
    put_segment_name(fixture, 1, 1, 6, 9, 2);
    put_segment_name(fixture, 1, 10, 1, 3, 10);
    put_segment_name(fixture, 1, 2, 1, 9, 10);
    check_ok(catalog_read_generations(&fixture->catalog, fixture->store, &err));
    struct catalog_generation *one = &fixture->catalog.generations[0];
    assert_false(one->loaded);
    check_ok(catalog_load_generation(one, fixture->store, 1, &err));
    assert_true(one->loaded);
    assert_int_equal(one->term_highest, 10);
    assert_string_equal(one->term_highest_tag, "aaaaaaaa");
    assert_int_equal(one->snapshot_count, 3);
    assert_int_equal(one->snapshots[0].part_count, 2);
    assert_int_equal(one->snapshots[0].object_bytes, 24);
    assert_true(one->snapshots[1].complete);
    assert_false(one->snapshots[2].complete);
    assert_int_equal(one->segment_count, 5);
    assert_int_equal(one->segments[0].term, 2); /* by term before length */
    assert_int_equal(one->segments[1].last_frame_no, 5);
    assert_int_equal(one->segments[4].wal_no, 10);
    assert_int_equal(one->segments[4].object_bytes, 10);

    struct position limit = {2, 8};
    assert_ptr_equal(catalog_latest_snapshot(one, NULL), &one->snapshots[1]);
    assert_ptr_equal(catalog_latest_snapshot(one, &limit), &one->snapshots[0]);
    limit.frame_no = 9;
    assert_ptr_equal(catalog_latest_snapshot(one, &limit), &one->snapshots[1]);

    check_ok(catalog_load_generation(one, fixture->store, 2, &err));
    assert_int_equal(one->segment_count, 2);
    assert_int_equal(one->segments[0].wal_no, 2);
    check_ok(catalog_load_generation(one, fixture->store, 11, &err));
    assert_int_equal(one->segment_count, 0);
}

static void test_catalog__damaged_claims(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    put_birth(fixture, 1, 0, 0);
    put_claim(fixture, 1, 3, 2, "22222222");
    check_ok(catalog_read_generations(&fixture->catalog, fixture->store, &err));
    check_fails(RC_CORRUPT,
                catalog_load_generation(&fixture->catalog.generations[0], fixture->store, 1, &err));
    assert_false(fixture->catalog.generations[0].loaded);
}

static void test_catalog__latest_has_a_complete_snapshot(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct catalog_generation *found = NULL;
    for (uint32_t number = 1; number <= 4; number++) {
        put_birth(fixture, number, number - 1, 0);
    }
    put_snapshot(fixture, 1, 1, 0, "00000001", 0);
    put_snapshot(fixture, 3, 1, 0, "00000001", 0);
    put_snapshot(fixture, 4, 1, 0, "00000001", 1); /* under way */
    check_ok(catalog_read_generations(&fixture->catalog, fixture->store, &err));
    check_ok(catalog_find_latest(&fixture->catalog, fixture->store, &found, &err));
    assert_ptr_equal(found, &fixture->catalog.generations[2]);
    assert_non_null(catalog_latest_snapshot(found, NULL));
    assert_false(found->loaded);
}

struct fork_case {
    const char *name;
    uint32_t births[8][3]; /* number, parent, supersedes; a number of 0 ends them */
    uint32_t a;            /* 0 = no fork */
    uint32_t b;
};

static void test_catalog__forks_between_generations(void **state)
{
    static const struct fork_case cases[] = {
        {"one line", {{1, 0, 0}, {2, 1, 0}, {3, 2, 0}}, 0, 0},
        {"two children", {{1, 0, 0}, {2, 1, 0}, {3, 1, 0}}, 2, 3},
        {"the younger supersedes", {{1, 0, 0}, {2, 1, 0}, {3, 1, 2}}, 0, 0},
        {"a later one supersedes one of them", {{1, 0, 0}, {2, 1, 0}, {3, 1, 0}, {4, 3, 2}}, 0, 0},
        {"a later one on the other side", {{1, 0, 0}, {2, 1, 0}, {3, 1, 0}, {4, 2, 3}}, 0, 0},
        {"still open further on", {{1, 0, 0}, {2, 1, 0}, {3, 1, 0}, {4, 3, 0}}, 2, 3},
        {"the tip was superseded", {{1, 0, 0}, {2, 1, 0}, {3, 2, 0}, {4, 1, 3}}, 0, 0},
        {"one tip of two was", {{1, 0, 0}, {2, 1, 0}, {3, 2, 0}, {4, 2, 0}, {5, 1, 4}}, 2, 5},
        {"two first generations", {{1, 0, 0}, {2, 0, 0}}, 0, 0},
        {"three children, one left", {{1, 0, 0}, {2, 1, 0}, {3, 1, 2}, {4, 1, 0}}, 3, 4},
        {"a fork off the newest line", {{1, 0, 0}, {2, 1, 0}, {3, 1, 0}, {4, 0, 0}}, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = ERR_INIT;
        struct fixture *fixture = NULL;
        void *made = NULL;
        const struct catalog_generation *a = NULL;
        const struct catalog_generation *b = NULL;
        assert_int_equal(setup(&made), 0);
        fixture = made;
        for (size_t j = 0; j < 8 && cases[i].births[j][0] != 0; j++) {
            put_birth(fixture, cases[i].births[j][0], cases[i].births[j][1], cases[i].births[j][2]);
        }
        check_ok(catalog_read_generations(&fixture->catalog, fixture->store, &err));
        check_ok(catalog_find_fork(&fixture->catalog, &a, &b, &err));
        bool fork = a != NULL;
        if (fork != (cases[i].a != 0) ||
            (fork && (generation_id_number(&a->birth.id) != cases[i].a ||
                      generation_id_number(&b->birth.id) != cases[i].b))) {
            fail_msg("%s: fork %d between %u and %u", cases[i].name, fork,
                     fork ? generation_id_number(&a->birth.id) : 0,
                     fork ? generation_id_number(&b->birth.id) : 0);
        }
        assert_int_equal(teardown(&made), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_catalog__empty_archive, setup, teardown),
        cmocka_unit_test_setup_teardown(test_catalog__reads_generations_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_catalog__damaged_births, setup, teardown),
        cmocka_unit_test_setup_teardown(test_catalog__loads_one_generation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_catalog__damaged_claims, setup, teardown),
        cmocka_unit_test_setup_teardown(test_catalog__latest_has_a_complete_snapshot, setup,
                                        teardown),
        cmocka_unit_test(test_catalog__forks_between_generations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
