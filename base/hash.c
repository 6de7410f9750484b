/* SPDX-License-Identifier: Apache-2.0 */
/* hash: see hash.h. */
#include "base/hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>

struct hash {
    EVP_MD_CTX *context;
};

enum rc hash_begin(struct err *err)
{
    return OSSL_LIB_CTX_get0_global_default() != NULL
               ? RC_OK
               : err_set(err, RC_NOMEM, "libcrypto found no memory to begin: start again");
}

static enum rc hash_once(const EVP_MD *kind, const void *bytes, size_t count, uint8_t *digest,
                         struct err *err)
{
    unsigned digest_bytes = 0;
    enum rc rc = hash_begin(err);
    if (rc != RC_OK) {
        return rc;
    }
    return EVP_Digest(bytes, count, digest, &digest_bytes, kind, NULL) == 1
               ? RC_OK
               : err_set(err, RC_NOMEM, "no memory for a hash");
}

enum rc hash_create(struct hash **hash, struct err *err)
{
    *hash = NULL;
    enum rc rc = hash_begin(err);
    if (rc != RC_OK) {
        return rc;
    }
    struct hash *made = calloc(1, sizeof *made);
    if (made != NULL) {
        made->context = EVP_MD_CTX_new();
    }
    if (made == NULL || made->context == NULL ||
        EVP_DigestInit_ex(made->context, EVP_sha256(), NULL) != 1) {
        hash_destroy(made);
        return err_set(err, RC_NOMEM, "no memory for a hash");
    }
    *hash = made;
    return RC_OK;
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
    ASSERT(EVP_DigestInit_ex(hash->context, NULL, NULL) == 1); /* the same kind, in what it has */
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

enum rc hash_sha256(const void *bytes, size_t count, uint8_t digest[HASH_SHA256_BYTES],
                    struct err *err)
{
    return hash_once(EVP_sha256(), bytes, count, digest, err);
}

enum rc hash_md5(const void *bytes, size_t count, uint8_t digest[HASH_MD5_BYTES], struct err *err)
{
    return hash_once(EVP_md5(), bytes, count, digest, err);
}
