/* SPDX-License-Identifier: Apache-2.0 */
/* start_plan: see start_plan.h. */
#include "replicator/start_plan.h"

#include "archive/snapshot_format.h"
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void start_plan_init(struct start_plan *plan)
{
    *plan = (struct start_plan){0};
}

void start_plan_deinit(struct start_plan *plan)
{
    free(plan->spool);
    plan->spool = NULL;
    plan->spool_count = 0;
}

void start_say(struct start_plan *plan, int row, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    plan->row = row;
    (void)vsnprintf(plan->reason, sizeof plan->reason, format, args);
    va_end(args);
}

/* ---- plans for a new generation ---- */

void start_supersede(struct start_case *c, uint32_t above)
{
    struct start_plan *plan = c->plan;
    plan->supersedes_count = 0;
    for (size_t i = c->archive.catalog.generation_count; i > 0; i--) {
        const struct generation_birth *birth = &c->archive.catalog.generations[i - 1].birth;
        if (generation_id_number(&birth->id) > above &&
            plan->supersedes_count < HISTORY_SUPERSEDES_MAX) {
            plan->supersedes[plan->supersedes_count++] = birth->id;
        }
    }
    const struct generation_id *lost =
        &c->archive.lost; /* without a birth it is not in the catalog */
    if (generation_id_number(lost) > above && catalog_find(&c->archive.catalog, lost) == NULL &&
        plan->supersedes_count < HISTORY_SUPERSEDES_MAX) {
        plan->supersedes[plan->supersedes_count++] = *lost;
    }
}

void start_new_generation(struct start_case *c, enum generation_cause cause, const char *detail)
{
    struct start_plan *plan = c->plan;
    uint32_t highest = c->archive.number_highest;
    if (c->local.ours && c->local.record.generation_number_highest > highest) {
        highest = c->local.record.generation_number_highest;
    }
    plan->action = START_SERVE;
    plan->verified = c->archive.reachable;
    plan->continues = false;
    plan->generation_number_next = highest + 1;
    plan->cause = cause;
    /* its times do not lie before what it goes on from, whatever the clock says */
    if (c->archive.newest != NULL && c->archive.newest->birth.unix_ms > plan->end_unix_ms) {
        plan->end_unix_ms = c->archive.newest->birth.unix_ms;
    }
    if (c->archive.run.end_unix_ms > plan->end_unix_ms) {
        plan->end_unix_ms = c->archive.run.end_unix_ms;
    }
    (void)snprintf(plan->cause_detail, sizeof plan->cause_detail, "%s", detail);
}

const char *start_newest_id(const struct start_case *c)
{
    if (!generation_id_is_none(&c->archive.lost)) {
        return c->archive.lost.text;
    }
    if (c->archive.newest != NULL) {
        return c->archive.newest->birth.id.text;
    }
    return c->local.ours ? c->local.record.generation.text : "";
}

void start_archive_position(const struct start_case *c, char text[POSITION_TEXT_BYTES])
{
    const struct generation_id none = {""};
    position_format(c->archive.newest != NULL ? &c->archive.newest->birth.id : &none,
                    c->archive.run_end.position, text);
}

/* ---- HARVEY_ON_STALE ---- */

void start_stale(struct start_case *c, int row, const char *why)
{
    start_plan_deinit(c->plan); /* nothing of the spool is shipped by this start */
    const struct replicator_config *config = c->input->config;
    struct start_plan *plan = c->plan;
    char there[POSITION_TEXT_BYTES];
    char here[POSITION_TEXT_BYTES] = "unknown";
    start_archive_position(c, there);
    if (c->local.ours) {
        position_format(&c->local.record.generation, c->local.record.confirmed.position, here);
    }
    if (config->on_stale == ON_STALE_FORK &&
        strcmp(config->on_stale_generation.text, start_newest_id(c)) == 0) {
        start_new_generation(c, CAUSE_FORK, why);
        uint32_t ours = c->local.ours ? generation_id_number(&c->local.record.generation) : 0;
        start_supersede(c, ours > 0 ? ours - 1 : 0);
        start_say(plan, row, "forked by HARVEY_ON_STALE, overriding %s: %s", start_newest_id(c),
                  why);
        return;
    }
    if (config->on_stale == ON_STALE_RESTORE) {
        plan->action = START_RESTORE;
        plan->replace = true;
        start_say(plan, row, "%s; restoring, the old files are moved aside", why);
        return;
    }
    plan->action = START_WAIT;
    start_say(
        plan, row,
        "this database is not proven to continue the archive: %s. here: %s, archive: %s. To go "
        "on: HARVEY_ON_STALE=restore (moves this database aside) or HARVEY_ON_STALE=fork:%s "
        "(goes on from this database and overrides that generation)%s",
        why, here, there, start_newest_id(c),
        config->on_stale == ON_STALE_FORK
            ? ". HARVEY_ON_STALE names another generation and does not act"
            : "");
}

/* ---- the generation that may go on ---- */

static enum rc start_read_snapshot(struct start_case *c, const struct catalog_snapshot *snapshot,
                                   struct err *err)
{
    struct shipper_begin *begin = &c->plan->begin;
    const struct state_record *record = &c->local.record;
    begin->has_snapshot = true;
    begin->snapshot = snapshot->position;
    begin->snapshot_bytes = snapshot->object_bytes;
    if (c->local.ours && record->has_archived &&
        position_compare(record->snapshot, snapshot->position) == 0) {
        begin->snapshot_unix_ms = record->snapshot_unix_ms;
        return RC_OK;
    }
    struct snapshot_manifest manifest;
    struct buf json;
    char key[OBJECT_KEY_BYTES];
    struct object_key name = {.kind = OBJECT_SNAPSHOT_COMPLETE,
                              .generation = c->archive.newest->birth.id,
                              .position = snapshot->position};
    memcpy(name.tag, snapshot->tag, sizeof name.tag);
    object_key_format(&name, key);
    snapshot_manifest_init(&manifest);
    buf_init(&json, snapshot_json_bytes_max(snapshot->part_count));
    enum rc rc = store_get_buf(c->input->store, key, &json, err);
    if (rc == RC_OK) {
        rc = snapshot_manifest_decode(json.data, json.size, &manifest, err);
    }
    begin->snapshot_unix_ms = rc == RC_OK ? manifest.unix_ms : 0;
    snapshot_manifest_deinit(&manifest);
    buf_deinit(&json);
    /* a damaged manifest, or one that is too long, makes a new snapshot due, no more */
    return rc == RC_CORRUPT || rc == RC_LIMIT ? RC_OK : rc;
}

enum rc start_fill_begin(struct start_case *c, struct err *err)
{
    struct start_plan *plan = c->plan;
    const struct state_record *record = &c->local.record;
    struct shipper_begin *begin = &plan->begin;
    enum rc rc = RC_OK;
    begin->generation = record->generation;
    begin->term = record->term;
    memcpy(begin->term_tag, record->term_tag, sizeof begin->term_tag);
    if (c->archive.reachable) {
        const struct catalog_run *run = &c->archive.run;
        const struct catalog_snapshot *snapshot = catalog_latest_snapshot(c->archive.newest, NULL);
        begin->confirmed = c->archive.run_end;
        begin->confirmed_salts = run->segment_count > 0 ? run->end_salts : (struct wal_salts){0, 0};
        begin->archived_unix_ms =
            run->segment_count > 0 ? run->end_unix_ms : c->archive.newest->birth.unix_ms;
        begin->term = c->archive.newest->term_highest;
        memcpy(begin->term_tag, c->archive.newest->term_highest_tag, sizeof begin->term_tag);
        if (run->segment_count > 0) {
            const struct catalog_segment *last = run->segments[run->segment_count - 1];
            struct object_key key = {.kind = OBJECT_SEGMENT,
                                     .generation = record->generation,
                                     .position = {last->wal_no, last->last_frame_no},
                                     .first_frame_no = last->first_frame_no,
                                     .term = last->term,
                                     .unix_ms = last->unix_ms};
            memcpy(key.tag, last->lead_tag, sizeof key.tag);
            object_key_format(&key, begin->confirmed_key);
        }
        if (snapshot != NULL) {
            rc = start_read_snapshot(c, snapshot, err);
        }
    } else {
        begin->confirmed = record->confirmed;
        begin->confirmed_salts = record->confirmed_salts;
        begin->archived_unix_ms = record->archived_unix_ms;
        begin->has_snapshot = record->has_archived;
        begin->snapshot = record->snapshot;
        begin->snapshot_unix_ms = record->snapshot_unix_ms;
        begin->snapshot_bytes = record->snapshot_bytes;
    }
    plan->term_next = (begin->term > record->term ? begin->term : record->term) + 1;
    if (generation_id_is_none(&record->pending_generation) &&
        record->pending_term == plan->term_next) {
        memcpy(plan->tag_next, record->pending_tag, sizeof plan->tag_next);
    }
    plan->end = c->chain.end;
    plan->end_salts = c->chain.end_salts;
    plan->end_unix_ms = c->chain.end_unix_ms;
    plan->spool = c->chain.segments;
    plan->spool_count = c->chain.count;
    memcpy(plan->witness, c->chain.witness, sizeof plan->witness);
    c->chain.segments = NULL;
    c->chain.count = 0;
    return rc;
}

void start_set_parent(struct start_case *c)
{
    c->plan->has_parent = true;
    c->plan->parent = c->local.record.generation;
    c->plan->parent_point = c->chain.end;
}

enum rc start_read_chain(struct start_case *c, struct err *err)
{
    const struct state_record *record = &c->local.record;
    bool reachable = c->archive.reachable;
    const struct catalog_run *run = &c->archive.run;
    struct wal_salts salts = {0, 0};
    if (reachable && run->segment_count > 0) {
        salts = run->end_salts;
    } else if (!reachable) {
        salts = record->confirmed_salts;
    }
    return spool_chain_read(&c->chain, c->input->spool, &record->generation,
                            reachable ? &c->archive.run_end : &record->confirmed, salts,
                            reachable ? run->end_unix_ms : record->archived_unix_ms, !reachable,
                            err);
}
