/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog_run: the contiguous run of a generation's WAL objects, and what lies beyond its end.
 * Rules: docs/archive-format.md, "Holes near the tail" and "Forks, and what is latest".
 *
 * The run goes from object to object: inside a WAL to the one that begins at the next frame, across
 * WALs to the one whose link is the end reached. Names decide while one lead wrote both objects and
 * nothing else could follow; headers decide where the lead changes or several could follow, and
 * then the highest term that fits is taken.
 *
 * A lead that died leaves objects behind a hole, and its successor may cut the same frames
 * differently. So every object that overlaps the run is held against it by the rolling checksum, at
 * the last frame that both have: equal means the same frames (the checksum goes back to the WAL's
 * header), different means another history: a fork. One that overlaps and reaches further than
 * the run takes the place of the run's tail where a boundary allows it.
 */
#include "archive/catalog_facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run_finder {
    const struct catalog_segment *segments;
    size_t segment_count;
    uint32_t from_wal_no;
    uint32_t window;
    struct catalog_facts facts;
    size_t *run; /* owned: indexes of the run's segments, in order */
    size_t run_count;
};

/* Why the run ends where it does, besides the objects beyond it. */
struct run_end {
    enum catalog_end kind;
    struct position where;
    char reason[200];
};

void catalog_run_init(struct catalog_run *run)
{
    memset(run, 0, sizeof *run);
}

void catalog_run_deinit(struct catalog_run *run)
{
    free(run->segments);
    catalog_run_init(run);
}

/* The first index whose (wal_no, first) is not below the given one. */
static size_t run_lower_bound(const struct run_finder *finder, uint32_t wal_no, uint32_t first)
{
    size_t low = 0;
    size_t high = finder->segment_count;
    struct position wanted = {wal_no, first};
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct catalog_segment *s = &finder->segments[middle];
        struct position begin = {s->wal_no, s->first_frame_no};
        if (position_compare(begin, wanted) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The indexes [*begin, *end) of the objects that begin exactly there. */
static void run_range(const struct run_finder *finder, uint32_t wal_no, uint32_t first,
                      size_t *begin, size_t *end)
{
    *begin = run_lower_bound(finder, wal_no, first);
    *end = first == UINT32_MAX ? *begin : run_lower_bound(finder, wal_no, first + 1);
}

static bool run_is_same_lead(const struct catalog_segment *a, const struct catalog_segment *b)
{
    return a->term == b->term && strcmp(a->lead_tag, b->lead_tag) == 0;
}

static void run_push(struct run_finder *finder, size_t index)
{
    ASSERT(finder->run_count < finder->segment_count);
    finder->run[finder->run_count++] = index;
    finder->facts.facts[index].in_run = true;
}

static void run_pop(struct run_finder *finder)
{
    ASSERT(finder->run_count > 0);
    finder->facts.facts[finder->run[--finder->run_count]].in_run = false;
}

static struct position run_end_position(const struct run_finder *finder)
{
    if (finder->run_count == 0) {
        return (struct position){0, 0};
    }
    const struct catalog_segment *last = &finder->segments[finder->run[finder->run_count - 1]];
    return (struct position){last->wal_no, last->last_frame_no};
}

/* ---- going on ---- */

/* Does the header of `next` say that it goes on from the end of `last`? */
static enum rc run_links(struct run_finder *finder, size_t last, size_t next, bool *links,
                         struct err *err)
{
    const struct catalog_segment *a = &finder->segments[last];
    const struct catalog_fact *from = NULL;
    const struct catalog_fact *to = NULL;
    struct position end = {a->wal_no, a->last_frame_no};
    *links = false;
    enum rc rc = catalog_facts_get(&finder->facts, next, &to, err);
    if (rc != RC_OK || to->state == FACT_BAD || position_compare(to->link.position, end) != 0) {
        return rc;
    }
    rc = catalog_facts_get(&finder->facts, last, &from, err);
    if (rc != RC_OK || from->state == FACT_BAD) {
        return rc;
    }
    bool same_wal = finder->segments[next].wal_no == a->wal_no;
    *links = wal_checksum_equal(to->link.checksum, from->after) &&
             (!same_wal || (wal_checksum_equal(to->before, from->after) &&
                            wal_salts_equal(to->salts, from->salts)));
    return RC_OK;
}

/*
 * The candidate of the highest term in [begin, end) that links to `last`; *best unchanged if none.
 */
static enum rc run_best(struct run_finder *finder, size_t last, size_t begin, size_t end,
                        size_t *best, struct err *err)
{
    for (size_t i = begin; i < end; i++) {
        bool links = false;
        enum rc rc = run_links(finder, last, i, &links, err);
        if (rc != RC_OK) {
            return rc;
        }
        if (links &&
            (*best == SIZE_MAX || finder->segments[i].term >= finder->segments[*best].term)) {
            *best = i;
        }
    }
    return RC_OK;
}

/* The object that follows the run's last one, or SIZE_MAX. */
static enum rc run_find_next(struct run_finder *finder, size_t *next, struct err *err)
{
    size_t last = finder->run[finder->run_count - 1];
    const struct catalog_segment *segment = &finder->segments[last];
    size_t in_begin = 0;
    size_t in_end = 0;
    size_t over_begin = 0;
    size_t over_end = 0;
    *next = SIZE_MAX;
    if (segment->last_frame_no < UINT32_MAX) {
        run_range(finder, segment->wal_no, segment->last_frame_no + 1, &in_begin, &in_end);
    }
    if (segment->wal_no < UINT32_MAX) {
        run_range(finder, segment->wal_no + 1, 1, &over_begin, &over_end);
    }
    enum rc rc = run_best(finder, last, over_begin, over_end, next, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (*next == SIZE_MAX && in_end - in_begin == 1 &&
        finder->facts.facts[in_begin].state != FACT_BAD &&
        run_is_same_lead(segment, &finder->segments[in_begin])) {
        *next = in_begin; /* one lead never cuts twice: the names are enough */
        return RC_OK;
    }
    return run_best(finder, last, in_begin, in_end, next, err);
}

/* Where the run begins there is nothing to link to: the highest term that can be read. */
static enum rc run_find_first(struct run_finder *finder, size_t *first, struct err *err)
{
    size_t begin = 0;
    size_t end = 0;
    *first = SIZE_MAX;
    run_range(finder, finder->from_wal_no, 1, &begin, &end);
    for (size_t i = end; i > begin && *first == SIZE_MAX; i--) {
        const struct catalog_fact *fact = NULL;
        enum rc rc = catalog_facts_get(&finder->facts, i - 1, &fact, err);
        if (rc != RC_OK) {
            return rc;
        }
        if (fact->state == FACT_READ) {
            *first = i - 1;
        }
    }
    return RC_OK;
}

static enum rc run_extend(struct run_finder *finder, struct err *err)
{
    for (;;) {
        size_t next = SIZE_MAX;
        enum rc rc = finder->run_count == 0 ? run_find_first(finder, &next, err)
                                            : run_find_next(finder, &next, err);
        if (rc != RC_OK || next == SIZE_MAX) {
            return rc;
        }
        run_push(finder, next);
    }
}

/* An end whose header cannot be read is none: its checksum is what everything hangs on. */
static enum rc run_drop_unreadable_end(struct run_finder *finder, struct err *err)
{
    while (finder->run_count > 0) {
        const struct catalog_fact *fact = NULL;
        enum rc rc =
            catalog_facts_get(&finder->facts, finder->run[finder->run_count - 1], &fact, err);
        if (rc != RC_OK || fact->state == FACT_READ) {
            return rc;
        }
        run_pop(finder);
    }
    return RC_OK;
}

/* ---- what overlaps the run ---- */

/* How many of the run's segments lie at or before this position (by their beginning). */
static size_t run_count_until(const struct run_finder *finder, struct position position)
{
    size_t low = 0;
    size_t high = finder->run_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct catalog_segment *s = &finder->segments[finder->run[middle]];
        struct position begin = {s->wal_no, s->first_frame_no};
        if (position_compare(begin, position) <= 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The last frame that the run has of this WAL; 0 = none. */
static uint32_t run_last_frame_of(const struct run_finder *finder, uint32_t wal_no)
{
    size_t count = run_count_until(finder, (struct position){wal_no, UINT32_MAX});
    if (count == 0) {
        return 0;
    }
    const struct catalog_segment *s = &finder->segments[finder->run[count - 1]];
    return s->wal_no == wal_no ? s->last_frame_no : 0;
}

enum run_overlap {
    OVERLAP_SAME,       /* the same frames */
    OVERLAP_OTHER,      /* another history */
    OVERLAP_UNREADABLE, /* cannot be told */
};

/* Holds object `index`, which begins at or before the run's end, against the run. */
static enum rc run_compare(struct run_finder *finder, size_t index, enum run_overlap *overlap,
                           struct err *err)
{
    const struct catalog_segment *s = &finder->segments[index];
    uint32_t wal_end = run_last_frame_of(finder, s->wal_no);
    bool run_left_wal = s->wal_no < run_end_position(finder).wal_no;
    struct wal_checksum theirs = {0, 0};
    struct wal_checksum ours = {0, 0};
    bool theirs_known = false;
    bool ours_known = false;
    *overlap = OVERLAP_OTHER;
    if (s->first_frame_no > wal_end || (run_left_wal && s->last_frame_no > wal_end)) {
        return RC_OK; /* the run ended this WAL before; this object says that it went on */
    }
    uint32_t frame_no = s->last_frame_no < wal_end ? s->last_frame_no : wal_end;
    size_t count = run_count_until(finder, (struct position){s->wal_no, frame_no});
    ASSERT(count > 0);
    enum rc rc =
        catalog_facts_checksum(&finder->facts, index, frame_no, &theirs, &theirs_known, err);
    if (rc == RC_OK) {
        rc = catalog_facts_checksum(&finder->facts, finder->run[count - 1], frame_no, &ours,
                                    &ours_known, err);
    }
    if (rc == RC_OK) {
        *overlap = !theirs_known || !ours_known       ? OVERLAP_UNREADABLE
                   : wal_checksum_equal(theirs, ours) ? OVERLAP_SAME
                                                      : OVERLAP_OTHER;
    }
    return rc;
}

/*
 * Object `index` has the run's frames and more. Where the run has a boundary right before it, it
 * takes the place of what the run has from there; true when it did.
 */
static bool run_splice(struct run_finder *finder, size_t index)
{
    const struct catalog_segment *s = &finder->segments[index];
    size_t count = run_count_until(finder, (struct position){s->wal_no, s->first_frame_no});
    ASSERT(count > 0);
    if (finder->segments[finder->run[count - 1]].first_frame_no != s->first_frame_no) {
        return false;
    }
    while (finder->run_count >= count) {
        run_pop(finder);
    }
    run_push(finder, index);
    return true;
}

static void run_set_end(struct run_end *end, enum catalog_end kind,
                        const struct catalog_segment *segment, const char *reason)
{
    end->kind = kind;
    end->where = (struct position){segment->wal_no, segment->first_frame_no};
    (void)snprintf(end->reason, sizeof end->reason, "WAL %u, frames %u to %u of lead %u-%s %.120s",
                   segment->wal_no, segment->first_frame_no, segment->last_frame_no, segment->term,
                   segment->lead_tag, reason);
}

/*
 * All objects that begin at or before the run's end. *grown = the run goes further now: extend it
 * again.
 */
static enum rc run_check_overlaps(struct run_finder *finder, struct run_end *end, bool *grown,
                                  struct err *err)
{
    struct position last = run_end_position(finder);
    *grown = false;
    for (size_t i = run_lower_bound(finder, finder->from_wal_no, 1);
         i < finder->segment_count && end->kind == CATALOG_END_CLEAN; i++) {
        const struct catalog_segment *s = &finder->segments[i];
        enum run_overlap overlap = OVERLAP_SAME;
        struct position begin = {s->wal_no, s->first_frame_no};
        if (position_compare(begin, last) > 0) {
            return RC_OK;
        }
        if (finder->facts.facts[i].in_run) {
            continue;
        }
        enum rc rc = run_compare(finder, i, &overlap, err);
        if (rc != RC_OK) {
            return rc;
        }
        if (overlap == OVERLAP_OTHER) {
            run_set_end(end, CATALOG_END_FORK, s, "are not those of the run: two histories");
        } else if (overlap == OVERLAP_UNREADABLE) {
            run_set_end(end, CATALOG_END_DAMAGE, s, finder->facts.bad_text);
        } else if (s->last_frame_no > run_last_frame_of(finder, s->wal_no) &&
                   run_splice(finder, i)) {
            *grown = true;
            return RC_OK;
        }
    }
    return RC_OK;
}

/* ---- what lies beyond the run ---- */

static bool run_reaches_past(const struct run_finder *finder, struct position archived)
{
    struct position end = run_end_position(finder);
    return finder->run_count > 0 ? position_compare(archived, end) > 0 : archived.wal_no != 0;
}

/*
 * One object that reaches beyond the end: does it tell of a fork, or that the hole was archived
 * once?
 */
static enum rc run_look_beyond(struct run_finder *finder, size_t index, struct run_end *end,
                               struct err *err)
{
    const struct catalog_segment *s = &finder->segments[index];
    struct position begin = {s->wal_no, s->first_frame_no};
    struct position last = run_end_position(finder);
    bool overlaps = position_compare(begin, last) <= 0; /* then its frames were compared already */
    const struct catalog_fact *fact = NULL;
    enum rc rc = catalog_facts_get(&finder->facts, index, &fact, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (fact->state == FACT_BAD) {
        run_set_end(end, CATALOG_END_DAMAGE, s, finder->facts.bad_text);
    } else if (finder->run_count > 0 && !overlaps &&
               position_compare(fact->link.position, last) <= 0) {
        run_set_end(end, CATALOG_END_FORK, s, "go on from another end of the run: two histories");
        end->where = fact->link.position; /* from behind it on the run has frames of its own */
        end->where.frame_no += end->where.frame_no < UINT32_MAX ? 1 : 0;
    } else if (run_reaches_past(finder, fact->archived)) {
        run_set_end(end, CATALOG_END_DAMAGE, s, "say that the missing frames were archived");
    }
    return RC_OK;
}

/* Counts what lies beyond, and looks into it as far as it could be what a crash leaves. */
static enum rc run_check_beyond(struct run_finder *finder, struct run_end *end, size_t *beyond,
                                struct err *err)
{
    struct position last = run_end_position(finder);
    *beyond = 0;
    for (size_t i = run_lower_bound(finder, finder->from_wal_no, 1); i < finder->segment_count;
         i++) {
        const struct catalog_segment *s = &finder->segments[i];
        struct position until = {s->wal_no, s->last_frame_no};
        if (finder->facts.facts[i].in_run || position_compare(until, last) <= 0) {
            continue;
        }
        (*beyond)++;
        if (end->kind == CATALOG_END_CLEAN && *beyond <= finder->window) {
            enum rc rc = run_look_beyond(finder, i, end, err);
            if (rc != RC_OK) {
                return rc;
            }
        }
    }
    return RC_OK;
}

/* ---- the answer ---- */

static void run_describe(const struct run_finder *finder, struct run_end *end,
                         struct catalog_run *run)
{
    struct position hole = run_end_position(finder);
    hole = finder->run_count > 0 ? (struct position){hole.wal_no, hole.frame_no + 1}
                                 : (struct position){finder->from_wal_no, 1};
    if (end->kind == CATALOG_END_CLEAN && run->beyond_count > 0) {
        end->where = hole;
        end->kind = run->beyond_count < finder->window ? CATALOG_END_CRASH : CATALOG_END_DAMAGE;
    }
    run->end_kind = end->kind;
    bool inside = position_compare(end->where, hole) < 0;
    switch (end->kind) {
    case CATALOG_END_CLEAN:
        return;
    case CATALOG_END_CRASH:
        (void)snprintf(run->detail, sizeof run->detail,
                       "frames from %u/%u on are missing, with %zu object(s) behind them that were "
                       "never confirmed: uploads under way when a server died",
                       hole.wal_no, hole.frame_no, run->beyond_count);
        break;
    case CATALOG_END_DAMAGE:
        if (inside) {
            (void)snprintf(run->detail, sizeof run->detail,
                           "an object beside the run cannot be read, and may be another history's: "
                           "%.170s",
                           end->reason);
            break;
        }
        (void)snprintf(run->detail, sizeof run->detail,
                       "frames from %u/%u on are missing or damaged, with %zu object(s) behind "
                       "them%s%.140s",
                       hole.wal_no, hole.frame_no, run->beyond_count,
                       end->reason[0] != '\0' ? ": " : "", end->reason);
        break;
    case CATALOG_END_FORK:
        (void)snprintf(run->detail, sizeof run->detail, "%.240s", end->reason);
        break;
    }
    /*
     * A hole is where the run ends; a fork, and damage inside the run, where the other object
     * begins.
     */
    run->hole_first = end->kind == CATALOG_END_FORK || inside ? end->where : hole;
}

static enum rc run_answer(struct run_finder *finder, struct run_end *end, struct catalog_run *run,
                          struct err *err)
{
    void *pointers = calloc(finder->run_count + 1, sizeof(void *));
    run->segments = pointers;
    if (pointers == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a run of %zu objects", finder->run_count);
    }
    for (size_t i = 0; i < finder->run_count; i++) {
        run->segments[i] = &finder->segments[finder->run[i]];
    }
    run->segment_count = finder->run_count;
    if (finder->run_count > 0) {
        size_t last = finder->run[finder->run_count - 1];
        const struct catalog_fact *fact = &finder->facts.facts[last];
        ASSERT(fact->state == FACT_READ);
        run->end = (struct wal_point){run_end_position(finder), fact->after};
        run->end_salts = fact->salts;
        run->end_unix_ms = finder->segments[last].unix_ms;
    }
    run_describe(finder, end, run);
    return RC_OK;
}

/*
 * The run that goes furthest. Each round but the last moves its end forward, or back before an object
 * that turned out to be damaged when another was held against it: it stays out from then on.
 */
static enum rc run_find(struct run_finder *finder, struct run_end *end, struct err *err)
{
    bool again = true;
    enum rc rc = RC_OK;
    ASSERT(finder->run != NULL);
    while (rc == RC_OK && again) {
        end->kind = CATALOG_END_CLEAN;
        rc = run_extend(finder, err);
        if (rc == RC_OK) {
            rc = run_drop_unreadable_end(finder, err);
        }
        if (rc == RC_OK) {
            rc = run_check_overlaps(finder, end, &again, err);
        }
        size_t count = finder->run_count;
        if (rc == RC_OK && !again) {
            rc = run_drop_unreadable_end(finder, err);
            again = finder->run_count < count;
        }
    }
    return rc;
}

enum rc catalog_find_run(const struct catalog_generation *generation, struct store *store,
                         uint32_t from_wal_no, uint32_t window, struct catalog_run *run,
                         struct err *err)
{
    struct run_finder finder = {
        .segments = generation->segments,
        .segment_count = generation->segment_count,
        .from_wal_no = from_wal_no,
        .window = window,
    };
    struct run_end end = {.kind = CATALOG_END_CLEAN};
    catalog_run_deinit(run);
    enum rc rc = catalog_facts_init(&finder.facts, generation, store, err);
    finder.run = calloc(generation->segment_count + 1, sizeof *finder.run);
    if (rc == RC_OK && finder.run == NULL) {
        rc =
            err_set(err, RC_NOMEM, "no memory for a run of %zu objects", generation->segment_count);
    }
    if (rc == RC_OK) {
        rc = run_find(&finder, &end, err);
    }
    if (rc == RC_OK) {
        rc = run_check_beyond(&finder, &end, &run->beyond_count, err);
    }
    if (rc == RC_OK) {
        rc = run_answer(&finder, &end, run, err);
    }
    catalog_facts_deinit(&finder.facts);
    free(finder.run);
    if (rc != RC_OK) {
        catalog_run_deinit(run);
    }
    return rc;
}
