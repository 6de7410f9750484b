/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog_run: the contiguous run of one generation, and what it says of holes, successors and
 * forks. Archives are made up in a directory from real segments of sample WALs. `same` and `other`
 * share their first 10 frames and differ from frame 11 on, as after a power loss; WAL 2 follows.
 */
#include "archive/catalog.h"

#include "tests/unit/checks.h"
#include "tests/unit/sample_wal.h"
#include "tests/unit/scratch.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE 512
#define FRAMES 60
#define SHARED 10 /* frames that `same` and `other` have in common */
#define WINDOW 4

struct fixture {
    struct scratch scratch;
    struct store *store;
    struct segment_writer *writer;
    struct segment_header *header;
    struct sample_wal same;  /* WAL 1 */
    struct sample_wal other; /* WAL 1 of another history */
    struct sample_wal next;  /* WAL 2 */
    struct catalog_generation generation;
    struct catalog_run run;
};

/* One object to put. A zero `archived` is none. */
struct piece {
    const struct sample_wal *wal;
    uint32_t wal_no;
    uint32_t first;
    uint32_t last;
    uint32_t term;
    uint32_t tag; /* 0 = made of the term */
    struct position archived;
    uint32_t link_frame_no; /* of the first object of WAL 2: where WAL 1 ended */
    const struct sample_wal *link_wal;
};

static void make_wal(struct sample_wal *wal, uint32_t seed, uint32_t differs_from)
{
    struct sample_frame frames[FRAMES];
    for (uint32_t i = 0; i < FRAMES; i++) {
        frames[i] = (struct sample_frame){i + 1 >= differs_from ? 99 : i % 7 + 1, 99};
    }
    sample_wal_init(wal, PAGE, false, seed, frames, FRAMES);
}

static int setup(void **state)
{
    struct err err = ERR_INIT;
    struct store_config config = {.off = false};
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture->header = malloc(sizeof *fixture->header);
    assert_non_null(fixture->header);
    scratch_init(&fixture->scratch);
    (void)snprintf(config.dir, sizeof config.dir, "%s/archive", fixture->scratch.dir);
    check_ok(store_open(&config, NULL, &fixture->store, &err));
    check_ok(store_prepare(fixture->store, true, &err));
    check_ok(segment_writer_create(1, &fixture->writer, &err));
    make_wal(&fixture->same, 1, FRAMES + 1);
    make_wal(&fixture->other, 1, SHARED + 1);
    make_wal(&fixture->next, 2, FRAMES + 1);
    assert_true(generation_id_parse(SAMPLE_GENERATION, &fixture->generation.birth.id, NULL));
    catalog_run_init(&fixture->run);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    catalog_run_deinit(&fixture->run);
    free(fixture->generation.segments);
    free(fixture->generation.snapshots);
    sample_wal_deinit(&fixture->same);
    sample_wal_deinit(&fixture->other);
    sample_wal_deinit(&fixture->next);
    segment_writer_destroy(fixture->writer);
    store_close(fixture->store);
    scratch_deinit(&fixture->scratch);
    free(fixture->header);
    free(fixture);
    return 0;
}

/* Writes the object and gives its name. */
static void put_piece(struct fixture *fixture, const struct piece *piece,
                      char text[OBJECT_KEY_BYTES])
{
    struct err err = ERR_INIT;
    struct object_key key;
    struct buf object;
    size_t count = 0;
    struct segment_header *header = fixture->header;
    sample_header(piece->wal, piece->wal_no, piece->first, piece->last, header);
    header->term = piece->term;
    (void)snprintf(header->lead_tag, sizeof header->lead_tag, "%08x",
                   piece->tag != 0 ? piece->tag : piece->term);
    if (piece->archived.wal_no != 0) {
        header->archived = (struct wal_point){piece->archived, {1, 1}};
    }
    if (piece->wal_no == 2 && piece->first == 1) {
        const struct sample_wal *from = piece->link_wal != NULL ? piece->link_wal : &fixture->same;
        header->link = (struct wal_point){{1, piece->link_frame_no},
                                          sample_wal_checksum(from, piece->link_frame_no)};
    }
    const uint8_t *content = sample_wal_content(piece->wal, piece->first, piece->last, &count);
    buf_init(&object, SEGMENT_OBJECT_BYTES_MAX);
    check_ok(segment_write(fixture->writer, header, content, count, &object, &err));
    segment_key(header, &key);
    object_key_format(&key, text);
    check_ok(
        store_put_bytes(fixture->store, text, object.data, object.size, STORE_PUT_PLAIN, &err));
    buf_deinit(&object);
}

static void put(struct fixture *fixture, const struct sample_wal *wal, uint32_t first,
                uint32_t last, uint32_t term)
{
    char text[OBJECT_KEY_BYTES];
    struct piece piece = {.wal = wal, .wal_no = 1, .first = first, .last = last, .term = term};
    put_piece(fixture, &piece, text);
}

/* An object of WAL 2; link_frame_no = where WAL 1 ended, for its first one. */
static void put_next(struct fixture *fixture, uint32_t first, uint32_t last, uint32_t term,
                     uint32_t link_frame_no)
{
    char text[OBJECT_KEY_BYTES];
    struct piece piece = {.wal = &fixture->next,
                          .wal_no = 2,
                          .first = first,
                          .last = last,
                          .term = term,
                          .link_frame_no = link_frame_no};
    put_piece(fixture, &piece, text);
}

static void find(struct fixture *fixture)
{
    struct err err = ERR_INIT;
    check_ok(catalog_load_generation(&fixture->generation, fixture->store, 1, &err));
    check_ok(
        catalog_find_run(&fixture->generation, fixture->store, 1, WINDOW, &fixture->run, &err));
}

/* Finds the run and holds it against "first-last/term …" and the end's kind. */
static void assert_run(struct fixture *fixture, const char *wanted, enum catalog_end kind,
                       size_t beyond_count)
{
    char text[512] = "";
    find(fixture);
    const struct catalog_run *run = &fixture->run;
    for (size_t i = 0; i < run->segment_count; i++) {
        const struct catalog_segment *s = run->segments[i];
        size_t used = strlen(text);
        (void)snprintf(text + used, sizeof text - used, "%s%s%u-%u/%u", i > 0 ? " " : "",
                       s->wal_no > 1 ? "next:" : "", s->first_frame_no, s->last_frame_no, s->term);
    }
    if (strcmp(text, wanted) != 0 || run->end_kind != kind || run->beyond_count != beyond_count) {
        fail_msg("run \"%s\" kind %d beyond %zu (%s), wanted \"%s\" kind %d beyond %zu", text,
                 (int)run->end_kind, run->beyond_count, run->detail, wanted, (int)kind,
                 beyond_count);
    }
    assert_int_equal(run->detail[0] == '\0', kind == CATALOG_END_CLEAN);
}

static void assert_hole(const struct fixture *fixture, uint32_t wal_no, uint32_t frame_no)
{
    assert_int_equal(fixture->run.hole_first.wal_no, wal_no);
    assert_int_equal(fixture->run.hole_first.frame_no, frame_no);
}

/* ---- runs ---- */

static void test_catalog_run__empty(void **state)
{
    struct fixture *fixture = *state;
    assert_run(fixture, "", CATALOG_END_CLEAN, 0);
    assert_int_equal(fixture->run.end.position.wal_no, 0);
}

static void test_catalog_run__one_lead(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 11, 20, 1);
    put(fixture, &fixture->same, 21, 60, 1);
    assert_run(fixture, "1-10/1 11-20/1 21-60/1", CATALOG_END_CLEAN, 0);
    struct wal_point end = {{1, 60}, sample_wal_checksum(&fixture->same, 60)};
    assert_true(wal_point_equal(fixture->run.end, end));
    assert_true(wal_salts_equal(fixture->run.end_salts, fixture->same.salts));
    assert_int_equal(fixture->run.end_unix_ms, SAMPLE_UNIX_MS);
}

/* One GET for the first object, one for the last: names do the rest. */
static void test_catalog_run__reads_few_headers(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t i = 1; i <= 41; i += 10) {
        put(fixture, &fixture->same, i, i + 9, 1);
    }
    find(fixture);
    uint64_t before = fixture->store->request_count;
    struct err err = ERR_INIT;
    check_ok(
        catalog_find_run(&fixture->generation, fixture->store, 1, WINDOW, &fixture->run, &err));
    assert_int_equal(fixture->run.segment_count, 5);
    assert_int_equal(fixture->store->request_count - before, 2);
}

static void test_catalog_run__across_wals(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 11, 20, 1);
    put_next(fixture, 1, 5, 1, 20);
    put_next(fixture, 6, 9, 2, 0);
    assert_run(fixture, "1-10/1 11-20/1 next:1-5/1 next:6-9/2", CATALOG_END_CLEAN, 0);
    assert_int_equal(fixture->run.end.position.wal_no, 2);
    struct err err = ERR_INIT; /* from WAL 2 on: a snapshot lay in it */
    check_ok(
        catalog_find_run(&fixture->generation, fixture->store, 2, WINDOW, &fixture->run, &err));
    assert_int_equal(fixture->run.segment_count, 2);
    assert_int_equal(fixture->run.end_kind, CATALOG_END_CLEAN);
}

static void test_catalog_run__next_lead_goes_on(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 11, 20, 2);
    put(fixture, &fixture->same, 21, 30, 2);
    put_next(fixture, 1, 5, 3, 30);
    assert_run(fixture, "1-10/1 11-20/2 21-30/2 next:1-5/3", CATALOG_END_CLEAN, 0);
}

/* ---- holes ---- */

static void test_catalog_run__hole_of_a_crash(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 21, 30, 1);
    put(fixture, &fixture->same, 31, 40, 1);
    put(fixture, &fixture->same, 41, 50, 1);
    assert_run(fixture, "1-10/1", CATALOG_END_CRASH, 3);
    assert_hole(fixture, 1, 11);
    put(fixture, &fixture->same, 51, 60, 1); /* one more than may be under way */
    assert_run(fixture, "1-10/1", CATALOG_END_DAMAGE, 4);
    assert_hole(fixture, 1, 11);
}

static void test_catalog_run__hole_at_the_beginning(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 11, 20, 1);
    assert_run(fixture, "", CATALOG_END_CRASH, 1);
    assert_hole(fixture, 1, 1);
}

static void test_catalog_run__hole_that_was_archived(void **state)
{
    struct fixture *fixture = *state;
    char text[OBJECT_KEY_BYTES];
    struct piece piece = {.wal = &fixture->same, .wal_no = 1, .first = 21, .last = 30, .term = 1};
    put(fixture, &fixture->same, 1, 10, 1);
    piece.archived = (struct position){1, 10}; /* before the hole */
    put_piece(fixture, &piece, text);
    assert_run(fixture, "1-10/1", CATALOG_END_CRASH, 1);
    struct err err = ERR_INIT;
    check_ok(store_remove(fixture->store, text, &err));
    piece.archived = (struct position){1, 20}; /* the hole itself */
    put_piece(fixture, &piece, text);
    assert_run(fixture, "1-10/1", CATALOG_END_DAMAGE, 1);
    assert_non_null(strstr(fixture->run.detail, "archived"));
}

static void test_catalog_run__hole_before_the_next_wal(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put_next(fixture, 1, 5, 1, 20); /* WAL 1 ended with frame 20 */
    assert_run(fixture, "1-10/1", CATALOG_END_CRASH, 1);
    assert_hole(fixture, 1, 11);
    put(fixture, &fixture->same, 11, 20, 1);
    assert_run(fixture, "1-10/1 11-20/1 next:1-5/1", CATALOG_END_CLEAN, 0);
}

static void test_catalog_run__hole_after_a_reset(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put_next(fixture, 6, 9, 1, 0);
    assert_run(fixture, "1-10/1", CATALOG_END_CRASH, 1);
}

/* ---- successors ---- */

/* Term 1 left 21-30 beyond its hole; term 2 cut 11-35: the same frames. */
static void test_catalog_run__leftovers_on_the_chain(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 21, 30, 1);
    put(fixture, &fixture->same, 11, 35, 2);
    put(fixture, &fixture->same, 36, 40, 2);
    assert_run(fixture, "1-10/1 11-35/2 36-40/2", CATALOG_END_CLEAN, 0);
}

static void test_catalog_run__leftovers_of_another_history(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 21, 30, 1);
    put(fixture, &fixture->other, 11, 35, 2);
    assert_run(fixture, "1-10/1 11-35/2", CATALOG_END_FORK, 0);
    assert_hole(fixture, 1, 21);
}

/* The filled hole leads on to what the dead lead had left. */
static void test_catalog_run__leftovers_serve_again(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 21, 30, 1);
    put(fixture, &fixture->same, 11, 20, 2);
    put(fixture, &fixture->same, 31, 40, 2);
    assert_run(fixture, "1-10/1 11-20/2 21-30/1 31-40/2", CATALOG_END_CLEAN, 0);
}

static void test_catalog_run__filled_hole_of_another_history(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 21, 30, 1);
    put(fixture, &fixture->other, 11, 20, 2); /* 21-30 of term 1 does not follow it */
    assert_run(fixture, "1-10/1 11-20/2", CATALOG_END_FORK, 1);
    assert_hole(fixture, 1, 21);
}

static void test_catalog_run__the_higher_term_is_preferred(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 11, 20, 1);
    put(fixture, &fixture->same, 11, 15, 2);
    put(fixture, &fixture->same, 16, 30, 2);
    assert_run(fixture, "1-10/1 11-15/2 16-30/2", CATALOG_END_CLEAN, 0);
}

static void test_catalog_run__the_higher_term_wins_a_fork(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 11, 20, 1);
    put(fixture, &fixture->same, 21, 40, 1);
    put(fixture, &fixture->other, 11, 15, 2);
    put(fixture, &fixture->other, 16, 30, 2);
    assert_run(fixture, "1-10/1 11-15/2 16-30/2", CATALOG_END_FORK, 1);
    assert_hole(fixture, 1, 11);
}

/* Names would offer both; only the lower term's goes on from the end. */
static void test_catalog_run__only_the_one_that_links(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 20, 1);
    put(fixture, &fixture->same, 21, 30, 1);
    put(fixture, &fixture->other, 21, 40, 2);
    assert_run(fixture, "1-20/1 21-30/1", CATALOG_END_FORK, 1);
    assert_hole(fixture, 1, 21);
}

/* Term 2 stopped early: what term 1 had is longer, and the same history. */
static void test_catalog_run__goes_back_to_the_longer_cut(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 11, 20, 1);
    put(fixture, &fixture->same, 21, 30, 1);
    put(fixture, &fixture->same, 11, 15, 2);
    assert_run(fixture, "1-10/1 11-20/1 21-30/1", CATALOG_END_CLEAN, 0);
}

/* No boundary of the run lies where the longer object begins: its last frames stay out. */
static void test_catalog_run__leaves_out_what_cannot_be_joined(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 21, 40, 1);
    put(fixture, &fixture->same, 11, 35, 2);
    assert_run(fixture, "1-10/1 11-35/2", CATALOG_END_CRASH, 1);
    assert_hole(fixture, 1, 36);
    put(fixture, &fixture->same, 36, 50, 2);
    assert_run(fixture, "1-10/1 11-35/2 36-50/2", CATALOG_END_CLEAN, 0);
}

/* Two leads took one term, which a store without conditional puts cannot prevent. */
static void test_catalog_run__one_term_taken_twice(void **state)
{
    struct fixture *fixture = *state;
    char text[OBJECT_KEY_BYTES];
    struct piece piece = {
        .wal = &fixture->same, .wal_no = 1, .first = 11, .last = 20, .term = 2, .tag = 9};
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 11, 20, 2);
    put_piece(fixture, &piece, text); /* the same frames: harmless */
    assert_run(fixture, "1-10/1 11-20/2", CATALOG_END_CLEAN, 0);
    piece.wal = &fixture->other;
    piece.tag = 10;
    put_piece(fixture, &piece, text);
    assert_run(fixture, "1-10/1 11-20/2", CATALOG_END_FORK, 0);
    assert_hole(fixture, 1, 11);
}

static void test_catalog_run__wal_that_went_on_elsewhere(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 11, 20, 1); /* term 1 wrote on where term 2 had reset the WAL */
    put_next(fixture, 1, 5, 2, 10);
    assert_run(fixture, "1-10/1 next:1-5/2", CATALOG_END_FORK, 0);
    assert_hole(fixture, 1, 11);
}

static void test_catalog_run__wal_that_was_reset_elsewhere(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 11, 20, 2);
    put_next(fixture, 1, 5, 1, 10); /* the lower term had reset the WAL after frame 10 */
    assert_run(fixture, "1-10/1 11-20/2", CATALOG_END_FORK, 1);
    assert_hole(fixture, 1, 11); /* where they part, not where the other object begins */
}

static void test_catalog_run__next_wal_of_another_history(void **state)
{
    struct fixture *fixture = *state;
    char text[OBJECT_KEY_BYTES];
    struct piece piece = {.wal = &fixture->next,
                          .wal_no = 2,
                          .first = 1,
                          .last = 5,
                          .term = 2,
                          .link_frame_no = 20,
                          .link_wal = &fixture->other};
    put(fixture, &fixture->same, 1, 20, 1);
    put_piece(fixture, &piece, text);
    assert_run(fixture, "1-20/1", CATALOG_END_FORK, 1);
}

/* ---- damage ---- */

/* Changes one byte of the object; `at_end`: of its content, so that the header can still be read. */
static void spoil_at(struct fixture *fixture, const char *key, bool at_end)
{
    struct err err = ERR_INIT;
    struct buf object;
    buf_init(&object, SEGMENT_OBJECT_BYTES_MAX);
    check_ok(store_get_buf(fixture->store, key, &object, &err));
    object.data[at_end ? object.size - 1 : 20] ^= 1;
    check_ok(store_remove(fixture->store, key, &err));
    check_ok(store_put_bytes(fixture->store, key, object.data, object.size, STORE_PUT_PLAIN, &err));
    buf_deinit(&object);
}

static void spoil(struct fixture *fixture, const char *key)
{
    spoil_at(fixture, key, false);
}

/*
 * The damage in the run's last object shows only when an object of another lead is held against it,
 * whose end lies inside. That one, which is whole, takes its place. Found by fuzz_catalog: it stopped
 * whoever looked at such an archive.
 */
static void test_catalog_run__unreadable_inside_its_end(void **state)
{
    struct fixture *fixture = *state;
    char text[OBJECT_KEY_BYTES];
    struct piece piece = {.wal = &fixture->same, .wal_no = 1, .first = 11, .last = 20, .term = 2};
    put(fixture, &fixture->same, 1, 10, 1);
    put_piece(fixture, &piece, text);
    spoil_at(fixture, text, true);
    put(fixture, &fixture->same, 11, 15, 1);
    assert_run(fixture, "1-10/1 11-15/1", CATALOG_END_DAMAGE, 1);
    assert_int_equal(fixture->run.end.position.frame_no, 15);
}

static void test_catalog_run__unreadable_end(void **state)
{
    struct fixture *fixture = *state;
    char text[OBJECT_KEY_BYTES];
    struct piece piece = {.wal = &fixture->same, .wal_no = 1, .first = 21, .last = 30, .term = 1};
    put(fixture, &fixture->same, 1, 10, 1);
    put(fixture, &fixture->same, 11, 20, 1);
    put_piece(fixture, &piece, text);
    spoil(fixture, text);
    assert_run(fixture, "1-10/1 11-20/1", CATALOG_END_DAMAGE, 1);
    assert_hole(fixture, 1, 21);
}

static void test_catalog_run__unreadable_beyond(void **state)
{
    struct fixture *fixture = *state;
    char text[OBJECT_KEY_BYTES];
    struct piece piece = {.wal = &fixture->same, .wal_no = 1, .first = 21, .last = 30, .term = 1};
    put(fixture, &fixture->same, 1, 10, 1);
    put_piece(fixture, &piece, text);
    spoil(fixture, text);
    assert_run(fixture, "1-10/1", CATALOG_END_DAMAGE, 1);
    assert_hole(fixture, 1, 11);
}

/* Frames that the run has too, in an object that cannot be read: nobody can say whether they are the same. */
static void test_catalog_run__unreadable_leftover(void **state)
{
    struct fixture *fixture = *state;
    char text[OBJECT_KEY_BYTES];
    struct piece piece = {.wal = &fixture->same, .wal_no = 1, .first = 11, .last = 15, .term = 1};
    put(fixture, &fixture->same, 1, 10, 1);
    put_piece(fixture, &piece, text);
    spoil(fixture, text);
    put(fixture, &fixture->same, 11, 20, 2);
    assert_run(fixture, "1-10/1 11-20/2", CATALOG_END_DAMAGE, 0);
}

/* The right checksum under another frame's number is not the run's end. */
static void test_catalog_run__link_to_another_frame(void **state)
{
    struct fixture *fixture = *state;
    char text[OBJECT_KEY_BYTES];
    size_t count = 0;
    struct err err = ERR_INIT;
    struct buf object;
    struct object_key key;
    put(fixture, &fixture->same, 1, 10, 1);
    sample_header(&fixture->next, 2, 1, 10, fixture->header);
    fixture->header->link = (struct wal_point){{1, 12}, sample_wal_checksum(&fixture->same, 10)};
    const uint8_t *content = sample_wal_content(&fixture->next, 1, 10, &count);
    buf_init(&object, SEGMENT_OBJECT_BYTES_MAX);
    check_ok(segment_write(fixture->writer, fixture->header, content, count, &object, &err));
    segment_key(fixture->header, &key);
    object_key_format(&key, text);
    check_ok(
        store_put_bytes(fixture->store, text, object.data, object.size, STORE_PUT_PLAIN, &err));
    buf_deinit(&object);
    assert_run(fixture, "1-10/1", CATALOG_END_CRASH, 1);
}

static void test_catalog_run__header_under_another_name(void **state)
{
    struct fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct buf object;
    char text[OBJECT_KEY_BYTES];
    struct piece piece = {.wal = &fixture->same, .wal_no = 1, .first = 1, .last = 10, .term = 1};
    put_piece(fixture, &piece, text);
    find(fixture);
    check_ok(catalog_read_header(&fixture->generation.birth.id, &fixture->generation.segments[0],
                                 fixture->store, fixture->header, &err));
    assert_int_equal(fixture->header->last_frame_no, 10);
    buf_init(&object, SEGMENT_OBJECT_BYTES_MAX);
    check_ok(store_get_buf(fixture->store, text, &object, &err));
    check_ok(store_remove(fixture->store, text, &err));
    text[strlen(text) - strlen("1.wal.zst")] = '2'; /* the lead's tag */
    check_ok(
        store_put_bytes(fixture->store, text, object.data, object.size, STORE_PUT_PLAIN, &err));
    buf_deinit(&object);
    check_ok(catalog_load_generation(&fixture->generation, fixture->store, 1, &err));
    check_fails(RC_CORRUPT,
                catalog_read_header(&fixture->generation.birth.id, &fixture->generation.segments[0],
                                    fixture->store, fixture->header, &err));
    assert_run(fixture, "", CATALOG_END_DAMAGE, 1);
}

#define RUN_TEST(name) cmocka_unit_test_setup_teardown(test_catalog_run__##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN_TEST(empty),
        RUN_TEST(one_lead),
        RUN_TEST(reads_few_headers),
        RUN_TEST(across_wals),
        RUN_TEST(next_lead_goes_on),
        RUN_TEST(hole_of_a_crash),
        RUN_TEST(hole_at_the_beginning),
        RUN_TEST(hole_that_was_archived),
        RUN_TEST(hole_before_the_next_wal),
        RUN_TEST(hole_after_a_reset),
        RUN_TEST(leftovers_on_the_chain),
        RUN_TEST(leftovers_of_another_history),
        RUN_TEST(leftovers_serve_again),
        RUN_TEST(filled_hole_of_another_history),
        RUN_TEST(the_higher_term_is_preferred),
        RUN_TEST(the_higher_term_wins_a_fork),
        RUN_TEST(only_the_one_that_links),
        RUN_TEST(goes_back_to_the_longer_cut),
        RUN_TEST(leaves_out_what_cannot_be_joined),
        RUN_TEST(one_term_taken_twice),
        RUN_TEST(wal_that_went_on_elsewhere),
        RUN_TEST(wal_that_was_reset_elsewhere),
        RUN_TEST(next_wal_of_another_history),
        RUN_TEST(unreadable_end),
        RUN_TEST(unreadable_inside_its_end),
        RUN_TEST(unreadable_beyond),
        RUN_TEST(unreadable_leftover),
        RUN_TEST(link_to_another_frame),
        RUN_TEST(header_under_another_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
