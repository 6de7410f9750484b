/* SPDX-License-Identifier: Apache-2.0 */
/* app: see app.h. */
#include "server/app.h"

#include "server/db.h"
#include "server/uuid.h"

#include <stdlib.h>

struct app_writer {
    sqlite3 *db;
    sqlite3_stmt *insert;
    struct uuid_source uuids;
};

struct app_reader {
    sqlite3 *db;
    sqlite3_stmt *count;
};

enum rc app_writer_open(sqlite3 *db, struct app_writer **writer, struct err *err)
{
    enum rc rc = RC_OK;
    struct app_writer *app = calloc(1, sizeof *app);
    if (app == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the app");
    }
    app->db = db;
    uuid_source_init(&app->uuids);
    rc = db_run(db, "CREATE TABLE IF NOT EXISTS test(id INTEGER PRIMARY KEY, value INT)", err);
    if (rc == RC_OK) {
        rc = db_prepare(db, "INSERT INTO test(value) VALUES (?1)", &app->insert, err);
    }
    if (rc != RC_OK) {
        app_writer_close(app);
        app = NULL;
    }
    *writer = app;
    return rc;
}

void app_writer_close(struct app_writer *writer)
{
    if (writer != NULL) {
        (void)sqlite3_finalize(writer->insert);
        free(writer);
    }
}

enum rc app_insert(struct app_writer *writer, const char *text, size_t text_bytes, int64_t *row_id,
                   struct err *err)
{
    char uuid[UUID_TEXT_BYTES];
    if (text == NULL) {
        uuid_next(&writer->uuids, uuid);
        text = uuid;
        text_bytes = sizeof uuid - 1;
    }
    enum rc rc = RC_OK;
    if (sqlite3_bind_text(writer->insert, 1, text, (int)text_bytes, SQLITE_STATIC) != SQLITE_OK ||
        sqlite3_step(writer->insert) != SQLITE_DONE) {
        rc = db_fail(err, writer->db, "insert");
    }
    (void)sqlite3_reset(writer->insert);
    (void)sqlite3_clear_bindings(writer->insert); /* `text` is gone when this returns */
    *row_id = sqlite3_last_insert_rowid(writer->db);
    return rc;
}

enum rc app_reader_open(sqlite3 *db, struct app_reader **reader, struct err *err)
{
    struct app_reader *app = calloc(1, sizeof *app);
    *reader = NULL;
    if (app == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the app");
    }
    app->db = db;
    enum rc rc = db_prepare(db, "SELECT ifnull(max(id), 0) FROM test", &app->count, err);
    if (rc != RC_OK) {
        app_reader_close(app);
        return rc;
    }
    *reader = app;
    return RC_OK;
}

void app_reader_close(struct app_reader *reader)
{
    if (reader != NULL) {
        (void)sqlite3_finalize(reader->count);
        free(reader);
    }
}

enum rc app_count_rows(struct app_reader *reader, int64_t *rows, struct err *err)
{
    enum rc rc = RC_OK;
    if (sqlite3_step(reader->count) == SQLITE_ROW) {
        *rows = sqlite3_column_int64(reader->count, 0);
    } else {
        rc = db_fail(err, reader->db, "count rows");
    }
    (void)sqlite3_reset(reader->count); /* ends the read transaction */
    return rc;
}
