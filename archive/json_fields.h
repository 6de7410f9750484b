/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_fields: the rules for the archive's JSON objects, once (docs/archive-format.md, "Births,
 * claims, markers"): one object, "format": 1, no key twice, every field of its type and in its
 * range, unknown keys passed over, and "sha256", where it is there, that of the rest. Used by
 * history_format and snapshot_format; who calls jansson elsewhere takes the watch on its memory from here.
 *
 * The reader remembers its first failure: read all fields, then look at `rc` once. After a failure
 * the getters do nothing and answer zero.
 *
 * Thread: any; a reader belongs to one thread.
 */
#ifndef HARVEY_ARCHIVE_JSON_FIELDS_H
#define HARVEY_ARCHIVE_JSON_FIELDS_H

#include "archive/position.h"
#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_FIELDS_UNIX_MS_MAX INT64_C(9999999999999) /* 13 digits, as in the names */

struct json_fields {
    json_t *object;   /* owned by the reader that json_fields_open filled, else borrowed */
    const char *what; /* for the texts: "a birth", "part 3 of a snapshot's manifest" */
    enum rc rc;
    struct err *err; /* borrowed */
};

/* Parses; *root is owned by the caller. RC_CORRUPT; RC_NOMEM, which jansson alone would not tell from it. */
RC_MUST_CHECK enum rc json_fields_load(const uint8_t *json, size_t count, const char *what,
                                       json_t **root, struct err *err);

/* An allocation of jansson's has failed on this thread since the last json_fields_load: for json_unpack. */
bool json_fields_lacked_memory(void);

/* Parses, checks "format" and the sum. RC_CORRUPT, RC_NOMEM. json_fields_close is due in any case. */
RC_MUST_CHECK enum rc json_fields_open(struct json_fields *fields, const uint8_t *json,
                                       size_t count, size_t count_max, const char *what,
                                       struct err *err);
void json_fields_close(struct json_fields *fields);

/* Makes rc RC_CORRUPT, unless something failed before: "<what>: <key>: <problem>". */
void json_fields_fail(struct json_fields *fields, const char *key, const char *problem);

/* An integer from `min` to `max`. */
int64_t json_fields_int(struct json_fields *fields, const char *key, int64_t min, int64_t max);

/* A text that fits `text_bytes` with its NUL. */
void json_fields_text(struct json_fields *fields, const char *key, char *text, size_t text_bytes);

/* Exactly 2 * count lower-case hex digits. */
void json_fields_hex(struct json_fields *fields, const char *key, uint8_t *bytes, size_t count);

/* A generation id. */
void json_fields_generation(struct json_fields *fields, const char *key, struct generation_id *id);

/* A point {wal_no, frame_no, checksum}. */
void json_fields_point(struct json_fields *fields, const char *key, struct wal_point *point);

/* True when the key is there and null. */
bool json_fields_is_null(struct json_fields *fields, const char *key);

/* An array of min..max elements; borrowed; NULL after a failure. */
json_t *json_fields_array(struct json_fields *fields, const char *key, size_t min, size_t max);

/* ---- writing ---- */

/* New references; NULL without memory. Bytes that are no UTF-8 become '?'. */
json_t *json_fields_new_text(const char *text);
json_t *json_fields_new_point(const struct wal_point *point);

/* Appends the text of `root` (an object; taken; NULL = RC_NOMEM) with its sum, and a line end. RC_LIMIT, RC_NOMEM. */
RC_MUST_CHECK enum rc json_fields_write(json_t *root, struct buf *json, struct err *err);

#endif
