/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status: what /status says, as text for people and as JSON (docs/configuration.md, "Status"). Facts
 * come in as a plain struct; nothing here asks anybody. No colour: that is `make status`'s.
 *
 * Thread: any (pure functions).
 */
#ifndef HARVEY_SERVER_STATUS_H
#define HARVEY_SERVER_STATUS_H

#include "base/buf.h"
#include "base/err.h"
#include "replicator/replicator.h"

#include <stdbool.h>
#include <stdint.h>

#define STATUS_BYTES_MAX 16384u
#define STATUS_REASON_BYTES 640

struct status_facts {
    bool has_rows; /* the database is open */
    int64_t rows;
    bool ready;
    char reason[STATUS_REASON_BYTES]; /* "" = none */
    double uptime_s;
    const char *version;
    const char *sqlite_version;
    const char *synchronous; /* "FULL", "NORMAL" */
    const char *filesystem;  /* of the database's directory */
    bool unsafe_filesystem;  /* refused otherwise; HARVEY_UNSAFE_FS=1 */
    unsigned connections;
    uint64_t inserted_rows; /* by this process */
    uint64_t batches;
    uint64_t failed_batches;
    int64_t writer_pause_p999_us; /* a ready batch's wait for the write lock */
    int64_t writer_pause_max_us;
    bool refuses_rows; /* the last batch failed, and not because somebody else wrote: an alarm */
    struct replicator_status replicator;
};

/* Appends to `out` (cap STATUS_BYTES_MAX is enough). RC_LIMIT, RC_NOMEM. */
RC_MUST_CHECK enum rc status_render_text(const struct status_facts *facts, struct buf *out,
                                         struct err *err);
RC_MUST_CHECK enum rc status_render_json(const struct status_facts *facts, struct buf *out,
                                         struct err *err);

#endif
