/* SPDX-License-Identifier: Apache-2.0 */
/* lead_scene: see lead_scene.h. */
#include "tests/unit/lead_scene.h"

#include "tests/unit/checks.h"

#include "base/clk.h"

#include <stdio.h>

struct lead *lead;
sqlite3 *app;
struct replicator_status lead_scene_published;

static struct stop stop;
static struct lead_context context;
static sqlite3 *reader;

/* What happens in between, once. */
static struct {
    const char *statement;
    void (*act)(void);
} moment;

static void publish(void *arg, const struct replicator_status *status,
                    const struct state_wal_map *map)
{
    (void)arg;
    (void)map;
    lead_scene_published = *status;
}

void lead_scene_set_up(void)
{
    struct err err = ERR_INIT;
    start_scene_set_up();
    scene.config.snapshot_interval_s = 3600;
    scene.config.spool_bytes_max = 1 << 30;
    scene.config.synchronous_normal = true;
    check_ok(store_prepare(scene.store, true, &err));
    stop_init(&stop);
    context = (struct lead_context){.config = &scene.config,
                                    .sidecar = &scene.sidecar,
                                    .spool = &scene.spool,
                                    .state = &scene.shared,
                                    .stop = &stop,
                                    .publish = publish};
    lead = NULL;
    app = NULL;
    reader = NULL;
    moment.act = NULL;
}

void lead_scene_tear_down(void)
{
    lead_destroy(lead);
    (void)sqlite3_close(reader);
    (void)sqlite3_close(app);
    stop_deinit(&stop);
    start_scene_tear_down();
}

void lead_scene_begin_capturing(int row, enum lead_capture capture)
{
    struct err err = ERR_INIT;
    start_scene_decide(START_SERVE, row, "");
    lead = lead_create(&context, &scene.plan);
    assert_non_null(lead);
    check_ok(lead_begin(lead, &err));
    assert_int_equal(lead->capture, capture);
}

void lead_scene_begin(int row)
{
    lead_scene_begin_capturing(row, CAPTURE_ON);
}

void lead_scene_die(void)
{
    lead_destroy(lead);
    lead = NULL;
}

static int sql(const char *text)
{
    return sqlite3_exec(app, text, NULL, NULL, NULL);
}

void lead_scene_connect_app(void)
{
    assert_int_equal(sqlite3_open(scene.sidecar.database, &app), SQLITE_OK);
    assert_int_equal(
        sql("PRAGMA wal_autocheckpoint=0; CREATE TABLE IF NOT EXISTS test (value BLOB)"),
        SQLITE_OK);
}

void lead_scene_begin_first(void)
{
    lead_scene_begin(LEAD_SCENE_FIRST_START);
    lead_scene_connect_app();
}

void lead_scene_insert(int rows, int bytes)
{
    char text[256];
    (void)snprintf(text, sizeof text,
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
                   "INSERT INTO test SELECT zeroblob(%d) FROM n",
                   rows, bytes);
    assert_int_equal(sql(text), SQLITE_OK);
}

struct wal_index_header lead_scene_wal_now(void)
{
    struct err err = ERR_INIT;
    struct wal_index_header header;
    check_ok(wal_index_read(&lead->connections.index, &header, &err));
    return header;
}

void lead_scene_backfill(void)
{
    int log_frames = 0;
    int done_frames = -1;
    assert_int_equal(sqlite3_wal_checkpoint_v2(app, "main", SQLITE_CHECKPOINT_PASSIVE, &log_frames,
                                               &done_frames),
                     SQLITE_OK);
    assert_int_equal(log_frames, done_frames);
    assert_int_equal(wal_index_backfilled(&lead->connections.index), lead_scene_wal_now().mx_frame);
}

static int moment_comes(unsigned type, void *arg, void *statement, void *text)
{
    (void)type;
    (void)arg;
    (void)statement;
    if (moment.act != NULL && strncmp(text, moment.statement, strlen(moment.statement)) == 0) {
        void (*act)(void) = moment.act;
        moment.act = NULL;
        act();
    }
    return 0;
}

void lead_scene_at(sqlite3 *db, const char *statement, void (*act)(void))
{
    moment.statement = statement;
    moment.act = act;
    assert_int_equal(sqlite3_trace_v2(db, SQLITE_TRACE_STMT, moment_comes, NULL), SQLITE_OK);
}

static int moment_ends(unsigned type, void *arg, void *statement, void *took_ns)
{
    (void)took_ns;
    return moment_comes(type, arg, statement, (void *)(uintptr_t)sqlite3_sql(statement));
}

void lead_scene_after(sqlite3 *db, const char *statement, void (*act)(void))
{
    moment.statement = statement;
    moment.act = act;
    assert_int_equal(sqlite3_trace_v2(db, SQLITE_TRACE_PROFILE, moment_ends, NULL), SQLITE_OK);
}

bool lead_scene_has_acted(void)
{
    return moment.act == NULL;
}

struct lead_reader *lead_scene_other_reader(void)
{
    return &lead->connections.readers[1 - lead->connections.current];
}

void lead_scene_begin_reading(void)
{
    assert_int_equal(sqlite3_open(scene.sidecar.database, &reader), SQLITE_OK);
    assert_int_equal(sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM test;", NULL, NULL, NULL),
                     SQLITE_OK);
}

void lead_scene_end_reading(void)
{
    assert_int_equal(sqlite3_exec(reader, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
}

void lead_scene_insert_one(void)
{
    lead_scene_insert(1, 10);
}

void lead_scene_begin_another_generation(void)
{
    struct err err = ERR_INIT;
    struct wal_point parent_point = lead->segmenter.link;
    struct generation_id parent = lead->generation;
    struct wal_index_header header = lead_scene_wal_now();
    check_ok(lead_cut(lead, &err));
    check_ok(
        lead_begin_generation(lead, CAUSE_OUTAGE, "a test", &parent, &parent_point, &header, &err));
}

void lead_scene_maintain_until_reset(void)
{
    struct err err = ERR_INIT;
    int64_t until = clk_monotonic_ms() + LEAD_SCENE_WAIT_MS;
    while (lead->wal_resets == 0 && clk_monotonic_ms() < until) {
        check_ok(lead_maintain(lead, &err));
        clk_pause_ms(5);
    }
    assert_int_equal(lead->wal_resets, 1);
}

void lead_scene_ship(void)
{
    struct shipper_view view;
    int64_t until = clk_monotonic_ms() + LEAD_SCENE_WAIT_MS;
    do {
        clk_pause_ms(2);
        shipper_get_view(lead->shipper, &view);
    } while (view.spool_segments > 0 && clk_monotonic_ms() < until);
    assert_int_equal(view.spool_segments, 0);
}

void lead_scene_insert_and_ship(int rows, int bytes)
{
    struct err err = ERR_INIT;
    lead_scene_insert(rows, bytes);
    check_ok(lead_pass(lead, &err));
    check_ok(lead_cut(lead, &err));
    lead_scene_ship();
}
