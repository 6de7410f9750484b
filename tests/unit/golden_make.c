/* SPDX-License-Identifier: Apache-2.0 */
/*
 * golden_make: see golden_make.h. A whole small archive: a database of SQLite's own with two commits
 * captured as two segments, a snapshot between them, birth and claim; beside it a marker, and bad
 * objects that differ from good ones in one thing each.
 */
#include "tests/unit/golden_make.h"

#include "archive/codec.h"
#include "archive/history_format.h"
#include "archive/segment.h"
#include "archive/snapshot_format.h"
#include "archive/wal_format.h"
#include "base/bytes.h"
#include "base/fsio.h"
#include "tests/unit/scratch.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 512u
#define FRAME_BYTES (PAGE_BYTES + WAL_FRAME_HEADER_BYTES)
#define LEAD_TAG "5e1ec7ed"
#define SNAPSHOT_TAG "0badcafe"
#define HEADER_AT 8u /* of a WAL object's header, behind the skippable frame's head */

/* A maker that fails says where and ends: nobody waits for it. */
#define MUST(call) ASSERT((call) == 0)

static struct err err;

struct golden_source {
    struct scratch scratch;
    struct buf wal;      /* the -wal file after both commits */
    struct buf snapshot; /* the database after the first */
    uint32_t frames_first;
    uint32_t frames_all;
};

static void golden_put(const char *name, const void *bytes, size_t count)
{
    char path[FSIO_PATH_BYTES];
    char dir[FSIO_PATH_BYTES];
    MUST(fsio_join(path, sizeof path, GOLDEN_DIR, name, &err));
    MUST(fsio_dirname(path, dir, sizeof dir, &err));
    MUST(fsio_make_dirs(dir, &err));
    MUST(fsio_replace_file(path, bytes, count, false, &err));
}

static uint32_t golden_frame_count(sqlite3 *db)
{
    int frames = 0;
    int done = 0;
    /* A reader on an older state keeps this checkpoint from being whole, so no reset follows. */
    (void)sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, &frames, &done);
    ASSERT(frames > 0);
    return (uint32_t)frames;
}

static void golden_copy(sqlite3 *db, const char *path)
{
    sqlite3 *copy = NULL;
    MUST(sqlite3_open(path, &copy));
    sqlite3_backup *backup = sqlite3_backup_init(copy, "main", db, "main");
    ASSERT(backup != NULL);
    ASSERT(sqlite3_backup_step(backup, -1) == SQLITE_DONE);
    MUST(sqlite3_backup_finish(backup));
    MUST(sqlite3_close(copy));
}

static void golden_source_make(struct golden_source *source)
{
    sqlite3 *db = NULL;
    sqlite3 *reader = NULL;
    scratch_init(&source->scratch);
    buf_init(&source->wal, 1u << 20);
    buf_init(&source->snapshot, 1u << 20);
    const char *path = scratch_path(&source->scratch, "a.db");
    const char *copy = scratch_path(&source->scratch, "copy.db");
    MUST(sqlite3_open(path, &db));
    MUST(sqlite3_exec(db,
                      "PRAGMA page_size=512; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;",
                      NULL, NULL, NULL));
    MUST(sqlite3_open(path, &reader));
    MUST(sqlite3_exec(reader, "BEGIN; SELECT * FROM sqlite_schema", NULL, NULL, NULL));
    MUST(sqlite3_exec(db,
                      "BEGIN; CREATE TABLE state(id INTEGER PRIMARY KEY, value TEXT NOT NULL);"
                      "INSERT INTO state VALUES(1,'first'),(2,printf('%.600c','x')); COMMIT",
                      NULL, NULL, NULL));
    source->frames_first = golden_frame_count(db);
    golden_copy(db, copy);
    MUST(sqlite3_exec(db, "INSERT INTO state VALUES(3,'last'),(4,printf('%.600c','y'))", NULL, NULL,
                      NULL));
    source->frames_all = golden_frame_count(db);
    MUST(fsio_read_file(scratch_path(&source->scratch, "a.db-wal"), &source->wal, &err));
    MUST(fsio_read_file(copy, &source->snapshot, &err));
    MUST(sqlite3_close(reader));
    MUST(sqlite3_close(db));
}

static struct wal_checksum golden_checksum(const struct golden_source *source, uint32_t frame_no)
{
    const uint8_t *at = frame_no == 0
                            ? source->wal.data + 24
                            : source->wal.data + wal_frame_offset(PAGE_BYTES, frame_no) + 16;
    return (struct wal_checksum){bytes_get_u32(at), bytes_get_u32(at + 4)};
}

static void golden_segment(const struct golden_source *source, uint32_t first, uint32_t last,
                           struct buf *object)
{
    struct wal_header wal;
    struct object_key key;
    char name[OBJECT_KEY_BYTES];
    struct segment_writer *writer = NULL;
    struct segment_header *header = calloc(1, sizeof *header);
    ASSERT(header != NULL);
    MUST(wal_header_decode(source->wal.data, &wal, &err));
    size_t from = first == 1 ? 0 : (size_t)wal_frame_offset(PAGE_BYTES, first);
    size_t to = (size_t)wal_frame_offset(PAGE_BYTES, last + 1);
    ASSERT(generation_id_parse(GOLDEN_ID, &header->generation, NULL));
    memcpy(header->lead_tag, LEAD_TAG, OBJECT_TAG_BYTES);
    header->flags = first == 1 ? (uint32_t)SEGMENT_FIRST : 0;
    header->page_size_bytes = PAGE_BYTES;
    header->term = 2;
    header->wal_no = 1;
    header->first_frame_no = first;
    header->last_frame_no = last;
    header->commit_pages = bytes_get_u32(source->wal.data + to - FRAME_BYTES + 4);
    header->big_endian_checksums = wal.big_endian_checksums;
    header->salts = wal.salts;
    header->before = golden_checksum(source, first - 1);
    header->after = golden_checksum(source, last);
    if (first > 1) {
        header->link = (struct wal_point){{1, first - 1}, header->before};
        header->archived = header->link;
    }
    header->time_count = 1;
    header->times[0] = (struct segment_time){last, GOLDEN_UNIX_MS + last};
    MUST(segment_writer_create(3, &writer, &err));
    buf_clear(object);
    MUST(segment_write(writer, header, source->wal.data + from, to - from, object, &err));
    segment_key(header, &key);
    object_key_format(&key, name);
    golden_put(name, object->data, object->size);
    segment_writer_destroy(writer);
    free(header);
}

static void golden_snapshot(const struct golden_source *source, struct buf *json)
{
    struct snapshot_manifest manifest;
    struct snapshot_part part = {.content_bytes = source->snapshot.size};
    struct codec_encoder *encoder = NULL;
    struct buf object;
    char name[OBJECT_KEY_BYTES];
    buf_init(&object, 1u << 20);
    snapshot_manifest_init(&manifest);
    MUST(codec_encoder_create(3, &encoder, &err));
    MUST(codec_encode(encoder, source->snapshot.data, source->snapshot.size, &object, &err));
    part.object_bytes = object.size;
    MUST(hash_sha256(object.data, object.size, part.object_sha256, &err));
    ASSERT(generation_id_parse(GOLDEN_ID, &manifest.generation, NULL));
    memcpy(manifest.tag, SNAPSHOT_TAG, OBJECT_TAG_BYTES);
    manifest.point = (struct wal_point){{1, source->frames_first},
                                        golden_checksum(source, source->frames_first)};
    manifest.page_size_bytes = PAGE_BYTES;
    manifest.database_pages = (uint32_t)(source->snapshot.size / PAGE_BYTES);
    manifest.unix_ms = GOLDEN_UNIX_MS + source->frames_first;
    manifest.completed_unix_ms = manifest.unix_ms + 5;
    MUST(snapshot_manifest_add(&manifest, &part, &err));
    snapshot_part_key(&manifest, 1, name);
    golden_put(name, object.data, object.size);
    MUST(snapshot_manifest_encode(&manifest, json, &err));
    snapshot_complete_key(&manifest, name);
    golden_put(name, json->data, json->size);
    snapshot_manifest_deinit(&manifest);
    codec_encoder_destroy(encoder);
    buf_deinit(&object);
}

static void golden_birth(struct buf *json)
{
    struct generation_birth birth = {
        .has_parent = true,
        .parent = {"00000002-0123456789abcdef"},
        .parent_point = {{4, 17}, {0x01020304, 0xf0e0d0c0}},
        .supersedes_count = 1,
        .supersedes = {{"00000001-0000000000000001"}},
        .cause = CAUSE_RESTORED,
        .cause_detail = "a golden object",
        .page_size_bytes = PAGE_BYTES,
        .window = 8,
        .host = "golden",
        .harvey_version = "0.1.0",
        .sqlite_version = "3.40.1",
        .unix_ms = GOLDEN_UNIX_MS,
    };
    ASSERT(generation_id_parse(GOLDEN_ID, &birth.id, NULL));
    MUST(generation_birth_encode(&birth, json, &err));
    golden_put("generations/00000003.json", json->data, json->size);
}

static void golden_claim(struct buf *json)
{
    struct lead_claim claim = {
        .generation = {GOLDEN_ID},
        .term = 2,
        .tag = LEAD_TAG,
        .start = {{1, 0}, {0, 0}},
        .host = "golden",
        .boot_id = "4a6b1c1e-0000-4000-8000-00000000cafe",
        .pid = 1,
        .unix_ms = GOLDEN_UNIX_MS,
    };
    MUST(lead_claim_encode(&claim, json, &err));
    golden_put(GOLDEN_ID "/leads/0000000002.json", json->data, json->size);
}

static void golden_marker(const struct golden_source *source, struct buf *json)
{
    struct wal_point end = {{1, source->frames_all}, golden_checksum(source, source->frames_all)};
    struct restored_marker marker = {
        .archive = "s3://state/app",
        .generation = {GOLDEN_ID},
        .point = end,
        .newest_generation = {GOLDEN_ID},
        .newest_end = end,
        .newest_term = 2,
        .inode = UINT64_MAX,
        .size_bytes = 4096,
        .mtime_ns = GOLDEN_UNIX_MS * 1000000,
        .unix_ms = GOLDEN_UNIX_MS,
    };
    MUST(restored_marker_encode(&marker, json, &err));
    golden_put("restored.json", json->data, json->size);
}

/* A copy of a JSON text with one piece replaced. */
static void golden_bad_json(const char *name, const struct buf *good, const char *from,
                            const char *to)
{
    char text[4096];
    char changed[4096];
    (void)snprintf(text, sizeof text, "%.*s", (int)good->size, (const char *)good->data);
    const char *at = strstr(text, from);
    ASSERT(at != NULL);
    int n = snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, to,
                     at + strlen(from));
    golden_put(name, changed, (size_t)n);
}

static void golden_bad_segments(struct buf *object)
{
    uint8_t *header = object->data + HEADER_AT;
    size_t hashed_bytes = bytes_get_u32_le(object->data + 4) - HASH_SHA256_BYTES;
    golden_put("bad/segment-corrupt-cut_off", object->data, object->size - 1);
    golden_put("bad/segment-corrupt-cut_in_header", object->data, HEADER_AT + hashed_bytes);
    object->data[object->size / 2 + 100] ^= 1;
    golden_put("bad/segment-corrupt-flipped_content", object->data, object->size);
    object->data[object->size / 2 + 100] ^= 1;
    header[55] ^= 1;
    golden_put("bad/segment-corrupt-flipped_header", object->data, object->size);
    MUST(hash_sha256(header, hashed_bytes, header + hashed_bytes, &err));
    golden_put("bad/segment-corrupt-wrong_range", object->data, object->size);
    header[55] ^= 1;
    bytes_put_u32(header + 8, 2);
    MUST(hash_sha256(header, hashed_bytes, header + hashed_bytes, &err));
    golden_put("bad/segment-corrupt-newer_version", object->data, object->size);
}

void golden_make(void)
{
    struct golden_source source;
    struct buf object;
    struct buf json;
    buf_init(&object, 1u << 20);
    buf_init(&json, 1u << 20);
    golden_source_make(&source);
    golden_segment(&source, source.frames_first + 1, source.frames_all, &object);
    golden_segment(&source, 1, source.frames_first, &object);
    golden_bad_segments(&object);
    golden_snapshot(&source, &json);
    golden_bad_json("bad/manifest-corrupt-sizes_do_not_add_up", &json,
                    "\"pages\": ", "\"pages\": 1");
    golden_bad_json("bad/manifest-corrupt-short_hash", &json, "\"sha256\": \"", "\"sha256\": \"0");
    buf_clear(&json);
    golden_birth(&json);
    golden_bad_json("bad/birth-corrupt-newer_version", &json, "\"format\": 1", "\"format\": 2");
    golden_bad_json("bad/birth-corrupt-unknown_cause", &json, "restored", "rested");
    golden_bad_json("bad/birth-corrupt-key_twice", &json, "\"window\"",
                    "\"window\": 8, \"window\"");
    buf_clear(&json);
    golden_claim(&json);
    golden_bad_json("bad/claim-corrupt-term_zero", &json, "\"term\": 2", "\"term\": 0");
    golden_bad_json("bad/claim-corrupt-not_closed", &json, "\n}", "");
    buf_clear(&json);
    golden_marker(&source, &json);
    golden_bad_json("bad/marker-corrupt-no_point", &json, "\"point\"", "\"pint\"");
    buf_deinit(&json);
    buf_deinit(&object);
    buf_deinit(&source.wal);
    buf_deinit(&source.snapshot);
    scratch_deinit(&source.scratch);
}
