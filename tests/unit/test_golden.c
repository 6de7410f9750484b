/* SPDX-License-Identifier: Apache-2.0 */
/*
 * golden: what a released version wrote must stay readable for ever, and what is bad must stay bad.
 * tests/golden/v1 is a whole small archive with a marker beside it; bad/ holds objects that are
 * named <kind>-<code they must fail with>-<what is wrong>. Run from the root of the tree.
 */
#include "archive/codec.h"
#include "archive/history_format.h"
#include "archive/segment.h"
#include "archive/snapshot_format.h"
#include "base/fsio.h"
#include "tests/unit/checks.h"
#include "tests/unit/golden_make.h"

#include <stdio.h>
#include <stdlib.h>

#define WAL_DIR GOLDEN_DIR "/" GOLDEN_ID "/wal/0000000001"

static struct err err;
static struct segment_reader *reader;
static struct segment_header *header;
static struct buf object;
static struct buf content;

static int setup(void **state)
{
    (void)state;
    err = (struct err)ERR_INIT;
    header = calloc(1, sizeof *header);
    buf_init(&object, SEGMENT_OBJECT_BYTES_MAX);
    buf_init(&content, SEGMENT_CONTENT_BYTES_MAX + (64u << 10));
    return header == NULL || segment_reader_create(&reader, &err) != RC_OK;
}

static int teardown(void **state)
{
    (void)state;
    segment_reader_destroy(reader);
    free(header);
    buf_deinit(&object);
    buf_deinit(&content);
    return 0;
}

static void load(const char *dir, const char *name)
{
    char path[FSIO_PATH_BYTES];
    buf_clear(&object);
    check_ok(fsio_join(path, sizeof path, dir, name, &err));
    check_ok(fsio_read_file(path, &object, &err));
}

struct chain {
    uint32_t count;
    struct wal_point end;
    struct wal_point first_end;
};

static enum rc check_segment(void *arg, const char *name, bool is_dir, struct err *visit_err)
{
    struct chain *chain = arg;
    struct object_key key;
    char text[OBJECT_KEY_BYTES];
    assert_false(is_dir);
    (void)snprintf(text, sizeof text, "%s/wal/0000000001/%s", GOLDEN_ID, name);
    assert_true(object_key_parse(text, &key));
    load(WAL_DIR, name);
    check_ok(segment_read(reader, &key, object.data, object.size, header, &content, &err));
    assert_true(wal_point_equal(header->link, chain->end));
    assert_string_equal(header->generation.text, GOLDEN_ID);
    assert_int_equal(header->term, 2);
    assert_int_equal(header->page_size_bytes, 512);
    assert_int_equal(header->time_count, 1);
    assert_int_equal(header->times[0].unix_ms, GOLDEN_UNIX_MS + header->last_frame_no);
    assert_int_equal(header->flags, chain->count == 0 ? SEGMENT_FIRST : 0);
    chain->end = (struct wal_point){{1, header->last_frame_no}, header->after};
    chain->first_end = chain->count == 0 ? chain->end : chain->first_end;
    chain->count++;
    (void)visit_err;
    return RC_OK;
}

static void read_chain(struct chain *chain)
{
    memset(chain, 0, sizeof *chain);
    check_ok(fsio_list_dir(WAL_DIR, check_segment, chain, &err));
    assert_int_equal(chain->count, 2);
}

static void test_golden__segments_stay_readable(void **state)
{
    (void)state;
    struct chain chain;
    read_chain(&chain);
    assert_int_equal(content.size % (512 + 24), 0); /* the second begins behind frame 1 */
    assert_true(wal_point_equal(header->archived, chain.first_end));
}

static enum rc find_snapshot(void *arg, const char *name, bool is_dir, struct err *visit_err)
{
    (void)visit_err;
    assert_true(is_dir);
    (void)snprintf(arg, FSIO_PATH_BYTES, "%s/%s/snapshots/%s", GOLDEN_DIR, GOLDEN_ID, name);
    return RC_OK;
}

static void test_golden__snapshot_stays_readable(void **state)
{
    (void)state;
    struct snapshot_manifest manifest;
    struct chain chain;
    struct codec_decoder *decoder = NULL;
    uint8_t digest[HASH_SHA256_BYTES];
    char dir[FSIO_PATH_BYTES] = "";
    read_chain(&chain);
    check_ok(fsio_list_dir(GOLDEN_DIR "/" GOLDEN_ID "/snapshots", find_snapshot, dir, &err));
    load(dir, "complete.json");
    snapshot_manifest_init(&manifest);
    check_ok(snapshot_manifest_decode(object.data, object.size, &manifest, &err));
    assert_true(wal_point_equal(manifest.point, chain.first_end));
    assert_string_equal(manifest.tag, "0badcafe");
    assert_int_equal(manifest.part_count, 1);
    load(dir, "part-0000000001.db.zst");
    assert_int_equal(object.size, manifest.parts[0].object_bytes);
    check_ok(hash_sha256(object.data, object.size, digest, &err));
    assert_memory_equal(digest, manifest.parts[0].object_sha256, sizeof digest);
    check_ok(codec_decoder_create(&decoder, &err));
    buf_clear(&content);
    check_ok(codec_decode(decoder, object.data, object.size, manifest.parts[0].content_bytes,
                          &content, &err));
    assert_memory_equal(content.data, "SQLite format 3", 16);
    assert_int_equal(content.size, (uint64_t)manifest.page_size_bytes * manifest.database_pages);
    codec_decoder_destroy(decoder);
    snapshot_manifest_deinit(&manifest);
}

static void test_golden__birth_stays_readable(void **state)
{
    (void)state;
    struct generation_birth birth;
    load(GOLDEN_DIR, "generations/00000003.json");
    check_ok(generation_birth_decode(object.data, object.size, &birth, &err));
    assert_string_equal(birth.id.text, GOLDEN_ID);
    assert_true(birth.has_parent);
    assert_string_equal(birth.parent.text, "00000002-0123456789abcdef");
    assert_int_equal(birth.parent_point.position.wal_no, 4);
    assert_int_equal(birth.parent_point.checksum.sum2, 0xf0e0d0c0);
    assert_int_equal(birth.supersedes_count, 1);
    assert_int_equal(birth.cause, CAUSE_RESTORED);
    assert_int_equal(birth.window, 8);
    assert_int_equal(birth.unix_ms, GOLDEN_UNIX_MS);
}

static void test_golden__claim_stays_readable(void **state)
{
    (void)state;
    struct lead_claim claim;
    load(GOLDEN_DIR, GOLDEN_ID "/leads/0000000002.json");
    check_ok(lead_claim_decode(object.data, object.size, &claim, &err));
    assert_string_equal(claim.generation.text, GOLDEN_ID);
    assert_int_equal(claim.term, 2);
    assert_string_equal(claim.tag, "5e1ec7ed");
    assert_int_equal(claim.start.position.wal_no, 1);
    assert_int_equal(claim.start.position.frame_no, 0);
    assert_string_equal(claim.boot_id, "4a6b1c1e-0000-4000-8000-00000000cafe");
}

static void test_golden__marker_stays_readable(void **state)
{
    (void)state;
    struct restored_marker marker;
    struct chain chain;
    read_chain(&chain);
    load(GOLDEN_DIR, "restored.json");
    check_ok(restored_marker_decode(object.data, object.size, &marker, &err));
    assert_string_equal(marker.archive, "s3://state/app");
    assert_true(wal_point_equal(marker.point, chain.end));
    assert_true(wal_point_equal(marker.newest_end, chain.end));
    assert_true(marker.inode == UINT64_MAX);
    assert_int_equal(marker.mtime_ns, GOLDEN_UNIX_MS * 1000000);
}

static enum rc read_as(const char *kind)
{
    union {
        struct generation_birth birth;
        struct lead_claim claim;
        struct restored_marker marker;
    } any;
    if (strcmp(kind, "segment") == 0) {
        return segment_read(reader, NULL, object.data, object.size, header, &content, &err);
    }
    if (strcmp(kind, "manifest") == 0) {
        struct snapshot_manifest manifest;
        snapshot_manifest_init(&manifest);
        enum rc rc = snapshot_manifest_decode(object.data, object.size, &manifest, &err);
        snapshot_manifest_deinit(&manifest);
        return rc;
    }
    if (strcmp(kind, "birth") == 0) {
        return generation_birth_decode(object.data, object.size, &any.birth, &err);
    }
    if (strcmp(kind, "claim") == 0) {
        return lead_claim_decode(object.data, object.size, &any.claim, &err);
    }
    assert_string_equal(kind, "marker");
    return restored_marker_decode(object.data, object.size, &any.marker, &err);
}

static enum rc check_bad(void *arg, const char *name, bool is_dir, struct err *visit_err)
{
    char kind[16] = "";
    char code[16] = "";
    (void)is_dir;
    (void)visit_err;
    assert_int_equal(sscanf(name, "%15[a-z]-%15[a-z]-", kind, code), 2);
    load(GOLDEN_DIR "/bad", name);
    enum rc rc = read_as(kind);
    if (strcmp(rc_name(rc), code) != 0) {
        fail_msg("bad/%s: %s %s", name, rc_name(rc), err.text);
    }
    if (strstr(name, "newer_version") != NULL) {
        check_text("use a newer one");
    }
    (*(size_t *)arg)++;
    return RC_OK;
}

static void test_golden__bad_objects_fail_with_their_code(void **state)
{
    (void)state;
    size_t count = 0;
    check_ok(fsio_list_dir(GOLDEN_DIR "/bad", check_bad, &count, &err));
    assert_true(count >= 14);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_golden__segments_stay_readable),
        TEST(test_golden__snapshot_stays_readable),
        TEST(test_golden__birth_stays_readable),
        TEST(test_golden__claim_stays_readable),
        TEST(test_golden__marker_stays_readable),
        TEST(test_golden__bad_objects_fail_with_their_code),
    };
    if (getenv("HARVEY_GOLDEN_MAKE") != NULL) {
        golden_make();
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
