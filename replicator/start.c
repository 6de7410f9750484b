/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start: see start.h. The rows have the numbers of the start table in docs/archive-format.md; what they
 * make their plans of is in start_plan.c.
 */
#include "replicator/start.h"

#include "base/clk.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "replicator/lead_connections.h"
#include "replicator/start_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define START_MISFITS_BYTES 80
#define START_LOST "whose birth or complete snapshot is lost"

/* ---- rows ---- */

/* Words for what survived in the spool and does not continue the archive, or "". */
static void start_tell_misfits(const struct start_case *c, char text[START_MISFITS_BYTES])
{
    text[0] = '\0';
    if (c->chain.misfit_count > 0) {
        (void)snprintf(text, START_MISFITS_BYTES,
                       ", which lacks what %zu objects of this spool follow",
                       c->chain.misfit_count);
    }
}

/* Row 5: the archive holds a database and this volume none. */
static void start_decide_on_empty(struct start_case *c)
{
    const struct replicator_config *config = c->input->config;
    struct start_plan *plan = c->plan;
    char there[POSITION_TEXT_BYTES] = START_LOST;
    if (c->archive.latest != NULL) {
        position_format(&c->archive.latest->birth.id, c->archive.run_end.position, there);
    }
    if (config->on_empty == ON_EMPTY_NEW &&
        strcmp(config->on_empty_generation.text, start_newest_id(c)) == 0) {
        start_new_generation(c, CAUSE_FORK, "HARVEY_ON_EMPTY=new");
        start_supersede(c, 0);
        plan->create_database = true;
        start_say(plan, 5, "an empty database, overriding %s (HARVEY_ON_EMPTY=new)",
                  start_newest_id(c));
        return;
    }
    if (config->on_empty == ON_EMPTY_RESTORE) {
        plan->action = START_RESTORE;
        start_say(plan, 5, "the database is missing: restoring from %s", config->store.url);
        return;
    }
    char misfits[START_MISFITS_BYTES];
    start_tell_misfits(c, misfits);
    plan->action = START_WAIT_FOR_RESTORE;
    start_say(plan, 5,
              "the database %s is missing and the archive %s holds one (%s)%s: run ./restore "
              "--to-latest, or set HARVEY_ON_EMPTY=restore, or, to begin an empty one and override "
              "that, HARVEY_ON_EMPTY=new:%s%s",
              config->database_path, config->store.url, there, misfits, start_newest_id(c),
              config->on_empty == ON_EMPTY_NEW
                  ? ". HARVEY_ON_EMPTY names another generation and does not act"
                  : "");
}

/* Segments that survived a lost database belong to the archive before anybody restores. */
static enum rc start_ship_chain(struct start_case *c, struct err *err)
{
    enum rc rc = spool_chain_ship(&c->chain, c->input->spool, c->input->store, err);
    if (rc == RC_OK && c->chain.count > 0) {
        log_info("start", "shipped what survived in the spool  segments=%zu", c->chain.count);
        c->archive.run_end = c->chain.end;
    }
    return rc;
}

/* Nothing complete lies there, and nothing shows that something did. */
static enum rc start_archive_is_empty(struct start_case *c, bool *nothing, struct err *err)
{
    enum rc rc = RC_OK;
    if (c->archive.latest == NULL) {
        rc = archive_look_lost(&c->archive, c->input->store, err);
    }
    *nothing = c->archive.latest == NULL && generation_id_is_none(&c->archive.lost);
    return rc;
}

/* Rows 2 to 5: there is no database. */
static enum rc start_decide_missing(struct start_case *c, struct err *err)
{
    struct start_plan *plan = c->plan;
    const struct replicator_config *config = c->input->config;
    if (!c->archive.reachable) {
        plan->action = START_WAIT;
        start_say(plan, 3, "no database here, and the archive %s does not answer: %s",
                  config->store.url, c->archive.error);
        return RC_OK;
    }
    if (c->archive.latest == NULL && c->local.ours && c->local.has_unsent) {
        plan->action = START_WAIT;
        start_say(
            plan, 2,
            "the database %s is missing, the archive %s holds no complete snapshot, and %s holds "
            "segments or a snapshot that may be the only copy: put the database back, or move "
            "that folder away to begin anew",
            config->database_path, config->store.url, c->input->sidecar->dir);
        return RC_OK;
    }
    bool nothing = false;
    enum rc rc = start_archive_is_empty(c, &nothing, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (nothing) {
        start_new_generation(c, CAUSE_FIRST_START, "no database and no complete snapshot");
        start_supersede(c, 0);
        plan->create_database = true;
        start_say(plan, 4, "first start: nothing lay under %s, a new database begins",
                  config->store.url);
        return RC_OK;
    }
    if (c->local.ours && c->archive.newest != NULL &&
        generation_id_equal(&c->local.record.generation, &c->archive.newest->birth.id)) {
        rc = start_read_chain(c, err);
        if (rc == RC_OK) {
            rc = start_ship_chain(c, err);
        }
        if (rc != RC_OK) {
            return rc;
        }
    }
    start_decide_on_empty(c);
    return RC_OK;
}

/* Rows 9 and 10: a database that no local note ties to this archive. */
static enum rc start_decide_foreign(struct start_case *c, struct err *err)
{
    bool nothing = false;
    enum rc rc = start_archive_is_empty(c, &nothing, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (!nothing && c->archive.latest == NULL) {
        start_stale(c, 10, "the archive held a database, " START_LOST);
    } else if (!nothing) {
        start_stale(
            c, 10,
            c->local.marker_is_foreign
                ? "nothing beside it tells that it belongs to this archive (restored.json is "
                  "there, and is none that a restore wrote)"
                : "nothing beside it tells that it belongs to this archive");
    } else {
        start_new_generation(c, CAUSE_ADOPTED, "a database without an archive");
        start_supersede(c, 0);
        start_say(c->plan, 9, "adopting the database: nothing complete lay under %s",
                  c->input->config->store.url);
    }
    return RC_OK;
}

/* Rows 6 and 7: the restore tool made this file. */
static enum rc start_decide_restored(struct start_case *c, struct err *err)
{
    const struct restored_marker *marker = &c->local.marker;
    struct start_plan *plan = c->plan;
    const struct catalog_generation *newest = c->archive.newest;
    if (newest == NULL) { /* nothing is left of what it was restored from */
        return start_decide_foreign(c, err);
    }
    bool both_empty =
        marker->newest_end.position.frame_no == 0 && c->archive.run_end.position.frame_no == 0;
    bool same = generation_id_equal(&marker->newest_generation, &newest->birth.id) &&
                (both_empty || wal_point_equal(marker->newest_end, c->archive.run_end)) &&
                marker->newest_term == newest->term_highest;
    if (!same) {
        start_stale(c, 7, "it was restored, and the archive has moved since");
        return RC_OK;
    }
    start_new_generation(c, CAUSE_RESTORED, "goes on from a restore");
    plan->has_parent = true;
    plan->parent = marker->generation;
    plan->parent_point = marker->point;
    start_supersede(c, generation_id_number(&marker->generation));
    plan->is_ordinary = true;
    start_say(plan, 6, "goes on from the restored position");
    return RC_OK;
}

/* Row 12: why the archive is not what this server left; NULL when it is. */
static const char *start_foreign_history(struct start_case *c)
{
    const struct state_record *record = &c->local.record;
    const struct catalog_generation *newest = c->archive.newest;
    const struct wal_point *end = &c->archive.run_end;
    if (newest == NULL) {
        return NULL; /* everything is gone: row 14 */
    }
    if (generation_id_number(&newest->birth.id) > generation_id_number(&record->generation)) {
        return "the archive holds a newer generation that is not ours";
    }
    if (!generation_id_equal(&newest->birth.id, &record->generation)) {
        return NULL; /* ours is gone, older ones are left: row 14 */
    }
    bool claim_is_ours = newest->term_highest < record->term || newest->term_highest == 0 ||
                         (newest->term_highest == record->term &&
                          strcmp(newest->term_highest_tag, record->term_tag) == 0) ||
                         (newest->term_highest == record->pending_term &&
                          strcmp(newest->term_highest_tag, record->pending_tag) == 0);
    if (!claim_is_ours) {
        return "another server claimed the lead of its generation";
    }
    if (c->archive.run.end_kind == CATALOG_END_FORK) {
        return "the archive's newest generation holds two histories";
    }
    if (c->chain.contradicts_archive_end) {
        return "the archive holds other frames than the spool";
    }
    bool known = position_compare(end->position, record->confirmed.position) < 0 ||
                 end->position.frame_no == 0 || wal_point_equal(*end, record->confirmed) ||
                 wal_point_equal(*end, record->captured) ||
                 wal_point_equal(*end, record->reset_point) || c->chain.knows_archive_end ||
                 local_wal_holds(c->input->sidecar, end, c->archive.run.end_salts);
    return known ? NULL : "the archive holds frames that are not in this database's history";
}

/*
 * A birth that was put just before a crash is ours: the record catches up. Others are given up, and while
 * the archive cannot be asked, its birth may be there: whatever begins now begins under that id.
 */
static void start_settle_pending(struct start_case *c)
{
    struct state_record *record = &c->local.record;
    if (generation_id_is_none(&record->pending_generation)) {
        return;
    }
    if (c->archive.reachable &&
        catalog_find(&c->archive.catalog, &record->pending_generation) != NULL) {
        record->generation = record->pending_generation;
        record->term = 0;
        record->term_tag[0] = '\0';
        record->confirmed = (struct wal_point){{1, 0}, {0, 0}};
        record->confirmed_salts = (struct wal_salts){0, 0};
        record->has_archived = false;
    } else {
        c->leaves_old = true;
        record->pending_term = c->archive.reachable ? 0 : record->pending_term;
        c->plan->pending =
            c->archive.reachable ? (struct generation_id){""} : record->pending_generation;
    }
    if (c->archive.reachable) {
        record->pending_generation = (struct generation_id){""};
    }
}

/* Row 16: is a -wal beside a database that it does not belong to? */
static bool start_quick_check(const struct start_case *c)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    struct err err;
    bool ok = lead_connections_open_one(c->input->sidecar->database, false, &db, &err) == RC_OK &&
              sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &statement, NULL) == SQLITE_OK &&
              sqlite3_step(statement) == SQLITE_ROW &&
              strcmp((const char *)sqlite3_column_text(statement, 0), "ok") == 0;
    (void)sqlite3_finalize(statement);
    (void)sqlite3_close_v2(db);
    return ok;
}

static bool start_lost_frames(struct start_case *c)
{
    return !c->leaves_old &&
           local_lost_frames(&c->local, c->input->sidecar, &c->chain.end, c->chain.end_salts);
}

#define START_LOST_FRAMES "the -wal with its last frames is gone or is another one"

/* Rows 14 to 17, as far as they can be told without SQLite's locks. */
static enum rc start_decide_ours(struct start_case *c, struct err *err)
{
    const struct state_record *record = &c->local.record;
    struct start_plan *plan = c->plan;
    bool lost = c->archive.newest == NULL ||
                !generation_id_equal(&c->archive.newest->birth.id, &record->generation) ||
                position_compare(c->chain.end.position, record->confirmed.position) < 0;
    enum rc rc = RC_OK;
    if (lost) {
        start_new_generation(c, CAUSE_STORE_LOST, "the store lost objects that it had confirmed");
        c->archive.lost =
            record->generation; /* overridden also where nothing but a birth is missing */
        start_supersede(c, generation_id_number(&record->generation) - 1);
        plan->alarm = true;
        start_say(plan, 14,
                  "the store lost objects that it had confirmed: a new generation begins");
        return RC_OK;
    }
    if ((rc = start_fill_begin(c, err)) != RC_OK) {
        return rc;
    }
    start_new_generation(c, CAUSE_LOST_CONTINUITY, "the -wal does not continue the archive");
    start_set_parent(c);
    plan->continues = record->replicated && !c->leaves_old;
    plan->identity_differs = !record->checkpoint_running &&
                             (record->database.size_bytes != c->local.identity.size_bytes ||
                              record->database.mtime_ns != c->local.identity.mtime_ns);
    plan->is_ordinary = true;
    start_say(plan, 15, "continuing generation %s", record->generation.text);
    if (plan->identity_differs && local_wal_holds(c->input->sidecar, &plan->end, plan->end_salts) &&
        !start_quick_check(c)) {
        start_stale(c, 16,
                    "somebody wrote the database file, and with its -wal it fails quick_check");
    }
    return RC_OK;
}

/* Row 11: ours, and the archive cannot be asked. */
static enum rc start_decide_unreachable(struct start_case *c, struct err *err)
{
    struct start_plan *plan = c->plan;
    enum rc rc = start_read_chain(c, err);
    if (rc == RC_OK && start_lost_frames(c)) {
        start_stale(c, 12, START_LOST_FRAMES);
        return RC_OK;
    }
    if (rc == RC_OK) {
        rc = start_fill_begin(c, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    start_new_generation(c, CAUSE_LOST_CONTINUITY, "the -wal does not continue the archive");
    start_set_parent(c);
    plan->continues = c->local.record.replicated && !c->leaves_old;
    plan->identity_differs = false; /* row 16 is looked at when the archive answers */
    plan->alarm = true;
    start_say(
        plan, 11,
        "the archive %s does not answer (%s): serving, nothing is uploaded before it was compared",
        c->input->config->store.url, c->archive.error);
    return RC_OK;
}

/*
 * The state names this very file. A file that a restore made may have got the number of the one that the state
 * speaks of: then its marker fits it, and the noted size or time does not.
 */
static bool start_is_same_file(const struct start_case *c)
{
    const struct file_identity *noted = &c->local.record.database;
    const struct file_identity *now = &c->local.identity;
    bool as_noted = noted->size_bytes == now->size_bytes && noted->mtime_ns == now->mtime_ns;
    return c->local.ours && noted->inode == now->inode && (as_noted || !c->local.marker_matches);
}

static enum rc start_decide_present(struct start_case *c, struct err *err)
{
    struct start_plan *plan = c->plan;
    bool same_file = start_is_same_file(c);
    if (!same_file && c->local.marker_matches && c->archive.reachable) {
        return start_decide_restored(c, err); /* 6, 7 */
    }
    start_settle_pending(c);
    if (generation_id_is_none(&c->local.record.generation)) {
        c->local.ours = false;
    }
    if (!c->archive.reachable) {
        if (c->local.ours && same_file) {
            return start_decide_unreachable(c, err);
        }
        plan->action = START_WAIT;
        start_say(
            plan, 8,
            "the archive %s must be asked whether this database continues it, and it does not "
            "answer: %s",
            c->input->config->store.url, c->archive.error);
        return RC_OK;
    }
    if (!c->local.ours) {
        return c->local.marker_matches ? start_decide_restored(c, err)
                                       : start_decide_foreign(c, err);
    }
    enum rc rc = start_read_chain(c, err);
    if (rc != RC_OK) {
        return rc;
    }
    const char *foreign = start_foreign_history(c);
    if (foreign != NULL) {
        start_stale(c, 12, foreign);
        return RC_OK;
    }
    if (!same_file) {
        start_stale(c, 13, "the database file was replaced (or this is a copied volume)");
        return RC_OK;
    }
    if (start_lost_frames(c)) {
        start_stale(c, 12, START_LOST_FRAMES);
        return RC_OK;
    }
    return start_decide_ours(c, err);
}

static enum rc start_decide_case(struct start_case *c, struct err *err)
{
    struct start_plan *plan = c->plan;
    const struct replicator_config *config = c->input->config;
    if (!c->local.database_exists && c->local.wal_exists) {
        plan->action = START_WAIT;
        start_say(plan, 1,
                  "%s is there without its database: SQLite would delete it. Put the database back "
                  "beside it, or move it away",
                  c->input->sidecar->wal);
        return RC_OK;
    }
    if (config->store.off) {
        plan->action = START_SERVE;
        plan->create_database = !c->local.database_exists;
        start_say(plan, 0, "HARVEY_ARCHIVE=none: nothing is replicated");
        return RC_OK;
    }
    archive_look_take(&c->archive, c->input->store, config->store.is_s3 || !c->local.ours);
    return c->local.database_exists ? start_decide_present(c, err) : start_decide_missing(c, err);
}

enum rc start_decide(const struct start_input *input, struct start_plan *plan, struct err *err)
{
    struct start_case *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the comparison");
    }
    c->input = input;
    c->plan = plan;
    catalog_init(&c->archive.catalog);
    catalog_run_init(&c->archive.run);
    spool_chain_init(&c->chain);
    enum rc rc = local_look_take(&c->local, input, err);
    FAILPOINT("start_looked");
    if (rc == RC_OK) {
        rc = start_decide_case(c, err);
    }
    if (rc == RC_OK && plan->action == START_SERVE) {
        rc = spool_chain_drop(&c->chain, input->spool, err);
    }
    spool_chain_deinit(&c->chain);
    archive_look_deinit(&c->archive);
    free(c);
    return rc;
}
