/* SPDX-License-Identifier: Apache-2.0 */
/*
 * target_internal: shared by the files that a target's steps are written in:
 *   target.c        refusing, locking, the temporary file, the last step
 *   target_aside.c  with --replace: under which names the old things go aside, and back
 *
 * A mark, ".before-restore-<time>[-n]", follows the database's own name in the names of all that one
 * restore moves. Thread: the owner's. Errors: RC_IO, RC_LIMIT.
 */
#ifndef HARVEY_RESTORER_TARGET_INTERNAL_H
#define HARVEY_RESTORER_TARGET_INTERNAL_H

#include "restorer/target.h"

#define TARGET_MARK_BYTES 80
#define TARGET_REPLACING "/replacing" /* in the -harvey folder, while things are moved: the mark */

/* ---- target.c ---- */

/* True when there is an entry of any kind, also a symbolic link to nowhere. */
bool target_has_entry(const char *path);

/* stem + mark + tail. */
RC_MUST_CHECK enum rc target_name(char path[FSIO_PATH_BYTES], const char *stem, const char *mark,
                                  const char *tail, struct err *err);

/* ---- target_aside.c ---- */

/*
 * The mark to move things under: that of a restore which died while it moved them (with its -wal under
 * another name than its own the old database would lack its last commits), else one that is free.
 */
RC_MUST_CHECK enum rc target_choose_mark(const struct target *target, char mark[TARGET_MARK_BYTES],
                                         struct err *err);

/* What `name`, the database or one of its companions, is called aside. */
RC_MUST_CHECK enum rc target_aside_name(const struct target *target, const char *name,
                                        const char *mark, char path[FSIO_PATH_BYTES],
                                        struct err *err);

/* Moves the database, its -wal, -shm and -journal, durably; an empty `moved_aside` gets the first new name. */
RC_MUST_CHECK enum rc target_move_aside(const struct target *target, const char *mark,
                                        char *moved_aside, struct err *err);

/* Puts back what was moved, as far as it goes: the caller reports why the move failed. */
void target_move_back(const struct target *target, const char *mark);

#endif
