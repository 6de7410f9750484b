/* SPDX-License-Identifier: Apache-2.0 */
/*
 * object_key: names of the objects in the archive, written and read. The same names are used in the
 * spool and in a directory archive.
 *
 *   generations/<number>.json
 *   <generation>/snapshots/<wal_no>-<frame_no>-<8 hex>/part-<n>.db.zst
 *   <generation>/snapshots/<wal_no>-<frame_no>-<8 hex>/complete.json
 *   <generation>/wal/<wal_no>/<first>-<last>-<unix_ms>-<term>-<8 hex>.wal.zst
 *   <generation>/leads/<term>.json
 *
 * number: 8 digits. wal_no, frames, terms, parts: 10 digits. unix_ms: 13 digits. So names sort.
 * Anything else below a generation (also compact/) is OBJECT_OTHER: readers pass over it.
 *
 * Thread: any (pure functions).
 */
#ifndef HARVEY_ARCHIVE_OBJECT_KEY_H
#define HARVEY_ARCHIVE_OBJECT_KEY_H

#include "archive/position.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define OBJECT_KEY_BYTES 192 /* the longest name and its NUL */
#define OBJECT_TAG_BYTES 9   /* 8 hex digits and NUL: a lead's or a snapshot's random mark */

enum object_kind {
    OBJECT_OTHER,
    OBJECT_GENERATION,
    OBJECT_SNAPSHOT_PART,
    OBJECT_SNAPSHOT_COMPLETE,
    OBJECT_SEGMENT,
    OBJECT_LEAD,
};

struct object_key {
    enum object_kind kind;
    uint32_t generation_number;      /* OBJECT_GENERATION (1..) */
    struct generation_id generation; /* all other kinds */
    struct position position;        /* snapshots: its position; segments: (wal_no, last) */
    uint32_t first_frame_no;         /* segments */
    uint32_t part_no;                /* snapshot parts, from 1 */
    uint32_t term;                   /* segments, leads, from 1 */
    int64_t unix_ms;                 /* segments: time of the last capture pass in it */
    char tag[OBJECT_TAG_BYTES];      /* segments: the lead's; snapshots: its own */
};

/* Writes the name. The fields of its kind must be in range (asserted). */
void object_key_format(const struct object_key *key, char text[OBJECT_KEY_BYTES]);

/* False, and kind = OBJECT_OTHER, when `text` is no name of ours. Accepts only what format writes. */
bool object_key_parse(const char *text, struct object_key *key);

/* The folders, each with a trailing slash, for listing. */
void object_key_generations_prefix(char text[OBJECT_KEY_BYTES]);
void object_key_snapshots_prefix(const struct generation_id *id, char text[OBJECT_KEY_BYTES]);
void object_key_wal_prefix(const struct generation_id *id, char text[OBJECT_KEY_BYTES]);
void object_key_leads_prefix(const struct generation_id *id, char text[OBJECT_KEY_BYTES]);

#endif
