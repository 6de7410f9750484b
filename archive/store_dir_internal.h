/* SPDX-License-Identifier: Apache-2.0 */
/* store_dir_internal: what store_dir.c and store_dir_list.c share. */
#ifndef HARVEY_ARCHIVE_STORE_DIR_INTERNAL_H
#define HARVEY_ARCHIVE_STORE_DIR_INTERNAL_H

#include "archive/store.h"

#define STORE_DIR_KEY_BYTES 1024

/* The archive's path. */
const char *store_dir_root(const struct store *store);

/* RC_NOT_FOUND when the directory is missing, RC_INVALID when it is none. */
RC_MUST_CHECK enum rc store_dir_check(const struct store *store, struct err *err);

/* The `list` of the ops table. */
enum rc store_dir_list(struct store *store, const char *prefix, const char *start_after,
                       store_visit_fn *visit, void *arg, struct err *err);

#endif
