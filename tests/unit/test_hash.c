/* SPDX-License-Identifier: Apache-2.0 */
/* hash: the standards' own examples, and a hash that grows piece by piece. */
#include "base/hash.h"

#include "base/bytes.h"
#include "tests/unit/checks.h"

static void check_sha256(const char *text, const char *wanted)
{
    uint8_t digest[HASH_SHA256_BYTES];
    char hex[2 * HASH_SHA256_BYTES + 1];
    struct err err;
    check_ok(hash_sha256(text, strlen(text), digest, &err));
    bytes_to_hex(digest, sizeof digest, hex);
    assert_string_equal(hex, wanted);
}

static void test_hash__sha256_of_known_texts(void **state)
{
    (void)state;
    check_sha256("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_sha256("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void test_hash__md5_of_known_texts(void **state)
{
    (void)state;
    uint8_t digest[HASH_MD5_BYTES];
    char hex[2 * HASH_MD5_BYTES + 1];
    struct err err;
    check_ok(hash_md5("message digest", 14, digest, &err));
    bytes_to_hex(digest, sizeof digest, hex);
    assert_string_equal(hex, "f96b697d7cb7938d525a2f31aaf161d0");
}

static void test_hash__pieces_add_up(void **state)
{
    (void)state;
    uint8_t bytes[1000];
    uint8_t whole[HASH_SHA256_BYTES];
    uint8_t pieces[HASH_SHA256_BYTES];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * 31);
    }
    struct err err;
    struct hash *hash;
    check_ok(hash_sha256(bytes, sizeof bytes, whole, &err));
    check_ok(hash_create(&hash, &err));
    for (size_t piece = 1; piece < 300; piece += 37) {
        hash_restart(hash);
        for (size_t at = 0; at < sizeof bytes; at += piece) {
            size_t left = sizeof bytes - at;
            hash_add(hash, bytes + at, left < piece ? left : piece);
        }
        hash_finish(hash, pieces);
        assert_memory_equal(pieces, whole, sizeof whole);
    }
    hash_destroy(hash);
    hash_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash__sha256_of_known_texts),
        cmocka_unit_test(test_hash__md5_of_known_texts),
        cmocka_unit_test(test_hash__pieces_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
