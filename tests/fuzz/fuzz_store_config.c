/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_store_config: any bytes as HARVEY_ARCHIVE, HARVEY_S3_ENDPOINT and credentials, one a line.
 * What is accepted must be in the form that the stores rely on, and no message may hold the secret.
 */
#include "archive/store_config.h"

#include <stdint.h>
#include <string.h>

#define FUZZ_VALUES 4
#define FUZZ_VALUE_BYTES 1024

static char values[FUZZ_VALUES][FUZZ_VALUE_BYTES];

static const char *lookup(const char *name)
{
    static const char *const names[FUZZ_VALUES] = {"HARVEY_ARCHIVE", "HARVEY_S3_ENDPOINT",
                                                   "HARVEY_S3_ACCESS_KEY_ID",
                                                   "HARVEY_S3_SECRET_ACCESS_KEY"};
    for (size_t i = 0; i < FUZZ_VALUES; i++) {
        if (strcmp(name, names[i]) == 0) {
            return values[i];
        }
    }
    return NULL;
}

static void check_accepted(const struct store_config *config)
{
    if (config->off) {
        return;
    }
    if (!config->is_s3) {
        ASSERT(config->dir[0] != '\0');
        return;
    }
    ASSERT(config->prefix[0] == '\0' || store_key_is_valid(config->prefix));
    ASSERT(strspn(config->bucket, "abcdefghijklmnopqrstuvwxyz0123456789.-") ==
           strlen(config->bucket));
    ASSERT(strncmp(config->endpoint, "http://", 7) == 0 ||
           strncmp(config->endpoint, "https://", 8) == 0);
    ASSERT(strchr(strstr(config->endpoint, "://") + 3, '/') == NULL);
    ASSERT(strpbrk(config->endpoint, "\r\n @?#") == NULL);
    ASSERT(strpbrk(config->access_key_id, "\r\n ") == NULL && config->access_key_id[0] != '\0');
    ASSERT(strpbrk(config->secret_access_key, "\r\n ") == NULL);
}

/* Only a secret that could not stand in the message by chance says anything. */
static void check_message(const struct err *err)
{
    const char *secret = values[FUZZ_VALUES - 1];
    if (strlen(secret) < 8 || strstr(secret, "s3cr3t") == NULL) {
        return;
    }
    for (size_t i = 0; i + 1 < FUZZ_VALUES; i++) {
        if (strstr(values[i], "s3cr3t") != NULL) {
            return;
        }
    }
    ASSERT(strstr(err->text, secret) == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct store_config config;
    struct err err = ERR_INIT;
    const uint8_t *end = data + size;
    memset(values, 0, sizeof values);
    for (size_t i = 0; i < FUZZ_VALUES && data < end; i++) {
        const uint8_t *line_end = memchr(data, '\n', (size_t)(end - data));
        size_t count = (size_t)((line_end != NULL ? line_end : end) - data);
        size_t kept = count < FUZZ_VALUE_BYTES - 1 ? count : FUZZ_VALUE_BYTES - 1;
        memcpy(values[i], data, kept);
        data += count;
        data += data < end ? 1 : 0;
    }
    if (store_config_read(&config, lookup, &err) == RC_OK) {
        check_accepted(&config);
    } else {
        ASSERT(err.rc == RC_INVALID);
        check_message(&err);
    }
    return 0;
}
