/* SPDX-License-Identifier: Apache-2.0 */
/* hash: see hash.h. */
#include "base/hash.h"

#include "base/err.h"

#include <openssl/evp.h>
#include <stdlib.h>

struct hash {
    EVP_MD_CTX *context;
};

static void hash_once(const EVP_MD *kind, const void *bytes, size_t count, uint8_t *digest)
{
    unsigned digest_bytes = 0;
    ASSERT(EVP_Digest(bytes, count, digest, &digest_bytes, kind, NULL) == 1);
}

struct hash *hash_create(void)
{
    struct hash *hash = calloc(1, sizeof *hash);
    ASSERT(hash != NULL);
    hash->context = EVP_MD_CTX_new();
    ASSERT(hash->context != NULL);
    hash_restart(hash);
    return hash;
}

void hash_destroy(struct hash *hash)
{
    if (hash != NULL) {
        EVP_MD_CTX_free(hash->context);
        free(hash);
    }
}

void hash_restart(struct hash *hash)
{
    ASSERT(EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL) == 1);
}

void hash_add(struct hash *hash, const void *bytes, size_t count)
{
    ASSERT(EVP_DigestUpdate(hash->context, bytes, count) == 1);
}

void hash_finish(struct hash *hash, uint8_t digest[HASH_SHA256_BYTES])
{
    unsigned digest_bytes = 0;
    ASSERT(EVP_DigestFinal_ex(hash->context, digest, &digest_bytes) == 1);
    ASSERT(digest_bytes == HASH_SHA256_BYTES);
}

void hash_sha256(const void *bytes, size_t count, uint8_t digest[HASH_SHA256_BYTES])
{
    hash_once(EVP_sha256(), bytes, count, digest);
}

void hash_md5(const void *bytes, size_t count, uint8_t digest[HASH_MD5_BYTES])
{
    hash_once(EVP_md5(), bytes, count, digest);
}
