/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.x response parser (RFC 9112, sections 4, 6, 7). Lines are gathered byte by byte into a
 * small buffer, bodies are skipped in blocks. A bare LF ends a line, as 9112 2.2 allows.
 */
#include "tests/bench/openloop_response.h"

#include <string.h>
#include <strings.h>

/* More than any body we ask for, and far from overflow. */
#define LENGTH_MAX (UINT64_C(1) << 40)

void openloop_response_init(struct openloop_response *response)
{
    openloop_response_init_capture(response, NULL, 0);
}

void openloop_response_init_capture(struct openloop_response *response, char *body,
                                    size_t bytes_max)
{
    /* Not memset: 300 bytes per request for nothing. */
    response->state = OPENLOOP_RESPONSE_STATUS_LINE;
    response->status = 0;
    response->close = false;
    response->started = false;
    response->has_length = false;
    response->chunked = false;
    response->left_bytes = 0;
    response->header_bytes = 0;
    response->line_bytes = 0;
    response->line[0] = '\0';
    response->body = body;
    response->body_bytes = 0;
    response->body_bytes_max = bytes_max;
}

static void fail(struct openloop_response *response)
{
    response->state = OPENLOOP_RESPONSE_MALFORMED;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "HTTP/1.1 200 OK"; the reason may be missing. */
static void parse_status_line(struct openloop_response *response)
{
    const char *line = response->line;

    if (response->line_bytes < 12 || strncmp(line, "HTTP/1.", 7) != 0 || !is_digit(line[7]) ||
        line[8] != ' ' || !is_digit(line[9]) || !is_digit(line[10]) || !is_digit(line[11]) ||
        (line[12] != '\0' && line[12] != ' ') || line[9] == '0') {
        fail(response);
        return;
    }
    response->status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
    response->close = line[7] == '0';
    response->state = OPENLOOP_RESPONSE_HEADERS;
}

/* The header's value when the line has that name, else NULL. */
static const char *value_of(const char *line, const char *name)
{
    size_t length = strlen(name);

    if (strncasecmp(line, name, length) != 0 || line[length] != ':') {
        return NULL;
    }
    line += length + 1;
    return line + strspn(line, " \t");
}

static void parse_content_length(struct openloop_response *response, const char *value)
{
    uint64_t length = 0;
    const char *p = value;

    for (; is_digit(*p) && length < LENGTH_MAX; p++) {
        length = length * 10 + (uint64_t)(*p - '0');
    }
    p += strspn(p, " \t");
    if (p == value || *p != '\0' || length >= LENGTH_MAX ||
        (response->has_length && response->left_bytes != length)) {
        fail(response);
        return;
    }
    response->has_length = true;
    response->left_bytes = length;
}

static bool has_token(const char *list, const char *token)
{
    size_t length = strlen(token);

    while (*list != '\0') {
        list += strspn(list, " \t,");
        if (strncasecmp(list, token, length) == 0 &&
            (list[length] == '\0' || strchr(" \t,", list[length]) != NULL)) {
            return true;
        }
        list += strcspn(list, ",");
    }
    return false;
}

static void parse_header(struct openloop_response *response)
{
    const char *value;

    if ((value = value_of(response->line, "Content-Length")) != NULL) {
        parse_content_length(response, value);
    } else if ((value = value_of(response->line, "Transfer-Encoding")) != NULL) {
        if (!has_token(value, "chunked")) {
            fail(response);
            return;
        }
        response->chunked = true;
    } else if ((value = value_of(response->line, "Connection")) != NULL) {
        if (has_token(value, "close")) {
            response->close = true;
        } else if (has_token(value, "keep-alive")) {
            response->close = false;
        }
    }
}

/* The empty line after the headers: which body follows? */
static void finish_headers(struct openloop_response *response)
{
    int status = response->status;

    if (status < 200 && status != 101) { /* 100 Continue and kin: the real answer follows */
        openloop_response_init_capture(response, response->body, response->body_bytes_max);
        response->started = true;
        return;
    }
    if (response->chunked && response->has_length) {
        fail(response); /* 9112 6.3: smells of smuggling */
    } else if (status == 204 || status == 304) {
        response->state = OPENLOOP_RESPONSE_DONE;
    } else if (response->chunked) {
        response->state = OPENLOOP_RESPONSE_CHUNK_SIZE;
    } else if (!response->has_length) {
        response->close = true;
        response->state = OPENLOOP_RESPONSE_BODY_UNTIL_EOF;
    } else {
        response->state =
            response->left_bytes == 0 ? OPENLOOP_RESPONSE_DONE : OPENLOOP_RESPONSE_BODY_LENGTH;
    }
}

static int hex_of(char c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

static void parse_chunk_size(struct openloop_response *response)
{
    uint64_t size = 0;
    const char *p = response->line;
    int digit;

    for (; (digit = hex_of(*p)) >= 0 && size < LENGTH_MAX; p++) {
        size = size * 16 + (uint64_t)digit;
    }
    if (p == response->line || size >= LENGTH_MAX || (*p != '\0' && strchr(" \t;", *p) == NULL)) {
        fail(response);
        return;
    }
    response->left_bytes = size;
    response->state = size == 0 ? OPENLOOP_RESPONSE_TRAILERS : OPENLOOP_RESPONSE_CHUNK_DATA;
}

/* A whole line lies in response->line, without its end. */
static void parse_line(struct openloop_response *response)
{
    bool empty = response->line_bytes == 0;

    if (response->state == OPENLOOP_RESPONSE_STATUS_LINE) {
        parse_status_line(response);
    } else if (response->state == OPENLOOP_RESPONSE_HEADERS) {
        if (empty) {
            finish_headers(response);
        } else {
            parse_header(response);
        }
    } else if (response->state == OPENLOOP_RESPONSE_CHUNK_SIZE) {
        parse_chunk_size(response);
    } else if (response->state == OPENLOOP_RESPONSE_CHUNK_END) {
        response->state = empty ? OPENLOOP_RESPONSE_CHUNK_SIZE : OPENLOOP_RESPONSE_MALFORMED;
    } else if (response->state == OPENLOOP_RESPONSE_TRAILERS && empty) {
        response->state = OPENLOOP_RESPONSE_DONE;
    }
}

static void take_line_byte(struct openloop_response *response, char c)
{
    if (++response->header_bytes > OPENLOOP_RESPONSE_HEADER_BYTES_MAX) {
        fail(response);
        return;
    }
    if (c != '\n') {
        if (response->line_bytes < sizeof(response->line) - 1) {
            response->line[response->line_bytes] = c;
        }
        response->line_bytes++;
        return;
    }
    if (response->line_bytes < sizeof(response->line)) {
        if (response->line_bytes > 0 && response->line[response->line_bytes - 1] == '\r') {
            response->line_bytes--;
        }
        response->line[response->line_bytes] = '\0';
    } else {
        response->line[sizeof(response->line) - 1] = '\0';
    }
    parse_line(response);
    response->line_bytes = 0;
}

static size_t take_body(struct openloop_response *response, const char *bytes, size_t length)
{
    bool until_eof = response->state == OPENLOOP_RESPONSE_BODY_UNTIL_EOF;
    size_t room = response->body_bytes_max - response->body_bytes;
    size_t kept;

    if (!until_eof && length > response->left_bytes) {
        length = (size_t)response->left_bytes;
    }
    kept = length < room ? length : room;
    if (kept > 0) {
        memcpy(response->body + response->body_bytes, bytes, kept);
        response->body_bytes += kept;
    }
    if (until_eof) {
        return length;
    }
    response->left_bytes -= length;
    if (response->left_bytes == 0) {
        if (response->state == OPENLOOP_RESPONSE_CHUNK_DATA) {
            /* Chunk lines count anew: the limit is for headers, not for long bodies. */
            response->header_bytes = 0;
            response->state = OPENLOOP_RESPONSE_CHUNK_END;
        } else {
            response->state = OPENLOOP_RESPONSE_DONE;
        }
    }
    return length;
}

static enum openloop_verdict verdict_of(const struct openloop_response *response)
{
    if (response->state == OPENLOOP_RESPONSE_DONE) {
        return OPENLOOP_VERDICT_DONE;
    }
    return response->state == OPENLOOP_RESPONSE_MALFORMED ? OPENLOOP_VERDICT_MALFORMED
                                                          : OPENLOOP_VERDICT_MORE;
}

enum openloop_verdict openloop_response_feed(struct openloop_response *response, const char *bytes,
                                             size_t length, size_t *used)
{
    size_t at = 0;

    response->started = response->started || length > 0;
    while (at < length && verdict_of(response) == OPENLOOP_VERDICT_MORE) {
        if (response->state == OPENLOOP_RESPONSE_BODY_LENGTH ||
            response->state == OPENLOOP_RESPONSE_BODY_UNTIL_EOF ||
            response->state == OPENLOOP_RESPONSE_CHUNK_DATA) {
            at += take_body(response, bytes + at, length - at);
        } else {
            take_line_byte(response, bytes[at]);
            at++;
        }
    }
    *used = at;
    return verdict_of(response);
}

enum openloop_verdict openloop_response_eof(struct openloop_response *response)
{
    if (response->state == OPENLOOP_RESPONSE_BODY_UNTIL_EOF) {
        response->state = OPENLOOP_RESPONSE_DONE;
    } else if (response->state != OPENLOOP_RESPONSE_DONE) {
        fail(response);
    }
    return verdict_of(response);
}
