/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_dir: an archive in a directory ("dir:PATH"); also how the spool and a copied bucket are
 * read. An object is the file PATH/<key>. It is written under a temporary name in PATH/.tmp/,
 * fsynced, and renamed to its name without replacing anything; then its directory is fsynced.
 *
 * A put is always atomic and exclusive, so STORE_CONDITIONAL_PUT holds from the start. A full disk
 * is RC_IO with errno's text (ENOSPC, EDQUOT), not RC_LIMIT: space can come back, so the shipper
 * goes on trying.
 *
 * Thread: as store.h says. Several processes may use one directory.
 */
#ifndef HARVEY_ARCHIVE_STORE_DIR_H
#define HARVEY_ARCHIVE_STORE_DIR_H

#include "archive/store.h"

/* Used by store_open; config->dir is the path. RC_INVALID, RC_NOMEM. Touches nothing yet. */
RC_MUST_CHECK enum rc store_dir_create(const struct store_config *config, struct store **store,
                                       struct err *err);

#endif
