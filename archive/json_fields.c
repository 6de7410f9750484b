/* SPDX-License-Identifier: Apache-2.0 */
/* json_fields: see json_fields.h. Trusts nothing that it reads. */
#include "archive/json_fields.h"

#include "base/bytes.h"
#include "base/hash.h"

#include <string.h>

#define FORMAT_VERSION 1
#define CHECKSUM_BYTES 8
#define SUM_KEY "sha256"
#define SUM_HEX_BYTES (2 * HASH_SHA256_BYTES + 1)

/*
 * jansson says "syntax error" where memory ends inside a text, and can even go on without a part of
 * it. So its allocations are watched: whatever it answers after one failed is RC_NOMEM. Set before
 * any thread starts; it wraps what is there, so other users of jansson see no difference.
 */
static json_malloc_t json_fields_inner_malloc;
static _Thread_local bool json_fields_memory_ended;

static void *json_fields_malloc(size_t count)
{
    void *bytes = json_fields_inner_malloc(count);
    if (bytes == NULL) {
        json_fields_memory_ended = true;
    }
    return bytes;
}

__attribute__((constructor)) static void json_fields_watch_memory(void)
{
    json_free_t inner_free = NULL;
    json_get_alloc_funcs(&json_fields_inner_malloc, &inner_free);
    json_set_alloc_funcs(json_fields_malloc, inner_free);
}

bool json_fields_lacked_memory(void)
{
    return json_fields_memory_ended;
}

enum rc json_fields_load(const uint8_t *json, size_t count, const char *what, json_t **root,
                         struct err *err)
{
    json_error_t where;
    json_fields_memory_ended = false;
    *root = json_loadb(count == 0 ? "" : (const char *)json, count, JSON_REJECT_DUPLICATES, &where);
    if (json_fields_memory_ended) {
        json_decref(*root); /* what it gives then may lack a part */
        *root = NULL;
        return err_set(err, RC_NOMEM, "no memory to read %s of %zu bytes", what, count);
    }
    return *root != NULL
               ? RC_OK
               : err_set(err, RC_CORRUPT, "%s: line %d: %.150s", what, where.line, where.text);
}

/* ---- the sum over an object ---- */

static int json_sum_take(const char *bytes, size_t count, void *arg)
{
    hash_add(arg, bytes, count);
    return 0;
}

/* Of the object without its sum: its compact text with sorted keys. */
static enum rc json_fields_sum(json_t *object, char hex[SUM_HEX_BYTES], struct err *err)
{
    uint8_t digest[HASH_SHA256_BYTES];
    struct hash *hash = NULL;
    enum rc rc = hash_create(&hash, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (json_dump_callback(object, json_sum_take, hash, JSON_COMPACT | JSON_SORT_KEYS) != 0) {
        rc = err_set(err, RC_NOMEM, "no memory to check JSON");
    }
    hash_finish(hash, digest);
    hash_destroy(hash);
    bytes_to_hex(digest, sizeof digest, hex);
    return rc;
}

static enum rc json_fields_add_sum(json_t *object, struct err *err)
{
    char hex[SUM_HEX_BYTES];
    enum rc rc = json_fields_sum(object, hex, err);
    if (rc == RC_OK && json_object_set_new(object, SUM_KEY, json_string(hex)) != 0) {
        rc = err_set(err, RC_NOMEM, "no memory to write JSON");
    }
    return rc;
}

/* What was written before there were sums has none, and nothing that looks like one whose name was changed. */
static void json_fields_check_no_sum(struct json_fields *fields)
{
    const char *key;
    json_t *value;
    json_object_foreach(fields->object, key, value)
    {
        const char *text = json_is_string(value) ? json_string_value(value) : "";
        if (strlen(text) == SUM_HEX_BYTES - 1 &&
            strspn(text, "0123456789abcdef") == SUM_HEX_BYTES - 1) {
            json_fields_fail(fields, SUM_KEY, "is under another name: a part of it was changed");
        }
    }
}

/* Takes the sum out of the object and compares. */
static void json_fields_check_sum(struct json_fields *fields)
{
    char hex[SUM_HEX_BYTES];
    json_t *sum = json_incref(json_object_get(fields->object, SUM_KEY));
    if (sum == NULL) {
        json_fields_check_no_sum(fields);
        return;
    }
    (void)json_object_del(fields->object, SUM_KEY);
    fields->rc = json_fields_sum(fields->object, hex, fields->err);
    if (fields->rc == RC_OK && (!json_is_string(sum) || strcmp(json_string_value(sum), hex) != 0)) {
        json_fields_fail(fields, SUM_KEY, "is not that of the rest: a part of it was changed");
    }
    json_decref(sum);
}

enum rc json_fields_open(struct json_fields *fields, const uint8_t *json, size_t count,
                         size_t count_max, const char *what, struct err *err)
{
    *fields = (struct json_fields){.what = what, .rc = RC_OK, .err = err};
    if (count > count_max) {
        fields->rc = err_set(err, RC_CORRUPT, "%s of %zu bytes: at most %zu are possible", what,
                             count, count_max);
        return fields->rc;
    }
    fields->rc = json_fields_load(json, count, what, &fields->object, err);
    if (fields->rc != RC_OK) {
        return fields->rc;
    }
    if (!json_is_object(fields->object)) {
        json_fields_fail(fields, "the whole", "is no object");
        return fields->rc;
    }
    if (json_fields_int(fields, "format", 1, INT64_MAX) > FORMAT_VERSION) {
        json_fields_fail(fields, "format", "is newer than this program: use a newer one");
    }
    if (fields->rc == RC_OK) {
        json_fields_check_sum(fields);
    }
    return fields->rc;
}

void json_fields_close(struct json_fields *fields)
{
    json_decref(fields->object);
    fields->object = NULL;
}

void json_fields_fail(struct json_fields *fields, const char *key, const char *problem)
{
    if (fields->rc == RC_OK) {
        fields->rc = err_set(fields->err, RC_CORRUPT, "%s: %s: %s", fields->what, key, problem);
    }
}

/* The value, or NULL after a failure, or when there is none (a failure too). */
static json_t *json_fields_get(struct json_fields *fields, const char *key)
{
    if (fields->rc != RC_OK) {
        return NULL;
    }
    json_t *value = json_object_get(fields->object, key);
    if (value == NULL) {
        json_fields_fail(fields, key, "is missing");
    }
    return value;
}

int64_t json_fields_int(struct json_fields *fields, const char *key, int64_t min, int64_t max)
{
    json_t *value = json_fields_get(fields, key);
    if (value == NULL) {
        return 0;
    }
    int64_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < min || number > max) {
        json_fields_fail(fields, key, "is no integer in its range");
        return 0;
    }
    return number;
}

/* A string without a NUL inside (the parser refuses those), or "" after a failure. */
static const char *json_fields_string(struct json_fields *fields, const char *key)
{
    json_t *value = json_fields_get(fields, key);
    if (value == NULL) {
        return "";
    }
    if (!json_is_string(value)) {
        json_fields_fail(fields, key, "is no text");
        return "";
    }
    return json_string_value(value);
}

void json_fields_text(struct json_fields *fields, const char *key, char *text, size_t text_bytes)
{
    const char *value = json_fields_string(fields, key);
    size_t count = strlen(value);
    if (count >= text_bytes) {
        json_fields_fail(fields, key, "is too long");
        count = 0;
    }
    memcpy(text, value, count);
    text[count] = '\0';
}

void json_fields_hex(struct json_fields *fields, const char *key, uint8_t *bytes, size_t count)
{
    const char *value = json_fields_string(fields, key);
    if (strlen(value) != 2 * count || !bytes_from_hex(value, count, bytes)) {
        json_fields_fail(fields, key, "is not of the right number of hex digits");
        memset(bytes, 0, count);
    }
}

void json_fields_generation(struct json_fields *fields, const char *key, struct generation_id *id)
{
    const char *value = json_fields_string(fields, key);
    if (!generation_id_parse(value, id, NULL)) {
        json_fields_fail(fields, key, "is no generation id");
        id->text[0] = '\0';
    }
}

void json_fields_point(struct json_fields *fields, const char *key, struct wal_point *point)
{
    *point = (struct wal_point){{0, 0}, {0, 0}};
    json_t *value = json_fields_get(fields, key);
    if (value == NULL) {
        return;
    }
    if (!json_is_object(value)) {
        json_fields_fail(fields, key, "is no object");
        return;
    }
    struct json_fields inner = *fields; /* the same err; its object is borrowed */
    uint8_t sums[CHECKSUM_BYTES];
    inner.object = value;
    point->position.wal_no = (uint32_t)json_fields_int(&inner, "wal_no", 1, UINT32_MAX);
    point->position.frame_no = (uint32_t)json_fields_int(&inner, "frame_no", 0, UINT32_MAX);
    json_fields_hex(&inner, "checksum", sums, sizeof sums);
    fields->rc = inner.rc;
    point->checksum = (struct wal_checksum){bytes_get_u32(sums), bytes_get_u32(sums + 4)};
    if (point->position.frame_no == 0 &&
        (point->position.wal_no != 1 || bytes_get_u64(sums) != 0)) {
        json_fields_fail(fields, key, "frame 0 exists in WAL 1 only, with a checksum of zeros");
    }
}

bool json_fields_is_null(struct json_fields *fields, const char *key)
{
    const json_t *value = json_fields_get(fields, key);
    return json_is_null(value);
}

json_t *json_fields_array(struct json_fields *fields, const char *key, size_t min, size_t max)
{
    json_t *value = json_fields_get(fields, key);
    if (value == NULL) {
        return NULL;
    }
    if (!json_is_array(value) || json_array_size(value) < min || json_array_size(value) > max) {
        json_fields_fail(fields, key, "is no array of a size in its range");
        return NULL;
    }
    return value;
}

json_t *json_fields_new_text(const char *text)
{
    json_t *value = json_string(text);
    if (value != NULL) {
        return value;
    }
    /* No UTF-8: a host's name in another encoding, or a text that was cut inside a character. */
    char plain[1024];
    size_t count = strnlen(text, sizeof plain - 1);
    for (size_t i = 0; i < count; i++) {
        plain[i] = '?';
        if ((unsigned char)text[i] < 0x80) {
            plain[i] = text[i];
        }
    }
    plain[count] = '\0';
    return json_string(plain);
}

json_t *json_fields_new_point(const struct wal_point *point)
{
    uint8_t sums[CHECKSUM_BYTES];
    char hex[2 * CHECKSUM_BYTES + 1];
    bytes_put_u32(sums, point->checksum.sum1);
    bytes_put_u32(sums + 4, point->checksum.sum2);
    bytes_to_hex(sums, sizeof sums, hex);
    return json_pack("{s:I, s:I, s:s}", "wal_no", (json_int_t)point->position.wal_no, "frame_no",
                     (json_int_t)point->position.frame_no, "checksum", hex);
}

struct json_sink {
    struct buf *json;
    struct err *err;
    enum rc rc;
};

static int json_sink_take(const char *bytes, size_t count, void *arg)
{
    struct json_sink *sink = arg;
    sink->rc = buf_append(sink->json, bytes, count, sink->err);
    return sink->rc == RC_OK ? 0 : -1;
}

enum rc json_fields_write(json_t *root, struct buf *json, struct err *err)
{
    if (root == NULL) {
        return err_set(err, RC_NOMEM, "no memory to write JSON");
    }
    size_t start = json->size;
    struct json_sink sink = {json, err, json_fields_add_sum(root, err)};
    bool dumped =
        sink.rc == RC_OK && json_dump_callback(root, json_sink_take, &sink, JSON_INDENT(2)) == 0;
    json_decref(root);
    if (!dumped && sink.rc == RC_OK) {
        sink.rc = err_set(err, RC_NOMEM, "no memory to write JSON");
    }
    if (sink.rc == RC_OK) {
        sink.rc = buf_append(json, "\n", 1, err);
    }
    if (sink.rc != RC_OK) {
        json->size = start;
    }
    return sink.rc;
}
