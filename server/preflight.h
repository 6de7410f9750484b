/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preflight: what must hold of the directories before anything is opened in them.
 *
 * Thread: main, at start.
 */
#ifndef HARVEY_SERVER_PREFLIGHT_H
#define HARVEY_SERVER_PREFLIGHT_H

#include "base/err.h"
#include "server/config.h"

#include <stdbool.h>

struct preflight {
    char filesystem[32];    /* a word for the database's filesystem */
    bool unsafe_filesystem; /* it would be refused without HARVEY_UNSAFE_FS=1 */
};

/*
 * Makes the database's directory where it is missing (its parent must be there) and looks at it. RC_INVALID: the archive lies
 * inside it. RC_IO, RC_DENIED: not writable, or a filesystem that no WAL database may lie on. The
 * text names the cure.
 */
RC_MUST_CHECK enum rc preflight_check(const struct config *config, struct preflight *result,
                                      struct err *err);

#endif
