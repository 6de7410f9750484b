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

/* Reads restored.json; one that cannot be read counts as none (the start then asks for proof). */
static enum rc local_read_marker(struct local_look *look, const struct start_input *input,
                                 struct err *err)
{
    struct buf json;
    buf_init(&json, HISTORY_JSON_BYTES_MAX);
    enum rc rc = fsio_read_file(input->sidecar->restored, &json, err);
    if (rc == RC_NOT_FOUND) {
        rc = RC_OK;
    } else if (rc == RC_OK) {
        rc = restored_marker_decode(json.data, json.size, &look->marker, err);
        if (rc == RC_OK) {
            const struct restored_marker *m = &look->marker;
            look->marker_matches = m->inode == look->identity.inode &&
                                   m->size_bytes == look->identity.size_bytes &&
                                   m->mtime_ns == look->identity.mtime_ns &&
                                   strcmp(m->archive, input->config->store.url) == 0;
        } else {
            log_warn("start", "restored.json is not readable and counts as none: %s", err->text);
            rc = RC_OK;
        }
    }
    buf_deinit(&json);
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

void archive_look_deinit(struct archive_look *look)
{
    catalog_run_deinit(&look->run);
    catalog_deinit(&look->catalog);
}

bool local_wal_holds(const struct sidecar *sidecar, const struct wal_point *point,
                     struct wal_salts salts)
{
    struct wal_follower follower;
    struct wal_header header;
    struct wal_salts found_salts;
    struct wal_checksum found;
    struct err err;
    uint8_t bytes[WAL_HEADER_BYTES];
    wal_follower_init(&follower, sidecar->wal);
    bool holds =
        wal_follower_open(&follower, &err) == RC_OK &&
        fsio_read_at(follower.fd, bytes, sizeof bytes, 0, &err) == RC_OK &&
        wal_header_decode(bytes, &header, &err) == RC_OK && wal_salts_equal(header.salts, salts) &&
        wal_follower_checksum_at(&follower, header.page_size_bytes, point->position.frame_no,
                                 &found_salts, &found, &err) == RC_OK &&
        wal_salts_equal(found_salts, salts) && wal_checksum_equal(found, point->checksum);
    wal_follower_deinit(&follower);
    return holds;
}
