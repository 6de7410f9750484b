/* SPDX-License-Identifier: Apache-2.0 */
/* start_look: see start_look.h. */
#include "replicator/start_look.h"

#include "base/buf.h"
#include "base/fsio.h"
#include "base/log.h"
#include "replicator/wal_follower.h"

#include <stdio.h>
#include <string.h>

enum rc start_identify(const char *path, struct file_identity *identity, struct err *err)
{
    struct fsio_stat stat;
    *identity = (struct file_identity){0};
    enum rc rc = fsio_stat(path, &stat, err);
    if (rc == RC_OK && stat.exists) {
        *identity = (struct file_identity){stat.inode, stat.size_bytes, stat.mtime_ns};
    }
    return rc;
}

/* RC_CORRUPT, RC_LIMIT: what lies there is no marker. RC_NOT_FOUND: nothing does. */
static enum rc local_load_marker(const char *path, struct restored_marker *marker, struct err *err)
{
    struct buf json;
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    enum rc rc = fsio_read_regular(path, &json, err);
    if (rc == RC_OK) {
        rc = restored_marker_decode(json.data, json.size, marker, err);
    }
    buf_deinit(&json);
    return rc;
}

/* Reads restored.json; what is no marker counts as none (the start then asks for proof). */
static enum rc local_read_marker(struct local_look *look, const struct start_input *input,
                                 struct err *err)
{
    const struct restored_marker *m = &look->marker;
    enum rc rc = local_load_marker(input->sidecar->restored, &look->marker, err);
    switch (rc) {
    case RC_OK:
        look->marker_matches = m->inode == look->identity.inode &&
                               m->size_bytes == look->identity.size_bytes &&
                               m->mtime_ns == look->identity.mtime_ns &&
                               strcmp(m->archive, input->config->store.url) == 0;
        return RC_OK;
    case RC_NOT_FOUND:
        return RC_OK;
    case RC_CORRUPT:
    case RC_LIMIT:
    case RC_INVALID:
        look->marker_is_foreign = true;
        log_warn("start", "restored.json is no marker of ours and counts as none: %s", err->text);
        return RC_OK;
    case RC_IO:
    case RC_TIMEOUT:
    case RC_UNAVAILABLE:
    case RC_BUSY:
    case RC_DENIED:
    case RC_NOMEM:
    case RC_INTERNAL:
    case RC_EXISTS:
    case RC_STOPPED:
        break;
    }
    return rc;
}

static enum rc local_count_visit(void *arg, const char *name, bool is_dir, struct err *err)
{
    (void)err;
    if (is_dir && name[0] != '.') {
        (*(int *)arg)++;
    }
    return RC_OK;
}

static enum rc local_count_dirs(const char *path, int *count, struct err *err)
{
    enum rc rc = fsio_list_dir(path, local_count_visit, count, err);
    return rc == RC_NOT_FOUND ? RC_OK : rc;
}

enum rc local_look_take(struct local_look *look, const struct start_input *input, struct err *err)
{
    struct fsio_stat wal;
    int unsent = 0;
    *look = (struct local_look){0};
    enum rc rc;
    if ((rc = start_identify(input->sidecar->database, &look->identity, err)) != RC_OK ||
        (rc = fsio_stat(input->sidecar->wal, &wal, err)) != RC_OK ||
        (rc = local_count_dirs(input->spool->dir, &unsent, err)) != RC_OK ||
        (rc = local_count_dirs(input->sidecar->snapshot, &unsent, err)) != RC_OK ||
        (rc = local_read_marker(look, input, err)) != RC_OK) {
        return rc;
    }
    look->database_exists = look->identity.inode != 0 && look->identity.size_bytes > 0;
    look->wal_exists = wal.exists && wal.size_bytes > 0;
    look->has_unsent = unsent > 0;
    state_get(input->state, &look->record);
    look->ours = look->record.valid &&
                 strcmp(look->record.archive, input->config->store.url) == 0 &&
                 (!generation_id_is_none(&look->record.generation) ||
                  !generation_id_is_none(&look->record.pending_generation));
    return RC_OK;
}

static enum rc archive_look_read(struct archive_look *look, struct store *store, bool create,
                                 struct err *err)
{
    enum rc rc = store_prepare(store, false, err); /* a look leaves no trace: no probe */
    if (rc == RC_NOT_FOUND && create) {
        rc = store_prepare(store, true, err);
    }
    if (rc == RC_OK) {
        rc = catalog_read_generations(&look->catalog, store, err);
    }
    if (rc != RC_OK || look->catalog.generation_count == 0) {
        return rc;
    }
    look->newest = &look->catalog.generations[look->catalog.generation_count - 1];
    look->number_highest = generation_id_number(&look->newest->birth.id);
    if ((rc = catalog_find_latest(&look->catalog, store, &look->latest, err)) != RC_OK ||
        (rc = catalog_load_generation(look->newest, store, 1, err)) != RC_OK) {
        return rc;
    }
    const struct catalog_snapshot *snapshot = catalog_latest_snapshot(look->newest, NULL);
    uint32_t from = snapshot != NULL ? snapshot->position.wal_no : 1;
    rc = catalog_find_run(look->newest, store, from, look->newest->birth.window, &look->run, err);
    if (rc == RC_OK && look->run.segment_count > 0) {
        look->run_end = look->run.end;
    }
    return rc;
}

void archive_look_take(struct archive_look *look, struct store *store, bool create)
{
    struct err err = ERR_INIT;
    *look = (struct archive_look){.run_end = {{1, 0}, {0, 0}}};
    catalog_init(&look->catalog);
    catalog_run_init(&look->run);
    look->rc = archive_look_read(look, store, create, &err);
    look->reachable = look->rc == RC_OK;
    (void)snprintf(look->error, sizeof look->error, "%s", err.text);
}

enum rc archive_look_lost(struct archive_look *look, struct store *store, struct err *err)
{
    const struct generation_id none = {""};
    const struct generation_id *newest = look->newest != NULL ? &look->newest->birth.id : &none;
    enum rc rc = catalog_find_orphan(store, newest, &look->lost, err);
    for (size_t i = look->catalog.generation_count; rc == RC_OK && i > 0; i--) {
        const struct generation_id *one = &look->catalog.generations[i - 1].birth.id;
        bool lost = false;
        if (!generation_id_is_none(&look->lost)) {
            break;
        }
        rc = catalog_lost_snapshot(one, store, &lost, err);
        look->lost = lost ? *one : none;
    }
    if (generation_id_number(&look->lost) > look->number_highest) {
        look->number_highest = generation_id_number(&look->lost);
    }
    return rc;
}

void archive_look_deinit(struct archive_look *look)
{
    catalog_run_deinit(&look->run);
    catalog_deinit(&look->catalog);
}

/* What was read last is a WAL behind that of `end`, whose salts are end_salts. */
static bool record_knows_later_wal(const struct state_record *record, const struct wal_point *end,
                                   struct wal_salts end_salts)
{
    static const struct wal_salts none = {0, 0};
    return position_compare(record->captured.position, end->position) >= 0 &&
           !wal_salts_equal(record->captured_salts, end_salts) &&
           !wal_salts_equal(record->captured_salts, none);
}

bool start_saw_next_wal(const struct state_record *record, const struct wal_point *end,
                        struct wal_salts end_salts)
{
    return end->position.frame_no > 0 && wal_point_equal(record->captured, *end) &&
           record_knows_later_wal(record, end, end_salts);
}

/* Opens the -wal and reads its header; it must have these salts. */
static bool local_wal_open(struct wal_follower *follower, const struct sidecar *sidecar,
                           struct wal_salts salts, struct wal_header *header)
{
    struct err err;
    uint8_t bytes[WAL_HEADER_BYTES];
    wal_follower_init(follower, sidecar->wal);
    return wal_follower_open(follower, &err) == RC_OK &&
           fsio_read_at(follower->fd, bytes, sizeof bytes, 0, &err) == RC_OK &&
           wal_header_decode(bytes, header, &err) == RC_OK && wal_salts_equal(header->salts, salts);
}

bool local_wal_is(const struct sidecar *sidecar, struct wal_salts salts)
{
    struct wal_follower follower;
    struct wal_header header;
    bool is = local_wal_open(&follower, sidecar, salts, &header);
    wal_follower_deinit(&follower);
    return is;
}

bool local_wal_holds(const struct sidecar *sidecar, const struct wal_point *point,
                     struct wal_salts salts)
{
    struct wal_follower follower;
    struct wal_header header;
    struct wal_salts found_salts;
    struct wal_checksum found;
    struct err err;
    bool holds =
        local_wal_open(&follower, sidecar, salts, &header) &&
        wal_follower_checksum_at(&follower, header.page_size_bytes, point->position.frame_no,
                                 &found_salts, &found, &err) == RC_OK &&
        wal_salts_equal(found_salts, salts) && wal_checksum_equal(found, point->checksum);
    wal_follower_deinit(&follower);
    return holds;
}

bool local_lost_frames(struct local_look *look, const struct sidecar *sidecar,
                       const struct wal_point *end, struct wal_salts end_salts)
{
    const struct state_record *record = &look->record;
    /* a WAL is reset only when all of it is in the file: `end` may lie in an earlier one, whose segments are gone */
    bool reset_noted =
        record->reset_follows && position_compare(record->reset_point.position, end->position) >= 0;
    /* a foreign checkpoint copied the WAL of `end` as far, and we saw it: then any commit may reset that WAL */
    bool backfill_noted = wal_salts_equal(record->captured_salts, end_salts) &&
                          record->backfilled >= end->position.frame_no;
    bool later_is_there = record_knows_later_wal(record, end, end_salts) &&
                          local_wal_is(sidecar, record->captured_salts);
    struct file_identity now;
    struct err ignored;
    if (end->position.frame_no == 0 || record->checkpoint_running || !record->replicated ||
        reset_noted || backfill_noted || later_is_there ||
        local_wal_holds(sidecar, end, end_salts)) {
        return false;
    }
    /* the file again, after its -wal: a checkpoint that took the -wal since the first look wrote it before */
    if (start_identify(sidecar->database, &now, &ignored) == RC_OK &&
        now.inode == look->identity.inode) {
        look->identity = now;
    }
    return record->database.size_bytes == look->identity.size_bytes &&
           record->database.mtime_ns == look->identity.mtime_ns;
}
