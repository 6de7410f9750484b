/* SPDX-License-Identifier: Apache-2.0 */
/* store_config: see store_config.h. */
#include "archive/store_config.h"

#include "base/buf.h"
#include "base/bytes.h"
#include "base/fsio.h"

#include <stdio.h>
#include <string.h>

#define STORE_CONFIG_DEFAULT "dir:./backup"
#define STORE_CONFIG_SECRET_FILE_BYTES_MAX 4096u /* a secret and a newline; more is another file */
#define STORE_CONFIG_BUCKET_BYTES_MIN 3u         /* S3's rule for bucket names */
#define STORE_CONFIG_BUCKET_BYTES_MAX 63u

const char *const store_config_names[] = {
    "HARVEY_ARCHIVE",
    "HARVEY_S3_ENDPOINT",
    "HARVEY_S3_ACCESS_KEY_ID",
    "HARVEY_S3_ACCESS_KEY_ID_FILE",
    "HARVEY_S3_SECRET_ACCESS_KEY",
    "HARVEY_S3_SECRET_ACCESS_KEY_FILE",
    "HARVEY_S3_CA_FILE",
    NULL,
};

static const char *store_config_get(store_config_lookup_fn *lookup, const char *name)
{
    const char *value = lookup(name);
    return value != NULL && *value != '\0' ? value : NULL;
}

static bool store_config_copy(char *to, size_t to_bytes, const char *from, size_t count)
{
    if (count >= to_bytes) {
        return false;
    }
    memcpy(to, from, count);
    to[count] = '\0';
    return true;
}

/* The bytes at the beginning of `text` that are in `set`. */
static bool store_config_all_in(const char *text, size_t count, const char *set)
{
    return strspn(text, set) >= count;
}

/* ---- HARVEY_ARCHIVE ---- */

static enum rc store_config_bad_archive(const char *value, const char *allowed, struct err *err)
{
    return err_set(err, RC_INVALID, "HARVEY_ARCHIVE='%.120s': %s", value, allowed);
}

static bool store_config_bucket_is_valid(const char *bucket, size_t count)
{
    static const char set[] = "abcdefghijklmnopqrstuvwxyz0123456789.-";
    if (count < STORE_CONFIG_BUCKET_BYTES_MIN || count > STORE_CONFIG_BUCKET_BYTES_MAX ||
        !store_config_all_in(bucket, count, set)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        bool mark = bucket[i] == '.' || bucket[i] == '-';
        if (mark && (i == 0 || i + 1 == count || bucket[i + 1] == '.')) {
            return false;
        }
    }
    return true;
}

/* s3://BUCKET[/PREFIX]; slashes around the prefix mean nothing. */
static enum rc store_config_parse_s3(struct store_config *config, const char *value,
                                     struct err *err)
{
    const char *bucket = value + strlen("s3://");
    size_t bucket_count = strcspn(bucket, "/");
    if (!store_config_bucket_is_valid(bucket, bucket_count) ||
        !store_config_copy(config->bucket, sizeof config->bucket, bucket, bucket_count)) {
        return store_config_bad_archive(
            value, "the bucket in s3://BUCKET/PREFIX has 3 to 63 of a-z 0-9 . -", err);
    }
    const char *prefix = bucket + bucket_count;
    prefix += strspn(prefix, "/");
    size_t prefix_count = strlen(prefix);
    while (prefix_count > 0 && prefix[prefix_count - 1] == '/') {
        prefix_count--;
    }
    if (!store_config_copy(config->prefix, sizeof config->prefix, prefix, prefix_count) ||
        (prefix_count > 0 && !store_key_is_valid(config->prefix))) {
        return store_config_bad_archive(value,
                                        "the prefix in s3://BUCKET/PREFIX has at most 255 of "
                                        "A-Z a-z 0-9 . _ - and single slashes",
                                        err);
    }
    config->is_s3 = true;
    return RC_OK;
}

static enum rc store_config_parse_dir(struct store_config *config, const char *value,
                                      struct err *err)
{
    const char *path = value + strlen("dir:");
    size_t count = strlen(path);
    while (count > 1 && path[count - 1] == '/') {
        count--;
    }
    if (count == 0 || !store_config_copy(config->dir, sizeof config->dir, path, count)) {
        return store_config_bad_archive(value, "dir:PATH has a path of 1 to 511 bytes", err);
    }
    if (!bytes_is_text(config->dir, count)) { /* the state and the marker name it in JSON */
        return store_config_bad_archive(value, "the path in dir:PATH is UTF-8", err);
    }
    return RC_OK;
}

static enum rc store_config_parse_archive(struct store_config *config, const char *value,
                                          struct err *err)
{
    static const char forms[] = "allowed are s3://BUCKET/PREFIX, dir:PATH and none";
    if (!store_config_copy(config->url, sizeof config->url, value, strlen(value))) {
        return store_config_bad_archive(value, "longer than 511 bytes", err);
    }
    if (strcmp(value, "none") == 0) {
        config->off = true;
        return RC_OK;
    }
    if (strncmp(value, "s3://", strlen("s3://")) == 0) {
        return store_config_parse_s3(config, value, err);
    }
    if (strncmp(value, "dir:", strlen("dir:")) == 0) {
        return store_config_parse_dir(config, value, err);
    }
    return store_config_bad_archive(value, forms, err);
}

/* ---- HARVEY_S3_* ---- */

/* [:PORT] or nothing. */
static bool store_config_port_is_valid(const char *text, size_t count)
{
    if (count == 0) {
        return true;
    }
    unsigned long port = 0;
    for (size_t i = 1; i < count; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        port = port * 10 + (unsigned long)(text[i] - '0');
    }
    return text[0] == ':' && count >= 2 && count <= 6 && port >= 1 && port <= 65535;
}

/* HOST[:PORT], HOST a name, an IPv4 address, or an IPv6 address in brackets. */
static bool store_config_host_is_valid(const char *host, size_t count)
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_";
    static const char ipv6[] = "0123456789abcdefABCDEF:.";
    size_t name = 0;
    if (count > 0 && host[0] == '[') {
        size_t inside = strspn(host + 1, ipv6);
        if (inside < 2 || inside + 1 >= count || host[inside + 1] != ']') {
            return false;
        }
        name = inside + 2;
    } else {
        name = strspn(host, set);
        name = name < count ? name : count;
    }
    return name > 0 && store_config_port_is_valid(host + name, count - name);
}

static enum rc store_config_read_endpoint(struct store_config *config,
                                          store_config_lookup_fn *lookup, struct err *err)
{
    static const char form[] = "expected http://HOST:PORT or https://HOST, no path";
    const char *value = store_config_get(lookup, "HARVEY_S3_ENDPOINT");
    if (value == NULL) {
        return err_set(err, RC_INVALID,
                       "HARVEY_S3_ENDPOINT is not set, and HARVEY_ARCHIVE='%.120s' needs it: %s",
                       config->url, form);
    }
    size_t count = strlen(value);
    while (count > 0 && value[count - 1] == '/') {
        count--;
    }
    size_t scheme = strncmp(value, "http://", 7) == 0 ? 7 : 8;
    if ((scheme == 8 && strncmp(value, "https://", 8) != 0) || count <= scheme ||
        !store_config_host_is_valid(value + scheme, count - scheme) ||
        !store_config_copy(config->endpoint, sizeof config->endpoint, value, count)) {
        return err_set(err, RC_INVALID, "HARVEY_S3_ENDPOINT='%.120s': %s", value, form);
    }
    return RC_OK;
}

/* Printable ASCII without space: it goes into a header, and a line end there would end it. */
static enum rc store_config_take_secret(char secret[STORE_SECRET_BYTES], const char *name,
                                        const char *bytes, size_t count, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] <= ' ' || bytes[i] > '~') {
            return err_set(err, RC_INVALID,
                           "%s=(not shown): byte %zu is not printable ASCII; allowed are 1 to %d "
                           "such bytes",
                           name, i + 1, STORE_SECRET_BYTES - 1);
        }
    }
    if (count == 0 || !store_config_copy(secret, STORE_SECRET_BYTES, bytes, count)) {
        return err_set(err, RC_INVALID, "%s=(not shown): %zu bytes; allowed are 1 to %d", name,
                       count, STORE_SECRET_BYTES - 1);
    }
    return RC_OK;
}

/*
 * A secret file as Docker mounts it: the value, perhaps with a line end that an editor put there.
 */
static enum rc store_config_read_secret_file(char secret[STORE_SECRET_BYTES], const char *name,
                                             const char *path, struct err *err)
{
    struct buf buf;
    buf_init(&buf, STORE_CONFIG_SECRET_FILE_BYTES_MAX);
    enum rc rc = fsio_read_file(path, &buf, err);
    if (rc == RC_LIMIT) {
        rc = err_set(err, RC_INVALID, "%s='%.200s': more than %u bytes, not a secret", name, path,
                     STORE_CONFIG_SECRET_FILE_BYTES_MAX);
    } else if (rc != RC_OK) {
        rc = err_prefix(err, "reading %s", name);
    }
    if (rc == RC_OK) {
        size_t count = buf.size;
        while (count > 0 && (buf.data[count - 1] == '\n' || buf.data[count - 1] == '\r')) {
            count--;
        }
        rc = store_config_take_secret(secret, name, (const char *)buf.data, count, err);
    }
    if (buf.data != NULL) {
        explicit_bzero(buf.data, buf.capacity);
    }
    buf_deinit(&buf);
    return rc;
}

/* NAME or NAME_FILE, not both; *found says whether one of them was there, `file` which file. */
static enum rc store_config_read_secret(char secret[STORE_SECRET_BYTES], char file[STORE_URL_BYTES],
                                        const char *name, store_config_lookup_fn *lookup,
                                        bool *found, struct err *err)
{
    char file_name[64];
    (void)snprintf(file_name, sizeof file_name, "%s_FILE", name);
    const char *value = store_config_get(lookup, name);
    const char *path = store_config_get(lookup, file_name);
    *found = value != NULL || path != NULL;
    if (value != NULL && path != NULL) {
        return err_set(err, RC_INVALID, "%s and %s are both set: one of them is enough", name,
                       file_name);
    }
    if (path != NULL) {
        enum rc rc = store_config_read_secret_file(secret, file_name, path, err);
        if (rc == RC_OK && !store_config_copy(file, STORE_URL_BYTES, path, strlen(path))) {
            rc = err_set(err, RC_INVALID, "%s='%.200s…': the path is too long", file_name, path);
        }
        return rc;
    }
    return value == NULL ? RC_OK
                         : store_config_take_secret(secret, name, value, strlen(value), err);
}

/*
 * The pair comes from one family of names: half from HARVEY_* and half from AWS_* would be two
 * people's credentials, which the store answers with a signature that does not match.
 */
static enum rc store_config_read_pair(struct store_config *config, const char *id_name,
                                      const char *secret_name, store_config_lookup_fn *lookup,
                                      bool *found, struct err *err)
{
    bool has_id = false;
    bool has_secret = false;
    enum rc rc = store_config_read_secret(config->access_key_id, config->access_key_id_file,
                                          id_name, lookup, &has_id, err);
    if (rc == RC_OK) {
        rc = store_config_read_secret(config->secret_access_key, config->secret_access_key_file,
                                      secret_name, lookup, &has_secret, err);
    }
    *found = has_id || has_secret;
    if (rc == RC_OK && has_id != has_secret) {
        rc = err_set(err, RC_INVALID, "%s is set, but %s (or %s_FILE) is not",
                     has_id ? id_name : secret_name, has_id ? secret_name : id_name,
                     has_id ? secret_name : id_name);
    }
    return rc;
}

static enum rc store_config_read_credentials(struct store_config *config,
                                             store_config_lookup_fn *lookup, struct err *err)
{
    bool found = false;
    enum rc rc = store_config_read_pair(config, "HARVEY_S3_ACCESS_KEY_ID",
                                        "HARVEY_S3_SECRET_ACCESS_KEY", lookup, &found, err);
    if (rc == RC_OK && !found) {
        rc = store_config_read_pair(config, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", lookup,
                                    &found, err);
    }
    if (rc == RC_OK && !found) {
        rc = err_set(err, RC_INVALID,
                     "HARVEY_S3_ACCESS_KEY_ID and HARVEY_S3_SECRET_ACCESS_KEY (or …_FILE, or "
                     "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) are not set, and "
                     "HARVEY_ARCHIVE='%.120s' needs them",
                     config->url);
    }
    return rc;
}

static enum rc store_config_read_ca(struct store_config *config, store_config_lookup_fn *lookup,
                                    struct err *err)
{
    const char *value = store_config_get(lookup, "HARVEY_S3_CA_FILE");
    struct fsio_stat stat;
    if (value == NULL) {
        return RC_OK;
    }
    if (!store_config_copy(config->ca_file, sizeof config->ca_file, value, strlen(value)) ||
        fsio_stat(value, &stat, err) != RC_OK || !stat.exists || stat.is_dir) {
        return err_set(err, RC_INVALID,
                       "HARVEY_S3_CA_FILE='%.200s': expected a file of certificates (PEM)", value);
    }
    return RC_OK;
}

enum rc store_config_read(struct store_config *config, store_config_lookup_fn *lookup,
                          struct err *err)
{
    memset(config, 0, sizeof *config);
    const char *archive = store_config_get(lookup, "HARVEY_ARCHIVE");
    enum rc rc =
        store_config_parse_archive(config, archive != NULL ? archive : STORE_CONFIG_DEFAULT, err);
    if (rc != RC_OK || !config->is_s3) {
        return rc;
    }
    rc = store_config_read_endpoint(config, lookup, err);
    if (rc == RC_OK) {
        rc = store_config_read_credentials(config, lookup, err);
    }
    if (rc == RC_OK) {
        rc = store_config_read_ca(config, lookup, err);
    }
    return rc;
}

enum rc store_config_renew_credentials(struct store_config *config, struct err *err)
{
    struct store_config fresh = *config;
    enum rc rc = RC_OK;
    if (config->access_key_id_file[0] != '\0') {
        rc = store_config_read_secret_file(fresh.access_key_id, "HARVEY_S3_ACCESS_KEY_ID_FILE",
                                           config->access_key_id_file, err);
    }
    if (rc == RC_OK && config->secret_access_key_file[0] != '\0') {
        rc = store_config_read_secret_file(fresh.secret_access_key,
                                           "HARVEY_S3_SECRET_ACCESS_KEY_FILE",
                                           config->secret_access_key_file, err);
    }
    if (rc == RC_OK) {
        memcpy(config->access_key_id, fresh.access_key_id, sizeof config->access_key_id);
        memcpy(config->secret_access_key, fresh.secret_access_key,
               sizeof config->secret_access_key);
    }
    explicit_bzero(&fresh, sizeof fresh);
    return rc;
}
