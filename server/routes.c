/* SPDX-License-Identifier: Apache-2.0 */
/* routes: see routes.h. */
#include "server/routes.h"

#include <string.h>
#include <strings.h>

#define ROUTE_LENGTH_DIGITS_MAX 18
#define ROUTE_HEADER_RECORD_BYTES 80 /* libmicrohttpd's own for each header, in the same memory */

const struct route_answer_text route_answers[ROUTE_ANSWER_COUNT] = {
#define ROUTE_ANSWER_TEXT(name, status, allow, retry, body) {status, allow, retry, body},
    ROUTE_ANSWERS(ROUTE_ANSWER_TEXT)
#undef ROUTE_ANSWER_TEXT
};

/* A method of its own for each path; `app` is GET and POST, the others GET and HEAD. */
static const struct route_path {
    const char *path;
    enum route_action action;
    enum route_answer answer;
} route_paths[] = {
    {"/", ROUTE_DO_INSERT, ROUTE_NOT_ALLOWED_APP},
    {"/status", ROUTE_DO_STATUS, ROUTE_NOT_ALLOWED_READ},
    {"/livez", ROUTE_DO_ANSWER, ROUTE_NOT_ALLOWED_READ},
    {"/readyz", ROUTE_DO_READYZ, ROUTE_NOT_ALLOWED_READ},
};

/* Digits only; what is too long for a number is more than any limit. */
static uint64_t parse_length(const char *value)
{
    uint64_t length = 0;
    size_t digits = strspn(value, "0123456789");
    if (digits > ROUTE_LENGTH_DIGITS_MAX) {
        return UINT64_MAX;
    }
    for (size_t i = 0; i < digits; i++) {
        length = length * 10 + (uint64_t)(value[i] - '0');
    }
    return length;
}

static enum route_ack parse_ack(const char *value)
{
    if (strcasecmp(value, "local") == 0) {
        return ROUTE_ACK_LOCAL;
    }
    return strcasecmp(value, "archive") == 0 ? ROUTE_ACK_ARCHIVE : ROUTE_ACK_UNKNOWN;
}

/* Printable, with no white space: near enough to RFC 9110's token. "Transfer-Encoding :" is none. */
static bool is_name(const char *name)
{
    const char *at = name;
    while (*at > ' ' && *at < 0x7f) {
        at++;
    }
    return *at == '\0' && at != name;
}

/* What separates lines and fields elsewhere must not be in a value. */
static bool is_value(const char *value)
{
    const char *at = value;
    while ((unsigned char)*at >= ' ' || *at == '\t') {
        at++;
    }
    return *at == '\0';
}

void route_note_header(struct route_request *request, const char *name, const char *value)
{
    request->headers++;
    request->malformed = request->malformed || !is_name(name) || !is_value(value);
    switch (name[0]) { /* most headers are of no interest: one look at the first letter */
    case 'A':
    case 'a':
        if (strcasecmp(name, "Accept") == 0 && strcasestr(value, "application/json") != NULL) {
            request->wants_json = true;
        }
        break;
    case 'C':
    case 'c':
        if (strcasecmp(name, "Content-Length") == 0) {
            request->content_lengths++;
            request->content_length = parse_length(value);
        }
        break;
    case 'H':
    case 'h':
        if (strcasecmp(name, "Host") == 0) {
            request->hosts++;
        } else if (strcasecmp(name, "Harvey-Ack") == 0) {
            request->ack = parse_ack(value);
        }
        break;
    case 'T':
    case 't':
        if (strcasecmp(name, "Transfer-Encoding") == 0) {
            request->transfer_encodings++;
            request->chunked = strcasecmp(value, "chunked") == 0;
        }
        break;
    default:
        break;
    }
}

void route_note_argument(struct route_request *request, const char *name, const char *value)
{
    if (strcmp(name, "format") == 0) {
        request->wants_json = strcmp(value, "json") == 0;
    }
}

/* The path of an absolute-form target ("http://host/path", RFC 9112 3.2.2). */
static const char *origin_path(const char *target)
{
    if (target[0] == '/' || strncasecmp(target, "http://", 7) != 0) {
        return target;
    }
    const char *slash = strchr(target + 7, '/');
    return slash == NULL ? "/" : slash;
}

static struct route answer_with(enum route_answer answer)
{
    return (struct route){.action = ROUTE_DO_ANSWER, .answer = answer};
}

static struct route find(const struct route_request *request)
{
    const char *path = origin_path(request->path);
    for (size_t i = 0; i < sizeof route_paths / sizeof route_paths[0]; i++) {
        const struct route_path *entry = &route_paths[i];
        if (strcmp(path, entry->path) != 0) {
            continue;
        }
        const char *second = entry->action == ROUTE_DO_INSERT ? "POST" : "HEAD";
        if (strcmp(request->method, "GET") != 0 && strcmp(request->method, second) != 0) {
            return answer_with(entry->answer);
        }
        if (entry->action == ROUTE_DO_INSERT && request->ack == ROUTE_ACK_ARCHIVE) {
            return answer_with(ROUTE_NO_ACK_ARCHIVE);
        }
        if (entry->action == ROUTE_DO_INSERT && request->ack == ROUTE_ACK_UNKNOWN) {
            return answer_with(ROUTE_BAD_ACK);
        }
        if (entry->action == ROUTE_DO_STATUS && request->wants_json) {
            return (struct route){.action = ROUTE_DO_STATUS_JSON};
        }
        return entry->action == ROUTE_DO_ANSWER ? answer_with(ROUTE_ALIVE)
                                                : (struct route){.action = entry->action};
    }
    return answer_with(ROUTE_NOT_FOUND);
}

bool route_is_crammed(const struct route_request *request)
{
    return request->header_bytes + (size_t)request->headers * ROUTE_HEADER_RECORD_BYTES >
           request->memory_bytes_max;
}

struct route route_decide(const struct route_request *request)
{
    struct route route;
    bool at_once = true;
    if (strlen(request->path) > ROUTE_PATH_BYTES_MAX) {
        route = answer_with(ROUTE_PATH_TOO_LONG);
    } else if (route_is_crammed(request)) {
        route = answer_with(ROUTE_HEADERS_TOO_LARGE);
    } else if (request->malformed) {
        route = answer_with(ROUTE_BAD_HEADER);
    } else if (request->hosts > 1 || (request->hosts == 0 && request->needs_host)) {
        route = answer_with(ROUTE_BAD_HOST);
    } else if (request->content_lengths + request->transfer_encodings > 1 ||
               (request->transfer_encodings > 0 && request->knows_no_chunks)) {
        route = answer_with(ROUTE_BAD_FRAMING);
    } else if (request->transfer_encodings == 1 && !request->chunked) {
        route = answer_with(ROUTE_NO_CODING);
    } else if (request->content_length > ROUTE_BODY_BYTES_MAX) {
        route = answer_with(ROUTE_BODY_TOO_LARGE);
    } else {
        route = find(request);
        at_once = false;
    }
    route.at_once = at_once;
    route.has_body = request->content_length > 0 || request->chunked;
    return route;
}
