/* SPDX-License-Identifier: Apache-2.0 */
/* replay: see replay.h. */
#include "restorer/replay.h"

#include "archive/wal_format.h"
#include "base/failpoint.h"
#include "restorer/chain.h"
#include "restorer/cut.h"

struct replay {
    const struct plan *plan;
    struct apply *apply; /* NULL: only checked */
    bool is_backward;
    size_t first_index;
    size_t segment_count;
    bool has_neighbour;
    struct chain_ends neighbour; /* of the object delivered before */
    struct replay_verdict verdict;
    void (*tick)(void *arg);
    void *tick_arg;
};

static size_t replay_index_of(const struct replay *replay, size_t task)
{
    return replay->is_backward ? replay->first_index + replay->segment_count - 1 - task
                               : replay->first_index + task;
}

static uint64_t replay_cost(void *arg, size_t task)
{
    const struct replay *replay = arg;
    const struct catalog_segment *segment =
        replay->plan->run.segments[replay_index_of(replay, task)];
    uint64_t frames = (uint64_t)segment->last_frame_no - segment->first_frame_no + 1;
    uint64_t frame_bytes = WAL_FRAME_HEADER_BYTES + replay->plan->manifest.page_size_bytes;
    uint64_t content = frames * frame_bytes + WAL_HEADER_BYTES;
    /* the object's size is what a listing says: any number */
    return segment->object_bytes < UINT64_MAX - content ? segment->object_bytes + content
                                                        : UINT64_MAX;
}

static enum rc replay_work(void *arg, size_t task, struct fetch_worker *worker,
                           struct fetch_slot *slot, struct err *err)
{
    const struct replay *replay = arg;
    struct object_key key;
    cut_segment_key(&replay->plan->generation->birth.id,
                    replay->plan->run.segments[replay_index_of(replay, task)], &key);
    return fetch_segment(worker, &key, slot, err);
}

/* The rolling checksum after `frame_no`, which lies in the object. */
static struct wal_checksum replay_checksum_at(const struct segment_header *header,
                                              const uint8_t *content, uint32_t frame_no)
{
    struct wal_frame_header frame;
    size_t frame_bytes = (size_t)WAL_FRAME_HEADER_BYTES + header->page_size_bytes;
    ASSERT(frame_no >= header->first_frame_no && frame_no <= header->last_frame_no);
    wal_frame_header_decode(segment_frames(header, content) +
                                (size_t)(frame_no - header->first_frame_no) * frame_bytes,
                            &frame);
    return frame.checksum;
}

/* Where a point lies in this object, the chain must have the point's checksum there. */
static enum rc replay_check_point(const struct segment_header *header, const uint8_t *content,
                                  const struct wal_point *point, const char *what, struct err *err)
{
    if (point->position.wal_no != header->wal_no ||
        point->position.frame_no < header->first_frame_no ||
        point->position.frame_no > header->last_frame_no) {
        return RC_OK;
    }
    struct wal_checksum sum = replay_checksum_at(header, content, point->position.frame_no);
    if (!wal_checksum_equal(sum, point->checksum)) {
        return err_set(err, RC_CORRUPT,
                       "frame %u of WAL %u has another checksum than %s: another history",
                       point->position.frame_no, point->position.wal_no, what);
    }
    return RC_OK;
}

static enum rc replay_check(struct replay *replay, size_t index,
                            const struct segment_header *header, const uint8_t *content,
                            struct err *err)
{
    struct chain_ends here;
    chain_ends_of(header, &here);
    if (header->page_size_bytes != replay->plan->manifest.page_size_bytes) {
        return err_set(err, RC_CORRUPT,
                       "frames %u-%u of WAL %u have pages of %u bytes, the snapshot's have %u",
                       header->first_frame_no, header->last_frame_no, header->wal_no,
                       header->page_size_bytes, replay->plan->manifest.page_size_bytes);
    }
    enum rc rc = RC_OK;
    if (replay->has_neighbour && replay->is_backward) {
        rc = chain_check_next(&here, &replay->neighbour, err);
        replay->verdict.fault = rc != RC_OK ? REPLAY_FAULT_LINK : REPLAY_FAULT_OBJECT;
    } else if (replay->has_neighbour) {
        rc = chain_check_next(&replay->neighbour, &here, err);
    }
    if (rc == RC_OK) {
        rc =
            replay_check_point(header, content, &replay->plan->manifest.point, "the snapshot", err);
        if (rc != RC_OK) {
            replay->verdict.fault = REPLAY_FAULT_SNAPSHOT;
        }
    }
    if (rc == RC_OK && index == replay->plan->cut.index && !replay->plan->cut.is_snapshot) {
        rc = replay_check_point(header, content, &replay->plan->cut.point, "the plan", err);
    }
    replay->neighbour = here;
    replay->has_neighbour = true;
    return rc;
}

/* The frames that count: behind the snapshot's, and up to the cut. */
static enum rc replay_write(struct replay *replay, size_t index,
                            const struct segment_header *header, const uint8_t *content,
                            struct err *err)
{
    const struct plan *plan = replay->plan;
    struct position snapshot = plan->manifest.point.position;
    uint32_t first = header->first_frame_no;
    uint32_t last = header->last_frame_no;
    if (header->wal_no == snapshot.wal_no && first <= snapshot.frame_no) {
        first = snapshot.frame_no + 1;
    }
    if (index == plan->cut.index) {
        last = plan->cut.point.position.frame_no;
    }
    if (plan->cut.is_snapshot || first > last) {
        return RC_OK;
    }
    size_t frame_bytes = (size_t)WAL_FRAME_HEADER_BYTES + header->page_size_bytes;
    const uint8_t *frames =
        segment_frames(header, content) + (size_t)(first - header->first_frame_no) * frame_bytes;
    return apply_frames(replay->apply, frames, (size_t)(last - first) + 1, err);
}

static enum rc replay_deliver(void *arg, size_t task, struct fetch_slot *slot, struct err *err)
{
    struct replay *replay = arg;
    size_t index = replay_index_of(replay, task);
    const uint8_t *content = slot->buffers->content.data;
    enum rc rc = replay_check(replay, index, &slot->header, content, err);
    if (rc == RC_OK && replay->apply != NULL) {
        rc = replay_write(replay, index, &slot->header, content, err);
    }
    return rc;
}

static void replay_tick(void *arg)
{
    const struct replay *replay = arg;
    if (replay->tick != NULL) {
        replay->tick(replay->tick_arg);
    }
}

static enum rc replay_all(struct replay *replay, struct fetch *fetch, struct err *err)
{
    struct fetch_job job = {
        .task_count = replay->segment_count,
        .cost_bytes = replay_cost,
        .work = replay_work,
        .deliver = replay_deliver,
        .tick = replay_tick,
        .arg = replay,
    };
    size_t failed_task = 0;
    replay->verdict.fault = REPLAY_FAULT_OBJECT;
    enum rc rc = fetch_run(fetch, &job, &failed_task, err);
    if (rc != RC_OK) {
        bool is_behind = replay->is_backward && replay->verdict.fault == REPLAY_FAULT_LINK;
        replay->verdict.bad_index = replay_index_of(replay, failed_task) + (is_behind ? 1 : 0);
    }
    return rc;
}

enum rc replay_run(const struct plan *plan, struct fetch *fetch, struct apply *apply,
                   void (*tick)(void *arg), void *tick_arg, struct replay_verdict *verdict,
                   struct err *err)
{
    struct replay replay = {
        .plan = plan,
        .apply = apply,
        .is_backward = true,
        .first_index = plan->first_index,
        .segment_count = plan->segment_count,
        .tick = tick,
        .tick_arg = tick_arg,
    };
    enum rc rc = replay_all(&replay, fetch, err);
    *verdict = replay.verdict;
    if (rc == RC_OK) {
        FAILPOINT("restore_wal_applied");
    }
    return rc;
}

enum rc replay_find_first_bad(const struct plan *plan, struct fetch *fetch, size_t *bad_index,
                              struct err *err)
{
    struct replay replay = {
        .plan = plan,
        .first_index = plan->first_index,
        .segment_count = *bad_index > plan->first_index ? *bad_index - plan->first_index : 0,
    };
    enum rc rc = replay_all(&replay, fetch, err);
    if (rc == RC_CORRUPT) {
        *bad_index = replay.verdict.bad_index;
        rc = RC_OK;
    }
    return rc;
}
