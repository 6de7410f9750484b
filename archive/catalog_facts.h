/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog_facts: what the headers (and, seldom, the contents) of listed WAL objects say, fetched
 * when first asked for and kept: one ranged GET per object, a whole one only for a checksum inside
 * it. An object that cannot be read is a fact too (FACT_BAD), not an error: the run ends before it.
 *
 * Used by catalog_run.c alone. Errors: those of the store, but not RC_CORRUPT.
 * Thread: the owner's.
 */
#ifndef HARVEY_ARCHIVE_CATALOG_FACTS_H
#define HARVEY_ARCHIVE_CATALOG_FACTS_H

#include "archive/catalog.h"
#include "base/buf.h"

enum catalog_fact_state { FACT_UNKNOWN, FACT_READ, FACT_BAD };

struct catalog_fact {
    enum catalog_fact_state state;
    bool in_run; /* kept here by catalog_run.c */
    struct wal_point link;
    struct wal_checksum before;
    struct wal_checksum after;
    struct wal_salts salts;
    struct position archived;
};

struct catalog_facts {
    const struct catalog_generation *generation; /* borrowed */
    struct store *store;                         /* borrowed */
    struct catalog_fact *facts;                  /* owned, one for each segment listed */
    char bad_text[160];                          /* why the last FACT_BAD is one */
    struct segment_header *header;               /* owned: room for one */
    struct segment_reader *reader;               /* owned, made at need */
    size_t content_index;                        /* whose content is held; SIZE_MAX = none */
    struct buf object;
    struct buf content;
};

RC_MUST_CHECK enum rc catalog_facts_init(struct catalog_facts *facts,
                                         const struct catalog_generation *generation,
                                         struct store *store, struct err *err);
void catalog_facts_deinit(struct catalog_facts *facts); /* legal after a failed init */

/* The header of segment `index`; (*fact)->state is FACT_READ or FACT_BAD. Borrowed. */
RC_MUST_CHECK enum rc catalog_facts_get(struct catalog_facts *facts, size_t index,
                                        const struct catalog_fact **fact, struct err *err);

/*
 * The rolling checksum after `frame_no`, which lies in segment `index`; *known = false when the
 * object cannot be read.
 */
RC_MUST_CHECK enum rc catalog_facts_checksum(struct catalog_facts *facts, size_t index,
                                             uint32_t frame_no, struct wal_checksum *checksum,
                                             bool *known, struct err *err);

#endif
