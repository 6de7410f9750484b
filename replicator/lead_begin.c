/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lead_begin: START, see lead_internal.h.
 *
 * Order of the locks: first one read on each connection, ended (recovery of the wal-index needs CKPT
 * free), then CKPT, then WRITE, then the read transaction. The other order would meet a foreign
 * TRUNCATE that holds CKPT and waits for WRITE.
 */
#include "replicator/lead_internal.h"

#include "base/bytes.h"
#include "base/clk.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "replicator/start_look.h"
#include "replicator/start_spool.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BEGIN_TRIES 50
#define BEGIN_LOCK_BUDGET_MS 100
#define SEGMENT_LEVEL 1
#define LEAD_AGE_UNKNOWN_MS (INT64_C(365) * 86400 * 1000)

/* How the WAL that is there relates to the end of the chain. */
enum lead_match {
    MATCH_NONE,     /* it does not continue it */
    MATCH_SAME_WAL, /* frame `end` is in it, with the right checksum */
    MATCH_NEXT_WAL, /* the noted reset came: this WAL begins behind `end` */
};

/* ---- what is known of the clock of the oldest commit ---- */

/*
 * The boottime stamp of the oldest commit that may not be archived. What the last leader of this
 * boot left is exact; after a boot of the machine it is reckoned from the archived position's time, and
 * where that is not known, or the clock stands before it, nothing is promised: it is a year old.
 */
static int64_t lead_oldest_stamp(const struct lead *lead)
{
    int64_t oldest = state_oldest_ms(lead->context->state);
    if (oldest != 0) {
        return oldest;
    }
    const struct start_plan *plan = lead->plan;
    int64_t now = clk_boottime_ms();
    int64_t archived = plan->begin.archived_unix_ms;
    int64_t age = clk_unix_ms() - archived;
    if (plan->create_database || plan->cause == CAUSE_RESTORED) {
        return now; /* nothing was committed before, or the archive gave it */
    }
    return now - (archived > 0 && age >= 0 ? age : LEAD_AGE_UNKNOWN_MS);
}

/*
 * A shipper begins with an empty queue and publishes it so: first the stamp of whatever the last leader
 * left, wherever it had come to, becomes one that is being captured. A younger commit that nobody has
 * seen would else be the oldest that is known.
 */
static void lead_take_over_stamp(struct lead *lead)
{
    struct state *state = lead->context->state;
    int64_t oldest_ms = state_oldest_ms(state);
    if (oldest_ms != 0) {
        atomic_store(&state->live->capturing_ms, oldest_ms);
    }
}

/* ---- claims and generations ---- */

static void lead_make_tag(struct lead *lead, const char *noted)
{
    if (noted[0] != '\0') {
        memcpy(lead->tag, noted, sizeof lead->tag);
        return;
    }
    uint8_t random[4];
    bytes_random(random, sizeof random);
    bytes_to_hex(random, sizeof random, lead->tag);
}

static enum rc lead_queue_claim(struct lead *lead, const struct wal_point *start, struct err *err)
{
    struct lead_claim claim = {.generation = lead->generation,
                               .term = lead->term,
                               .start = *start,
                               .pid = getpid(),
                               .unix_ms = clk_unix_ms()};
    memcpy(claim.tag, lead->tag, sizeof claim.tag);
    history_host(claim.host);
    history_boot_id(claim.boot_id);
    return shipper_add_claim(lead->shipper, &claim, err);
}

/* The generation goes on: what its comparison with the archive has shown. */
static void lead_fill_compared(const struct lead *lead, struct state_record *record)
{
    const struct shipper_begin *begin = &lead->plan->begin;
    record->generation = lead->generation;
    record->pending_generation = (struct generation_id){""};
    record->term = begin->term;
    memcpy(record->term_tag, begin->term_tag, sizeof record->term_tag);
    record->confirmed = begin->confirmed;
    record->confirmed_salts = begin->confirmed_salts;
    record->archived_unix_ms = begin->archived_unix_ms;
}

/* Everything of the record that a beginning lead changes, in one write. */
static enum rc lead_note_begin(struct lead *lead, const struct generation_id *pending,
                               const struct wal_point *captured, struct wal_salts salts,
                               struct err *err)
{
    const struct lead_context *x = lead->context;
    struct file_identity identity;
    struct state_record record;
    enum rc rc = start_identify(x->sidecar->database, &identity, err);
    if (rc != RC_OK) {
        return rc;
    }
    state_edit_begin(x->state, &record);
    bool same_archive = record.valid && strcmp(record.archive, x->config->store.url) == 0;
    if (!same_archive && !x->config->store.off) {
        record = (struct state_record){.valid = true};
        (void)snprintf(record.archive, sizeof record.archive, "%s", x->config->store.url);
    }
    record.valid = true;
    record.replicated = lead->capture == CAPTURE_ON;
    record.database = identity;
    record.backfilled = wal_index_backfilled(&lead->connections.index);
    record.checkpoint_running = false;
    if (lead->capture == CAPTURE_ON) {
        if (pending != NULL) {
            record.pending_generation = *pending;
            record.generation_number_highest = generation_id_number(pending);
        } else {
            lead_fill_compared(lead, &record);
        }
        record.pending_term = lead->term;
        memcpy(record.pending_tag, lead->tag, sizeof record.pending_tag);
        record.captured = *captured;
        record.captured_salts = salts;
        /* the note stands while the WAL behind it is not a known one, however many leads die there */
        record.reset_follows = record.reset_follows && pending == NULL &&
                               wal_point_equal(record.reset_point, *captured) &&
                               !wal_salts_equal(salts, lead->plan->end_salts);
    }
    return state_edit_end(x->state, &record, err);
}

static void lead_fill_birth(struct lead *lead, struct generation_birth *birth,
                            enum generation_cause cause, const char *detail,
                            uint32_t page_size_bytes)
{
    birth->id = lead->generation;
    birth->cause = cause;
    birth->page_size_bytes = page_size_bytes;
    birth->window = SHIP_WINDOW;
    birth->unix_ms = lead_unix_ms(lead);
    (void)snprintf(birth->cause_detail, sizeof birth->cause_detail, "%s", detail);
    (void)snprintf(birth->harvey_version, sizeof birth->harvey_version, "%s",
                   lead->context->config->version);
    (void)snprintf(birth->sqlite_version, sizeof birth->sqlite_version, "%s", sqlite3_libversion());
    history_host(birth->host);
}

static uint32_t lead_page_size(const struct lead *lead, const struct wal_index_header *header)
{
    if (wal_page_size_is_valid(header->page_size_bytes)) {
        return header->page_size_bytes;
    }
    sqlite3_stmt *statement = NULL; /* an empty WAL's index does not know it yet */
    uint32_t page_size = 4096;
    if (sqlite3_prepare_v2(lead->connections.write_db, "PRAGMA page_size", -1, &statement, NULL) ==
            SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW) {
        page_size = (uint32_t)sqlite3_column_int(statement, 0);
    }
    (void)sqlite3_finalize(statement);
    return page_size;
}

/* A new id, or that of a generation which an earlier start noted and whose birth may be in the archive. */
static enum rc lead_name_generation(struct lead *lead, struct err *err)
{
    char path[FSIO_PATH_BYTES];
    uint8_t random[8];
    struct generation_id *pending = &lead->plan->pending;
    if (generation_id_is_none(pending)) {
        bytes_random(random, sizeof random);
        lead->generation = generation_id_make(lead->generation_number_next++, random);
        return RC_OK;
    }
    lead->generation = *pending;
    *pending = (struct generation_id){""};
    /* what that start spooled of it: the database has it, and frames are captured again from frame 1 */
    enum rc rc =
        fsio_join(path, sizeof path, lead->context->spool->dir, lead->generation.text, err);
    return rc != RC_OK ? rc : fsio_remove_tree(path, err);
}

enum rc lead_begin_generation(struct lead *lead, enum generation_cause cause, const char *detail,
                              const struct generation_id *parent,
                              const struct wal_point *parent_point,
                              const struct wal_index_header *header, struct err *err)
{
    static const struct wal_salts no_salts = {0, 0};
    static const struct wal_point start = {{1, 0}, {0, 0}};
    struct generation_birth birth = {.has_parent = parent != NULL};
    enum rc rc = lead_name_generation(lead, err);
    if (rc != RC_OK) {
        return rc;
    }
    lead->term = 1;
    lead_make_tag(lead, "");
    lead->capture = CAPTURE_ON;
    lead->archived = (struct wal_point){{0, 0}, {0, 0}}; /* the parent's does not count here */
    lead_fill_birth(lead, &birth, cause, detail, lead_page_size(lead, header));
    if (parent != NULL) {
        birth.parent = *parent;
        birth.parent_point = *parent_point;
    }
    birth.supersedes_count = lead->plan->supersedes_count;
    memcpy(birth.supersedes, lead->plan->supersedes, sizeof birth.supersedes);
    lead->plan->supersedes_count = 0;

    bool has_frames = header->mx_frame > 0;
    struct wal_salts salts = has_frames ? header->salts : no_salts;
    rc = lead_note_begin(lead, &lead->generation, &start, salts, err);
    FAILPOINT("start_generation_noted");
    if (rc == RC_OK) {
        rc = shipper_add_birth(lead->shipper, &birth, lead_oldest_stamp(lead), err);
    }
    if (rc == RC_OK) {
        rc = lead_queue_claim(lead, &start, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    lead->generations_begun++;
    log_info("leader", "a generation begins  id=%s cause=%s parent=%s detail=\"%s\"",
             lead->generation.text, generation_cause_name(cause),
             parent != NULL ? parent->text : "none", detail);
    wal_follower_begin_generation(&lead->follower, salts);
    segmenter_begin(&lead->segmenter, &lead->generation, lead->term, lead->tag, &start, true);
    lead->seen.mx_frame = 0; /* everything of this WAL is captured again, from frame 1 */
    lead->wants_fresh_wal = false;
    return RC_OK;
}

/* ---- continuity ---- */

static enum lead_match lead_match_end(struct lead *lead, const struct wal_index_header *header)
{
    static const struct wal_salts no_salts = {0, 0};
    const struct start_plan *plan = lead->plan;
    const struct wal_point *end = &plan->end;
    struct state_record record;
    struct file_identity identity;
    struct wal_salts salts;
    struct wal_checksum checksum;
    struct err err;
    state_get(lead->context->state, &record);
    if (!plan->continues || plan->identity_differs) {
        return MATCH_NONE;
    }
    struct wal_salts end_salts = plan->end_salts;
    if (end->position.frame_no == 0) { /* nothing captured: the WAL that was there at the birth */
        end_salts = record.captured_salts;
    }
    bool has_frames = header->mx_frame > 0;
    bool same_salts = has_frames && wal_salts_equal(header->salts, end_salts) &&
                      header->mx_frame >= end->position.frame_no;
    if (same_salts && end->position.frame_no == 0) {
        return MATCH_SAME_WAL;
    }
    if (same_salts &&
        wal_follower_checksum_at(&lead->follower, header->page_size_bytes, end->position.frame_no,
                                 &salts, &checksum, &err) == RC_OK &&
        wal_salts_equal(salts, end_salts) && wal_checksum_equal(checksum, end->checksum)) {
        return MATCH_SAME_WAL;
    }
    if (has_frames && start_saw_next_wal(&record, end, end_salts) &&
        wal_salts_equal(header->salts, record.captured_salts)) {
        return MATCH_NEXT_WAL;
    }
    if (start_identify(lead->context->sidecar->database, &identity, &err) != RC_OK ||
        identity.size_bytes != record.database.size_bytes ||
        identity.mtime_ns != record.database.mtime_ns) {
        return MATCH_NONE;
    }
    /* an empty WAL may have had its salts when the reset was noted, and may begin with them */
    if (record.reset_follows && wal_point_equal(record.reset_point, *end) &&
        (!has_frames || !wal_salts_equal(header->salts, end_salts))) {
        return MATCH_NEXT_WAL;
    }
    /* the birth met an empty WAL, and died before it noted that one begins: what is there came since */
    bool newborn = end->position.frame_no == 0 && wal_salts_equal(end_salts, no_salts);
    return newborn ? MATCH_SAME_WAL : MATCH_NONE;
}

static enum rc lead_continue(struct lead *lead, const struct wal_index_header *header,
                             enum lead_match match, struct err *err)
{
    const struct start_plan *plan = lead->plan;
    struct wal_point end = plan->end;
    lead->generation = plan->begin.generation;
    lead->term = plan->term_next;
    lead_make_tag(lead, plan->tag_next);
    struct wal_salts salts = header->mx_frame > 0 ? header->salts : (struct wal_salts){0, 0};
    if (match == MATCH_NEXT_WAL) {
        wal_follower_continue(&lead->follower, &end, plan->end_salts);
        if (header->mx_frame > 0) {
            wal_follower_begin_wal(&lead->follower, header->salts);
        }
        lead->seen = (struct wal_index_header){.salts = header->salts,
                                               .page_size_bytes = header->page_size_bytes};
    } else if (end.position.frame_no == 0) {
        wal_follower_begin_generation(&lead->follower, salts);
        lead->seen = (struct wal_index_header){.salts = header->salts,
                                               .page_size_bytes = header->page_size_bytes};
    } else {
        wal_follower_continue(&lead->follower, &end, header->salts);
        lead->seen = *header;
        lead->seen.mx_frame = end.position.frame_no;
        lead->seen.checksum = end.checksum;
    }
    enum rc rc = lead_note_begin(lead, NULL, &end, salts, err);
    FAILPOINT("claim_noted");
    if (rc == RC_OK && plan->witness[0] != '\0') {
        rc = spool_remove(lead->context->spool, plan->witness, err);
    }
    if (rc == RC_OK) {
        rc = lead_queue_claim(lead, &end, err);
    }
    segmenter_begin(&lead->segmenter, &lead->generation, lead->term, lead->tag, &end,
                    end.position.frame_no == 0);
    log_info("leader", "the generation goes on  id=%s wal_no=%u frame_no=%u term=%u",
             lead->generation.text, end.position.wal_no, end.position.frame_no, lead->term);
    return rc;
}

/* A chain can end inside a transaction (a large one, cut): then the next segment continues it. */
static void lead_mark_open_transaction(struct lead *lead)
{
    uint8_t bytes[WAL_FRAME_HEADER_BYTES];
    struct wal_frame_header frame;
    struct err err;
    if (lead->follower.frame_no == 0 || lead->seen.page_size_bytes == 0) {
        return;
    }
    uint64_t offset = wal_frame_offset(lead->seen.page_size_bytes, lead->follower.frame_no);
    if (fsio_read_at(lead->follower.fd, bytes, sizeof bytes, offset, &err) == RC_OK) {
        wal_frame_header_decode(bytes, &frame);
        lead->segmenter.inside_transaction = frame.commit_pages == 0;
    }
}

/* ---- queueing what survived ---- */

/* Nobody knows any more when which of them was committed: each may hold the oldest. */
static enum rc lead_queue_spool(struct lead *lead, int64_t oldest_ms, struct err *err)
{
    enum rc rc = RC_OK;
    for (size_t i = 0; i < lead->plan->spool_count && rc == RC_OK; i++) {
        struct shipper_segment *segment = &lead->plan->spool[i];
        segment->oldest_ms = oldest_ms;
        rc = shipper_add_segment(lead->shipper, segment, err);
    }
    return rc;
}

static enum rc lead_start_shipper(struct lead *lead, struct err *err)
{
    const struct lead_context *x = lead->context;
    struct shipper_begin begin = lead->plan->begin;
    enum rc rc = shipper_create(&x->config->store, x->spool, x->state, &lead->shipper, err);
    if (rc == RC_OK) {
        rc = snapshotter_create(&x->config->store, x->sidecar, lead->shipper, x->state,
                                &lead->snapshotter, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    begin.oldest_ms = begin.has_snapshot ? 0 : lead_oldest_stamp(lead);
    if (lead->capture == CAPTURE_NONE) {
        begin = (struct shipper_begin){.generation = {""}};
    }
    return shipper_start(lead->shipper, &begin, err);
}

/* ---- the locks ---- */

/* CKPT, WRITE, then A's read transaction. *on_mark: it provably sits on a mark k > 0. */
static enum rc lead_take_locks(struct lead *lead, struct wal_index_header *header, bool *on_mark,
                               struct err *err)
{
    struct lead_connections *c = &lead->connections;
    enum rc rc;
    if ((rc = lead_connections_read_all(c, err)) != RC_OK) {
        return rc;
    }
    if ((rc = lead_take_checkpoint(c, BEGIN_LOCK_BUDGET_MS, err)) == RC_OK &&
        (rc = wal_index_read(&c->index, header, err)) == RC_OK &&
        (rc = lead_take_write(c, BEGIN_LOCK_BUDGET_MS, err)) == RC_OK &&
        (rc = wal_index_read(&c->index, header, err)) == RC_OK) {
        *on_mark = header->mx_frame > wal_index_backfilled(&c->index);
        rc = lead_reader_begin(&c->readers[c->current], err);
    }
    if (rc != RC_OK) {
        lead_release_write(c);
        lead_release_checkpoint(c);
    }
    return rc;
}

/* Under the locks: what this lead goes on from, in memory and in the state. */
static enum rc lead_settle(struct lead *lead, const struct wal_index_header *header,
                           struct err *err)
{
    struct start_plan *plan = lead->plan;
    FAILPOINT("start_locks_held");
    enum rc rc = wal_follower_open(&lead->follower, err);
    if (rc != RC_OK) {
        return rc;
    }
    lead->seen = *header;
    if (lead->capture == CAPTURE_NONE) {
        return lead_note_begin(lead, NULL, NULL, header->salts, err);
    }
    int64_t oldest_ms = lead_oldest_stamp(lead);
    enum lead_match match = lead_match_end(lead, header);
    if (!plan->verified && (rc = shipper_add_probe(lead->shipper, err)) != RC_OK) {
        return rc;
    }
    if (match != MATCH_NONE) {
        if ((rc = lead_continue(lead, header, match, err)) == RC_OK) {
            rc = lead_queue_spool(lead, oldest_ms, err);
        }
        lead_mark_open_transaction(lead);
        return rc;
    }
    if (plan->identity_differs) {
        (void)snprintf(plan->cause_detail, sizeof plan->cause_detail,
                       "somebody else wrote the database file; quick_check was ok");
    }
    if ((rc = lead_queue_spool(lead, oldest_ms, err)) != RC_OK) {
        return rc;
    }
    return lead_begin_generation(lead, plan->cause, plan->cause_detail,
                                 plan->has_parent ? &plan->parent : NULL, &plan->parent_point,
                                 header, err);
}

/* The first capture, and the way to a mark k > 0. */
static enum rc lead_first_capture(struct lead *lead, const struct wal_index_header *header,
                                  bool on_mark, struct err *err)
{
    struct state_live *live = lead->context->state->live;
    bool something_new = lead->seen.mx_frame < header->mx_frame;
    /* the stamps of a leader that died may be younger than what it left: take the oldest for all */
    atomic_store(&live->capturing_ms, something_new ? lead_oldest_stamp(lead) : 0);
    atomic_store(&live->uncaptured_ms, 0);
    lead->epoch = atomic_fetch_add(&live->epoch_started, 1) + 1;
    if (on_mark) {
        lead_release_write(&lead->connections);
        lead_release_checkpoint(&lead->connections);
    }
    enum rc rc = RC_OK;
    if (something_new) {
        rc = lead_capture_to(lead, header, err);
    }
    if (rc == RC_OK && lead->capture != CAPTURE_NONE) {
        rc = lead_drop_lost_snapshot(lead, header, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    lead->seen = *header;
    lead->mark_frame = header->mx_frame;
    if (on_mark) {
        return RC_OK;
    }
    lead->at_mark0 = true;
    if (FAILPOINT_SWITCH("SLOW_START")) {
        clk_pause_ms(200); /* a test wants the lanes to be ahead of the note below */
    }
    if ((rc = lead_cut(lead, err)) != RC_OK ||
        (rc = shipper_sync_spool(lead->shipper, err)) != RC_OK ||
        (rc = lead_note_checkpoint(lead, true, err)) != RC_OK) {
        return rc;
    }
    return lead_leave_mark0(lead, err);
}

static enum rc lead_open(struct lead *lead, struct err *err)
{
    const struct lead_context *x = lead->context;
    bool switched = false;
    struct file_identity identity;
    enum rc rc =
        lead_connections_open(&lead->connections, x->sidecar->database, lead->plan->create_database,
                              x->config->synchronous_normal, &switched, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (switched) {
        log_info("leader", "WAL mode switched on  database=%s", x->sidecar->database);
    }
    if ((rc = start_identify(x->sidecar->database, &identity, err)) != RC_OK) {
        return rc;
    }
    lead->database_inode = identity.inode;
    if ((rc = segmenter_init(&lead->segmenter, lead_emit, lead, err)) != RC_OK ||
        (rc = segment_writer_create(SEGMENT_LEVEL, &lead->writer, err)) != RC_OK) {
        return rc;
    }
    rc = lead_start_shipper(lead, err);
    FAILPOINT("start_shipper_ready");
    return rc;
}

enum rc lead_begin(struct lead *lead, struct err *err)
{
    struct wal_index_header header;
    bool on_mark = false;
    enum rc rc;
    lead->capture = lead->context->config->store.off ? CAPTURE_NONE : CAPTURE_ON;
    lead->generation_number_next = lead->plan->generation_number_next;
    lead->verified = lead->plan->verified || lead->capture == CAPTURE_NONE;
    lead->last_unix_ms = lead->plan->end_unix_ms;
    lead_take_over_stamp(lead);
    wal_follower_init(&lead->follower, lead->context->sidecar->wal);
    buf_init(&lead->object, SEGMENT_OBJECT_BYTES_MAX);
    if (lead->capture == CAPTURE_ON && lead->plan->verified &&
        (rc = spool_chain_remove_others(lead->context->spool, &lead->plan->begin.generation,
                                        err)) != RC_OK) {
        return rc;
    }
    if ((rc = lead_open(lead, err)) != RC_OK) {
        return rc;
    }
    int tries = 0;
    while ((rc = lead_take_locks(lead, &header, &on_mark, err)) != RC_OK) {
        if (rc != RC_BUSY || ++tries == BEGIN_TRIES ||
            stop_wait_ms(lead->context->stop, STOP_NOW, 10)) {
            return err_prefix(err, "taking the lead");
        }
    }
    if ((rc = lead_settle(lead, &header, err)) != RC_OK ||
        (rc = lead_first_capture(lead, &header, on_mark, err)) != RC_OK) {
        return rc;
    }
    bool resumed = false;
    if (lead->capture == CAPTURE_ON && lead->verified) {
        /* of this generation only: one of the parent's would wait for a run that has ended, for ever */
        rc = snapshotter_resume(lead->snapshotter, &lead->generation, &resumed, err);
    }
    return rc;
}
