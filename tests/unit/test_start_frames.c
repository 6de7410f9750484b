/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start: the rows of the start table that hang on frames. Real segments lie in a directory archive and in
 * the spool, a real -wal beside the database (any bytes), and the plan must be that of the row.
 */
#include "replicator/start.h"

#include "tests/unit/checks.h"
#include "tests/unit/sample_wal.h"
#include "tests/unit/start_scene.h"

#include "archive/snapshot_format.h"
#include "base/buf.h"
#include "base/fsio.h"
#include "replicator/start_look.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FRAMES 6
#define TAG "5e1ec7ed"

/* Commit frames are 2, 4 and 6. */
static const struct sample_frame sample_frames[FRAMES] = {{1, 0}, {2, 2}, {3, 0},
                                                          {1, 3}, {4, 0}, {2, 4}};

static struct err err;
static struct generation_id generation;
static struct sample_wal wal;
static struct sample_wal other_wal; /* other salts, other frames */
static struct segment_header *header;
static struct wal_point header_archived; /* as the segments that are laid say it */

/* The generation with a complete snapshot at (1, 0). */
static void put_generation(void)
{
    struct buf json;
    struct generation_birth birth = {.id = generation,
                                     .cause = CAUSE_FIRST_START,
                                     .page_size_bytes = 512,
                                     .window = SHIP_WINDOW,
                                     .host = "host",
                                     .harvey_version = "0",
                                     .sqlite_version = "3.40.1",
                                     .unix_ms = SAMPLE_UNIX_MS};
    const struct object_key birth_key = {.kind = OBJECT_GENERATION,
                                         .generation_number = generation_id_number(&generation)};
    const struct object_key snapshot_key = {.kind = OBJECT_SNAPSHOT_COMPLETE,
                                            .generation = generation,
                                            .position = {1, 0},
                                            .tag = "0badcafe"};
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    check_ok(generation_birth_encode(&birth, &json, &err));
    start_scene_put(&birth_key, json.data, json.size);
    start_scene_put(&snapshot_key, "{}", 2);
    buf_deinit(&json);
}

/* Frames first..last of WAL 1, as `term` cut them, into the archive or the spool. */
static void lay(bool into_spool, const struct sample_wal *from, uint32_t term, uint32_t first,
                uint32_t last)
{
    struct segment_writer *writer = NULL;
    struct object_key name;
    struct buf object;
    char key[OBJECT_KEY_BYTES];
    size_t count;
    const uint8_t *content = sample_wal_content(from, first, last, &count);
    sample_header(from, 1, first, last, header);
    header->term = term;
    header->archived = header_archived;
    buf_init(&object, SEGMENT_OBJECT_BYTES_MAX);
    check_ok(segment_writer_create(1, &writer, &err));
    check_ok(segment_write(writer, header, content, count, &object, &err));
    segment_key(header, &name);
    object_key_format(&name, key);
    if (into_spool) {
        check_ok(spool_write(&scene.spool, key, object.data, object.size, &err));
    } else {
        check_ok(
            store_put_bytes(scene.store, key, object.data, object.size, STORE_PUT_PLAIN, &err));
    }
    segment_writer_destroy(writer);
    buf_deinit(&object);
}

static struct wal_point point_at(uint32_t frame_no)
{
    return (struct wal_point){{1, frame_no}, sample_wal_checksum(&wal, frame_no)};
}

static void write_wal(uint32_t frames, bool spoil_last)
{
    size_t frame_bytes = wal.page_size_bytes + WAL_FRAME_HEADER_BYTES;
    size_t count = WAL_HEADER_BYTES + frames * frame_bytes;
    wal.bytes[count - frame_bytes + 23] ^= spoil_last ? 1 : 0; /* in the frame's checksum */
    check_ok(fsio_replace_file(scene.sidecar.wal, wal.bytes, count, false, &err));
    wal.bytes[count - frame_bytes + 23] ^= spoil_last ? 1 : 0;
}

/* The state of this database: the generation is ours, confirmed and captured up to a frame. */
static void note_ours(uint32_t frame_no)
{
    struct state_record record;
    state_edit_begin(&scene.shared, &record);
    (void)snprintf(record.archive, sizeof record.archive, "%s", scene.config.store.url);
    record.replicated = true;
    record.generation = generation;
    record.generation_number_highest = generation_id_number(&generation);
    record.confirmed = point_at(frame_no);
    record.captured = record.confirmed;
    record.confirmed_salts = record.captured_salts = wal.salts;
    check_ok(start_identify(scene.sidecar.database, &record.database, &err));
    check_ok(state_edit_end(&scene.shared, &record, &err));
}

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    start_scene_set_up();
    check_ok(fsio_replace_file(scene.sidecar.database, "any bytes", 9, false, &err));
    assert_true(generation_id_parse(SAMPLE_GENERATION, &generation, NULL));
    sample_wal_init(&wal, 512, false, 1, sample_frames, FRAMES);
    sample_wal_init(&other_wal, 512, false, 2, sample_frames, FRAMES);
    header_archived = (struct wal_point){{0, 0}, {0, 0}};
    header = malloc(sizeof *header);
    assert_non_null(header);
    put_generation();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(header);
    sample_wal_deinit(&wal);
    sample_wal_deinit(&other_wal);
    start_scene_tear_down();
    return 0;
}

/*
 * The complete snapshot is lost. Where a segment says that something was archived, the archive was full, and
 * nothing begins over it unasked; where none does, a first start may have died in its first snapshot.
 */
static void test_start_frames__row_5_the_snapshot_is_lost(void **state)
{
    (void)state;
    const struct object_key key = {.kind = OBJECT_SNAPSHOT_COMPLETE,
                                   .generation = generation,
                                   .position = {1, 0},
                                   .tag = "0badcafe"};
    char text[OBJECT_KEY_BYTES];
    object_key_format(&key, text);
    check_ok(store_remove(scene.store, text, &err));
    assert_int_equal(unlink(scene.sidecar.database), 0);
    lay(false, &wal, 1, 1, 2);
    start_scene_decide(START_SERVE, 4, "first start");
    header_archived = point_at(2);
    lay(false, &wal, 1, 3, 4);
    header_archived = (struct wal_point){{0, 0}, {0, 0}};
    lay(false, &wal, 1, 5, 6); /* a later lead's, before it knew */
    start_scene_decide(START_WAIT_FOR_RESTORE, 5, "HARVEY_ON_EMPTY=new:" SAMPLE_GENERATION);
    check_ok(fsio_replace_file(scene.sidecar.database, "any bytes", 9, false, &err));
    start_scene_decide(START_WAIT, 10, "HARVEY_ON_STALE=fork:" SAMPLE_GENERATION);
}

/* The archive goes further than what this database knows: unless the frames are in its -wal. */
static void test_start_frames__row_12_unknown_frames(void **state)
{
    (void)state;
    lay(false, &wal, 1, 1, 2);
    lay(false, &wal, 1, 3, 4);
    write_wal(2, false);
    note_ours(2);
    start_scene_decide(START_WAIT, 12, "not in this database's history");
    write_wal(4, true); /* the same salts, the right length, another frame */
    start_scene_decide(START_WAIT, 12, "not in this database's history");
    write_wal(6, false);
    start_scene_decide(START_SERVE, 15, "continuing");
    assert_true(wal_point_equal(scene.plan.end, point_at(4)));
}

/* Two leads of one generation that went on differently: nobody says which of them is the latest. */
static void test_start_frames__row_12_two_histories(void **state)
{
    (void)state;
    lay(false, &wal, 1, 1, 2);
    lay(false, &wal, 1, 3, 4);
    write_wal(6, false);
    note_ours(4);
    start_scene_decide(START_SERVE, 15, "continuing");
    lay(false, &other_wal, 2, 3, 6);
    start_scene_decide(START_WAIT, 12, "two histories");
}

/* The spool goes on from the archive's last frame, and that frame is another one. */
static void test_start_frames__row_12_other_frames_in_the_spool(void **state)
{
    (void)state;
    lay(false, &wal, 1, 1, 2);
    lay(false, &wal, 1, 3, 4);
    write_wal(6, false);
    note_ours(4);
    lay(true, &other_wal, 1, 5, 6);
    start_scene_decide(START_WAIT, 12, "other frames than the spool");
}

static bool is_spooled(uint32_t first, uint32_t last)
{
    char key[OBJECT_KEY_BYTES];
    char path[FSIO_PATH_BYTES];
    struct object_key name;
    sample_header(&wal, 1, first, last, header);
    header->term = 1;
    segment_key(header, &name);
    object_key_format(&name, key);
    check_ok(spool_path(&scene.spool, key, path, &err));
    return access(path, F_OK) == 0;
}

/*
 * Another host went on in this generation, further than we: our frames lie under numbers that the archive
 * has too. Where the start waits they stay, for nothing else holds them.
 */
static void test_start_frames__row_12_keeps_what_the_archive_has_by_number(void **state)
{
    (void)state;
    lay(false, &wal, 1, 1, 2);
    lay(false, &wal, 1, 3, 6);
    lay(true, &wal, 1, 1, 2);
    lay(true, &wal, 1, 3, 4);
    note_ours(2);
    start_scene_decide(START_WAIT, 12, "not in this database's history");
    assert_true(is_spooled(1, 2) && is_spooled(3, 4));
    write_wal(6, false); /* the -wal that was missing is put back */
    start_scene_decide(START_SERVE, 15, "continuing");
    assert_false(is_spooled(1, 2) || is_spooled(3, 4));
}

/* The chain's last frames were in a -wal that is gone, and nobody has written the file since. */
static void test_start_frames__row_12_the_wal_is_gone(void **state)
{
    (void)state;
    lay(false, &wal, 1, 1, 4);
    note_ours(4);
    start_scene_decide(START_WAIT, 12, "gone");
    write_wal(4, true);
    start_scene_decide(START_WAIT, 12, "gone");
    write_wal(4, false);
    start_scene_decide(START_SERVE, 15, "continuing");
}

/* A checkpoint that everybody saw had copied the WAL up to `frame`, the server idle; then the WAL went. */
static void note_backfilled(uint32_t frame)
{
    struct state_record record;
    state_edit_begin(&scene.shared, &record);
    record.backfilled = frame;
    check_ok(state_edit_end(&scene.shared, &record, &err));
}

/* Noted as wholly in the file, the WAL may be reset by the next commit while nobody leads: nothing is lost. */
static void test_start_frames__row_15_the_noted_checkpoint_had_it_all(void **state)
{
    (void)state;
    lay(false, &wal, 1, 1, 4);
    note_ours(4);
    note_backfilled(3);
    start_scene_decide(START_WAIT, 12, "gone");
    note_backfilled(4);
    start_scene_decide(START_SERVE, 15, "continuing");
    check_ok(fsio_replace_file(scene.sidecar.wal, other_wal.bytes, WAL_HEADER_BYTES, false, &err));
    start_scene_decide(START_SERVE, 15, "continuing");
}

/* What was copied is of another WAL than the chain's end: it says nothing about that. */
static void test_start_frames__row_12_another_wal_was_in_the_file(void **state)
{
    (void)state;
    struct state_record record;
    lay(false, &wal, 1, 1, 4);
    note_ours(4);
    note_backfilled(4);
    state_edit_begin(&scene.shared, &record);
    record.captured_salts = other_wal.salts;
    record.captured = point_at(2);
    check_ok(state_edit_end(&scene.shared, &record, &err));
    start_scene_decide(START_WAIT, 12, "gone");
}

/* What the archive has is not shipped again, what it lacks is. */
static void test_start_frames__row_15_ships_what_is_spooled(void **state)
{
    (void)state;
    lay(false, &wal, 1, 1, 2);
    lay(true, &wal, 1, 1, 2);
    lay(true, &wal, 1, 3, 4);
    write_wal(6, false);
    note_ours(2);
    start_scene_decide(START_SERVE, 15, "continuing");
    assert_int_equal(scene.plan.spool_count, 1);
    assert_int_equal(scene.plan.spool[0].end.position.frame_no, 4);
    assert_true(wal_point_equal(scene.plan.end, point_at(4)));
    assert_true(wal_point_equal(scene.plan.begin.confirmed, point_at(2)));
}

/* A restore saw the archive's end at frame 2; with frame 4 there, somebody has gone on. */
static void test_start_frames__row_7_the_end_has_moved(void **state)
{
    (void)state;
    struct buf json;
    struct file_identity identity;
    check_ok(start_identify(scene.sidecar.database, &identity, &err));
    struct restored_marker marker = {.generation = generation,
                                     .point = point_at(2),
                                     .newest_generation = generation,
                                     .newest_end = point_at(2),
                                     .inode = identity.inode,
                                     .size_bytes = identity.size_bytes,
                                     .mtime_ns = identity.mtime_ns,
                                     .unix_ms = SAMPLE_UNIX_MS};
    (void)snprintf(marker.archive, sizeof marker.archive, "%s", scene.config.store.url);
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    check_ok(restored_marker_encode(&marker, &json, &err));
    check_ok(fsio_replace_file(scene.sidecar.restored, json.data, json.size, false, &err));
    buf_deinit(&json);
    lay(false, &wal, 1, 1, 2);
    start_scene_decide(START_SERVE, 6, "restored position");
    lay(false, &wal, 1, 3, 4);
    start_scene_decide(START_WAIT, 7, "has moved since");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_start_frames__row_5_the_snapshot_is_lost),
        CASE(test_start_frames__row_7_the_end_has_moved),
        CASE(test_start_frames__row_12_unknown_frames),
        CASE(test_start_frames__row_12_two_histories),
        CASE(test_start_frames__row_12_other_frames_in_the_spool),
        CASE(test_start_frames__row_12_keeps_what_the_archive_has_by_number),
        CASE(test_start_frames__row_12_the_wal_is_gone),
        CASE(test_start_frames__row_15_the_noted_checkpoint_had_it_all),
        CASE(test_start_frames__row_12_another_wal_was_in_the_file),
        CASE(test_start_frames__row_15_ships_what_is_spooled),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
