/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_config: HARVEY_ARCHIVE and HARVEY_S3_* -> struct store_config, for the server and the
 * restore tool alike. The environment is reached through `lookup`, so no library calls getenv.
 *
 * Thread: any.
 */
#ifndef HARVEY_ARCHIVE_STORE_CONFIG_H
#define HARVEY_ARCHIVE_STORE_CONFIG_H

#include "archive/store.h"
#include "base/err.h"

/* The value of a variable, or NULL when it is not set (or empty). */
typedef const char *store_config_lookup_fn(const char *name);

/*
 * Reads and checks HARVEY_ARCHIVE (default "dir:./backup"), HARVEY_S3_ENDPOINT,
 * HARVEY_S3_ACCESS_KEY_ID[_FILE], HARVEY_S3_SECRET_ACCESS_KEY[_FILE], the pair AWS_ACCESS_KEY_ID,
 * AWS_SECRET_ACCESS_KEY where neither of those is set, HARVEY_S3_CA_FILE.
 * RC_INVALID: one line with variable, value (secrets masked) and what is allowed. RC_IO, RC_DENIED,
 * RC_NOT_FOUND: a secret file that cannot be read. HARVEY_S3_* mean nothing unless the archive is a
 * bucket.
 */
RC_MUST_CHECK enum rc store_config_read(struct store_config *config, store_config_lookup_fn *lookup,
                                        struct err *err);

/*
 * Reads again what came from a file (HARVEY_S3_…_FILE): a mounted secret may have been changed. Where one
 * cannot be read, or holds no secret, both stay as they are. Same errors.
 */
RC_MUST_CHECK enum rc store_config_renew_credentials(struct store_config *config, struct err *err);

/* The names above, NULL-terminated: for refusing unknown HARVEY_* names. */
extern const char *const store_config_names[];

#endif
