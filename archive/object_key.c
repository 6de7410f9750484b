/* SPDX-License-Identifier: Apache-2.0 */
/* object_key: see object_key.h. Format: docs/archive-format.md, "Keys". */
#include "archive/object_key.h"

#include "base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NUMBER_DIGITS 8
#define U32_DIGITS 10
#define UNIX_MS_DIGITS 13
#define UNIX_MS_MAX INT64_C(9999999999999)
#define TAG_RANDOM_BYTES 4
#define ID_CHARS (GENERATION_ID_BYTES - 1)

_Static_assert(OBJECT_TAG_BYTES == 2 * TAG_RANDOM_BYTES + 1, "tag and its NUL");

static void key_print(char text[OBJECT_KEY_BYTES], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void key_print(char text[OBJECT_KEY_BYTES], const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, OBJECT_KEY_BYTES, format, args);
    va_end(args);
    ASSERT(n > 0);
    ASSERT(n < OBJECT_KEY_BYTES);
}

static void key_assert_tag(const char tag[OBJECT_TAG_BYTES])
{
    uint8_t random[TAG_RANDOM_BYTES];
    ASSERT(bytes_from_hex(tag, TAG_RANDOM_BYTES, random));
    ASSERT(tag[OBJECT_TAG_BYTES - 1] == '\0');
}

/* Frame 0 exists only as (1, 0): the state before the first frame of a generation. */
static bool key_position_is_valid(struct position position)
{
    return position.wal_no >= 1 && (position.frame_no >= 1 || position.wal_no == 1);
}

static void key_format_snapshot(const struct object_key *key, char text[OBJECT_KEY_BYTES])
{
    char file[32] = "complete.json";
    ASSERT(key_position_is_valid(key->position));
    key_assert_tag(key->tag);
    if (key->kind == OBJECT_SNAPSHOT_PART) {
        ASSERT(key->part_no >= 1);
        (void)snprintf(file, sizeof file, "part-%010u.db.zst", key->part_no);
    }
    key_print(text, "%s/snapshots/%010u-%010u-%s/%s", key->generation.text, key->position.wal_no,
              key->position.frame_no, key->tag, file);
}

static void key_format_segment(const struct object_key *key, char text[OBJECT_KEY_BYTES])
{
    ASSERT(key->position.wal_no >= 1);
    ASSERT(key->first_frame_no >= 1);
    ASSERT(key->position.frame_no >= key->first_frame_no);
    ASSERT(key->term >= 1);
    ASSERT(key->unix_ms >= 0);
    ASSERT(key->unix_ms <= UNIX_MS_MAX);
    key_assert_tag(key->tag);
    key_print(text, "%s/wal/%010u/%010u-%010u-%013lld-%010u-%s.wal.zst", key->generation.text,
              key->position.wal_no, key->first_frame_no, key->position.frame_no,
              (long long)key->unix_ms, key->term, key->tag);
}

void object_key_format(const struct object_key *key, char text[OBJECT_KEY_BYTES])
{
    struct generation_id id;
    ASSERT(key->kind == OBJECT_GENERATION || generation_id_parse(key->generation.text, &id, NULL));
    switch (key->kind) {
    case OBJECT_GENERATION:
        ASSERT(key->generation_number >= 1);
        ASSERT(key->generation_number <= GENERATION_NUMBER_MAX);
        key_print(text, "generations/%08u.json", key->generation_number);
        return;
    case OBJECT_SNAPSHOT_PART:
    case OBJECT_SNAPSHOT_COMPLETE:
        key_format_snapshot(key, text);
        return;
    case OBJECT_SEGMENT:
        key_format_segment(key, text);
        return;
    case OBJECT_LEAD:
        ASSERT(key->term >= 1);
        key_print(text, "%s/leads/%010u.json", key->generation.text, key->term);
        return;
    case OBJECT_OTHER:
        break;
    }
    ASSERT(key->kind != OBJECT_OTHER);
}

/*
 * The readers below take a piece from the front of *rest. They look at one character after the
 * other, so a NUL ends them: nothing behind it is touched.
 */
static bool key_take(const char **rest, const char *literal)
{
    size_t count = strlen(literal);
    if (strncmp(*rest, literal, count) != 0) {
        return false;
    }
    *rest += count;
    return true;
}

static bool key_take_number(const char **rest, size_t digits, uint64_t value_max, uint64_t *value)
{
    if (!bytes_from_decimal(*rest, digits, value) || *value > value_max) {
        return false;
    }
    *rest += digits;
    return true;
}

static bool key_take_u32(const char **rest, uint32_t value_min, uint32_t *value)
{
    uint64_t wide = 0;
    if (!key_take_number(rest, U32_DIGITS, UINT32_MAX, &wide) || wide < value_min) {
        return false;
    }
    *value = (uint32_t)wide;
    return true;
}

static bool key_take_tag(const char **rest, char tag[OBJECT_TAG_BYTES])
{
    uint8_t random[TAG_RANDOM_BYTES];
    if (!bytes_from_hex(*rest, TAG_RANDOM_BYTES, random)) {
        return false;
    }
    memcpy(tag, *rest, OBJECT_TAG_BYTES - 1);
    tag[OBJECT_TAG_BYTES - 1] = '\0';
    *rest += OBJECT_TAG_BYTES - 1;
    return true;
}

static bool key_take_generation(const char **rest, struct generation_id *id)
{
    char text[GENERATION_ID_BYTES];
    size_t count = strnlen(*rest, ID_CHARS);
    memcpy(text, *rest, count);
    text[count] = '\0';
    if (!generation_id_parse(text, id, NULL)) {
        return false;
    }
    *rest += count;
    return true;
}

static bool key_parse_birth(const char *rest, struct object_key *key)
{
    uint64_t number = 0;
    if (!key_take_number(&rest, NUMBER_DIGITS, GENERATION_NUMBER_MAX, &number) || number < 1 ||
        strcmp(rest, ".json") != 0) {
        return false;
    }
    key->generation_number = (uint32_t)number;
    key->kind = OBJECT_GENERATION;
    return true;
}

static bool key_parse_snapshot(const char *rest, struct object_key *key)
{
    if (!key_take_u32(&rest, 1, &key->position.wal_no) || !key_take(&rest, "-") ||
        !key_take_u32(&rest, 0, &key->position.frame_no) || !key_position_is_valid(key->position) ||
        !key_take(&rest, "-") || !key_take_tag(&rest, key->tag) || !key_take(&rest, "/")) {
        return false;
    }
    if (strcmp(rest, "complete.json") == 0) {
        key->kind = OBJECT_SNAPSHOT_COMPLETE;
        return true;
    }
    if (!key_take(&rest, "part-") || !key_take_u32(&rest, 1, &key->part_no) ||
        strcmp(rest, ".db.zst") != 0) {
        return false;
    }
    key->kind = OBJECT_SNAPSHOT_PART;
    return true;
}

static bool key_parse_segment(const char *rest, struct object_key *key)
{
    uint64_t unix_ms = 0;
    if (!key_take_u32(&rest, 1, &key->position.wal_no) || !key_take(&rest, "/") ||
        !key_take_u32(&rest, 1, &key->first_frame_no) || !key_take(&rest, "-") ||
        !key_take_u32(&rest, key->first_frame_no, &key->position.frame_no) ||
        !key_take(&rest, "-") || !key_take_number(&rest, UNIX_MS_DIGITS, UINT64_MAX, &unix_ms) ||
        !key_take(&rest, "-") || !key_take_u32(&rest, 1, &key->term) || !key_take(&rest, "-") ||
        !key_take_tag(&rest, key->tag) || strcmp(rest, ".wal.zst") != 0) {
        return false;
    }
    key->unix_ms = (int64_t)unix_ms;
    key->kind = OBJECT_SEGMENT;
    return true;
}

static bool key_parse_lead(const char *rest, struct object_key *key)
{
    if (!key_take_u32(&rest, 1, &key->term) || strcmp(rest, ".json") != 0) {
        return false;
    }
    key->kind = OBJECT_LEAD;
    return true;
}

static bool key_parse_any(const char *rest, struct object_key *key)
{
    if (key_take(&rest, "generations/")) {
        return key_parse_birth(rest, key);
    }
    if (!key_take_generation(&rest, &key->generation)) {
        return false;
    }
    if (key_take(&rest, "/snapshots/")) {
        return key_parse_snapshot(rest, key);
    }
    if (key_take(&rest, "/wal/")) {
        return key_parse_segment(rest, key);
    }
    return key_take(&rest, "/leads/") && key_parse_lead(rest, key);
}

bool object_key_parse(const char *text, struct object_key *key)
{
    memset(key, 0, sizeof *key);
    if (key_parse_any(text, key)) {
        return true;
    }
    memset(key, 0, sizeof *key); /* nothing half read is left for a careless caller */
    key->kind = OBJECT_OTHER;
    return false;
}

void object_key_generations_prefix(char text[OBJECT_KEY_BYTES])
{
    key_print(text, "generations/");
}

void object_key_snapshots_prefix(const struct generation_id *id, char text[OBJECT_KEY_BYTES])
{
    key_print(text, "%s/snapshots/", id->text);
}

void object_key_wal_prefix(const struct generation_id *id, char text[OBJECT_KEY_BYTES])
{
    key_print(text, "%s/wal/", id->text);
}

void object_key_leads_prefix(const struct generation_id *id, char text[OBJECT_KEY_BYTES])
{
    key_print(text, "%s/leads/", id->text);
}
