/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash: SHA-256 (FIPS 180-4) and MD5 (RFC 1321, only because S3's Content-MD5 and ETag want it).
 * The one file that calls libcrypto.
 *
 * Thread: any; a struct hash belongs to one thread.
 */
#ifndef HARVEY_BASE_HASH_H
#define HARVEY_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_SHA256_BYTES 32
#define HASH_MD5_BYTES 16

struct hash; /* a SHA-256 that grows piece by piece */

struct hash *hash_create(void); /* aborts without memory: 200 bytes */
void hash_destroy(struct hash *hash);
void hash_restart(struct hash *hash);
void hash_add(struct hash *hash, const void *bytes, size_t count);
void hash_finish(struct hash *hash, uint8_t digest[HASH_SHA256_BYTES]);

void hash_sha256(const void *bytes, size_t count, uint8_t digest[HASH_SHA256_BYTES]);
void hash_md5(const void *bytes, size_t count, uint8_t digest[HASH_MD5_BYTES]);

#endif
