/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash: SHA-256 (FIPS 180-4) and MD5 (RFC 1321, only because S3's Content-MD5 and ETag want it).
 * The one file that calls libcrypto.
 *
 * libcrypto allocates a little for each hash: RC_NOMEM. A struct hash is through with that once it is made.
 * Where memory ends as libcrypto begins, at its first use, it never works in this process (and would crash
 * where it is not asked first): hash_begin, early, gives that a word.
 * Thread: any; a struct hash belongs to one thread.
 */
#ifndef HARVEY_BASE_HASH_H
#define HARVEY_BASE_HASH_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define HASH_SHA256_BYTES 32
#define HASH_MD5_BYTES 16

/* RC_NOMEM. Legal again and again. */
RC_MUST_CHECK enum rc hash_begin(struct err *err);

struct hash; /* a SHA-256 that grows piece by piece */

RC_MUST_CHECK enum rc hash_create(struct hash **hash, struct err *err);
void hash_destroy(struct hash *hash);
void hash_restart(struct hash *hash);
void hash_add(struct hash *hash, const void *bytes, size_t count);
void hash_finish(struct hash *hash, uint8_t digest[HASH_SHA256_BYTES]);

RC_MUST_CHECK enum rc hash_sha256(const void *bytes, size_t count,
                                  uint8_t digest[HASH_SHA256_BYTES], struct err *err);
RC_MUST_CHECK enum rc hash_md5(const void *bytes, size_t count, uint8_t digest[HASH_MD5_BYTES],
                               struct err *err);

#endif
