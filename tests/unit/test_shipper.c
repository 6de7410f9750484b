/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shipper: the real lanes, a directory as the store, a real spool and state. The store fails because
 * its directory is moved away or a folder lies where an object must go; the test waits for what must
 * come and looks for what must not be there.
 */
#include "replicator/shipper.h"

#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include "base/buf.h"
#include "base/clk.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS 30000 /* for what takes milliseconds, or one pause of the back-off */
#define LOOK_MS 5000  /* how often the archive is looked at while something is put */
#define GENERATION "00000003-9f2c41d7a6b0e355"
#define TAG "5e1ec7ed"

static struct scratch scratch;
static struct err err;
static struct store_config config;
static struct store *store;
static struct spool spool;
static struct state shared;
static struct stop stop;
static struct shipper *shipper;
static struct generation_id generation;
static struct shipper_view view;
static uint64_t looked_at_count; /* of requests: a look has been when there are as many */

static void move_archive(const char *from, const char *to)
{
    assert_int_equal(rename(scratch_path(&scratch, from), scratch_path(&scratch, to)), 0);
}

static struct generation_birth make_birth(const char *id)
{
    struct generation_birth birth = {.cause = CAUSE_FIRST_START,
                                     .page_size_bytes = 4096,
                                     .window = SHIP_WINDOW,
                                     .host = "host",
                                     .harvey_version = "0",
                                     .sqlite_version = "3.40.1",
                                     .unix_ms = INT64_C(1795543200000)};
    assert_true(generation_id_parse(id, &birth.id, NULL));
    return birth;
}

static void put_json(struct object_key key, const struct buf *json)
{
    char text[OBJECT_KEY_BYTES];
    object_key_format(&key, text);
    check_ok(store_put_bytes(store, text, json->data, json->size, STORE_PUT_PLAIN, &err));
}

static void put_birth(const char *id)
{
    struct buf json;
    struct generation_birth birth = make_birth(id);
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    check_ok(generation_birth_encode(&birth, &json, &err));
    put_json((struct object_key){.kind = OBJECT_GENERATION,
                                 .generation_number = generation_id_number(&birth.id)},
             &json);
    buf_deinit(&json);
}

static int setup(void **state)
{
    (void)state;
    scratch_init(&scratch);
    err = (struct err)ERR_INIT;
    config = (struct store_config){.is_s3 = false};
    (void)snprintf(config.dir, sizeof config.dir, "%s", scratch_path(&scratch, "archive"));
    (void)snprintf(config.url, sizeof config.url, "dir:%.500s", config.dir);
    assert_true(generation_id_parse(GENERATION, &generation, NULL));
    stop_init(&stop);
    check_ok(store_open(&config, NULL, &store, &err));
    check_ok(store_prepare(store, true, &err));
    check_ok(spool_open(&spool, scratch_path(&scratch, "spool"), &err));
    check_ok(state_open(&shared, scratch_path(&scratch, "state"), &err));
    struct state_record record;
    state_edit_begin(&shared, &record);
    record.generation = generation;
    check_ok(state_edit_end(&shared, &record, &err));
    put_birth(GENERATION);
    check_ok(shipper_create(&config, &spool, &shared, &shipper, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    shipper_destroy(shipper);
    state_close(&shared);
    store_close(store);
    stop_deinit(&stop);
    scratch_deinit(&scratch);
    return 0;
}

/* Goes on in the generation, whose birth is there; nothing confirmed, no snapshot. */
static void start_at_the_beginning(void)
{
    const struct shipper_begin begin = {.generation = generation, .confirmed = {{1, 0}, {0, 0}}};
    check_ok(shipper_start(shipper, &begin, &err));
}

static struct wal_point point_at(uint32_t frame_no)
{
    return (struct wal_point){{1, frame_no}, {frame_no, 77}};
}

/* Segment n holds frame n of WAL 1. */
static struct shipper_segment segment_no(uint32_t n)
{
    return (struct shipper_segment){.key = {.kind = OBJECT_SEGMENT,
                                            .generation = generation,
                                            .position = {1, n},
                                            .first_frame_no = n,
                                            .term = 1,
                                            .unix_ms = INT64_C(1795543200000) + n,
                                            .tag = TAG},
                                    .end = point_at(n),
                                    .salts = {n, 1},
                                    .frames = 1,
                                    .page_size_bytes = 1000,
                                    .object_bytes = 5,
                                    .epoch = 100 + n,
                                    .oldest_ms = 1000 + n};
}

static void key_no(uint32_t n, char text[OBJECT_KEY_BYTES])
{
    struct shipper_segment segment = segment_no(n);
    object_key_format(&segment.key, text);
}

static void add_segment(uint32_t n)
{
    char key[OBJECT_KEY_BYTES];
    struct shipper_segment segment = segment_no(n);
    key_no(n, key);
    check_ok(spool_write(&spool, key, "bytes", 5, &err));
    check_ok(shipper_add_segment(shipper, &segment, &err));
}

static bool is_spooled(uint32_t n)
{
    char key[OBJECT_KEY_BYTES];
    char path[FSIO_PATH_BYTES];
    key_no(n, key);
    check_ok(spool_path(&spool, key, path, &err));
    return access(path, F_OK) == 0;
}

static bool is_archived(uint32_t n)
{
    char key[OBJECT_KEY_BYTES];
    uint64_t bytes;
    key_no(n, key);
    return store_head(store, key, &bytes, &err) == RC_OK && bytes == 5;
}

/* A folder where the object must go: the put fails until it is gone again. */
static void obstacle(uint32_t n, char path[SCRATCH_PATH_BYTES])
{
    char key[OBJECT_KEY_BYTES];
    char inside[SCRATCH_PATH_BYTES + 8];
    key_no(n, key);
    (void)snprintf(inside, sizeof inside, "archive/%s/in/it", key);
    check_ok(fsio_make_dirs(scratch_path(&scratch, inside), &err));
    (void)snprintf(inside, sizeof inside, "archive/%s", key);
    (void)snprintf(path, SCRATCH_PATH_BYTES, "%s", scratch_path(&scratch, inside));
}

static void drain(void)
{
    check_ok(shipper_drain(shipper, &stop, WAIT_MS, &err));
    shipper_get_view(shipper, &view);
}

/* Waits until the view is as `is` wants it. */
static void wait_for(bool (*is)(void), const char *what)
{
    int64_t deadline_ms = clk_monotonic_ms() + WAIT_MS;
    for (shipper_get_view(shipper, &view); !is(); shipper_get_view(shipper, &view)) {
        if (clk_monotonic_ms() > deadline_ms) {
            fail_msg("this did not come: %s (store: %s)", what, view.store_error);
        }
        clk_pause_ms(1);
    }
}

static bool view_has_verdict(void)
{
    return view.verdict != SHIPPER_GOES_ON;
}

static bool view_is_failing(void)
{
    return view.store_state != STORE_OK;
}

static bool view_is_down(void)
{
    return view.store_state == STORE_DOWN;
}

static bool view_put_eight(void)
{
    return view.put_count >= 8;
}

static void check_verdict(enum shipper_verdict verdict, const char *text)
{
    wait_for(view_has_verdict, "a verdict");
    assert_int_equal(view.verdict, verdict);
    if (strstr(view.verdict_text, text) == NULL) {
        fail_msg("\"%s\" does not hold \"%s\"", view.verdict_text, text);
    }
    check_fails(RC_UNAVAILABLE, shipper_drain(shipper, &stop, WAIT_MS, &err));
    assert_false(shipper_is_ready(shipper));
}

static void test_shipper__confirms_and_archives(void **state)
{
    (void)state;
    struct state_record record;
    start_at_the_beginning();
    for (uint32_t n = 1; n <= 20; n++) {
        add_segment(n);
    }
    drain();
    assert_true(wal_point_equal(view.confirmed, point_at(20)));
    assert_false(view.has_archived); /* no snapshot: it is of no use to a restore */
    assert_int_equal(view.unarchived_frames, 20);
    assert_int_equal(view.unarchived_bytes, 20 * 1024);
    assert_int_equal(view.spool_segments, 0);
    assert_int_equal(view.put_count, 20);
    assert_int_equal(atomic_load(&shared.live->epoch_archived), 0);
    shipper_snapshot_complete(shipper, &generation, (struct position){1, 3}, 42, 4711);
    shipper_get_view(shipper, &view);
    assert_true(view.has_archived);
    assert_true(wal_point_equal(view.archived, point_at(20)));
    assert_int_equal(view.unarchived_frames, 0);
    assert_int_equal(view.unarchived_bytes, 0);
    assert_int_equal(atomic_load(&shared.live->epoch_archived), 120);
    check_ok(shipper_housekeep(shipper, &err));
    shipper_stop(shipper); /* a lane may have been at it */
    state_get(&shared, &record);
    assert_true(wal_point_equal(record.confirmed, point_at(20)));
    assert_true(record.has_archived);
    assert_int_equal(record.snapshot.frame_no, 3);
    for (uint32_t n = 1; n <= 20; n++) {
        assert_true(is_archived(n));
        assert_false(is_spooled(n));
    }
}

/* Segment 2 cannot be put: what is behind it goes up to the window, and none of it is confirmed. */
static void test_shipper__a_hole_holds_the_run_back(void **state)
{
    (void)state;
    char path[SCRATCH_PATH_BYTES];
    obstacle(2, path);
    start_at_the_beginning();
    shipper_snapshot_complete(shipper, &generation, (struct position){1, 0}, 42, 1);
    for (uint32_t n = 1; n <= 14; n++) {
        add_segment(n);
    }
    wait_for(view_put_eight, "eight puts");
    clk_pause_ms(100); /* for a ninth, which must not come */
    shipper_get_view(shipper, &view);
    assert_true(wal_point_equal(view.confirmed, point_at(1)));
    assert_true(wal_point_equal(view.archived, point_at(1)));
    assert_int_equal(view.unarchived_frames, 13);
    assert_int_equal(view.put_count, 8); /* 1, and 3 to 9 of the window 2 to 9 */
    assert_true(is_archived(9));
    assert_false(is_archived(10));
    assert_int_equal(atomic_load(&shared.live->spooled_ms), 1002);
    assert_int_equal(atomic_load(&shared.live->epoch_archived), 101);
    check_ok(shipper_housekeep(shipper, &err));
    assert_true(is_spooled(2));
    assert_true(is_spooled(9)); /* put, and needed as long as it is not confirmed */
    check_ok(fsio_remove_tree(path, &err));
    drain();
    assert_true(wal_point_equal(view.archived, point_at(14)));
    assert_int_equal(view.store_state, STORE_OK);
    assert_int_equal(atomic_load(&shared.live->spooled_ms), 0);
}

static struct lead_claim make_claim(uint32_t term, const char *tag)
{
    struct lead_claim claim = {.generation = generation,
                               .term = term,
                               .start = point_at(1),
                               .host = "host",
                               .boot_id = "boot",
                               .pid = 7,
                               .unix_ms = INT64_C(1795543200000)};
    (void)snprintf(claim.tag, sizeof claim.tag, "%s", tag);
    return claim;
}

static void put_claim_of(const struct lead_claim *claim)
{
    struct buf json;
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    check_ok(lead_claim_encode(claim, &json, &err));
    put_json((struct object_key){.kind = OBJECT_LEAD,
                                 .generation = claim->generation,
                                 .term = claim->term},
             &json);
    buf_deinit(&json);
}

/* Another process's. */
static void put_claim(uint32_t term, const char *tag)
{
    struct lead_claim claim = make_claim(term, tag);
    claim.pid = 8;
    put_claim_of(&claim);
}

/* A directory that is gone is not made anew, and no segment overtakes the birth. */
static void test_shipper__a_birth_is_a_barrier(void **state)
{
    (void)state;
    struct state_record record;
    const struct shipper_begin begin = {.confirmed = {{1, 0}, {0, 0}}};
    struct generation_birth birth = make_birth("00000004-0123456789abcdef");
    move_archive("archive", "away");
    check_ok(shipper_start(shipper, &begin, &err));
    check_ok(shipper_add_birth(shipper, &birth, 500, &err));
    generation = birth.id;
    add_segment(1);
    wait_for(view_is_failing, "a failing store");
    assert_false(view.open_for_segments);
    assert_false(shipper_is_ready(shipper));
    assert_string_equal(view.generation.text, "");
    assert_int_equal(access(config.dir, F_OK), -1);
    state_get(&shared, &record);
    assert_string_equal(record.generation.text, GENERATION);
    assert_int_equal(atomic_load(&shared.live->spooled_ms), 500);
    move_archive("away", "archive");
    drain();
    assert_true(view.open_for_segments);
    assert_string_equal(view.generation.text, birth.id.text);
    assert_true(wal_point_equal(view.confirmed, point_at(1)));
    assert_true(is_archived(1));
    state_get(&shared, &record);
    assert_string_equal(record.generation.text, birth.id.text);
    assert_int_equal(atomic_load(&shared.live->spooled_ms), 500); /* until it is archived */
    shipper_snapshot_complete(shipper, &generation, (struct position){1, 0}, 42, 1);
    assert_int_equal(atomic_load(&shared.live->spooled_ms), 0);
}

static bool view_put_one(void)
{
    return view.put_count > 0;
}

/* Looks for a while whether something is put that may not be. */
static void check_nothing_is_put(void)
{
    for (int i = 0; i < 60; i++) {
        shipper_get_view(shipper, &view);
        assert_int_equal(view.put_count, 0);
        clk_pause_ms(5);
    }
}

/* The birth alone cannot be put: its segments could, and wait all the same. */
static void test_shipper__no_segment_before_its_birth(void **state)
{
    (void)state;
    struct generation_birth birth = make_birth("00000004-0123456789abcdef");
    check_ok(fsio_make_dirs(scratch_path(&scratch, "archive/generations/00000004.json/in"), &err));
    start_at_the_beginning();
    check_ok(shipper_add_birth(shipper, &birth, 500, &err));
    wait_for(view_is_failing, "a birth that cannot be put");
    generation = birth.id;
    add_segment(1);
    check_nothing_is_put();
    assert_false(is_archived(1));
    check_ok(fsio_remove_tree(scratch_path(&scratch, "archive/generations/00000004.json"), &err));
    wait_for(view_put_one, "the segment");
    drain();
    assert_true(is_archived(1));
}

/* The parent's chain is shipped first: until then its child is not born. */
static void test_shipper__no_birth_before_its_parents_end(void **state)
{
    (void)state;
    char path[SCRATCH_PATH_BYTES];
    struct generation_birth birth = make_birth("00000004-0123456789abcdef");
    obstacle(1, path);
    start_at_the_beginning();
    add_segment(1);
    wait_for(view_is_failing, "a segment that cannot be put");
    check_ok(shipper_add_birth(shipper, &birth, 500, &err));
    for (int i = 0; i < 200; i++) {
        assert_int_equal(access(scratch_path(&scratch, "archive/generations/00000004.json"), F_OK),
                         -1);
        clk_pause_ms(5);
    }
    check_ok(fsio_remove_tree(path, &err));
    drain();
    assert_string_equal(view.generation.text, birth.id.text);
}

static void test_shipper__a_birth_that_is_taken(void **state)
{
    (void)state;
    struct state_record record;
    struct generation_birth birth = make_birth("00000004-0123456789abcdef");
    put_birth("00000004-fedcba9876543210");
    start_at_the_beginning();
    check_ok(shipper_add_birth(shipper, &birth, 500, &err));
    generation = birth.id;
    add_segment(1);
    check_verdict(SHIPPER_CONFLICT, "generations/00000004.json");
    assert_false(is_archived(1));
    assert_true(is_spooled(1));
    state_get(&shared, &record);
    assert_string_equal(record.generation.text, GENERATION);
}

/* The answer to our own put was lost: what lies there is ours. */
static void test_shipper__a_birth_and_a_claim_that_are_ours(void **state)
{
    (void)state;
    struct state_record record;
    struct generation_birth birth = make_birth(GENERATION);
    struct lead_claim claim = make_claim(5, TAG);
    put_claim_of(&claim);
    start_at_the_beginning();
    check_ok(shipper_add_birth(shipper, &birth, 0, &err));
    check_ok(shipper_add_claim(shipper, &claim, &err));
    add_segment(1);
    drain();
    assert_true(is_archived(1));
    state_get(&shared, &record);
    assert_int_equal(record.term, 5);
    assert_string_equal(record.term_tag, TAG);
}

static void test_shipper__a_claim_that_is_taken(void **state)
{
    (void)state;
    struct state_record record;
    struct lead_claim claim = make_claim(5, TAG);
    put_claim(5, "0badcafe");
    start_at_the_beginning();
    check_ok(shipper_add_claim(shipper, &claim, &err));
    add_segment(1);
    check_verdict(SHIPPER_CONFLICT, "leads/0000000005.json");
    assert_false(is_archived(1));
    state_get(&shared, &record);
    assert_int_equal(record.term, 0);
}

/*
 * The volume was copied with a noted claim that waits: two servers hold the same tag, and only one of them
 * wrote what lies there. The other one starts over and compares.
 */
static void test_shipper__a_claim_of_our_tag_by_another(void **state)
{
    (void)state;
    struct state_record record;
    struct lead_claim claim = make_claim(5, TAG);
    put_claim(5, TAG); /* another process wrote it */
    start_at_the_beginning();
    check_ok(shipper_add_claim(shipper, &claim, &err));
    add_segment(1);
    check_verdict(SHIPPER_CONFLICT, "leads/0000000005.json");
    assert_false(is_archived(1));
    state_get(&shared, &record);
    assert_int_equal(record.term, 0);
}

/* So with a birth that is not the one we wrote, under our id. */
static void test_shipper__a_birth_of_our_id_by_another(void **state)
{
    (void)state;
    struct generation_birth birth = make_birth("00000004-0123456789abcdef");
    put_birth("00000004-0123456789abcdef");
    birth.unix_ms++;
    start_at_the_beginning();
    check_ok(shipper_add_birth(shipper, &birth, 0, &err));
    generation = birth.id;
    add_segment(1);
    check_verdict(SHIPPER_CONFLICT, "generations/00000004.json");
    assert_false(is_archived(1));
}

static void test_shipper__a_spooled_file_is_gone(void **state)
{
    (void)state;
    struct shipper_segment segment = segment_no(1);
    start_at_the_beginning();
    check_ok(shipper_add_segment(shipper, &segment, &err));
    check_verdict(SHIPPER_SPOOL_LOST, "spool");
    assert_int_equal(view.store_state, STORE_OK); /* the store is not to blame */
}

/* Goes on in the generation behind our claim (0 = none), which is there. */
static void start_behind_claim(uint32_t term)
{
    const struct shipper_begin begin = {
        .generation = generation, .confirmed = {{1, 0}, {0, 0}}, .term = term};
    if (term > 0) {
        put_claim(term, TAG);
    }
    check_ok(shipper_start(shipper, &begin, &err));
}

/* The archive goes away; what is found when it is back decides, before anything is put. */
static void lose_the_archive(uint32_t next)
{
    move_archive("archive", "away");
    add_segment(next);
    wait_for(view_is_down, "a store that is down");
    assert_false(shipper_is_ready(shipper));
}

static void ship_one_then_lose_the_archive(uint32_t term)
{
    start_behind_claim(term);
    add_segment(1);
    drain();
    lose_the_archive(2);
}

static void test_shipper__goes_on_after_an_outage(void **state)
{
    (void)state;
    ship_one_then_lose_the_archive(0);
    move_archive("away", "archive");
    drain();
    assert_true(is_archived(2));
    assert_true(wal_point_equal(view.confirmed, point_at(2)));
    assert_int_equal(view.store_state, STORE_OK);
    assert_string_equal(view.store_error, "");
}

/* Prepares the archive beside its place, so that it comes back with all that was done to it. */
static void open_away(void)
{
    store_close(store);
    struct store_config away = config;
    (void)snprintf(away.dir, sizeof away.dir, "%s", scratch_path(&scratch, "away"));
    check_ok(store_open(&away, NULL, &store, &err));
    check_ok(store_prepare(store, true, &err));
}

static void come_back(void)
{
    store_close(store);
    check_ok(store_open(&config, NULL, &store, &err));
    move_archive("away", "archive");
}

static void test_shipper__another_generation_after_an_outage(void **state)
{
    (void)state;
    ship_one_then_lose_the_archive(0);
    open_away();
    put_birth("00000004-fedcba9876543210");
    come_back();
    check_verdict(SHIPPER_CONFLICT, "generations/00000004.json");
    assert_false(is_archived(2));
}

/* A file that a desktop leaves in each folder that it shows stops nobody. */
static void test_shipper__a_foreign_file_after_an_outage(void **state)
{
    (void)state;
    ship_one_then_lose_the_archive(5);
    open_away();
    check_ok(store_put_bytes(store, "generations/Thumbs.db", "x", 1, STORE_PUT_PLAIN, &err));
    check_ok(store_put_bytes(store, GENERATION "/leads/Thumbs.db", "x", 1, STORE_PUT_PLAIN, &err));
    come_back();
    drain();
    assert_true(is_archived(2));
}

static void test_shipper__another_claim_after_an_outage(void **state)
{
    (void)state;
    ship_one_then_lose_the_archive(5);
    open_away();
    put_claim(6, "0badcafe");
    come_back();
    check_verdict(SHIPPER_CONFLICT, "leads/0000000006.json");
    assert_false(is_archived(2));
}

static void test_shipper__a_store_that_lost_an_object(void **state)
{
    (void)state;
    char key[OBJECT_KEY_BYTES];
    ship_one_then_lose_the_archive(0);
    open_away();
    key_no(1, key);
    check_ok(store_remove(store, key, &err));
    come_back();
    check_verdict(SHIPPER_STORE_LOST, key);
    assert_false(is_archived(2));
}

static void remove_claim(uint32_t term)
{
    char key[OBJECT_KEY_BYTES];
    const struct object_key claim = {.kind = OBJECT_LEAD, .generation = generation, .term = term};
    object_key_format(&claim, key);
    check_ok(store_remove(store, key, &err));
}

/* Nothing of ours was confirmed but the birth: that it is gone shows all the same. */
static void test_shipper__a_store_that_comes_back_empty(void **state)
{
    (void)state;
    start_behind_claim(0);
    lose_the_archive(1);
    open_away();
    check_ok(store_remove(store, "generations/00000003.json", &err));
    come_back();
    check_verdict(SHIPPER_STORE_LOST, "generations/00000003.json");
    assert_false(is_archived(1));
}

/* The time of the next look passes, with nothing to do. */
static void rest_until_a_look_is_due(void)
{
    shipper_get_view(shipper, &view);
    uint64_t before = view.request_count;
    clk_pause_ms(LOOK_MS + 100);
    shipper_get_view(shipper, &view);
    assert_int_equal(view.request_count, before);
}

static bool view_has_looked(void)
{
    return view.request_count >= looked_at_count;
}

/* All is there: a look finds just that, with a listing of births and one of claims, and no more. */
static void test_shipper__a_look_finds_all_there(void **state)
{
    (void)state;
    start_behind_claim(5);
    put_birth("00000001-fedcba9876543210"); /* older ones are no news */
    put_claim(4, "0badcafe");
    add_segment(1);
    drain();
    rest_until_a_look_is_due();
    looked_at_count = view.request_count + 3;
    add_segment(2);
    drain();
    wait_for(view_has_looked, "a look");
    assert_int_equal(view.request_count, looked_at_count);
    assert_int_equal(view.verdict, SHIPPER_GOES_ON);
    rest_until_a_look_is_due(); /* nothing more is asked while nothing comes */
}

/* No call fails, and nothing of ours is there any more: the first segment after a rest shows it. */
static void test_shipper__a_birth_that_vanishes(void **state)
{
    (void)state;
    start_behind_claim(5);
    add_segment(1);
    drain();
    rest_until_a_look_is_due();
    check_ok(store_remove(store, "generations/00000003.json", &err));
    add_segment(2);
    check_verdict(SHIPPER_STORE_LOST, "generations/00000003.json");
    assert_int_equal(view.store_state, STORE_OK); /* it answers */
}

static void test_shipper__a_claim_that_vanishes(void **state)
{
    (void)state;
    start_behind_claim(5);
    put_claim(4, TAG);
    rest_until_a_look_is_due();
    remove_claim(5);
    add_segment(1);
    check_verdict(SHIPPER_STORE_LOST, "leads/0000000005.json");
}

static void test_shipper__begins_archived_or_not(void **state)
{
    (void)state;
    const struct shipper_begin begin = {.generation = generation,
                                        .confirmed = point_at(4),
                                        .has_snapshot = true,
                                        .snapshot = {1, 4},
                                        .oldest_ms = 700};
    struct shipper_begin ahead = begin;
    check_ok(shipper_start(shipper, &begin, &err));
    shipper_get_view(shipper, &view);
    assert_true(view.has_archived);
    assert_true(wal_point_equal(view.archived, point_at(4)));
    assert_int_equal(atomic_load(&shared.live->spooled_ms), 0);
    shipper_destroy(shipper);
    check_ok(shipper_create(&config, &spool, &shared, &shipper, &err));
    ahead.snapshot.frame_no = 5; /* the run does not reach the snapshot */
    check_ok(shipper_start(shipper, &ahead, &err));
    shipper_get_view(shipper, &view);
    assert_false(view.has_archived);
    assert_int_equal(atomic_load(&shared.live->spooled_ms), 700);
}

static void test_shipper__a_snapshot_of_another_generation(void **state)
{
    (void)state;
    struct generation_id other;
    assert_true(generation_id_parse("00000002-fedcba9876543210", &other, NULL));
    start_at_the_beginning();
    add_segment(1);
    drain();
    shipper_snapshot_complete(shipper, &other, (struct position){1, 0}, 42, 1);
    shipper_get_view(shipper, &view);
    assert_false(view.has_snapshot || view.has_archived);
}

/* An epoch without frames counts only when nothing waits; and no epoch goes back. */
static void test_shipper__idle_epochs(void **state)
{
    (void)state;
    char path[SCRATCH_PATH_BYTES];
    _Atomic uint64_t *archived = &shared.live->epoch_archived;
    obstacle(1, path);
    start_at_the_beginning();
    shipper_note_idle_epoch(shipper, 50);
    assert_int_equal(atomic_load(archived), 0); /* no snapshot */
    shipper_snapshot_complete(shipper, &generation, (struct position){1, 0}, 42, 1);
    assert_int_equal(atomic_load(archived), 50);
    add_segment(1);
    shipper_note_idle_epoch(shipper, 102);
    assert_int_equal(atomic_load(archived), 50);
    check_ok(fsio_remove_tree(path, &err));
    drain();
    assert_int_equal(atomic_load(archived), 102);
    shipper_note_idle_epoch(shipper, 60);
    assert_int_equal(atomic_load(archived), 102);
}

static void test_shipper__probe(void **state)
{
    (void)state;
    move_archive("archive", "away");
    start_at_the_beginning();
    check_ok(shipper_add_probe(shipper, &err));
    wait_for(view_is_failing, "a failing store");
    assert_int_equal(view.verdict, SHIPPER_GOES_ON);
    move_archive("away", "archive");
    wait_for(view_has_verdict, "an answer");
    assert_int_equal(view.verdict, SHIPPER_REACHED);
}

/* A drain ends with its time or with a stop, and what was not put stays for the next start. */
static void test_shipper__drain_that_ends_early(void **state)
{
    (void)state;
    char path[SCRATCH_PATH_BYTES];
    obstacle(1, path);
    start_at_the_beginning();
    add_segment(1);
    check_fails(RC_TIMEOUT, shipper_drain(shipper, &stop, 0, &err));
    stop_raise(&stop, STOP_NOW);
    check_fails(RC_STOPPED, shipper_drain(shipper, &stop, WAIT_MS, &err));
    shipper_stop(shipper);
    check_ok(shipper_housekeep(shipper, &err));
    assert_true(is_spooled(1));
}

/* Before the WAL is reset, what waits is synced. What failed once is tried again, not taken as done. */
static void test_shipper__sync_of_the_spool(void **state)
{
    (void)state;
    move_archive("archive", "away");
    start_at_the_beginning();
    check_ok(shipper_sync_spool(shipper, &err)); /* of nothing */
    add_segment(1);
    wait_for(view_is_down, "a store that is down"); /* so no lane looks at the spool */
    move_archive("spool", "spool-away");            /* a disk that cannot be reached for a moment */
    assert_int_equal(symlink("spool", scratch_path(&scratch, "spool")), 0);
    check_fails(RC_IO, shipper_sync_spool(shipper, &err));
    check_fails(RC_IO, shipper_sync_spool(shipper, &err));
    assert_int_equal(unlink(scratch_path(&scratch, "spool")), 0);
    move_archive("spool-away", "spool");
    add_segment(2);
    check_ok(shipper_sync_spool(shipper, &err));
    move_archive("away", "archive");
    drain();
    check_ok(shipper_sync_spool(shipper, &err));
}

/* A file that is gone is no reason to reset the WAL: its frames may be nowhere else. */
static void test_shipper__sync_of_a_file_that_is_gone(void **state)
{
    (void)state;
    char key[OBJECT_KEY_BYTES];
    move_archive("archive", "away");
    start_at_the_beginning();
    add_segment(1);
    wait_for(view_is_down, "a store that is down");
    key_no(1, key);
    check_ok(spool_remove(&spool, key, &err));
    check_fails(RC_NOT_FOUND, shipper_sync_spool(shipper, &err));
    check_verdict(SHIPPER_SPOOL_LOST, key);
}

/* A spooled file goes only when the state says that the archive has it: else the next start misses it. */
static void test_shipper__a_note_that_cannot_be_written(void **state)
{
    (void)state;
    int read_only = open(scratch_path(&scratch, "state"), O_RDONLY | O_CLOEXEC);
    assert_true(read_only >= 0);
    start_at_the_beginning();
    shipper_snapshot_complete(shipper, &generation, (struct position){1, 0}, 42, 1);
    assert_true(dup2(read_only, shared.fd) == shared.fd); /* from now on no record is written */
    assert_int_equal(close(read_only), 0);
    add_segment(1);
    drain();
    (void)!shipper_housekeep(shipper, &err); /* fails, unless a lane was quicker and did */
    shipper_stop(shipper);
    assert_true(is_archived(1));
    assert_true(is_spooled(1));
}

static void test_shipper__off(void **state)
{
    (void)state;
    shipper_destroy(shipper);
    config.off = true;
    check_ok(shipper_create(&config, &spool, &shared, &shipper, &err));
    start_at_the_beginning();
    shipper_get_view(shipper, &view);
    assert_int_equal(view.store_state, STORE_OFF);
    shipper_destroy(NULL); /* legal */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_shipper__confirms_and_archives),
        CASE(test_shipper__a_hole_holds_the_run_back),
        CASE(test_shipper__a_birth_is_a_barrier),
        CASE(test_shipper__no_segment_before_its_birth),
        CASE(test_shipper__no_birth_before_its_parents_end),
        CASE(test_shipper__a_birth_that_is_taken),
        CASE(test_shipper__a_birth_and_a_claim_that_are_ours),
        CASE(test_shipper__a_claim_that_is_taken),
        CASE(test_shipper__a_claim_of_our_tag_by_another),
        CASE(test_shipper__a_birth_of_our_id_by_another),
        CASE(test_shipper__a_spooled_file_is_gone),
        CASE(test_shipper__goes_on_after_an_outage),
        CASE(test_shipper__another_generation_after_an_outage),
        CASE(test_shipper__a_foreign_file_after_an_outage),
        CASE(test_shipper__another_claim_after_an_outage),
        CASE(test_shipper__a_store_that_lost_an_object),
        CASE(test_shipper__a_store_that_comes_back_empty),
        CASE(test_shipper__a_look_finds_all_there),
        CASE(test_shipper__a_birth_that_vanishes),
        CASE(test_shipper__a_claim_that_vanishes),
        CASE(test_shipper__begins_archived_or_not),
        CASE(test_shipper__a_snapshot_of_another_generation),
        CASE(test_shipper__idle_epochs),
        CASE(test_shipper__probe),
        CASE(test_shipper__drain_that_ends_early),
        CASE(test_shipper__sync_of_the_spool),
        CASE(test_shipper__sync_of_a_file_that_is_gone),
        CASE(test_shipper__a_note_that_cannot_be_written),
        CASE(test_shipper__off),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
