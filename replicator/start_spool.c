/* SPDX-License-Identifier: Apache-2.0 */
/* start_spool: see start_spool.h. */
#include "replicator/start_spool.h"

#include "archive/segment.h"
#include "base/buf.h"
#include "base/fsio.h"
#include "base/log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPOOL_CUT_LEVEL 1

void spool_chain_init(struct spool_chain *chain)
{
    *chain = (struct spool_chain){0};
}

static void spool_free_listed(struct catalog_generation *listed)
{
    free(listed->snapshots);
    free(listed->segments);
    listed->snapshots = NULL;
    listed->segments = NULL;
}

void spool_chain_deinit(struct spool_chain *chain)
{
    spool_free_listed(&chain->listed);
    free(chain->segments);
    chain->segments = NULL;
    chain->count = 0;
    free(chain->misfits);
    chain->misfits = NULL;
    chain->misfit_count = 0;
    free(chain->held);
    chain->held = NULL;
    chain->held_count = 0;
}

/* Tools for reading the spool's objects, made once per reading. */
struct spool_tools {
    struct spool *spool;
    struct store *store; /* the spool as a directory store */
    struct segment_reader *reader;
    struct segment_header *header;
    struct buf object;
    struct buf content;
};

static void spool_tools_deinit(struct spool_tools *tools)
{
    store_close(tools->store);
    segment_reader_destroy(tools->reader);
    free(tools->header);
    buf_deinit(&tools->object);
    buf_deinit(&tools->content);
}

static enum rc spool_tools_init(struct spool_tools *tools, struct spool *spool, struct err *err)
{
    *tools = (struct spool_tools){.spool = spool};
    buf_init(&tools->object, SEGMENT_OBJECT_BYTES_MAX);
    buf_init(&tools->content, SEGMENT_CONTENT_BYTES_MAX + 2 * WAL_PAGE_BYTES_MAX);
    struct store_config config = {.is_s3 = false};
    if (strlen(spool->dir) + 5 > sizeof config.url) {
        return err_set(err, RC_LIMIT, "the path %s is too long", spool->dir);
    }
    memcpy(config.dir, spool->dir, strlen(spool->dir) + 1);
    memcpy(config.url, "dir:", 5);
    memcpy(config.url + 4, spool->dir, strlen(spool->dir) + 1);
    tools->header = malloc(sizeof *tools->header);
    enum rc rc = tools->header == NULL ? err_set(err, RC_NOMEM, "no memory for a header")
                                       : store_open(&config, NULL, &tools->store, err);
    return rc != RC_OK ? rc : segment_reader_create(&tools->reader, err);
}

static void spool_segment_key(const struct generation_id *generation,
                              const struct catalog_segment *listed, struct object_key *key)
{
    *key = (struct object_key){.kind = OBJECT_SEGMENT,
                               .generation = *generation,
                               .position = {listed->wal_no, listed->last_frame_no},
                               .first_frame_no = listed->first_frame_no,
                               .term = listed->term,
                               .unix_ms = listed->unix_ms};
    memcpy(key->tag, listed->lead_tag, sizeof key->tag);
}

/* Reads and checks one object of the spool into the tools' header and content. */
static enum rc spool_read(struct spool_tools *tools, const struct object_key *key, struct err *err)
{
    char text[OBJECT_KEY_BYTES];
    object_key_format(key, text);
    buf_clear(&tools->object);
    enum rc rc = store_get_buf(tools->store, text, &tools->object, err);
    if (rc == RC_OK) {
        rc = segment_read(tools->reader, key, tools->object.data, tools->object.size, tools->header,
                          &tools->content, err);
    }
    return rc;
}

/* The checksum that a read segment holds for a frame inside it. */
static struct wal_checksum spool_checksum_at(const struct spool_tools *tools, uint32_t frame_no)
{
    const struct segment_header *h = tools->header;
    if (frame_no == h->last_frame_no) {
        return h->after;
    }
    ASSERT(frame_no >= h->first_frame_no && frame_no < h->last_frame_no);
    size_t frame_bytes = h->page_size_bytes + WAL_FRAME_HEADER_BYTES;
    struct wal_frame_header frame;
    wal_frame_header_decode(segment_frames(h, tools->content.data) +
                                (frame_no - h->first_frame_no) * frame_bytes,
                            &frame);
    return frame.checksum;
}

/*
 * The archive holds the first frames of the segment that was read: writes one with the rest only,
 * under its own name, and removes the old. The transaction at the cut may be an open one.
 */
static enum rc spool_cut_front(struct spool_tools *tools, const struct object_key *old_key,
                               const struct wal_point *end, struct object_key *new_key,
                               uint64_t *object_bytes, struct err *err)
{
    struct segment_header *h = tools->header;
    size_t frame_bytes = h->page_size_bytes + WAL_FRAME_HEADER_BYTES;
    const uint8_t *rest = segment_frames(h, tools->content.data) +
                          (end->position.frame_no + 1 - h->first_frame_no) * frame_bytes;
    size_t rest_bytes = (h->last_frame_no - end->position.frame_no) * frame_bytes;
    struct wal_frame_header last_there;
    wal_frame_header_decode(rest - frame_bytes, &last_there);
    struct segment_writer *writer = NULL;
    struct buf object;
    char key[OBJECT_KEY_BYTES];
    buf_init(&object, SEGMENT_OBJECT_BYTES_MAX);
    h->flags &= ~(uint32_t)(SEGMENT_FIRST | SEGMENT_CONTINUES);
    h->flags |= last_there.commit_pages == 0 ? SEGMENT_CONTINUES : 0u;
    h->first_frame_no = end->position.frame_no + 1;
    h->before = end->checksum;
    h->link = *end;
    uint32_t kept = 0; /* rows of the time table that speak of what is left */
    for (uint32_t i = 0; i < h->time_count; i++) {
        if (h->times[i].frame_no >= h->first_frame_no) {
            h->times[kept++] = h->times[i];
        }
    }
    h->time_count = kept;
    h->commit_pages = 0;
    for (size_t at = 0; at < rest_bytes; at += frame_bytes) {
        struct wal_frame_header frame;
        wal_frame_header_decode(rest + at, &frame);
        h->commit_pages = frame.commit_pages != 0 ? frame.commit_pages : h->commit_pages;
    }
    enum rc rc = segment_writer_create(SPOOL_CUT_LEVEL, &writer, err);
    if (rc == RC_OK) {
        rc = segment_write(writer, h, rest, rest_bytes, &object, err);
    }
    segment_key(h, new_key);
    object_key_format(new_key, key);
    if (rc == RC_OK) {
        rc = spool_write(tools->spool, key, object.data, object.size, err);
    }
    if (rc == RC_OK) {
        *object_bytes = object.size;
        object_key_format(old_key, key);
        rc = spool_remove(tools->spool, key, err);
    }
    segment_writer_destroy(writer);
    buf_deinit(&object);
    return rc;
}

static void spool_chain_note_misfit(struct spool_chain *chain, const struct object_key *key,
                                    const char *why)
{
    chain->misfits[chain->misfit_count++] = (struct spool_misfit){*key, why};
}

static void spool_chain_append(struct spool_chain *chain, const struct spool_tools *tools,
                               const struct object_key *key, uint64_t object_bytes)
{
    const struct segment_header *h = tools->header;
    struct shipper_segment *segment = &chain->segments[chain->count++];
    *segment = (struct shipper_segment){
        .key = *key,
        .end = {{h->wal_no, h->last_frame_no}, h->after},
        .salts = h->salts,
        .frames = h->last_frame_no - h->first_frame_no + 1,
        .page_size_bytes = h->page_size_bytes,
        .object_bytes = object_bytes,
    };
    chain->end = segment->end;
    chain->end_salts = h->salts;
    chain->end_unix_ms = key->unix_ms;
}

/* Does the segment that was read say anything about the archive's end? */
static void spool_chain_compare(struct spool_chain *chain, const struct spool_tools *tools)
{
    const struct segment_header *h = tools->header;
    const struct wal_point *archive_end = &chain->archive_end;
    struct position at = archive_end->position;
    if (at.frame_no == 0) {
        chain->knows_archive_end = true;
        return;
    }
    if (h->wal_no == at.wal_no && at.frame_no >= h->first_frame_no &&
        at.frame_no <= h->last_frame_no) {
        if (wal_checksum_equal(spool_checksum_at(tools, at.frame_no), archive_end->checksum)) {
            chain->knows_archive_end = true;
        } else {
            chain->contradicts_archive_end = true;
        }
    } else if (wal_point_equal(h->link, *archive_end)) {
        chain->knows_archive_end = true;
    } else if (position_compare(h->link.position, at) == 0) {
        chain->contradicts_archive_end = true;
    }
}

/* Takes one listed segment into the chain, cuts it, or notes a misfit. *broken: nothing behind it counts. */
static enum rc spool_chain_take(struct spool_chain *chain, struct spool_tools *tools,
                                const struct object_key *key, uint64_t object_bytes, bool *broken,
                                struct err *err)
{
    struct position last = key->position;
    enum rc rc = spool_read(tools, key, err);
    if (rc == RC_CORRUPT || rc == RC_LIMIT) {
        *broken = true;
        log_debug("start", "a spooled segment cannot be read: %s", err->text);
        spool_chain_note_misfit(chain, key, "it is damaged (a power cut leaves such)");
        return RC_OK;
    }
    if (rc != RC_OK) {
        return rc;
    }
    spool_chain_compare(chain, tools);
    if (position_compare(last, chain->archive_end.position) == 0) {
        object_key_format(key, chain->witness);
        return RC_OK; /* until the record says it, this file tells that the archive's end is ours */
    }
    if (position_compare(last, chain->end.position) <= 0) {
        chain->held[chain->held_count++] = *key; /* the archive has it, by its number */
        return RC_OK;
    }
    const struct segment_header *h = tools->header;
    bool overlaps = h->wal_no == chain->end.position.wal_no &&
                    h->first_frame_no <= chain->end.position.frame_no;
    if (overlaps) {
        if (!wal_checksum_equal(spool_checksum_at(tools, chain->end.position.frame_no),
                                chain->end.checksum)) {
            *broken = true;
            spool_chain_note_misfit(chain, key, "it contradicts the archive");
            return RC_OK;
        }
        struct object_key cut_key;
        struct wal_point end = chain->end;
        rc = spool_cut_front(tools, key, &end, &cut_key, &object_bytes, err);
        if (rc == RC_OK) {
            spool_chain_append(chain, tools, &cut_key, object_bytes);
        }
        return rc;
    }
    bool first = (h->flags & SEGMENT_FIRST) != 0;
    bool follows = first ? chain->end.position.frame_no == 0 : wal_point_equal(h->link, chain->end);
    if (!follows) {
        *broken = true;
        spool_chain_note_misfit(chain, key, "it does not follow the chain");
        return RC_OK;
    }
    spool_chain_append(chain, tools, key, object_bytes);
    return RC_OK;
}

/* Without the archive at hand the chain begins where the first segment of the spool does. */
static enum rc spool_chain_trust(struct spool_chain *chain, struct spool_tools *tools,
                                 const struct generation_id *generation, struct err *err)
{
    struct object_key key;
    spool_segment_key(generation, &chain->listed.segments[0], &key);
    enum rc rc = spool_read(tools, &key, err);
    if (rc != RC_OK) {
        return rc == RC_CORRUPT || rc == RC_LIMIT ? RC_OK : rc;
    }
    struct wal_point link = tools->header->link;
    if (tools->header->flags & SEGMENT_FIRST) {
        link = (struct wal_point){{1, 0}, {0, 0}};
    }
    if (position_compare(link.position, chain->end.position) >= 0) {
        chain->end = link;
    }
    return RC_OK;
}

enum rc spool_chain_read(struct spool_chain *chain, struct spool *spool,
                         const struct generation_id *generation,
                         const struct wal_point *archive_end, struct wal_salts archive_salts,
                         int64_t archive_unix_ms, bool trust_spool, struct err *err)
{
    struct spool_tools tools;
    chain->listed.birth.id = *generation;
    chain->archive_end = *archive_end;
    chain->end = *archive_end;
    chain->end_salts = archive_salts;
    chain->end_unix_ms = archive_unix_ms;
    enum rc rc = spool_tools_init(&tools, spool, err);
    if (rc == RC_OK) {
        rc = catalog_load_generation(&chain->listed, tools.store, 1, err);
    }
    if (rc != RC_OK || chain->listed.segment_count == 0) {
        goto done;
    }
    chain->segments = calloc(chain->listed.segment_count, sizeof *chain->segments);
    chain->misfits = calloc(chain->listed.segment_count, sizeof *chain->misfits);
    chain->held = calloc(chain->listed.segment_count, sizeof *chain->held);
    if (chain->segments == NULL || chain->misfits == NULL || chain->held == NULL) {
        rc = err_set(err, RC_NOMEM, "no memory for %zu spooled segments",
                     chain->listed.segment_count);
        goto done;
    }
    if (trust_spool) {
        rc = spool_chain_trust(chain, &tools, generation, err);
    }
    bool broken = false;
    for (size_t i = 0; i < chain->listed.segment_count && rc == RC_OK; i++) {
        struct object_key key;
        spool_segment_key(generation, &chain->listed.segments[i], &key);
        if (broken) {
            spool_chain_note_misfit(chain, &key, "it lies behind a break in the chain");
            continue;
        }
        rc = spool_chain_take(chain, &tools, &key, chain->listed.segments[i].object_bytes, &broken,
                              err);
    }
done:
    spool_tools_deinit(&tools);
    return rc;
}

enum rc spool_chain_drop(const struct spool_chain *chain, const struct spool *spool,
                         struct err *err)
{
    enum rc rc = RC_OK;
    char key[OBJECT_KEY_BYTES];
    for (size_t i = 0; i < chain->held_count && rc == RC_OK; i++) {
        object_key_format(&chain->held[i], key);
        rc = spool_remove(spool, key, err);
    }
    for (size_t i = 0; i < chain->misfit_count && rc == RC_OK; i++) {
        object_key_format(&chain->misfits[i].key, key);
        log_warn("start", "dropping a spooled segment: %s  key=%s", chain->misfits[i].why, key);
        rc = spool_remove(spool, key, err);
    }
    return rc;
}

enum rc spool_chain_ship(const struct spool_chain *chain, const struct spool *spool,
                         struct store *store, struct err *err)
{
    enum rc rc = RC_OK;
    for (size_t i = 0; i < chain->count && rc == RC_OK; i++) {
        char key[OBJECT_KEY_BYTES];
        char path[FSIO_PATH_BYTES];
        int fd = -1;
        object_key_format(&chain->segments[i].key, key);
        if ((rc = spool_path(spool, key, path, err)) == RC_OK &&
            (rc = fsio_open(path, O_RDONLY, 0, &fd, err)) == RC_OK) {
            struct store_body body = {
                .bytes = NULL, .fd = fd, .size_bytes = chain->segments[i].object_bytes};
            rc = store_put(store, key, &body, STORE_PUT_PLAIN, err);
            (void)close(fd);
        }
    }
    return rc;
}

struct spool_sweep {
    const struct spool *spool;
    const char *keep;
};

static enum rc spool_sweep_visit(void *arg, const char *name, bool is_dir, struct err *err)
{
    const struct spool_sweep *sweep = arg;
    char path[FSIO_PATH_BYTES];
    struct generation_id id;
    if (!is_dir || !generation_id_parse(name, &id, NULL) || strcmp(name, sweep->keep) == 0) {
        return RC_OK;
    }
    log_info("start", "removing the spool of a generation that has ended  id=%s", name);
    enum rc rc = fsio_join(path, sizeof path, sweep->spool->dir, name, err);
    return rc != RC_OK ? rc : fsio_remove_tree(path, err);
}

enum rc spool_chain_remove_others(const struct spool *spool, const struct generation_id *keep,
                                  struct err *err)
{
    struct spool_sweep sweep = {spool, keep->text};
    return fsio_list_dir(spool->dir, spool_sweep_visit, &sweep, err);
}
