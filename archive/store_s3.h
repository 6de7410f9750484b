/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_s3: an archive in a bucket, reached with libs3 2.0 (Signature V2, path style) behind the
 * guard of s3_guard.h. The only file that calls libs3.
 *
 * Thread: as store.h says; each handle makes blocking calls on its caller's thread.
 */
#ifndef HARVEY_ARCHIVE_STORE_S3_H
#define HARVEY_ARCHIVE_STORE_S3_H

#include "archive/store.h"

/*
 * Used by store_open. The first call of a process initialises libcurl and libs3 and runs the
 * guard's self-test: a request to a closed port of this host must have passed through the guard.
 * RC_INVALID (endpoint, bucket), RC_NOMEM, RC_INTERNAL (self-test).
 */
RC_MUST_CHECK enum rc store_s3_create(const struct store_config *config, struct store **store,
                                      struct err *err);

#endif
