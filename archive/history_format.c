/* SPDX-License-Identifier: Apache-2.0 */
/*
 * history_format: see history_format.h. Format: docs/archive-format.md, "Births, claims, markers".
 *
 * Each encoder reads its own text back by the reader's rules before it answers: what a reader would
 * refuse cannot reach an archive.
 */
#include "archive/history_format.h"

#include "archive/json_fields.h"
#include "archive/wal_format.h"
#include "base/bytes.h"
#include "base/fsio.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WINDOW_MAX 65536
#define PID_MAX INT32_MAX
#define TAG_RANDOM_BYTES 4
#define U64_DIGITS_MAX 20
#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"

static const char *const cause_names[] = {
    [CAUSE_FIRST_START] = "first_start",
    [CAUSE_ADOPTED] = "adopted",
    [CAUSE_RESTORED] = "restored",
    [CAUSE_FORK] = "fork",
    [CAUSE_LOST_CONTINUITY] = "lost_continuity",
    [CAUSE_STORE_LOST] = "store_lost",
    [CAUSE_OUTAGE] = "outage",
    [CAUSE_BAD_FRAME] = "bad_frame",
};
#define CAUSE_COUNT (sizeof cause_names / sizeof cause_names[0])

const char *generation_cause_name(enum generation_cause cause)
{
    ASSERT((size_t)cause < CAUSE_COUNT);
    return cause_names[cause];
}

/* The end of each encoder: a text that did not pass its own reader is taken back: RC_INVALID. */
static enum rc history_seal(enum rc read_back, struct buf *json, size_t start, struct err *err)
{
    if (read_back == RC_OK) {
        return RC_OK;
    }
    json->size = start;
    enum rc rc = read_back == RC_CORRUPT ? RC_INVALID : read_back;
    if (err != NULL) {
        err->rc = rc;
    }
    return rc;
}

/* ---- births ---- */

static json_t *birth_supersedes_to_json(const struct generation_birth *birth)
{
    json_t *array = json_array();
    for (uint32_t i = 0; array != NULL && i < birth->supersedes_count; i++) {
        if (json_array_append_new(array, json_string(birth->supersedes[i].text)) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

enum rc generation_birth_encode(const struct generation_birth *birth, struct buf *json,
                                struct err *err)
{
    ASSERT(birth->supersedes_count <= HISTORY_SUPERSEDES_MAX);
    size_t start = json->size;
    json_t *parent = birth->has_parent ? json_string(birth->parent.text) : json_null();
    json_t *point = birth->has_parent ? json_fields_new_point(&birth->parent_point) : json_null();
    json_t *root = json_pack(
        "{s:i, s:s, s:o, s:o, s:o, s:s, s:o, s:I, s:I, s:o, s:o, s:o, s:I}", "format", 1,
        "generation", birth->id.text, "parent", parent, "parent_point", point, "supersedes",
        birth_supersedes_to_json(birth), "cause", generation_cause_name(birth->cause),
        "cause_detail", json_fields_new_text(birth->cause_detail), "page_size",
        (json_int_t)birth->page_size_bytes, "window", (json_int_t)birth->window, "host",
        json_fields_new_text(birth->host), "harvey_version",
        json_fields_new_text(birth->harvey_version), "sqlite_version",
        json_fields_new_text(birth->sqlite_version), "unix_ms", (json_int_t)birth->unix_ms);
    enum rc rc = json_fields_write(root, json, err);
    if (rc != RC_OK) {
        return rc;
    }
    struct generation_birth again;
    rc = generation_birth_decode(json->data + start, json->size - start, &again, err);
    return history_seal(rc, json, start, err);
}

static void birth_read_parent(struct json_fields *fields, struct generation_birth *birth)
{
    bool no_parent = json_fields_is_null(fields, "parent");
    bool no_point = json_fields_is_null(fields, "parent_point");
    if (no_parent != no_point) {
        json_fields_fail(fields, "parent", "and parent_point do not go together");
    }
    if (no_parent) {
        return;
    }
    birth->has_parent = true;
    json_fields_generation(fields, "parent", &birth->parent);
    json_fields_point(fields, "parent_point", &birth->parent_point);
    if (fields->rc == RC_OK &&
        generation_id_number(&birth->parent) >= generation_id_number(&birth->id)) {
        json_fields_fail(fields, "parent", "has no lower number");
    }
}

static void birth_read_supersedes(struct json_fields *fields, struct generation_birth *birth)
{
    json_t *array = json_fields_array(fields, "supersedes", 0, HISTORY_SUPERSEDES_MAX);
    size_t count = json_array_size(array); /* 0 for NULL */
    for (size_t i = 0; i < count && fields->rc == RC_OK; i++) {
        const char *text = json_string_value(json_array_get(array, i));
        struct generation_id *id = &birth->supersedes[i];
        if (text == NULL || !generation_id_parse(text, id, NULL)) {
            json_fields_fail(fields, "supersedes", "holds something else than generation ids");
        } else if (generation_id_equal(id, &birth->id)) {
            json_fields_fail(fields, "supersedes", "names the generation itself");
        }
    }
    birth->supersedes_count = (uint32_t)count;
}

static void birth_read_cause(struct json_fields *fields, struct generation_birth *birth)
{
    char name[32];
    json_fields_text(fields, "cause", name, sizeof name);
    for (size_t i = 0; i < CAUSE_COUNT; i++) {
        if (strcmp(name, cause_names[i]) == 0) {
            birth->cause = (enum generation_cause)i;
            return;
        }
    }
    json_fields_fail(fields, "cause", "is none that this program knows");
}

static uint32_t history_read_page_size(struct json_fields *fields)
{
    int64_t value = json_fields_int(fields, "page_size", WAL_PAGE_BYTES_MIN, WAL_PAGE_BYTES_MAX);
    if (fields->rc == RC_OK && !wal_page_size_is_valid((uint32_t)value)) {
        json_fields_fail(fields, "page_size", "is no power of two");
    }
    return (uint32_t)value;
}

enum rc generation_birth_decode(const uint8_t *json, size_t count, struct generation_birth *birth,
                                struct err *err)
{
    struct json_fields fields;
    memset(birth, 0, sizeof *birth);
    if (json_fields_open(&fields, json, count, HISTORY_JSON_BYTES_MAX, "a birth", err) == RC_OK) {
        json_fields_generation(&fields, "generation", &birth->id);
        birth_read_parent(&fields, birth);
        birth_read_supersedes(&fields, birth);
        birth_read_cause(&fields, birth);
        json_fields_text(&fields, "cause_detail", birth->cause_detail, HISTORY_TEXT_BYTES);
        birth->page_size_bytes = history_read_page_size(&fields);
        birth->window = (uint32_t)json_fields_int(&fields, "window", 1, WINDOW_MAX);
        json_fields_text(&fields, "host", birth->host, HISTORY_TEXT_BYTES);
        json_fields_text(&fields, "harvey_version", birth->harvey_version, HISTORY_TEXT_BYTES);
        json_fields_text(&fields, "sqlite_version", birth->sqlite_version, HISTORY_TEXT_BYTES);
        birth->unix_ms = json_fields_int(&fields, "unix_ms", 0, JSON_FIELDS_UNIX_MS_MAX);
    }
    json_fields_close(&fields);
    return fields.rc;
}

bool generation_birth_names(const struct generation_birth *birth, const struct generation_id *id)
{
    bool names = birth->has_parent && generation_id_equal(&birth->parent, id);
    for (uint32_t i = 0; !names && i < birth->supersedes_count; i++) {
        names = generation_id_equal(&birth->supersedes[i], id);
    }
    return names;
}

/* ---- claims ---- */

enum rc lead_claim_encode(const struct lead_claim *claim, struct buf *json, struct err *err)
{
    size_t start = json->size;
    json_t *root = json_pack("{s:i, s:s, s:I, s:s, s:o, s:o, s:o, s:I, s:I}", "format", 1,
                             "generation", claim->generation.text, "term", (json_int_t)claim->term,
                             "tag", claim->tag, "start", json_fields_new_point(&claim->start),
                             "host", json_fields_new_text(claim->host), "boot_id",
                             json_fields_new_text(claim->boot_id), "pid", (json_int_t)claim->pid,
                             "unix_ms", (json_int_t)claim->unix_ms);
    enum rc rc = json_fields_write(root, json, err);
    if (rc != RC_OK) {
        return rc;
    }
    struct lead_claim again;
    rc = lead_claim_decode(json->data + start, json->size - start, &again, err);
    return history_seal(rc, json, start, err);
}

enum rc lead_claim_decode(const uint8_t *json, size_t count, struct lead_claim *claim,
                          struct err *err)
{
    struct json_fields fields;
    uint8_t random[TAG_RANDOM_BYTES];
    memset(claim, 0, sizeof *claim);
    if (json_fields_open(&fields, json, count, HISTORY_JSON_BYTES_MAX, "a claim", err) == RC_OK) {
        json_fields_generation(&fields, "generation", &claim->generation);
        claim->term = (uint32_t)json_fields_int(&fields, "term", 1, UINT32_MAX);
        json_fields_hex(&fields, "tag", random, sizeof random);
        bytes_to_hex(random, sizeof random, claim->tag);
        json_fields_point(&fields, "start", &claim->start);
        json_fields_text(&fields, "host", claim->host, HISTORY_TEXT_BYTES);
        json_fields_text(&fields, "boot_id", claim->boot_id, HISTORY_TEXT_BYTES);
        claim->pid = json_fields_int(&fields, "pid", 0, PID_MAX);
        claim->unix_ms = json_fields_int(&fields, "unix_ms", 0, JSON_FIELDS_UNIX_MS_MAX);
    }
    json_fields_close(&fields);
    return fields.rc;
}

/* ---- markers ---- */

enum rc restored_marker_encode(const struct restored_marker *marker, struct buf *json,
                               struct err *err)
{
    size_t start = json->size;
    char inode[U64_DIGITS_MAX + 1];
    (void)snprintf(inode, sizeof inode, "%" PRIu64, marker->inode);
    bool has_end = marker->newest_end.position.wal_no != 0;
    json_t *end = has_end ? json_fields_new_point(&marker->newest_end) : json_null();
    json_t *root = json_pack(
        "{s:i, s:o, s:s, s:o, s:s, s:o, s:I, s:s, s:I, s:I, s:I}", "format", 1, "archive",
        json_fields_new_text(marker->archive), "generation", marker->generation.text, "point",
        json_fields_new_point(&marker->point), "newest_generation", marker->newest_generation.text,
        "newest_end", end, "newest_term", (json_int_t)marker->newest_term, "inode", inode,
        "size_bytes", (json_int_t)marker->size_bytes, "mtime_ns", (json_int_t)marker->mtime_ns,
        "unix_ms", (json_int_t)marker->unix_ms);
    enum rc rc = json_fields_write(root, json, err);
    if (rc != RC_OK) {
        return rc;
    }
    struct restored_marker again;
    rc = restored_marker_decode(json->data + start, json->size - start, &again, err);
    return history_seal(rc, json, start, err);
}

static uint64_t history_read_inode(struct json_fields *fields)
{
    char digits[U64_DIGITS_MAX + 1];
    uint64_t inode = 0;
    json_fields_text(fields, "inode", digits, sizeof digits);
    if (fields->rc == RC_OK && !bytes_from_decimal(digits, strlen(digits), &inode)) {
        json_fields_fail(fields, "inode", "is no decimal number");
    }
    return inode;
}

enum rc restored_marker_decode(const uint8_t *json, size_t count, struct restored_marker *marker,
                               struct err *err)
{
    struct json_fields fields;
    memset(marker, 0, sizeof *marker);
    if (json_fields_open(&fields, json, count, HISTORY_JSON_BYTES_MAX, "restored.json", err) ==
        RC_OK) {
        json_fields_text(&fields, "archive", marker->archive, sizeof marker->archive);
        json_fields_generation(&fields, "generation", &marker->generation);
        json_fields_point(&fields, "point", &marker->point);
        json_fields_generation(&fields, "newest_generation", &marker->newest_generation);
        if (!json_fields_is_null(&fields, "newest_end")) {
            json_fields_point(&fields, "newest_end", &marker->newest_end);
        }
        marker->newest_term = (uint32_t)json_fields_int(&fields, "newest_term", 0, UINT32_MAX);
        marker->inode = history_read_inode(&fields);
        marker->size_bytes = (uint64_t)json_fields_int(&fields, "size_bytes", 0, INT64_MAX);
        marker->mtime_ns = json_fields_int(&fields, "mtime_ns", INT64_MIN, INT64_MAX);
        marker->unix_ms = json_fields_int(&fields, "unix_ms", 0, JSON_FIELDS_UNIX_MS_MAX);
    }
    json_fields_close(&fields);
    return fields.rc;
}

/* ---- this machine ---- */

void history_host(char host[HISTORY_TEXT_BYTES])
{
    if (gethostname(host, HISTORY_TEXT_BYTES) != 0) {
        (void)snprintf(host, HISTORY_TEXT_BYTES, "unknown");
    }
    host[HISTORY_TEXT_BYTES - 1] = '\0'; /* gethostname(2) leaves a longer name without one */
}

void history_boot_id(char boot_id[HISTORY_TEXT_BYTES])
{
    struct buf text;
    buf_init(&text, HISTORY_TEXT_BYTES);
    (void)snprintf(boot_id, HISTORY_TEXT_BYTES, "unknown");
    if (fsio_read_file(BOOT_ID_PATH, &text, NULL) == RC_OK && text.size > 1) {
        size_t count = text.size - 1; /* without the line end */
        count = count < HISTORY_TEXT_BYTES - 1 ? count : HISTORY_TEXT_BYTES - 1;
        memcpy(boot_id, text.data, count);
        boot_id[count] = '\0';
    }
    buf_deinit(&text);
}
