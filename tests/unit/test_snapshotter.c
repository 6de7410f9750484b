/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshotter: the real thread copies a real database into a directory archive, beside a real shipper
 * that says how far the run is confirmed. What lies in the archive is unpacked and opened.
 */
#include "replicator/snapshotter.h"

#include "tests/unit/checks.h"
#include "tests/unit/scratch.h"

#include "archive/codec.h"
#include "archive/snapshot_format.h"
#include "base/buf.h"
#include "base/clk.h"
#include "base/fsio.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS 30000
#define PAGE_BYTES 4096
#define GENERATION "00000003-9f2c41d7a6b0e355"

struct found {
    int parts;
    int completes;
    char part[OBJECT_KEY_BYTES];
    char complete[OBJECT_KEY_BYTES];
};

static struct scratch scratch;
static struct err err;
static struct store_config config;
static struct store *store;
static struct sidecar sidecar;
static struct spool spool;
static struct state shared;
static struct shipper *shipper;
static struct snapshotter *snapshotter;
static struct generation_id generation;
static struct found found;
static sqlite3 *db;

static void run(sqlite3 *handle, const char *sql)
{
    char *message = NULL;
    if (sqlite3_exec(handle, sql, NULL, NULL, &message) != SQLITE_OK) {
        fail_msg("%s: %s", sql, message);
    }
}

static uint32_t number(sqlite3 *handle, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_prepare_v2(handle, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    uint32_t value = (uint32_t)sqlite3_column_int64(statement, 0);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    return value;
}

static void make_snapshotter(void)
{
    check_ok(snapshotter_create(&config, &sidecar, shipper, &shared, &snapshotter, &err));
}

static int setup(void **state)
{
    (void)state;
    char path[SCRATCH_PATH_BYTES];
    scratch_init(&scratch);
    err = (struct err)ERR_INIT;
    (void)snprintf(path, sizeof path, "%s", scratch_path(&scratch, "state.db"));
    config = (struct store_config){.is_s3 = false};
    (void)snprintf(config.dir, sizeof config.dir, "%s", scratch_path(&scratch, "archive"));
    (void)snprintf(config.url, sizeof config.url, "dir:%.500s", config.dir);
    assert_true(generation_id_parse(GENERATION, &generation, NULL));
    check_ok(sidecar_init(&sidecar, path, &err));
    check_ok(fsio_make_dirs(sidecar.dir, &err));
    check_ok(store_open(&config, NULL, &store, &err));
    check_ok(store_prepare(store, true, &err));
    check_ok(spool_open(&spool, sidecar.spool, &err));
    check_ok(state_open(&shared, sidecar.state, &err));
    check_ok(shipper_create(&config, &spool, &shared, &shipper, &err));
    const struct shipper_begin begin = {.generation = generation, .confirmed = {{1, 0}, {0, 0}}};
    check_ok(shipper_start(shipper, &begin, &err));
    make_snapshotter();
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    run(db, "PRAGMA journal_mode=WAL; CREATE TABLE test (value)");
    run(db, "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
            "INSERT INTO test SELECT hex(randomblob(200)) FROM n");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    snapshotter_destroy(snapshotter);
    shipper_destroy(shipper);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    state_close(&shared);
    store_close(store);
    scratch_deinit(&scratch);
    return 0;
}

/* Begins one of the database as it is now, `more_pages` told too many. */
static void begin_at(uint32_t frame_no, uint32_t more_pages)
{
    sqlite3 *source = NULL;
    run(db, "DELETE FROM test WHERE value = 'not in it'");
    assert_int_equal(sqlite3_open(sidecar.database, &source), SQLITE_OK);
    run(source, "BEGIN");
    const struct snapshot_job job = {.generation = generation,
                                     .point = {{1, frame_no}, {frame_no, 77}},
                                     .page_size_bytes = PAGE_BYTES,
                                     .database_pages =
                                         number(source, "PRAGMA page_count") + more_pages,
                                     .unix_ms = INT64_C(1795543200000)};
    assert_int_equal(number(source, "SELECT count(*) FROM test"), 2000); /* a real read */
    run(db, "INSERT INTO test VALUES ('not in it')");
    check_ok(snapshotter_begin(snapshotter, source, &job, &err));
}

static bool is_idle(void)
{
    int64_t failed_ms;
    return !snapshotter_is_busy(snapshotter, &failed_ms);
}

static enum rc find_object(void *arg, const char *key, uint64_t bytes, struct err *at)
{
    struct found *into = arg;
    (void)bytes;
    (void)at;
    bool complete = strstr(key, "/complete.json") != NULL;
    (void)snprintf(complete ? into->complete : into->part, OBJECT_KEY_BYTES, "%s", key);
    into->completes += complete ? 1 : 0;
    into->parts += complete ? 0 : 1;
    return RC_OK;
}

static bool has_parts(void)
{
    char prefix[OBJECT_KEY_BYTES];
    object_key_snapshots_prefix(&generation, prefix);
    found = (struct found){0};
    check_ok(store_list(store, prefix, "", find_object, &found, &err));
    return found.parts > 0;
}

static void wait_for(bool (*is)(void), const char *what)
{
    int64_t deadline_ms = clk_monotonic_ms() + WAIT_MS;
    while (!is()) {
        if (clk_monotonic_ms() > deadline_ms) {
            fail_msg("this did not come: %s", what);
        }
        clk_pause_ms(1);
    }
}

/* Waits for its end, which must be a good one, and looks what the archive has. */
static void finish(void)
{
    int64_t failed_ms;
    wait_for(is_idle, "the end");
    assert_false(snapshotter_is_busy(snapshotter, &failed_ms));
    assert_int_equal(failed_ms, 0);
    assert_true(has_parts());
    assert_int_equal(found.completes, 1);
}

static enum rc append(void *arg, const uint8_t *bytes, size_t count, struct err *at)
{
    return buf_append(arg, bytes, count, at);
}

/* Unpacks the one part and opens it as a database. */
static void check_unpacked(void)
{
    struct codec_decoder *decoder = NULL;
    struct buf object;
    struct buf content;
    sqlite3 *copy = NULL;
    buf_init(&object, 16u << 20);
    buf_init(&content, 16u << 20);
    check_ok(store_get_buf(store, found.part, &object, &err));
    check_ok(codec_decoder_create(&decoder, &err));
    codec_decode_begin(decoder);
    check_ok(codec_decode_piece(decoder, object.data, object.size, append, &content, &err));
    check_ok(codec_decode_end(decoder, &err));
    const char *path = scratch_path(&scratch, "unpacked.db");
    check_ok(fsio_replace_file(path, content.data, content.size, false, &err));
    assert_int_equal(sqlite3_open(path, &copy), SQLITE_OK);
    assert_int_equal(number(copy, "SELECT count(*) FROM test"), 2000);
    assert_int_equal(number(copy, "SELECT count(*) FROM pragma_integrity_check "
                                  "WHERE integrity_check = 'ok'"),
                     1);
    assert_int_equal(sqlite3_close(copy), SQLITE_OK);
    codec_decoder_destroy(decoder);
    buf_deinit(&object);
    buf_deinit(&content);
}

static void check_manifest(uint32_t frame_no)
{
    struct snapshot_manifest manifest;
    struct buf json;
    buf_init(&json, SNAPSHOT_JSON_BYTES_MAX);
    snapshot_manifest_init(&manifest);
    check_ok(store_get_buf(store, found.complete, &json, &err));
    check_ok(snapshot_manifest_decode(json.data, json.size, &manifest, &err));
    assert_true(generation_id_equal(&manifest.generation, &generation));
    assert_int_equal(manifest.point.position.frame_no, frame_no);
    assert_int_equal(manifest.point.checksum.sum2, frame_no == 0 ? 0 : 77);
    assert_int_equal(manifest.unix_ms, INT64_C(1795543200000));
    assert_int_equal(manifest.part_count, 1);
    snapshot_manifest_deinit(&manifest);
    buf_deinit(&json);
}

/* A segment up to that frame, which has that checksum, is put and confirmed. */
static void confirm_frame(uint32_t frame_no, uint32_t sum2)
{
    struct stop stop;
    char key[OBJECT_KEY_BYTES];
    const struct shipper_segment segment = {.key = {.kind = OBJECT_SEGMENT,
                                                    .generation = generation,
                                                    .position = {1, frame_no},
                                                    .first_frame_no = 1,
                                                    .term = 1,
                                                    .unix_ms = INT64_C(1795543200000),
                                                    .tag = "5e1ec7ed"},
                                            .end = {{1, frame_no}, {frame_no, sum2}},
                                            .frames = frame_no,
                                            .page_size_bytes = PAGE_BYTES,
                                            .object_bytes = 1};
    object_key_format(&segment.key, key);
    check_ok(spool_write(&spool, key, "x", 1, &err));
    check_ok(shipper_add_segment(shipper, &segment, &err));
    stop_init(&stop);
    check_ok(shipper_drain(shipper, &stop, WAIT_MS, &err));
    stop_deinit(&stop);
}

static void confirm_up_to(uint32_t frame_no)
{
    confirm_frame(frame_no, 77);
}

static void test_snapshotter__holds_the_state_of_its_position(void **state)
{
    (void)state;
    struct shipper_view view;
    struct state_record record;
    confirm_up_to(7);
    begin_at(5, 0);
    finish();
    check_manifest(5);
    check_unpacked();
    shipper_get_view(shipper, &view);
    assert_true(view.has_snapshot && view.has_archived);
    assert_int_equal(view.snapshot.frame_no, 5);
    state_get(&shared, &record);
    assert_true(record.has_archived);
    assert_int_equal(record.snapshot.frame_no, 5);
    assert_false(snapshotter_holds_transaction(snapshotter));
    assert_int_equal(access(sidecar.snapshot, F_OK), -1); /* nothing is left behind */
    assert_int_equal(number(db, "PRAGMA wal_checkpoint(TRUNCATE)"), 0);
}

/* complete.json comes only when the run covers it; a stop keeps what is packed, and it is resumed. */
static void test_snapshotter__waits_for_the_run_and_resumes(void **state)
{
    (void)state;
    struct shipper_view view;
    bool resumed;
    begin_at(5, 0);
    wait_for(has_parts, "its part");
    confirm_up_to(3);
    confirm_up_to(4);
    assert_false(is_idle());
    snapshotter_destroy(snapshotter);
    assert_true(has_parts());
    assert_int_equal(found.completes, 0);
    shipper_get_view(shipper, &view);
    assert_false(view.has_snapshot);
    make_snapshotter();
    confirm_up_to(5);
    check_ok(snapshotter_resume(snapshotter, &generation, &resumed, &err));
    assert_true(resumed);
    finish();
    assert_int_equal(found.parts, 1); /* the same one, not a second */
    check_manifest(5);
    check_unpacked();
}

/* Packs one that waits for the run, and stops. */
static void leave_one_packed(void)
{
    begin_at(5, 0);
    wait_for(has_parts, "its part");
    snapshotter_destroy(snapshotter);
    make_snapshotter();
    assert_int_equal(access(sidecar.snapshot, F_OK), 0);
}

static void check_not_resumed(const struct generation_id *of)
{
    bool resumed = true;
    check_ok(snapshotter_resume(snapshotter, of, &resumed, &err));
    assert_false(resumed);
    assert_int_equal(access(sidecar.snapshot, F_OK), -1);
    assert_true(is_idle());
}

static void test_snapshotter__resumes_no_other_generation(void **state)
{
    (void)state;
    struct generation_id other;
    assert_true(generation_id_parse("00000004-fedcba9876543210", &other, NULL));
    check_not_resumed(&generation); /* there is none at all */
    leave_one_packed();
    check_not_resumed(&other);
}

static void test_snapshotter__resumes_nothing_without_a_generation(void **state)
{
    (void)state;
    leave_one_packed();
    check_not_resumed(&(struct generation_id){""});
}

static void test_snapshotter__resumes_nothing_that_is_cut_short(void **state)
{
    (void)state;
    char path[FSIO_PATH_BYTES];
    struct fsio_stat stat;
    leave_one_packed();
    check_ok(fsio_join(path, sizeof path, sidecar.snapshot, found.part, &err));
    check_ok(fsio_stat(path, &stat, &err));
    assert_int_equal(truncate(path, (off_t)stat.size_bytes - 1), 0);
    check_not_resumed(&generation);
}

/* Packs one and takes its complete.json away; the path is where it was. */
static void leave_one_half_packed(char path[FSIO_PATH_BYTES])
{
    char part[FSIO_PATH_BYTES];
    char dir[FSIO_PATH_BYTES];
    leave_one_packed();
    check_ok(fsio_join(part, sizeof part, sidecar.snapshot, found.part, &err));
    check_ok(fsio_dirname(part, dir, sizeof dir, &err));
    check_ok(fsio_join(path, FSIO_PATH_BYTES, dir, "complete.json", &err));
    assert_int_equal(unlink(path), 0);
}

/* Killed while packing: no complete.json beside the parts. */
static void test_snapshotter__resumes_nothing_half_packed(void **state)
{
    (void)state;
    char path[FSIO_PATH_BYTES];
    leave_one_half_packed(path);
    check_not_resumed(&generation);
}

/* Nothing that lies where complete.json should be, or the folder, stops a start; it is cleared away. */
static void make_file(const char *path, off_t size_bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size_bytes), 0);
    assert_int_equal(close(fd), 0);
}

static void test_snapshotter__resumes_nothing_too_long_to_be_read(void **state)
{
    (void)state;
    char path[FSIO_PATH_BYTES];
    leave_one_half_packed(path);
    make_file(path, (off_t)SNAPSHOT_JSON_BYTES_MAX + 1);
    check_not_resumed(&generation);
}

static void test_snapshotter__resumes_nothing_from_a_pipe(void **state)
{
    (void)state;
    char path[FSIO_PATH_BYTES];
    leave_one_half_packed(path);
    assert_int_equal(mkfifo(path, 0644), 0); /* opened, it would wait for ever */
    check_not_resumed(&generation);
}

static void test_snapshotter__resumes_nothing_where_the_folder_is_a_file(void **state)
{
    (void)state;
    make_file(sidecar.snapshot, 1);
    check_not_resumed(&generation);
}

/* The power failed, and other frames were written under the numbers of those that were lost. */
static void test_snapshotter__completes_none_of_another_history(void **state)
{
    (void)state;
    bool resumed;
    int64_t failed_ms;
    leave_one_packed();
    confirm_frame(5, 78);
    check_ok(snapshotter_resume(snapshotter, &generation, &resumed, &err));
    wait_for(is_idle, "the end");
    (void)has_parts();
    assert_int_equal(found.completes, 0);
    assert_false(snapshotter_is_busy(snapshotter, &failed_ms));
    assert_int_not_equal(failed_ms, 0);
    assert_int_equal(access(sidecar.snapshot, F_OK), -1);
}

static void test_snapshotter__abandoned(void **state)
{
    (void)state;
    begin_at(5, 0);
    snapshotter_abandon(snapshotter);
    assert_true(is_idle());
    assert_int_equal(access(sidecar.snapshot, F_OK), -1);
    assert_false(snapshotter_holds_transaction(snapshotter));
    confirm_up_to(5);
    (void)has_parts();
    assert_int_equal(found.completes, 0);
    begin_at(5, 0); /* and the next one is as good as the first */
    finish();
    check_manifest(5);
}

/* The copy is not as large as the leader said: no snapshot of such a thing. */
static void test_snapshotter__a_copy_of_another_size(void **state)
{
    (void)state;
    int64_t failed_ms;
    begin_at(0, 1);
    wait_for(is_idle, "the end");
    assert_false(snapshotter_is_busy(snapshotter, &failed_ms));
    assert_int_not_equal(failed_ms, 0);
    assert_non_null(strstr(snapshotter_failure(snapshotter), "the copy has"));
    assert_false(has_parts());
    assert_int_equal(found.completes, 0);
    assert_false(snapshotter_holds_transaction(snapshotter));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_snapshotter__holds_the_state_of_its_position),
        CASE(test_snapshotter__waits_for_the_run_and_resumes),
        CASE(test_snapshotter__resumes_no_other_generation),
        CASE(test_snapshotter__resumes_nothing_without_a_generation),
        CASE(test_snapshotter__resumes_nothing_that_is_cut_short),
        CASE(test_snapshotter__resumes_nothing_half_packed),
        CASE(test_snapshotter__resumes_nothing_too_long_to_be_read),
        CASE(test_snapshotter__resumes_nothing_from_a_pipe),
        CASE(test_snapshotter__resumes_nothing_where_the_folder_is_a_file),
        CASE(test_snapshotter__completes_none_of_another_history),
        CASE(test_snapshotter__abandoned),
        CASE(test_snapshotter__a_copy_of_another_size),
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
