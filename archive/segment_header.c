/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment_header: the header of a WAL object, as bytes. The layout, with offsets:
 * docs/archive-format.md, "WAL object". Nothing read is used before its hash and its rules fit.
 */
#include "archive/segment_internal.h"

#include "base/bytes.h"

#include <string.h>

#define FRAME_MAGIC 0x184d2a5bu /* one of the sixteen of RFC 8878, 3.1.2 */
#define FRAME_HEAD_BYTES 8u     /* its magic and length, little-endian */
#define SEGMENT_VERSION 1u
#define SEGMENT_MAGIC_BYTES 8u
#define WAL_MAGIC 0x377f0682u /* the lowest bit says the byte order of checksums */
#define ALL_FLAGS ((uint32_t)SEGMENT_CONTINUED | SEGMENT_CONTINUES | SEGMENT_FIRST)
#define UNIX_MS_MAX INT64_C(9999999999999) /* 13 digits in the name */
#define GENERATION_RANDOM_BYTES 8
#define GENERATION_HEX_OFFSET 9 /* in its text, behind number and hyphen */
#define TAG_RANDOM_BYTES 4

/* Offsets in the header, from its magic on. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_HEADER_BYTES = 12,
    AT_FLAGS = 16,
    AT_PAGE_SIZE = 20,
    AT_GENERATION_NUMBER = 24,
    AT_GENERATION_RANDOM = 28,
    AT_TERM = 36,
    AT_LEAD_TAG = 40,
    AT_WAL_NO = 44,
    AT_FIRST_FRAME = 48,
    AT_LAST_FRAME = 52,
    AT_COMMIT_PAGES = 56,
    AT_WAL_MAGIC = 60,
    AT_SALTS = 64,
    AT_BEFORE = 72,
    AT_AFTER = 80,
    AT_LINK = 88,
    AT_ARCHIVED = 104,
    AT_CONTENT_BYTES = 120,
    AT_CONTENT_SHA256 = 128,
    AT_TIME_COUNT = 160,
    AT_RESERVED = 164,
    AT_TIMES = 168,
    TIME_ROW_BYTES = 12,
};

#define HEADER_BYTES(time_count)                                                                   \
    ((size_t)AT_TIMES + TIME_ROW_BYTES * (size_t)(time_count) + HASH_SHA256_BYTES)

_Static_assert(AT_CONTENT_SHA256 + HASH_SHA256_BYTES == AT_TIME_COUNT, "no hole behind the hash");
_Static_assert(HEADER_BYTES(1) == 212, "as docs/archive-format.md says");
_Static_assert(FRAME_HEAD_BYTES + HEADER_BYTES(SEGMENT_TIMES_MAX) <= SEGMENT_HEADER_BYTES_MAX,
               "the longest header fits its maximum");

static const uint8_t segment_magic[SEGMENT_MAGIC_BYTES] = {'H', 'a', 'r', 'v', 'e', 'y', 'W', 'S'};

void segment_key(const struct segment_header *header, struct object_key *key)
{
    ASSERT(header->time_count >= 1);
    ASSERT(header->time_count <= SEGMENT_TIMES_MAX);
    memset(key, 0, sizeof *key);
    key->kind = OBJECT_SEGMENT;
    key->generation = header->generation;
    key->position = (struct position){header->wal_no, header->last_frame_no};
    key->first_frame_no = header->first_frame_no;
    key->term = header->term;
    key->unix_ms = header->times[header->time_count - 1].unix_ms;
    memcpy(key->tag, header->lead_tag, sizeof key->tag);
}

/* ---- the rules that hold for every header, read or written; NULL = all is well ---- */

static uint64_t segment_expected_bytes(const struct segment_header *header)
{
    uint64_t frames = (uint64_t)header->last_frame_no - header->first_frame_no + 1;
    return frames * (WAL_FRAME_HEADER_BYTES + (uint64_t)header->page_size_bytes) +
           (header->first_frame_no == 1 ? WAL_HEADER_BYTES : 0);
}

static bool segment_point_is_zero(struct wal_point point)
{
    return wal_point_equal(point, (struct wal_point){{0, 0}, {0, 0}});
}

static const char *segment_names_problem(const struct segment_header *header)
{
    uint8_t random[TAG_RANDOM_BYTES];
    struct generation_id id;
    if (!generation_id_parse(header->generation.text, &id, NULL)) {
        return "the generation is no generation id";
    }
    if (header->term < 1) {
        return "the term is 0";
    }
    if (!bytes_from_hex(header->lead_tag, TAG_RANDOM_BYTES, random) ||
        header->lead_tag[OBJECT_TAG_BYTES - 1] != '\0') {
        return "the lead's tag is not 8 hex digits";
    }
    return NULL;
}

static const char *segment_range_problem(const struct segment_header *header)
{
    if ((header->flags & ~ALL_FLAGS) != 0) {
        return "a flag is set that version 1 does not know";
    }
    if (!wal_page_size_is_valid(header->page_size_bytes)) {
        return "the page size is no power of two from 512 to 65536";
    }
    if (header->wal_no < 1 || header->first_frame_no < 1 ||
        header->last_frame_no < header->first_frame_no) {
        return "the range of frames is empty";
    }
    if (header->content_bytes != segment_expected_bytes(header)) {
        return "the content's length does not fit the range of frames";
    }
    if (header->content_bytes > SEGMENT_CONTENT_BYTES_MAX) {
        return "the content is larger than 4 MiB";
    }
    if ((header->flags & SEGMENT_CONTINUED) == 0 && header->commit_pages == 0) {
        return "it ends with a commit, but gives no size of the database";
    }
    if ((header->flags & SEGMENT_CONTINUES) != 0 && header->first_frame_no == 1) {
        return "a WAL cannot begin inside a transaction";
    }
    return NULL;
}

static const char *segment_link_problem(const struct segment_header *header)
{
    const struct wal_point *link = &header->link;
    bool first = header->wal_no == 1 && header->first_frame_no == 1;
    if (((header->flags & SEGMENT_FIRST) != 0) != first) {
        return "only frame 1 of WAL 1 is the first of its generation";
    }
    if (first) {
        return segment_point_is_zero(*link) ? NULL : "the first of a generation has no link";
    }
    if (header->first_frame_no > 1) {
        struct wal_point before = {{header->wal_no, header->first_frame_no - 1}, header->before};
        return wal_point_equal(*link, before) ? NULL : "the link is not the frame before the first";
    }
    return link->position.wal_no == header->wal_no - 1 && link->position.frame_no >= 1
               ? NULL
               : "the link is no frame of the WAL before";
}

static const char *segment_archived_problem(const struct segment_header *header)
{
    const struct wal_point *archived = &header->archived;
    if (segment_point_is_zero(*archived)) {
        return NULL;
    }
    if (archived->position.wal_no < 1) {
        return "the archived position lies in WAL 0";
    }
    if (archived->position.frame_no == 0 &&
        (archived->position.wal_no != 1 ||
         !wal_checksum_equal(archived->checksum, (struct wal_checksum){0, 0}))) {
        return "the archived position has frame 0";
    }
    struct position last = {header->wal_no, header->last_frame_no};
    return position_compare(archived->position, last) <= 0
               ? NULL
               : "the archived position lies beyond the object";
}

static const char *segment_times_problem(const struct segment_header *header)
{
    if (header->time_count < 1 || header->time_count > SEGMENT_TIMES_MAX) {
        return "the time table has no row, or more than 1024";
    }
    for (uint32_t i = 0; i < header->time_count; i++) {
        const struct segment_time *row = &header->times[i];
        if (row->frame_no < header->first_frame_no || row->unix_ms < 0 ||
            row->unix_ms > UNIX_MS_MAX) {
            return "a row of the time table is out of range";
        }
        if (i > 0 && (row->frame_no <= row[-1].frame_no || row->unix_ms < row[-1].unix_ms)) {
            return "the time table does not rise";
        }
    }
    return header->times[header->time_count - 1].frame_no == header->last_frame_no
               ? NULL
               : "the time table does not end with the last frame";
}

const char *segment_header_problem(const struct segment_header *header)
{
    static const char *(*const rules[])(const struct segment_header *header) = {
        segment_names_problem,    segment_range_problem, segment_link_problem,
        segment_archived_problem, segment_times_problem,
    };
    const char *problem = NULL;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0] && problem == NULL; i++) {
        problem = rules[i](header);
    }
    return problem;
}

/* ---- bytes ---- */

static void segment_put_checksum(uint8_t *p, struct wal_checksum checksum)
{
    bytes_put_u32(p, checksum.sum1);
    bytes_put_u32(p + 4, checksum.sum2);
}

static void segment_put_point(uint8_t *p, struct wal_point point)
{
    bytes_put_u32(p, point.position.wal_no);
    bytes_put_u32(p + 4, point.position.frame_no);
    segment_put_checksum(p + 8, point.checksum);
}

size_t segment_header_frame_bytes(uint32_t time_count)
{
    return FRAME_HEAD_BYTES + HEADER_BYTES(time_count);
}

enum rc segment_header_encode(const struct segment_header *header, uint8_t *frame, struct err *err)
{
    size_t header_bytes = HEADER_BYTES(header->time_count);
    uint8_t *p = frame + FRAME_HEAD_BYTES;
    bytes_put_u32_le(frame, FRAME_MAGIC);
    bytes_put_u32_le(frame + 4, (uint32_t)header_bytes);
    size_t hashed_bytes = header_bytes - HASH_SHA256_BYTES;
    memcpy(p + AT_MAGIC, segment_magic, SEGMENT_MAGIC_BYTES);
    bytes_put_u32(p + AT_VERSION, SEGMENT_VERSION);
    bytes_put_u32(p + AT_HEADER_BYTES, (uint32_t)header_bytes);
    bytes_put_u32(p + AT_FLAGS, header->flags);
    bytes_put_u32(p + AT_PAGE_SIZE, header->page_size_bytes);
    bytes_put_u32(p + AT_GENERATION_NUMBER, generation_id_number(&header->generation));
    ASSERT(bytes_from_hex(header->generation.text + GENERATION_HEX_OFFSET, GENERATION_RANDOM_BYTES,
                          p + AT_GENERATION_RANDOM));
    bytes_put_u32(p + AT_TERM, header->term);
    ASSERT(bytes_from_hex(header->lead_tag, TAG_RANDOM_BYTES, p + AT_LEAD_TAG));
    bytes_put_u32(p + AT_WAL_NO, header->wal_no);
    bytes_put_u32(p + AT_FIRST_FRAME, header->first_frame_no);
    bytes_put_u32(p + AT_LAST_FRAME, header->last_frame_no);
    bytes_put_u32(p + AT_COMMIT_PAGES, header->commit_pages);
    bytes_put_u32(p + AT_WAL_MAGIC, WAL_MAGIC | (header->big_endian_checksums ? 1u : 0u));
    bytes_put_u32(p + AT_SALTS, header->salts.salt1);
    bytes_put_u32(p + AT_SALTS + 4, header->salts.salt2);
    segment_put_checksum(p + AT_BEFORE, header->before);
    segment_put_checksum(p + AT_AFTER, header->after);
    segment_put_point(p + AT_LINK, header->link);
    segment_put_point(p + AT_ARCHIVED, header->archived);
    bytes_put_u64(p + AT_CONTENT_BYTES, header->content_bytes);
    memcpy(p + AT_CONTENT_SHA256, header->content_sha256, HASH_SHA256_BYTES);
    bytes_put_u32(p + AT_TIME_COUNT, header->time_count);
    bytes_put_u32(p + AT_RESERVED, 0);
    for (uint32_t i = 0; i < header->time_count; i++) {
        uint8_t *row = p + AT_TIMES + (size_t)i * TIME_ROW_BYTES;
        bytes_put_u32(row, header->times[i].frame_no);
        bytes_put_u64(row + 4, (uint64_t)header->times[i].unix_ms);
    }
    return hash_sha256(p, hashed_bytes, p + hashed_bytes, err);
}

static struct wal_checksum segment_get_checksum(const uint8_t *p)
{
    return (struct wal_checksum){bytes_get_u32(p), bytes_get_u32(p + 4)};
}

static struct wal_point segment_get_point(const uint8_t *p)
{
    return (struct wal_point){{bytes_get_u32(p), bytes_get_u32(p + 4)},
                              segment_get_checksum(p + 8)};
}

/* The skippable frame around the header: its kind, and how long it is. */
static enum rc segment_measure(const uint8_t *object, size_t count, size_t *header_bytes,
                               size_t *need_bytes, struct err *err)
{
    *need_bytes = FRAME_HEAD_BYTES + HEADER_BYTES(1);
    if (count < FRAME_HEAD_BYTES) {
        return err_set(err, RC_LIMIT, "a WAL object's header needs more than %zu bytes", count);
    }
    size_t length = bytes_get_u32_le(object + 4);
    if (bytes_get_u32_le(object) != FRAME_MAGIC || length < HEADER_BYTES(1) ||
        length > SEGMENT_HEADER_BYTES_MAX - FRAME_HEAD_BYTES) {
        return err_set(err, RC_CORRUPT, "not a WAL object: no header of ours in front");
    }
    *need_bytes = FRAME_HEAD_BYTES + length;
    if (count < *need_bytes) {
        return err_set(err, RC_LIMIT, "a WAL object's header has %zu bytes, not %zu", *need_bytes,
                       count);
    }
    *header_bytes = length;
    return RC_OK;
}

/* What must be right before a field may be looked at. */
static enum rc segment_check_frame(const uint8_t *p, size_t header_bytes, struct err *err)
{
    if (memcmp(p + AT_MAGIC, segment_magic, SEGMENT_MAGIC_BYTES) != 0) {
        return err_set(err, RC_CORRUPT, "not a WAL object: its header has no magic of ours");
    }
    uint32_t version = bytes_get_u32(p + AT_VERSION);
    if (version != SEGMENT_VERSION) {
        return err_set(err, RC_CORRUPT,
                       "a WAL object of format %u; this program reads %u: use a newer one", version,
                       SEGMENT_VERSION);
    }
    size_t hashed_bytes = header_bytes - HASH_SHA256_BYTES;
    uint8_t digest[HASH_SHA256_BYTES];
    enum rc rc = hash_sha256(p, hashed_bytes, digest, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (memcmp(digest, p + hashed_bytes, sizeof digest) != 0) {
        return err_set(err, RC_CORRUPT, "the header of the WAL object has another SHA-256");
    }
    uint32_t time_count = bytes_get_u32(p + AT_TIME_COUNT);
    if (bytes_get_u32(p + AT_HEADER_BYTES) != header_bytes || time_count < 1 ||
        time_count > SEGMENT_TIMES_MAX || HEADER_BYTES(time_count) != header_bytes) {
        return err_set(err, RC_CORRUPT, "the lengths in the WAL object's header do not fit");
    }
    uint32_t number = bytes_get_u32(p + AT_GENERATION_NUMBER);
    if (number < 1 || number > GENERATION_NUMBER_MAX ||
        (bytes_get_u32(p + AT_WAL_MAGIC) & ~1u) != WAL_MAGIC ||
        bytes_get_u32(p + AT_RESERVED) != 0) {
        return err_set(err, RC_CORRUPT, "a field of the WAL object's header is out of range");
    }
    return RC_OK;
}

static void segment_header_unpack(const uint8_t *p, struct segment_header *header)
{
    header->flags = bytes_get_u32(p + AT_FLAGS);
    header->page_size_bytes = bytes_get_u32(p + AT_PAGE_SIZE);
    header->generation =
        generation_id_make(bytes_get_u32(p + AT_GENERATION_NUMBER), p + AT_GENERATION_RANDOM);
    header->term = bytes_get_u32(p + AT_TERM);
    bytes_to_hex(p + AT_LEAD_TAG, TAG_RANDOM_BYTES, header->lead_tag);
    header->wal_no = bytes_get_u32(p + AT_WAL_NO);
    header->first_frame_no = bytes_get_u32(p + AT_FIRST_FRAME);
    header->last_frame_no = bytes_get_u32(p + AT_LAST_FRAME);
    header->commit_pages = bytes_get_u32(p + AT_COMMIT_PAGES);
    header->big_endian_checksums = (bytes_get_u32(p + AT_WAL_MAGIC) & 1u) != 0;
    header->salts =
        (struct wal_salts){bytes_get_u32(p + AT_SALTS), bytes_get_u32(p + AT_SALTS + 4)};
    header->before = segment_get_checksum(p + AT_BEFORE);
    header->after = segment_get_checksum(p + AT_AFTER);
    header->link = segment_get_point(p + AT_LINK);
    header->archived = segment_get_point(p + AT_ARCHIVED);
    header->content_bytes = bytes_get_u64(p + AT_CONTENT_BYTES);
    memcpy(header->content_sha256, p + AT_CONTENT_SHA256, HASH_SHA256_BYTES);
    header->time_count = bytes_get_u32(p + AT_TIME_COUNT);
    memset(header->times, 0, sizeof header->times);
    for (uint32_t i = 0; i < header->time_count; i++) {
        const uint8_t *row = p + AT_TIMES + (size_t)i * TIME_ROW_BYTES;
        header->times[i].frame_no = bytes_get_u32(row);
        header->times[i].unix_ms = (int64_t)bytes_get_u64(row + 4);
    }
}

enum rc segment_header_decode(const uint8_t *object, size_t count, struct segment_header *header,
                              size_t *header_bytes, size_t *need_bytes, struct err *err)
{
    size_t length = 0;
    enum rc rc = segment_measure(object, count, &length, need_bytes, err);
    if (rc == RC_OK) {
        rc = segment_check_frame(object + FRAME_HEAD_BYTES, length, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    segment_header_unpack(object + FRAME_HEAD_BYTES, header);
    const char *problem = segment_header_problem(header);
    if (problem != NULL) {
        return err_set(err, RC_CORRUPT, "the header of the WAL object is wrong: %s", problem);
    }
    *header_bytes = FRAME_HEAD_BYTES + length;
    return RC_OK;
}
