/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lead_scene: a lead on a real database in WAL mode that another connection, the app's, writes, with real lanes to a
 * directory archive. Nothing happens at the loop's pace: a test calls the lead's steps in the order that it wants,
 * and what others do in between, too. On top of start_scene.
 */
#ifndef HARVEY_TESTS_UNIT_LEAD_SCENE_H
#define HARVEY_TESTS_UNIT_LEAD_SCENE_H

#include "tests/unit/start_scene.h"

#include "replicator/lead_internal.h"

#define LEAD_SCENE_WAIT_MS 30000

/* Rows of the start table. */
#define LEAD_SCENE_FIRST_START 4
#define LEAD_SCENE_UNREACHABLE 11
#define LEAD_SCENE_CONTINUES 15

/* Of 4000 bytes: more than the 4 MiB past which a checkpoint is made, and the 16 past which the WAL begins anew. */
#define LEAD_SCENE_ROWS_OF_A_CHECKPOINT 2000
#define LEAD_SCENE_ROWS_OF_A_FREEZE 5000

extern struct lead *lead; /* NULL before the first begin, and after die */
extern sqlite3 *app;      /* never checkpoints, as rule 1 of the architecture wants it */
extern struct replicator_status lead_scene_published;

void lead_scene_set_up(void);
void lead_scene_tear_down(void);

/* A start as the replicator makes it, by this row, to the point where the database may be served. */
void lead_scene_begin_capturing(int row, enum lead_capture capture);

void lead_scene_begin(int row);    /* capturing */
void lead_scene_begin_first(void); /* over nothing; and the app has made its table */

void lead_scene_connect_app(void);

/* What was only gathered goes, as in a kill. */
void lead_scene_die(void);

/* `rows` of `bytes` each, in one transaction of the app's. */
void lead_scene_insert(int rows, int bytes);
void lead_scene_insert_one(void);
void lead_scene_insert_and_ship(int rows, int bytes);

struct wal_index_header lead_scene_wal_now(void);

/* The one that the next pass takes. */
struct lead_reader *lead_scene_other_reader(void);

/* Once, when that connection of the lead's begins (at) or has run (after) a statement that starts so. */
void lead_scene_at(sqlite3 *db, const char *statement, void (*act)(void));
void lead_scene_after(sqlite3 *db, const char *statement, void (*act)(void));
bool lead_scene_has_acted(void);

/* A stranger's checkpoint: the whole WAL is in the database file afterwards, and the mark allowed it. */
void lead_scene_backfill(void);

/* A stranger in a read transaction at the WAL's end: it lets a checkpoint copy all, and no reset happen. */
void lead_scene_begin_reading(void);
void lead_scene_end_reading(void);

/* As after an outage: with frame 1 of the WAL that is there. */
void lead_scene_begin_another_generation(void);

/* lead_maintain until a freeze got through: a PASSIVE checkpoint and its pauses come before. */
void lead_scene_maintain_until_reset(void);

/* Until nothing waits in the spool. */
void lead_scene_ship(void);

#endif
