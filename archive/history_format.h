/* SPDX-License-Identifier: Apache-2.0 */
/*
 * history_format: the small JSON objects that tell who wrote what and why:
 *   generations/<number>.json   a generation's birth
 *   <generation>/leads/<term>.json   a lead's claim
 *   restored.json (beside a database)   what a restore left for the next start
 *
 * Layout: docs/archive-format.md, "Births, claims, markers". Unknown keys are passed over, a version
 * above ours is RC_CORRUPT with a text that says so. Thread: any.
 */
#ifndef HARVEY_ARCHIVE_HISTORY_FORMAT_H
#define HARVEY_ARCHIVE_HISTORY_FORMAT_H

#include "archive/object_key.h"
#include "archive/position.h"
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define HISTORY_TEXT_BYTES 128
#define HISTORY_SUPERSEDES_MAX 64u
#define HISTORY_JSON_BYTES_MAX (64u << 10)

enum generation_cause {
    CAUSE_FIRST_START,
    CAUSE_ADOPTED,         /* a database that had no archive yet */
    CAUSE_RESTORED,        /* goes on from a restore */
    CAUSE_FORK,            /* HARVEY_ON_STALE=fork:…, HARVEY_ON_EMPTY=new:… */
    CAUSE_LOST_CONTINUITY, /* the -wal does not continue what was captured */
    CAUSE_STORE_LOST,      /* the store lost objects that it had confirmed */
    CAUSE_OUTAGE,          /* the spool reached its cap during an outage */
    CAUSE_BAD_FRAME,       /* SQLite's spill bug by a foreign writer */
};
const char *generation_cause_name(enum generation_cause cause); /* "first_start" … */

struct generation_birth {
    struct generation_id id;
    bool has_parent;
    struct generation_id parent;
    struct wal_point parent_point; /* where the parent ends */
    uint32_t supersedes_count;
    struct generation_id supersedes[HISTORY_SUPERSEDES_MAX]; /* besides the parent's own tail */
    enum generation_cause cause;
    char cause_detail[HISTORY_TEXT_BYTES];
    uint32_t page_size_bytes;
    uint32_t window; /* W: how many objects behind the confirmed run may be under way */
    char host[HISTORY_TEXT_BYTES];
    char harvey_version[HISTORY_TEXT_BYTES];
    char sqlite_version[HISTORY_TEXT_BYTES];
    int64_t unix_ms;
};

struct lead_claim {
    struct generation_id generation;
    uint32_t term;
    char tag[OBJECT_TAG_BYTES];
    struct wal_point start; /* where this lead goes on from */
    char host[HISTORY_TEXT_BYTES];
    char boot_id[HISTORY_TEXT_BYTES];
    int64_t pid;
    int64_t unix_ms;
};

/* What a restore saw and made; the start compares it with the file and the archive. */
struct restored_marker {
    char archive[512]; /* the store's address */
    struct generation_id generation;
    struct wal_point point;
    struct generation_id newest_generation; /* of the archive, at that moment */
    struct wal_point newest_end;            /* end of its contiguous run */
    uint32_t newest_term;                   /* highest claim in it; 0 = none */
    uint64_t inode;
    uint64_t size_bytes;
    int64_t mtime_ns;
    int64_t unix_ms;
};

/* The generation goes on from that one, or overrides it. */
bool generation_birth_names(const struct generation_birth *birth, const struct generation_id *id);

/*
 * Encoders append the text: RC_LIMIT, RC_NOMEM (`json`); RC_INVALID: a field out of its range, which a
 * reader would refuse; then `json` is as before. Decoders: RC_CORRUPT, RC_NOMEM.
 */
RC_MUST_CHECK enum rc generation_birth_encode(const struct generation_birth *birth,
                                              struct buf *json, struct err *err);
RC_MUST_CHECK enum rc generation_birth_decode(const uint8_t *json, size_t count,
                                              struct generation_birth *birth, struct err *err);
RC_MUST_CHECK enum rc lead_claim_encode(const struct lead_claim *claim, struct buf *json,
                                        struct err *err);
RC_MUST_CHECK enum rc lead_claim_decode(const uint8_t *json, size_t count, struct lead_claim *claim,
                                        struct err *err);
RC_MUST_CHECK enum rc restored_marker_encode(const struct restored_marker *marker, struct buf *json,
                                             struct err *err);
RC_MUST_CHECK enum rc restored_marker_decode(const uint8_t *json, size_t count,
                                             struct restored_marker *marker, struct err *err);

/* This machine's name and the id of its boot; "unknown" where there is none. */
void history_host(char host[HISTORY_TEXT_BYTES]);
void history_boot_id(char boot_id[HISTORY_TEXT_BYTES]);

#endif
