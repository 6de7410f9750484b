/* SPDX-License-Identifier: Apache-2.0 */
/*
 * s3_answer: see s3_answer.h. Error codes: "Error responses" of the S3 API reference, and MinIO's
 * (cmd/api-errors.go) and Ceph's (rgw_common.cc) own.
 */
#include "archive/s3_answer.h"

#include "base/clk.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define S3_V4_TEXT "the store wants Signature V4, not supported yet (AWS, R2, B2)"

void s3_answer_init(struct s3_answer *answer)
{
    memset(answer, 0, sizeof *answer);
}

/* ---- headers ---- */

/* What a person is shown: no control characters, no bytes above ASCII. */
static void s3_copy_text(char *to, size_t to_bytes, const char *from, size_t count)
{
    size_t n = 0;
    for (size_t i = 0; i < count && n + 1 < to_bytes; i++) {
        to[n++] = from[i] >= ' ' && from[i] <= '~' ? from[i] : ' ';
    }
    to[n] = '\0';
}

static bool s3_parse_u64(const char **text, const char *end, uint64_t *value)
{
    const char *p = *text;
    uint64_t result = 0;
    while (p < end && *p >= '0' && *p <= '9') {
        uint64_t digit = (uint64_t)(*p - '0');
        if (result > (UINT64_MAX - digit) / 10) {
            return false;
        }
        result = result * 10 + digit;
        p++;
    }
    if (p == *text) {
        return false;
    }
    *text = p;
    *value = result;
    return true;
}

/*
 * "bytes 0-99/1234" (RFC 9110, 14.4); a total of "*" is no use to us. The last such header counts.
 */
static void s3_parse_content_range(struct s3_answer *answer, const char *value, const char *end)
{
    const char *p = value;
    uint64_t first = 0;
    uint64_t last = 0;
    uint64_t total = 0;
    answer->has_range = false;
    if (end - p < 6 || strncasecmp(p, "bytes ", 6) != 0) {
        return;
    }
    p += 6;
    if (!s3_parse_u64(&p, end, &first) || p == end || *p++ != '-' ||
        !s3_parse_u64(&p, end, &last) || p == end || *p++ != '/' ||
        !s3_parse_u64(&p, end, &total) || p != end || first > last || last >= total) {
        return;
    }
    answer->has_range = true;
    answer->range_first = first;
    answer->range_last = last;
    answer->range_total = total;
}

/* "Tue, 24 Nov 2026 18:00:00 GMT" (RFC 9110, 5.6.7). */
static int64_t s3_parse_date(const char *value, const char *end)
{
    char text[40];
    struct tm tm = {.tm_isdst = 0};
    s3_copy_text(text, sizeof text, value, (size_t)(end - value));
    const char *rest = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    return rest != NULL && *rest == '\0' ? (int64_t)timegm(&tm) * 1000 : 0;
}

static void s3_restart(struct s3_answer *answer, const char *line, size_t count)
{
    struct s3_answer fresh = {
        .sent = answer->sent, .resent = answer->resent, .is_head = answer->is_head};
    const char *end = line + count;
    const char *p = memchr(line, ' ', count);
    uint64_t status = 0;
    *answer = fresh;
    if (p != NULL) {
        p++;
        if (s3_parse_u64(&p, end, &status) && status <= 999) {
            answer->http_status = (long)status;
        }
    }
}

static bool s3_header_is(const char *line, size_t name_count, const char *name)
{
    return strlen(name) == name_count && strncasecmp(line, name, name_count) == 0;
}

static void s3_take_etag(struct s3_answer *answer, const char *value, const char *end)
{
    if (end - value >= 2 && *value == '"' && end[-1] == '"') {
        value++;
        end--;
    }
    s3_copy_text(answer->etag, sizeof answer->etag, value, (size_t)(end - value));
}

void s3_answer_add_header(struct s3_answer *answer, const char *line, size_t count)
{
    while (count > 0 && (line[count - 1] == '\n' || line[count - 1] == '\r' ||
                         line[count - 1] == ' ' || line[count - 1] == '\t')) {
        count--;
    }
    if (count >= 5 && strncmp(line, "HTTP/", 5) == 0) {
        s3_restart(answer, line, count); /* after a 100 Continue the real one begins */
        return;
    }
    const char *end = line + count;
    const char *colon = memchr(line, ':', count);
    if (colon == NULL) {
        return;
    }
    size_t name = (size_t)(colon - line);
    const char *value = colon + 1;
    while (value < end && (*value == ' ' || *value == '\t')) {
        value++;
    }
    size_t value_count = (size_t)(end - value);
    if (s3_header_is(line, name, "etag")) {
        s3_take_etag(answer, value, end);
    } else if (s3_header_is(line, name, "content-length")) {
        const char *p = value;
        answer->has_length = s3_parse_u64(&p, end, &answer->length) && p == end;
    } else if (s3_header_is(line, name, "transfer-encoding")) {
        answer->chunked = value_count >= 7 && strncasecmp(end - 7, "chunked", 7) == 0;
    } else if (s3_header_is(line, name, "content-range")) {
        s3_parse_content_range(answer, value, end);
    } else if (s3_header_is(line, name, "date")) {
        answer->date_unix_ms = s3_parse_date(value, end);
    } else if (s3_header_is(line, name, "location")) {
        s3_copy_text(answer->location, sizeof answer->location, value, value_count);
    } else if (s3_header_is(line, name, "x-minio-error-code")) {
        /* a HEAD has no body to say it in */
        s3_copy_text(answer->code, sizeof answer->code, value, value_count);
    } else if (s3_header_is(line, name, "x-minio-error-desc")) {
        s3_copy_text(answer->message, sizeof answer->message, value, value_count);
    }
}

/* ---- body ---- */

void s3_answer_add_body(struct s3_answer *answer, const char *bytes, size_t count)
{
    if (count == 0) {
        return;
    }
    size_t room = sizeof answer->head - answer->head_count;
    size_t take = count < room ? count : room;
    memcpy(answer->head + answer->head_count, bytes, take);
    answer->head_count += take;
    size_t keep = count < sizeof answer->tail ? count : sizeof answer->tail;
    memmove(answer->tail, answer->tail + keep, sizeof answer->tail - keep);
    memcpy(answer->tail + sizeof answer->tail - keep, bytes + count - keep, keep);
    answer->body_bytes += count;
}

/* The text of the first <tag>…</tag>; entities stay as they are, it is for reading only. */
static void s3_take_element(const struct s3_answer *answer, const char *open, const char *close,
                            char *to, size_t to_bytes)
{
    const char *begin = memmem(answer->head, answer->head_count, open, strlen(open));
    if (begin == NULL) {
        return;
    }
    begin += strlen(open);
    size_t left = answer->head_count - (size_t)(begin - answer->head);
    const char *end = memmem(begin, left, close, strlen(close));
    if (end != NULL) {
        s3_copy_text(to, to_bytes, begin, (size_t)(end - begin));
    }
}

void s3_answer_finish(struct s3_answer *answer)
{
    if (answer->http_status >= 300) {
        s3_take_element(answer, "<Code>", "</Code>", answer->code, sizeof answer->code);
        s3_take_element(answer, "<Message>", "</Message>", answer->message, sizeof answer->message);
    }
}

bool s3_answer_is_success(const struct s3_answer *answer)
{
    return answer->transport == S3_TRANSPORT_OK && answer->http_status >= 200 &&
           answer->http_status <= 299;
}

bool s3_answer_is_whole(const struct s3_answer *answer)
{
    if (!s3_answer_is_success(answer)) {
        return false;
    }
    /* Without either, a closed connection is both the end and a cut. */
    return answer->chunked || (answer->has_length && answer->length == answer->body_bytes);
}

bool s3_answer_is_listing(const struct s3_answer *answer)
{
    static const char open[] = "<ListBucketResult";
    static const char close[] = "</ListBucketResult>";
    size_t count = sizeof answer->tail;
    while (count > 0 && (answer->tail[count - 1] == '\n' || answer->tail[count - 1] == '\r' ||
                         answer->tail[count - 1] == ' ')) {
        count--;
    }
    size_t need = sizeof close - 1;
    return s3_answer_is_whole(answer) && count >= need &&
           memcmp(answer->tail + count - need, close, need) == 0 &&
           memmem(answer->head, answer->head_count, open, sizeof open - 1) != NULL;
}

bool s3_answer_has_more(const struct s3_answer *answer)
{
    static const char more[] = "<IsTruncated>true<";
    return memmem(answer->head, answer->head_count, more, strlen(more)) != NULL;
}

bool s3_answer_is_unknown(const struct s3_answer *answer)
{
    return answer->sent &&
           (answer->transport == S3_TRANSPORT_TIMEOUT || answer->transport == S3_TRANSPORT_BROKEN);
}

bool s3_answer_wants_v4(const struct s3_answer *answer)
{
    static const char *const words[] = {
        "AWS4-HMAC-SHA256",        /* AWS: "Please use AWS4-HMAC-SHA256"; B2 too */
        "V2 signature",            /* B2 */
        "signature version 2",     /* versitygw */
        "Unsupported authoriz",    /* Garage */
        "authorization mechanism", /* AWS, B2 */
    };
    if (answer->transport != S3_TRANSPORT_OK || answer->http_status < 400) {
        return false;
    }
    if (strcmp(answer->code, "AuthorizationHeaderMalformed") == 0 ||
        (strcmp(answer->code, "InvalidArgument") == 0 &&
         strcmp(answer->message, "Authorization") == 0)) { /* R2 */
        return true;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasestr(answer->message, words[i]) != NULL) {
            return true;
        }
    }
    return false;
}

/* ---- what a failure means ---- */

struct s3_code {
    const char *code;
    enum rc rc;
    const char *hint; /* "" = the store's own message is enough */
};

static const struct s3_code s3_codes[] = {
    {"NoSuchKey", RC_NOT_FOUND, "no such object"},
    {"NoSuchBucket", RC_NOT_FOUND, "no such bucket"},
    {"PreconditionFailed", RC_EXISTS, "the name is taken"},
    {"BucketAlreadyOwnedByYou", RC_EXISTS, ""},
    {"BucketAlreadyExists", RC_EXISTS, ""},
    {"BadDigest", RC_UNAVAILABLE, "the body arrived damaged"},
    {"XAmzContentSHA256Mismatch", RC_UNAVAILABLE, "the body arrived damaged"},
    {"IncompleteBody", RC_UNAVAILABLE, ""},
    {"RequestTimeout", RC_UNAVAILABLE, ""},
    {"ConditionalRequestConflict", RC_UNAVAILABLE, ""},
    {"OperationAborted", RC_UNAVAILABLE, ""},
    {"AccessDenied", RC_DENIED, "check the permissions of the access key"},
    {"InvalidAccessKeyId", RC_DENIED, "check the access key id"},
    {"SignatureDoesNotMatch", RC_DENIED, "check the secret access key"},
    {"ExpiredToken", RC_DENIED, "the credentials have expired"},
    {"InvalidToken", RC_DENIED, ""},
    {"TokenRefreshRequired", RC_DENIED, "the credentials have expired"},
    {"AccountProblem", RC_DENIED, ""},
    {"AllAccessDisabled", RC_DENIED, ""},
    {"NotSignedUp", RC_DENIED, ""},
    {"QuotaExceeded", RC_LIMIT, "the quota is used up"},
    {"XMinioAdminBucketQuotaExceeded", RC_LIMIT, "the bucket's quota is used up"},
    {"XMinioStorageFull", RC_LIMIT, "the store's disk is full"},
    {"EntityTooLarge", RC_LIMIT, ""},
    {"KeyTooLongError", RC_LIMIT, ""},
    {"KeyTooLong", RC_LIMIT, ""},
    {"MetadataTooLarge", RC_LIMIT, ""},
    {"TooManyBuckets", RC_LIMIT, ""},
};

static const struct s3_code *s3_find_code(const char *code)
{
    for (size_t i = 0; i < sizeof s3_codes / sizeof *s3_codes; i++) {
        if (strcmp(s3_codes[i].code, code) == 0) {
            return &s3_codes[i];
        }
    }
    return NULL;
}

/* The meaning of a status whose code says nothing that we know. */
static enum rc s3_status_rc(long status)
{
    switch (status) {
    case 401:
    case 403:
    case 407:
        return RC_DENIED;
    case 404:
        return RC_NOT_FOUND;
    case 408:
    case 409:
    case 425:
    case 429:
        return RC_UNAVAILABLE;
    case 412:
        return RC_EXISTS;
    case 413:
    case 507:
        return RC_LIMIT;
    case 501:
        return RC_INVALID;
    default:
        break;
    }
    return status >= 500 ? RC_UNAVAILABLE : RC_INVALID;
}

static enum rc s3_fail_transport(const struct s3_answer *answer, const char *what, const char *key,
                                 struct err *err)
{
    const char *text = answer->transport_text;
    switch (answer->transport) {
    case S3_TRANSPORT_REFUSED:
    case S3_TRANSPORT_BROKEN:
        return err_set(err, RC_UNAVAILABLE, "%s %s: %s", what, key, text);
    case S3_TRANSPORT_TIMEOUT:
        return err_set(err, RC_TIMEOUT, "%s %s: %s", what, key, text);
    case S3_TRANSPORT_UNTRUSTED:
        return err_set(err, RC_DENIED, "%s %s: the store's certificate is not trusted: %s", what,
                       key, text);
    case S3_TRANSPORT_UNUSABLE:
        return err_set(err, RC_INVALID, "%s %s: %s", what, key, text);
    case S3_TRANSPORT_STOPPED:
        return err_set(err, RC_STOPPED, "%s %s: stopped", what, key);
    case S3_TRANSPORT_NOMEM:
        return err_set(err, RC_NOMEM, "%s %s: no memory for the request", what, key);
    case S3_TRANSPORT_ABORTED: /* not by our sink, whose words would be in place: by libs3 */
        return err_set(err, RC_UNAVAILABLE, "%s %s: the answer is no XML of a store", what, key);
    case S3_TRANSPORT_NONE:
    case S3_TRANSPORT_OK:
        break;
    }
    return err_set(err, RC_INTERNAL, "%s %s: the exchange ended in a way that cannot be: %s", what,
                   key, text);
}

static enum rc s3_fail_skew(const struct s3_answer *answer, const char *what, const char *key,
                            struct err *err)
{
    char ours[CLK_RFC3339_BYTES];
    char theirs[CLK_RFC3339_BYTES] = "unknown";
    clk_format_rfc3339(clk_unix_ms(), ours);
    if (answer->date_unix_ms != 0) {
        clk_format_rfc3339(answer->date_unix_ms, theirs);
    }
    return err_set(err, RC_DENIED, "%s %s: the clocks are too far apart: ours %s, the store's %s",
                   what, key, ours, theirs);
}

enum rc s3_answer_fail(const struct s3_answer *answer, const char *what, const char *key,
                       struct err *err)
{
    long status = answer->http_status;
    if (answer->transport != S3_TRANSPORT_OK) {
        return s3_fail_transport(answer, what, key, err);
    }
    if (status >= 200 && status <= 299) {
        return err_set(err, RC_CORRUPT, "%s %s: status %ld, but the answer cannot be right", what,
                       key, status);
    }
    if (s3_answer_wants_v4(answer)) {
        return err_set(err, RC_DENIED, "%s %s: " S3_V4_TEXT ": %ld %s %s", what, key, status,
                       answer->code, answer->message);
    }
    if (strcmp(answer->code, "RequestTimeTooSkewed") == 0) {
        return s3_fail_skew(answer, what, key, err);
    }
    if (status >= 300 && status <= 399) {
        return err_set(err, RC_INVALID,
                       "%s %s: the store redirects (%ld %s%s%s): set the endpoint of the bucket's "
                       "region",
                       what, key, status, answer->code, *answer->location == '\0' ? "" : " to ",
                       answer->location);
    }
    if (status == 404 && !answer->is_head && *answer->code == '\0') {
        /* A store says what is missing. A proxy that has lost its backend must not pass for an empty
         * archive. */
        return err_set(err, RC_UNAVAILABLE,
                       "%s %s: 404, and not in a store's words: something else answers at this "
                       "address",
                       what, key);
    }
    const struct s3_code *known = s3_find_code(answer->code);
    const char *hint = known != NULL ? known->hint : "";
    return err_set(err, known != NULL ? known->rc : s3_status_rc(status), "%s %s: %ld%s%s%s%s%s%s",
                   what, key, status, *answer->code == '\0' ? "" : " ", answer->code,
                   *answer->message == '\0' ? "" : ": ", answer->message, *hint == '\0' ? "" : "; ",
                   hint);
}
