/* SPDX-License-Identifier: Apache-2.0 */
/*
 * history_format: births, claims and markers written and read; then texts with one thing wrong each.
 * What holds for all JSON of the archive (duplicates, versions, points) is in test_snapshot_format.c.
 */
#include "archive/history_format.h"

#include "tests/unit/checks.h"
#include "tests/unit/guarded.h"

#include <ctype.h>
#include <stdio.h>

#define ID "00000003-9f2c41d7a6b0e355"
#define PARENT "00000002-0123456789abcdef"
#define OLD "00000001-0000000000000001"

static const char good_birth[] =
    "{\"format\": 1, \"generation\": \"" ID "\", \"parent\": \"" PARENT "\","
    " \"parent_point\": {\"wal_no\": 2, \"frame_no\": 9, \"checksum\": \"0000000100000002\"},"
    " \"supersedes\": [\"" OLD "\"], \"cause\": \"fork\", \"cause_detail\": \"as told\","
    " \"page_size\": 4096, \"window\": 8, \"host\": \"web-1\", \"harvey_version\": \"0.1.0\","
    " \"sqlite_version\": \"3.40.1\", \"unix_ms\": 1795543200123}";

static const char good_claim[] =
    "{\"format\": 1, \"generation\": \"" ID "\", \"term\": 2, \"tag\": \"5e1ec7ed\","
    " \"start\": {\"wal_no\": 1, \"frame_no\": 0, \"checksum\": \"0000000000000000\"},"
    " \"host\": \"web-1\", \"boot_id\": \"b1b1\", \"pid\": 1, \"unix_ms\": 1795543200123}";

static const char good_marker[] =
    "{\"format\": 1, \"archive\": \"s3://state/app\", \"generation\": \"" ID "\","
    " \"point\": {\"wal_no\": 3, \"frame_no\": 164, \"checksum\": \"8a38e73d5f0c21b4\"},"
    " \"newest_generation\": \"" ID "\","
    " \"newest_end\": {\"wal_no\": 3, \"frame_no\": 170, \"checksum\": \"8a38e73d5f0c21b5\"},"
    " \"newest_term\": 2, \"inode\": \"18446744073709551615\", \"size_bytes\": 12288,"
    " \"mtime_ns\": 1795543200123456789, \"unix_ms\": 1795543200123}";

static struct err err;
static struct buf json;
static struct generation_birth birth;
static struct lead_claim claim;
static struct restored_marker marker;

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    memset(&birth, 0xa5, sizeof birth);
    memset(&claim, 0xa5, sizeof claim);
    memset(&marker, 0xa5, sizeof marker);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_deinit(&json);
    return 0;
}

static enum rc decode_birth(const char *text)
{
    return generation_birth_decode((const uint8_t *)text, strlen(text), &birth, &err);
}

static enum rc decode_claim(const char *text)
{
    return lead_claim_decode((const uint8_t *)text, strlen(text), &claim, &err);
}

static enum rc decode_marker(const char *text)
{
    return restored_marker_decode((const uint8_t *)text, strlen(text), &marker, &err);
}

/* `good` with the first `from` replaced by `to`. */
static const char *changed(const char *good, const char *from, const char *to)
{
    static char text[8192];
    const char *at = strstr(good, from);
    assert_non_null(at);
    (void)snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
    return text;
}

struct wrong {
    const char *from;
    const char *to;
    const char *text;
};

static void check_wrong(enum rc (*decode)(const char *text), const char *good,
                        const struct wrong *rows, size_t count)
{
    check_ok(decode(good));
    for (size_t i = 0; i < count; i++) {
        check_fails(RC_CORRUPT, decode(changed(good, rows[i].from, rows[i].to)));
        check_text(rows[i].text);
    }
}
#define CHECK_WRONG(decode, good, rows)                                                            \
    check_wrong(decode, good, rows, sizeof(rows) / sizeof(rows)[0])

static void test_history_format__reads_births(void **state)
{
    (void)state;
    check_ok(decode_birth(good_birth));
    assert_string_equal(birth.id.text, ID);
    assert_true(birth.has_parent);
    assert_string_equal(birth.parent.text, PARENT);
    assert_int_equal(birth.parent_point.position.wal_no, 2);
    assert_int_equal(birth.parent_point.position.frame_no, 9);
    assert_int_equal(birth.parent_point.checksum.sum1, 1);
    assert_int_equal(birth.parent_point.checksum.sum2, 2);
    assert_int_equal(birth.supersedes_count, 1);
    assert_string_equal(birth.supersedes[0].text, OLD);
    assert_int_equal(birth.cause, CAUSE_FORK);
    assert_string_equal(birth.cause_detail, "as told");
    assert_int_equal(birth.page_size_bytes, 4096);
    assert_int_equal(birth.window, 8);
    assert_string_equal(birth.host, "web-1");
    assert_string_equal(birth.harvey_version, "0.1.0");
    assert_string_equal(birth.sqlite_version, "3.40.1");
    assert_int_equal(birth.unix_ms, 1795543200123);
}

static void test_history_format__reads_claims(void **state)
{
    (void)state;
    check_ok(decode_claim(good_claim));
    assert_string_equal(claim.generation.text, ID);
    assert_int_equal(claim.term, 2);
    assert_string_equal(claim.tag, "5e1ec7ed");
    assert_int_equal(claim.start.position.wal_no, 1);
    assert_int_equal(claim.start.position.frame_no, 0);
    assert_string_equal(claim.host, "web-1");
    assert_string_equal(claim.boot_id, "b1b1");
    assert_int_equal(claim.pid, 1);
    assert_int_equal(claim.unix_ms, 1795543200123);
}

static void test_history_format__reads_markers(void **state)
{
    (void)state;
    check_ok(decode_marker(good_marker));
    assert_string_equal(marker.archive, "s3://state/app");
    assert_string_equal(marker.generation.text, ID);
    assert_int_equal(marker.point.position.frame_no, 164);
    assert_string_equal(marker.newest_generation.text, ID);
    assert_int_equal(marker.newest_end.position.frame_no, 170);
    assert_int_equal(marker.newest_term, 2);
    assert_true(marker.inode == UINT64_MAX);
    assert_int_equal(marker.size_bytes, 12288);
    assert_int_equal(marker.mtime_ns, 1795543200123456789);
    assert_int_equal(marker.unix_ms, 1795543200123);
}

static void test_history_format__reads_births_that_it_writes(void **state)
{
    (void)state;
    struct generation_birth written;
    check_ok(decode_birth(good_birth));
    for (int cause = CAUSE_FIRST_START; cause <= CAUSE_BAD_FRAME; cause++) {
        birth.cause = (enum generation_cause)cause;
        birth.has_parent = cause % 2 == 0;
        if (!birth.has_parent) {
            memset(&birth.parent, 0, sizeof birth.parent);
            memset(&birth.parent_point, 0, sizeof birth.parent_point);
        }
        written = birth;
        buf_clear(&json);
        check_ok(generation_birth_encode(&birth, &json, &err));
        check_ok(generation_birth_decode(json.data, json.size, &birth, &err));
        assert_memory_equal(&birth, &written, sizeof birth);
        check_ok(decode_birth(good_birth));
    }
}

static void test_history_format__reads_claims_and_markers_that_it_writes(void **state)
{
    (void)state;
    check_ok(decode_claim(good_claim));
    struct lead_claim written_claim = claim;
    check_ok(lead_claim_encode(&claim, &json, &err));
    check_ok(lead_claim_decode(json.data, json.size, &claim, &err));
    assert_memory_equal(&claim, &written_claim, sizeof claim);
    check_ok(decode_marker(good_marker));
    memset(&marker.newest_end, 0, sizeof marker.newest_end); /* an archive without a segment */
    struct restored_marker written_marker = marker;
    buf_clear(&json);
    check_ok(restored_marker_encode(&marker, &json, &err));
    check_ok(restored_marker_decode(json.data, json.size, &marker, &err));
    assert_memory_equal(&marker, &written_marker, sizeof marker);
}

static void test_history_format__refuses_wrong_births(void **state)
{
    (void)state;
    static const struct wrong rows[] = {
        {"\"format\": 1", "\"format\": 2", "newer"},
        {"\"" ID "\"", "3", "generation"},
        {"\"" PARENT "\"", "null", "go together"},
        {"{\"wal_no\": 2, \"frame_no\": 9, \"checksum\": \"0000000100000002\"}", "null",
         "go together"},
        {"\"" PARENT "\"", "\"" ID "\"", "lower number"},
        {"\"" PARENT "\"", "\"00000004-0123456789abcdef\"", "lower number"},
        {"\"parent\":", "\"parents\":", "parent: is missing"},
        {"\"" OLD "\"", "\"x\"", "supersedes"},
        {"\"" OLD "\"", "1", "supersedes"},
        {"\"" OLD "\"", "\"" ID "\"", "itself"},
        {"[\"" OLD "\"]", "{}", "supersedes"},
        {"\"fork\"", "\"mood\"", "cause"},
        {"\"fork\"", "\"\"", "cause"},
        {"\"as told\"", "null", "cause_detail"},
        {"4096", "0", "page_size"},
        {"4096", "4097", "power of two"},
        {"\"window\": 8", "\"window\": 0", "window"},
        {"\"window\": 8", "\"window\": 65537", "window"},
        {"\"web-1\"", "1", "host"},
        {"1795543200123", "1795543200123.5", "unix_ms"},
        {"{\"format\"", "[{\"format\"", "line 1"},
    };
    CHECK_WRONG(decode_birth, good_birth, rows);
}

static void test_history_format__refuses_wrong_claims(void **state)
{
    (void)state;
    static const struct wrong rows[] = {
        {"\"term\": 2", "\"term\": 0", "term"},
        {"\"term\": 2", "\"term\": 4294967296", "term"},
        {"5e1ec7ed", "5E1ec7ed", "tag"},
        {"\"0000000000000000\"", "\"0000000000000001\"", "frame 0"},
        {"\"wal_no\": 1", "\"wal_no\": 2", "frame 0"},
        {"\"boot_id\"", "\"boot\"", "boot_id"},
        {"\"pid\": 1", "\"pid\": -1", "pid"},
        {"\"pid\": 1", "\"pid\": 2147483648", "pid"},
    };
    CHECK_WRONG(decode_claim, good_claim, rows);
}

static void test_history_format__refuses_wrong_markers(void **state)
{
    (void)state;
    static const struct wrong rows[] = {
        {"\"s3://state/app\"", "null", "archive"},
        {"\"newest_generation\": \"" ID "\"", "\"newest_generation\": \"\"", "newest_generation"},
        {"\"newest_end\":", "\"newest\":", "newest_end"},
        {"\"newest_term\": 2", "\"newest_term\": -1", "newest_term"},
        {"\"18446744073709551615\"", "\"18446744073709551616\"", "inode"},
        {"\"18446744073709551615\"", "\"\"", "inode"},
        {"\"18446744073709551615\"", "\"-1\"", "inode"},
        {"\"18446744073709551615\"", "5", "inode"},
        {"12288", "-1", "size_bytes"},
        {"1795543200123456789", "9223372036854775808", "integer"},
    };
    CHECK_WRONG(decode_marker, good_marker, rows);
}

static void test_history_format__texts_have_a_limit(void **state)
{
    (void)state;
    char text[HISTORY_TEXT_BYTES + 3];
    memset(text, 'x', sizeof text);
    text[0] = '"';
    text[HISTORY_TEXT_BYTES] = '"';
    text[HISTORY_TEXT_BYTES + 1] = '\0';
    check_ok(decode_claim(changed(good_claim, "\"web-1\"", text)));
    assert_int_equal(strlen(claim.host), HISTORY_TEXT_BYTES - 1);
    text[HISTORY_TEXT_BYTES] = 'x';
    text[HISTORY_TEXT_BYTES + 1] = '"';
    text[HISTORY_TEXT_BYTES + 2] = '\0';
    check_fails(RC_CORRUPT, decode_claim(changed(good_claim, "\"web-1\"", text)));
    check_text("host: is too long");
}

static void test_history_format__object_has_a_limit(void **state)
{
    (void)state;
    static char text[HISTORY_JSON_BYTES_MAX + 2];
    (void)snprintf(text, sizeof text, "%s", good_claim);
    memset(text + sizeof good_claim - 1, ' ', sizeof text - sizeof good_claim);
    assert_int_equal(strlen(text), HISTORY_JSON_BYTES_MAX + 1);
    check_fails(RC_CORRUPT, decode_claim(text));
    text[HISTORY_JSON_BYTES_MAX] = '\0';
    check_ok(decode_claim(text));
}

static void test_history_format__supersedes_are_counted(void **state)
{
    (void)state;
    check_ok(decode_birth(good_birth));
    for (uint32_t i = 0; i < HISTORY_SUPERSEDES_MAX; i++) {
        birth.supersedes[i] = birth.supersedes[0];
    }
    birth.supersedes_count = HISTORY_SUPERSEDES_MAX;
    check_ok(generation_birth_encode(&birth, &json, &err));
    check_ok(generation_birth_decode(json.data, json.size, &birth, &err));
    assert_int_equal(birth.supersedes_count, HISTORY_SUPERSEDES_MAX);
    char text[4096];
    (void)snprintf(text, sizeof text, "%.*s", (int)json.size, (const char *)json.data);
    char *at = strstr(text, "\"supersedes\": [");
    assert_non_null(at);
    char more[8192];
    int head = (int)(at - text) + (int)strlen("\"supersedes\": [");
    (void)snprintf(more, sizeof more, "%.*s\"%s\", %s", head, text, OLD, text + head);
    char *sum = strstr(more, "sha256\": \"");
    assert_non_null(sum);
    memcpy(sum, "no_sum", strlen("no_sum"));
    sum[strlen("no_sum\": \"")] = '-';
    check_fails(RC_CORRUPT, decode_birth(more));
    check_text("supersedes");
}

/* Damage inside a value that is as good as another: an id, a time, a host. */
static void test_history_format__every_changed_bit_is_seen(void **state)
{
    (void)state;
    char text[4096];
    struct generation_birth changed;
    check_ok(decode_birth(good_birth));
    check_ok(generation_birth_encode(&birth, &json, &err));
    size_t count = json.size;
    memcpy(text, json.data, count);
    for (size_t bit = 0; bit < 8 * count; bit++) {
        text[bit / 8] ^= (char)(1 << bit % 8);
        if (generation_birth_decode((const uint8_t *)text, count, &changed, &err) == RC_OK) {
            assert_true(isspace((unsigned char)text[bit / 8])); /* one space for another */
            buf_clear(&json);
            check_ok(generation_birth_encode(&changed, &json, &err));
            text[bit / 8] ^= (char)(1 << bit % 8);
            assert_memory_equal(json.data, text, count);
            text[bit / 8] ^= (char)(1 << bit % 8);
        }
        text[bit / 8] ^= (char)(1 << bit % 8);
    }
}

static void test_history_format__foreign_bytes_in_texts_are_replaced(void **state)
{
    (void)state;
    check_ok(decode_birth(good_birth));
    (void)snprintf(birth.host, sizeof birth.host, "%s", "caf\xe9"); /* Latin-1 */
    (void)snprintf(birth.cause_detail, sizeof birth.cause_detail, "%s", "a \"b\"\n\x01 \xc3\xa9");
    check_ok(generation_birth_encode(&birth, &json, &err));
    check_ok(generation_birth_decode(json.data, json.size, &birth, &err));
    assert_string_equal(birth.host, "caf?");
    assert_string_equal(birth.cause_detail, "a \"b\"\n\x01 \xc3\xa9");
}

static void test_history_format__writers_are_held_to_the_rules(void **state)
{
    (void)state;
    check_ok(decode_birth(good_birth));
    birth.window = 0;
    check_fails(RC_INVALID, generation_birth_encode(&birth, &json, &err));
    check_text("window");
    assert_int_equal(json.size, 0);
    check_ok(decode_claim(good_claim));
    claim.term = 0;
    check_fails(RC_INVALID, lead_claim_encode(&claim, &json, &err));
    check_ok(decode_marker(good_marker));
    marker.size_bytes = UINT64_MAX;
    check_fails(RC_INVALID, restored_marker_encode(&marker, &json, &err));
    assert_int_equal(json.size, 0);
    struct buf small;
    buf_init(&small, 50);
    check_ok(decode_claim(good_claim));
    check_fails(RC_LIMIT, lead_claim_encode(&claim, &small, &err));
    assert_int_equal(small.size, 0);
    buf_deinit(&small);
}

static void test_history_format__every_prefix_is_corrupt(void **state)
{
    (void)state;
    struct guarded guarded;
    guarded_init(&guarded, 2048);
    for (size_t count = 0; count < sizeof good_birth - 1; count++) {
        const uint8_t *bytes = guarded_place(&guarded, good_birth, count);
        check_fails(RC_CORRUPT, generation_birth_decode(bytes, count, &birth, &err));
    }
    for (size_t count = 0; count < sizeof good_claim - 1; count++) {
        const uint8_t *bytes = guarded_place(&guarded, good_claim, count);
        check_fails(RC_CORRUPT, lead_claim_decode(bytes, count, &claim, &err));
    }
    for (size_t count = 0; count < sizeof good_marker - 1; count++) {
        const uint8_t *bytes = guarded_place(&guarded, good_marker, count);
        check_fails(RC_CORRUPT, restored_marker_decode(bytes, count, &marker, &err));
    }
    guarded_deinit(&guarded);
}

static void test_history_format__names_its_causes(void **state)
{
    (void)state;
    assert_string_equal(generation_cause_name(CAUSE_FIRST_START), "first_start");
    assert_string_equal(generation_cause_name(CAUSE_BAD_FRAME), "bad_frame");
    assert_string_equal(generation_cause_name(CAUSE_LOST_CONTINUITY), "lost_continuity");
}

static void test_history_format__knows_this_machine(void **state)
{
    (void)state;
    char text[HISTORY_TEXT_BYTES];
    history_host(text);
    assert_true(strlen(text) > 0);
    history_boot_id(text);
    assert_true(strlen(text) > 0);
    assert_null(strchr(text, '\n'));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_history_format__reads_births),
        TEST(test_history_format__reads_claims),
        TEST(test_history_format__reads_markers),
        TEST(test_history_format__reads_births_that_it_writes),
        TEST(test_history_format__reads_claims_and_markers_that_it_writes),
        TEST(test_history_format__refuses_wrong_births),
        TEST(test_history_format__refuses_wrong_claims),
        TEST(test_history_format__refuses_wrong_markers),
        TEST(test_history_format__texts_have_a_limit),
        TEST(test_history_format__object_has_a_limit),
        TEST(test_history_format__supersedes_are_counted),
        TEST(test_history_format__every_changed_bit_is_seen),
        TEST(test_history_format__foreign_bytes_in_texts_are_replaced),
        TEST(test_history_format__writers_are_held_to_the_rules),
        TEST(test_history_format__every_prefix_is_corrupt),
        TEST(test_history_format__names_its_causes),
        TEST(test_history_format__knows_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
