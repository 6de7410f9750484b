/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_catalog: what a generation's listing and headers are made of, however odd: objects that overlap,
 * repeat, leave holes, link anywhere, belong to two histories, have the largest numbers, cannot be read.
 * Six bytes make one object of a store in memory. The run that is found must be one: each object goes on
 * from the one before, by name and, where the lead changes, by checksum.
 */
#include "archive/catalog.h"
#include "archive/segment_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FUZZ_OBJECTS_MAX 24
#define FUZZ_BYTES 6
#define FUZZ_SHARED_FRAMES 4 /* both histories begin with them */
#define FUZZ_GENERATION "00000001-0123456789abcdef"

struct object {
    char key[OBJECT_KEY_BYTES];
    struct segment_header header;
    uint8_t bytes[512]; /* header alone: contents cannot be read */
    size_t count;
};

static struct memory_store {
    struct store base;
    struct object objects[FUZZ_OBJECTS_MAX];
    size_t count;
} memory;

/* ---- the store ---- */

static int compare_objects(const void *a, const void *b)
{
    const struct object *x = a;
    const struct object *y = b;
    return strcmp(x->key, y->key);
}

static enum rc memory_list(struct store *store, const char *prefix, const char *start_after,
                           store_visit_fn *visit, void *arg, struct err *err)
{
    enum rc rc = RC_OK;
    (void)store;
    for (size_t i = 0; rc == RC_OK && i < memory.count; i++) {
        const struct object *object = &memory.objects[i];
        bool again = i > 0 && strcmp(object->key, memory.objects[i - 1].key) == 0;
        if (!again && strncmp(object->key, prefix, strlen(prefix)) == 0 &&
            strcmp(object->key, start_after) > 0) {
            rc = visit(arg, object->key, object->count, err);
        }
    }
    return rc;
}

static enum rc memory_get(struct store *store, const char *key, const struct store_range *range,
                          store_sink_fn *sink, void *arg, struct err *err)
{
    (void)store;
    for (size_t i = 0; i < memory.count; i++) {
        const struct object *object = &memory.objects[i];
        if (strcmp(object->key, key) != 0) {
            continue;
        }
        if (range->offset >= object->count) {
            return range->offset == 0 ? RC_OK : err_set(err, RC_INVALID, "behind the end");
        }
        size_t left = object->count - (size_t)range->offset;
        size_t count = range->length != 0 && range->length < left ? (size_t)range->length : left;
        return sink(arg, object->bytes + range->offset, count, err);
    }
    return err_set(err, RC_NOT_FOUND, "no such object");
}

static const struct store_ops memory_ops = {.list = memory_list, .get = memory_get};

/* ---- objects ---- */

static struct wal_checksum checksum_of(uint32_t wal_no, uint32_t frame_no, uint32_t history)
{
    return (struct wal_checksum){wal_no * 1000003u + frame_no,
                                 frame_no > FUZZ_SHARED_FRAMES ? history : 0};
}

static void fill_header(struct segment_header *header, const uint8_t *d)
{
    uint32_t history = d[3] >> 6;
    uint32_t base = (d[0] & 0x80) != 0 ? UINT32_MAX - 20 : 0;
    uint32_t wal_base = (d[0] & 0x40) != 0 ? UINT32_MAX - 4 : 0;
    memset(header, 0, sizeof *header);
    ASSERT(generation_id_parse(FUZZ_GENERATION, &header->generation, NULL));
    header->page_size_bytes = 512;
    header->wal_no = wal_base + (d[0] & 3) + 1;
    header->first_frame_no = base + (d[1] & 15) + 1;
    header->last_frame_no = header->first_frame_no + (d[2] & 3);
    header->term = (d[3] & 3) + 1;
    (void)snprintf(header->lead_tag, sizeof header->lead_tag, "%08x", (unsigned)(d[3] >> 2 & 3));
    header->commit_pages = 1;
    header->salts = (struct wal_salts){header->wal_no, (d[4] & 0x80) != 0};
    header->before = checksum_of(header->wal_no, header->first_frame_no - 1, history);
    header->after = checksum_of(header->wal_no, header->last_frame_no, history);
    if (header->first_frame_no > 1) {
        header->link =
            (struct wal_point){{header->wal_no, header->first_frame_no - 1}, header->before};
    } else if (header->wal_no > 1) {
        uint32_t end = base + (d[4] & 31) + 1;
        header->link = (struct wal_point){{header->wal_no - 1, end},
                                          checksum_of(header->wal_no - 1, end, history)};
    } else {
        header->flags = SEGMENT_FIRST;
    }
    if ((d[5] & 3) != 0) {
        header->archived.position = (struct position){d[5] & 3, base + (d[5] >> 2 & 15) + 1};
    }
    header->time_count = 1;
    header->times[0] = (struct segment_time){header->last_frame_no, (int64_t)d[2] >> 2};
    header->content_bytes = ((uint64_t)header->last_frame_no - header->first_frame_no + 1) *
                            (WAL_FRAME_HEADER_BYTES + header->page_size_bytes);
    header->content_bytes += header->first_frame_no == 1 ? WAL_HEADER_BYTES : 0;
}

static void add_object(const uint8_t *d)
{
    struct object *object = &memory.objects[memory.count];
    struct object_key key;
    fill_header(&object->header, d);
    segment_key(&object->header, &key);
    object->count = segment_header_frame_bytes(1);
    ASSERT(object->count <= sizeof object->bytes);
    object_key_format(&key, object->key);
    struct err err = ERR_INIT;
    if (segment_header_encode(&object->header, object->bytes, &err) != RC_OK) {
        return; /* no memory: no object */
    }
    object->bytes[40] ^= (uint8_t)((d[5] & 0xC0) == 0xC0); /* one of four: damaged */
    memory.count++;
}

static const struct segment_header *header_of(const struct catalog_segment *segment)
{
    for (size_t i = 0; i < memory.count; i++) {
        const struct segment_header *h = &memory.objects[i].header;
        if (h->wal_no == segment->wal_no && h->first_frame_no == segment->first_frame_no &&
            h->last_frame_no == segment->last_frame_no && h->term == segment->term &&
            h->times[0].unix_ms == segment->unix_ms &&
            strcmp(h->lead_tag, segment->lead_tag) == 0) {
            return h;
        }
    }
    return NULL;
}

static void check_run(const struct catalog_run *run, uint32_t from)
{
    for (size_t i = 0; i < run->segment_count; i++) {
        const struct catalog_segment *here = run->segments[i];
        ASSERT(header_of(here) != NULL);
        if (i == 0) {
            ASSERT(here->wal_no == from && here->first_frame_no == 1);
            continue;
        }
        const struct catalog_segment *before = run->segments[i - 1];
        bool same_wal = here->wal_no == before->wal_no;
        ASSERT(same_wal ? here->first_frame_no == before->last_frame_no + 1
                        : here->wal_no == before->wal_no + 1 && here->first_frame_no == 1);
        bool same_lead =
            here->term == before->term && strcmp(here->lead_tag, before->lead_tag) == 0;
        if (!same_lead || !same_wal) {
            const struct segment_header *h = header_of(here);
            struct position end = {before->wal_no, before->last_frame_no};
            ASSERT(position_compare(h->link.position, end) == 0);
        }
    }
    if (run->segment_count > 0) {
        const struct catalog_segment *last = run->segments[run->segment_count - 1];
        struct position end = {last->wal_no, last->last_frame_no};
        ASSERT(position_compare(run->end.position, end) == 0);
    }
    ASSERT(run->end_kind != CATALOG_END_CLEAN || run->beyond_count == 0);
    ASSERT(run->end_kind == CATALOG_END_CLEAN || run->detail[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct catalog_generation generation;
    struct catalog_run run;
    struct err err = ERR_INIT;
    if (size < 1) {
        return 0;
    }
    uint32_t window = data[0] & 7;
    uint32_t from = (data[0] & 0x80) != 0 ? UINT32_MAX - 3 : (uint32_t)(data[0] >> 3 & 3) + 1;
    memory.base.ops = &memory_ops;
    memory.count = 0;
    for (size_t at = 1; at + FUZZ_BYTES <= size && memory.count < FUZZ_OBJECTS_MAX;
         at += FUZZ_BYTES) {
        add_object(data + at);
    }
    qsort(memory.objects, memory.count, sizeof *memory.objects, compare_objects);
    memset(&generation, 0, sizeof generation);
    ASSERT(generation_id_parse(FUZZ_GENERATION, &generation.birth.id, NULL));
    ASSERT(catalog_load_generation(&generation, &memory.base, 1, &err) == RC_OK);
    catalog_run_init(&run);
    ASSERT(catalog_find_run(&generation, &memory.base, from, window, &run, &err) == RC_OK);
    check_run(&run, from);
    catalog_run_deinit(&run);
    free(generation.segments);
    free(generation.snapshots);
    return 0;
}
