/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay: the WAL objects of a plan, got in parallel, checked one against the other, and their pages
 * written. The last object comes first (apply.h says why); the chain is checked all the same, each
 * object against the one behind it, so every link is looked at.
 *
 * At the snapshot's frame the rolling checksum must be the manifest's: the snapshot lies on this
 * chain and no other. At the cut it must be what the plan saw.
 *
 * Thread: the calling thread; fetch's workers read and check.
 */
#ifndef HARVEY_RESTORER_REPLAY_H
#define HARVEY_RESTORER_REPLAY_H

#include "base/err.h"
#include "restorer/apply.h"
#include "restorer/fetch.h"
#include "restorer/plan.h"

#include <stddef.h>

/* What RC_CORRUPT was about. */
enum replay_fault {
    REPLAY_FAULT_OBJECT,   /* run.segments[bad_index] is damaged */
    REPLAY_FAULT_LINK,     /* it is sound, but does not go on from the one before it */
    REPLAY_FAULT_SNAPSHOT, /* the snapshot does not lie on this chain */
};

struct replay_verdict {
    enum replay_fault fault;
    size_t bad_index;
};

/*
 * Writes what the plan's objects hold. `tick` (may be NULL) as in struct fetch_job. After RC_CORRUPT
 * `verdict` says where and why.
 */
RC_MUST_CHECK enum rc replay_run(const struct plan *plan, struct fetch *fetch, struct apply *apply,
                                 void (*tick)(void *arg), void *tick_arg,
                                 struct replay_verdict *verdict, struct err *err);

/*
 * Checks, from the front and without writing, the plan's objects before *bad_index, which is known
 * to be bad, and moves *bad_index to the first bad one. RC_OK also when it finds one.
 */
RC_MUST_CHECK enum rc replay_find_first_bad(const struct plan *plan, struct fetch *fetch,
                                            size_t *bad_index, struct err *err);

#endif
