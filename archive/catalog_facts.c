/* SPDX-License-Identifier: Apache-2.0 */
/* catalog_facts: see catalog_facts.h. */
#include "archive/catalog_facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum rc catalog_facts_init(struct catalog_facts *facts, const struct catalog_generation *generation,
                           struct store *store, struct err *err)
{
    *facts =
        (struct catalog_facts){.generation = generation, .store = store, .content_index = SIZE_MAX};
    buf_init(&facts->object, SEGMENT_OBJECT_BYTES_MAX);
    buf_init(&facts->content, SEGMENT_CONTENT_BYTES_MAX + 2 * WAL_PAGE_BYTES_MAX);
    facts->header = malloc(sizeof *facts->header);
    facts->facts = calloc(generation->segment_count + 1, sizeof *facts->facts);
    if (facts->header == NULL || facts->facts == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the headers of %zu WAL objects",
                       generation->segment_count);
    }
    return RC_OK;
}

void catalog_facts_deinit(struct catalog_facts *facts)
{
    free(facts->facts);
    free(facts->header);
    segment_reader_destroy(facts->reader);
    buf_deinit(&facts->object);
    buf_deinit(&facts->content);
}

static void catalog_facts_set_bad(struct catalog_facts *facts, size_t index, const struct err *err)
{
    facts->facts[index].state = FACT_BAD;
    (void)snprintf(facts->bad_text, sizeof facts->bad_text, "%.150s", err->text);
}

enum rc catalog_facts_get(struct catalog_facts *facts, size_t index,
                          const struct catalog_fact **fact, struct err *err)
{
    ASSERT(index < facts->generation->segment_count);
    struct catalog_fact *own = &facts->facts[index];
    *fact = own;
    if (own->state != FACT_UNKNOWN) {
        return RC_OK;
    }
    struct err failure = ERR_INIT;
    enum rc rc =
        catalog_read_header(&facts->generation->birth.id, &facts->generation->segments[index],
                            facts->store, facts->header, &failure);
    if (rc == RC_CORRUPT) {
        catalog_facts_set_bad(facts, index, &failure);
        return RC_OK;
    }
    if (rc != RC_OK) {
        return err_set(err, rc, "%s", failure.text);
    }
    own->state = FACT_READ;
    own->link = facts->header->link;
    own->before = facts->header->before;
    own->after = facts->header->after;
    own->salts = facts->header->salts;
    own->archived = facts->header->archived.position;
    return RC_OK;
}

/* The whole object, checked by every rule of a reader, into facts->header and ->content. */
static enum rc catalog_facts_read_content(struct catalog_facts *facts, size_t index,
                                          struct err *err)
{
    const struct catalog_segment *segment = &facts->generation->segments[index];
    char name[OBJECT_KEY_BYTES];
    struct object_key key = {
        .kind = OBJECT_SEGMENT,
        .generation = facts->generation->birth.id,
        .position = {segment->wal_no, segment->last_frame_no},
        .first_frame_no = segment->first_frame_no,
        .term = segment->term,
        .unix_ms = segment->unix_ms,
    };
    memcpy(key.tag, segment->lead_tag, sizeof key.tag);
    object_key_format(&key, name);
    facts->content_index = SIZE_MAX;
    buf_clear(&facts->object);
    enum rc rc = facts->reader == NULL ? segment_reader_create(&facts->reader, err) : RC_OK;
    if (rc == RC_OK) {
        rc = store_get_buf(facts->store, name, &facts->object, err);
        rc = rc == RC_LIMIT ? err_set(err, RC_CORRUPT, "%s is too large", name) : rc;
    }
    if (rc == RC_OK) {
        rc = segment_read(facts->reader, &key, facts->object.data, facts->object.size,
                          facts->header, &facts->content, err);
    }
    if (rc == RC_OK) {
        facts->content_index = index;
    }
    return rc;
}

enum rc catalog_facts_checksum(struct catalog_facts *facts, size_t index, uint32_t frame_no,
                               struct wal_checksum *checksum, bool *known, struct err *err)
{
    const struct catalog_segment *segment = &facts->generation->segments[index];
    const struct catalog_fact *fact = NULL;
    ASSERT(frame_no >= segment->first_frame_no && frame_no <= segment->last_frame_no);
    *known = false;
    enum rc rc = catalog_facts_get(facts, index, &fact, err);
    if (rc != RC_OK || fact->state == FACT_BAD) {
        return rc;
    }
    if (frame_no == segment->last_frame_no) {
        *checksum = fact->after;
        *known = true;
        return RC_OK;
    }
    if (facts->content_index != index) {
        struct err failure = ERR_INIT;
        rc = catalog_facts_read_content(facts, index, &failure);
        if (rc == RC_CORRUPT) {
            catalog_facts_set_bad(facts, index, &failure);
            return RC_OK;
        }
        if (rc != RC_OK) {
            return err_set(err, rc, "%s", failure.text);
        }
    }
    size_t frame_bytes = WAL_FRAME_HEADER_BYTES + (size_t)facts->header->page_size_bytes;
    struct wal_frame_header frame;
    wal_frame_header_decode(segment_frames(facts->header, facts->content.data) +
                                (frame_no - segment->first_frame_no) * frame_bytes,
                            &frame);
    *checksum = frame.checksum;
    *known = true;
    return RC_OK;
}
