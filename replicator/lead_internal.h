/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lead_internal: the lead's own data, shared by the files that its steps are written in:
 *   lead.c             the loop, housekeeping, publishing
 *   lead_begin.c       START: locks, continuity, a generation's beginning
 *   lead_capture.c     STREAM: one capture pass, cutting into the spool
 *   lead_checkpoint.c  CHECKPOINT and FREEZE
 *   lead_snapshot.c    when one is due, where it begins
 *   lead_end.c         the end: last capture, shipping, handover
 *
 * Thread: the leader's.
 */
#ifndef HARVEY_REPLICATOR_LEAD_INTERNAL_H
#define HARVEY_REPLICATOR_LEAD_INTERNAL_H

#include "archive/segment.h"
#include "base/buf.h"
#include "replicator/lead.h"
#include "replicator/lead_connections.h"
#include "replicator/segmenter.h"
#include "replicator/shipper.h"
#include "replicator/snapshotter.h"
#include "replicator/wal_follower.h"

/* Why frames are not captured at the moment. */
enum lead_capture {
    CAPTURE_ON,
    CAPTURE_NONE,      /* HARVEY_ARCHIVE=none */
    CAPTURE_OUTAGE,    /* the spool is at its cap */
    CAPTURE_BAD_FRAME, /* SQLite wrote a frame with a wrong checksum */
};

struct lead {
    const struct lead_context *context;
    struct start_plan *plan;
    struct lead_connections connections;
    struct wal_follower follower;
    struct segmenter segmenter;
    struct segment_writer *writer;
    struct buf object;
    struct shipper *shipper;
    struct snapshotter *snapshotter;

    enum lead_capture capture;
    bool at_mark0;                /* holds CKPT */
    struct lockfile serving;      /* tells siblings that the start was passed */
    struct wal_index_header seen; /* the wal-index at the end of the last pass */
    uint32_t mark_frame;          /* the mark of the open read transaction is at most this */
    bool mark_is_late; /* and may be less: a commit came between its taking and the look */
    struct generation_id generation;
    uint32_t generation_number_next;
    uint32_t term;
    char tag[OBJECT_TAG_BYTES];
    bool verified; /* compared with the archive; else only the probe runs */

    uint64_t epoch;       /* of the last pass */
    int64_t last_unix_ms; /* the archive's last time, see lead_unix_ms */
    bool clock_is_behind; /* that was said */
    int64_t last_cut_ms;
    int64_t last_pass_ms;
    int64_t last_checkpoint_ms;
    int64_t last_freeze_ms;
    int64_t last_housekeep_ms;
    int64_t last_publish_ms;
    int64_t trouble_logged_ms;
    struct wal_point archived; /* the shipper's, at the last publishing */
    uint64_t database_inode;
    bool wants_fresh_wal; /* the WAL is too large for a generation to begin with: freeze */
    bool marker_pending;  /* restored.json goes when the birth is put */
    /* What a person should know, "" = nothing: each has its own end, and the first of them is told. */
    char trouble[512];        /* the last round could not do its work */
    char alarm[512];          /* frames are not captured, or how this lead began */
    char snapshot_alarm[512]; /* no snapshot comes into the archive */

    uint64_t generations_begun;
    uint64_t wal_resets;
    uint64_t checkpoints;
    uint64_t segments_made;
    int64_t freeze_max_us;
};

/* ---- lead.c ---- */

/* NULL without memory; both pointers are borrowed for its life. Destroy: also after a failed begin; NULL is legal. */
struct lead *lead_create(const struct lead_context *context, struct start_plan *plan);
void lead_destroy(struct lead *lead);

/* Once a second: the database's files, a full spool, an outage's end, restored.json, a snapshot that is due. RC_CORRUPT: start over. */
RC_MUST_CHECK enum rc lead_housekeep(struct lead *lead, struct err *err);

/* Publishes the status, as the view and the lead have it now. */
void lead_publish(struct lead *lead, const struct shipper_view *view);

/* A bad frame was met, and the WAL has begun anew since: the next generation can begin. */
bool lead_has_fresh_wal(const struct lead *lead);

/*
 * A new generation after an outage or a bad frame, as soon as the old chain is shipped / the WAL is fresh; else
 * nothing. RC_CORRUPT: it could not begin, and how far it got only a start can tell: the lead must start over.
 */
RC_MUST_CHECK enum rc lead_resume_capture(struct lead *lead, const struct shipper_view *view,
                                          struct err *err);

/* ---- lead_begin.c ---- */

/* START, to the point where the database may be served. RC_BUSY: come back. Others: see err. */
RC_MUST_CHECK enum rc lead_begin(struct lead *lead, struct err *err);

/*
 * A generation begins with frame 1 of the current WAL, which is protected from a reset: notes it,
 * queues birth and claim. `salts` of that WAL, zero when it has no frames yet.
 */
RC_MUST_CHECK enum rc lead_begin_generation(struct lead *lead, enum generation_cause cause,
                                            const char *detail, const struct generation_id *parent,
                                            const struct wal_point *parent_point,
                                            const struct wal_index_header *header, struct err *err);

/* ---- lead_capture.c ---- */

segmenter_emit_fn lead_emit;

/*
 * One pass: looks at the wal-index; where there is something new opens the other reader, captures up
 * to it, ends the old one. RC_CORRUPT: continuity is lost. A bad frame: as lead_capture_to.
 * RC_BUSY, RC_IO: nothing lost, come back.
 */
RC_MUST_CHECK enum rc lead_pass(struct lead *lead, struct err *err);

/* Now, or the archive's last time where the clock was set back: its times never go back. */
int64_t lead_unix_ms(struct lead *lead);

/*
 * Captures to `header` under whatever protects the frames now, without touching transactions. A bad frame
 * is no error, whoever meets it: lead->capture says so, the good ones in front of it are cut, and the loop
 * goes on to a fresh WAL. RC_CORRUPT: the -wal is another file now.
 */
RC_MUST_CHECK enum rc lead_capture_to(struct lead *lead, const struct wal_index_header *header,
                                      struct err *err);

/* Opens the other reader and ends the one that was open: the mark moves. RC_BUSY, RC_IO: nothing moved. */
RC_MUST_CHECK enum rc lead_swap_readers(struct lead *lead, struct err *err);

/* Cuts what is gathered into the spool. RC_IO: it stays gathered. */
RC_MUST_CHECK enum rc lead_cut(struct lead *lead, struct err *err);

/* ---- lead_checkpoint.c ---- */

/* CHECKPOINT and FREEZE as the policy wants; never blocks longer than the freeze's budgets. */
RC_MUST_CHECK enum rc lead_maintain(struct lead *lead, struct err *err);

/*
 * At mark 0 with CKPT and WRITE held and everything captured: releases WRITE, begins the WAL anew,
 * captures that, moves to a mark k > 0, releases CKPT. RC_STOPPED when told to stop meanwhile.
 */
RC_MUST_CHECK enum rc lead_leave_mark0(struct lead *lead, struct err *err);

/*
 * Notes the database file as the checkpoint left it; with `reset` also that a WAL reset follows at
 * what is captured (read under CKPT and WRITE: S = mxFrame = nBackfill), and then it returns only when
 * the clock has passed the file's mtime. One fdatasync. RC_IO.
 */
RC_MUST_CHECK enum rc lead_note_checkpoint(struct lead *lead, bool reset, struct err *err);

/* ---- lead_snapshot.c ---- */

/* Opens a read transaction at an exact position on a connection of its own and starts a snapshot. RC_BUSY. */
RC_MUST_CHECK enum rc lead_begin_snapshot(struct lead *lead, struct err *err);

/* Begins one that is due, and keeps its alarm. Once a second. RC_BUSY, RC_IO. */
RC_MUST_CHECK enum rc lead_consider_snapshot(struct lead *lead, const struct shipper_view *view,
                                             struct err *err);

/*
 * A packed snapshot is synced, the frames up to its position need not be. Where a power cut took them the
 * chain goes on with others under the same numbers, and it would be completed as soon as the archive
 * has those. Called before any reset: behind it nobody can tell the one from the other. RC_IO, RC_NOMEM.
 */
RC_MUST_CHECK enum rc
lead_drop_lost_snapshot(struct lead *lead, const struct wal_index_header *header, struct err *err);

/* ---- lead_end.c ---- */

/*
 * Told to stop: everything committed is captured and spooled, then handed over to a sibling that waits, or
 * shipped within the time that a stop may take. *unshipped: something stays behind, `reason` says what.
 */
enum lead_end lead_finish(struct lead *lead, bool *unshipped, char *reason, size_t reason_bytes);

/* Told to stop before it had begun: true when something is left that only a next start can ship. */
bool lead_begun_in_part(struct lead *lead, const struct err *why, char *reason,
                        size_t reason_bytes);

#endif
