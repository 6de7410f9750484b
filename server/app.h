/* SPDX-License-Identifier: Apache-2.0 */
/*
 * app: the demo application, and the file to replace with your own. It knows SQL and nothing of
 * HTTP, threads or replication; everything around it (group commit, answers after the commit,
 * replication, restore) stays as it is.
 *
 * The server calls it from two threads, each with a connection of its own:
 *   - the writer opens a `struct app_writer` once per opened database and calls app_insert for each
 *     queued request inside one transaction that the server begins and commits;
 *   - the http thread opens a `struct app_reader` for /status.
 *
 * The demo: one table, test(id INTEGER PRIMARY KEY, value INT), one row per request. Rows are never
 * deleted or given an id by hand, so the largest id is their number, at the cost of one step down
 * the table's tree, and right with several writing processes too.
 *
 * Rules for your own: no BEGIN, COMMIT, SAVEPOINT (sqlite-wal: a spilled SAVEPOINT writes bad frames
 * in SQLite 3.40.1), no pragma, no ATTACH. A failed app_insert undoes the whole batch, and every
 * request in it is answered 5xx: check what a client sends before you write.
 */
#ifndef HARVEY_SERVER_APP_H
#define HARVEY_SERVER_APP_H

#include "base/err.h"

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

struct app_writer;
struct app_reader;

/* Makes the table where it is missing, prepares the statements. db_fail's codes, RC_NOMEM. */
RC_MUST_CHECK enum rc app_writer_open(sqlite3 *db, struct app_writer **writer, struct err *err);
void app_writer_close(struct app_writer *writer); /* NULL is legal */

/*
 * Inserts one row inside the open transaction: `text` (borrowed, UTF-8, not NUL-terminated), or a
 * random uuid when it is NULL. *row_id is the new row's. db_fail's codes.
 */
RC_MUST_CHECK enum rc app_insert(struct app_writer *writer, const char *text, size_t text_bytes,
                                 int64_t *row_id, struct err *err);

RC_MUST_CHECK enum rc app_reader_open(sqlite3 *db, struct app_reader **reader, struct err *err);
void app_reader_close(struct app_reader *reader); /* NULL is legal */

/* The number of rows, in constant time. */
RC_MUST_CHECK enum rc app_count_rows(struct app_reader *reader, int64_t *rows, struct err *err);

#endif
