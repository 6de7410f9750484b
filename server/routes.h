/* SPDX-License-Identifier: Apache-2.0 */
/*
 * routes: which request gets which answer, decided from its first line and headers alone. Pure: it
 * knows neither libmicrohttpd nor the database.
 *
 * What must not be read any further (too large, two framings of one body) is refused at once and the
 * connection is closed; all else is answered when the request is complete, and the connection stays.
 *
 * Thread: any.
 */
#ifndef HARVEY_SERVER_ROUTES_H
#define HARVEY_SERVER_ROUTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ROUTE_PATH_BYTES_MAX 2048u /* longer ones: 414 */
#define ROUTE_BODY_BYTES_MAX 1024u /* of a request, stored or not: 413 */

/*
 * The answers in which nothing varies: name, status, Allow, Retry-After, body. http.c makes one
 * persistent response of each.
 */
#define ROUTE_ANSWERS(X)                                                                           \
    X(ALIVE, 200, NULL, NULL, "alive\n")                                                           \
    X(READY, 200, NULL, NULL, "ready\n")                                                           \
    X(BAD_HOST, 400, NULL, NULL, "one Host header, not none, not more\n")                          \
    X(BAD_FRAMING, 400, NULL, NULL, "one Content-Length or one Transfer-Encoding, not more\n")     \
    X(BAD_HEADER, 400, NULL, NULL,                                                                 \
      "a header that is none: white space in its name, or a control byte\n")                       \
    X(BAD_TEXT, 400, NULL, NULL, "the body must be UTF-8 text without NUL\n")                      \
    X(BAD_ACK, 400, NULL, NULL, "Harvey-Ack: must be local or archive\n")                          \
    X(NOT_FOUND, 404, NULL, NULL, "not found\n")                                                   \
    X(NOT_ALLOWED_APP, 405, "GET, POST", NULL, "method not allowed\n")                             \
    X(NOT_ALLOWED_READ, 405, "GET, HEAD", NULL, "method not allowed\n")                            \
    X(TIMEOUT, 408, NULL, NULL, "the request did not arrive in time\n")                            \
    X(BODY_TOO_LARGE, 413, NULL, NULL, "the body may have 1024 bytes\n")                           \
    X(PATH_TOO_LONG, 414, NULL, NULL, "the path may have 2048 bytes\n")                            \
    X(HEADERS_TOO_LARGE, 431, NULL, NULL, "the headers take more than 7 KiB\n")                    \
    X(NO_CODING, 501, NULL, NULL, "Transfer-Encoding: only chunked\n")                             \
    X(NO_ACK_ARCHIVE, 501, NULL, NULL, "Harvey-Ack: archive is not supported yet; use local\n")    \
    X(CROWDED, 503, NULL, "1", "too many connections\n")                                           \
    X(STOPPING, 503, NULL, "1", "the server stops, and the request has not arrived\n")

enum route_answer {
#define ROUTE_ANSWER_NAME(name, status, allow, retry, body) ROUTE_##name,
    ROUTE_ANSWERS(ROUTE_ANSWER_NAME)
#undef ROUTE_ANSWER_NAME
        ROUTE_ANSWER_COUNT
};

struct route_answer_text {
    unsigned status;
    const char *allow;         /* NULL: no such header */
    const char *retry_after_s; /* NULL: no such header */
    const char *body;
};

extern const struct route_answer_text route_answers[ROUTE_ANSWER_COUNT];

enum route_action {
    ROUTE_DO_INSERT,
    ROUTE_DO_STATUS,
    ROUTE_DO_STATUS_JSON,
    ROUTE_DO_READYZ,
    ROUTE_DO_ANSWER, /* one of the fixed ones */
};

enum route_ack { ROUTE_ACK_UNSET, ROUTE_ACK_LOCAL, ROUTE_ACK_ARCHIVE, ROUTE_ACK_UNKNOWN };

/* What of a request matters. Start from zero, note each header and argument, then decide. */
struct route_request {
    const char *method;
    const char *path;        /* not decoded, without the query */
    bool needs_host;         /* HTTP/1.1 */
    bool knows_no_chunks;    /* HTTP/1.0 */
    size_t header_bytes;     /* first line and headers as received */
    size_t memory_bytes_max; /* what header_bytes and the headers' records may take */
    unsigned headers;
    unsigned hosts;
    unsigned content_lengths; /* how many such headers */
    uint64_t content_length;
    unsigned transfer_encodings;
    bool chunked;
    bool malformed; /* some header; a proxy before us may read another request out of it */
    bool wants_json;
    enum route_ack ack;
};

struct route {
    enum route_action action;
    enum route_answer answer; /* ROUTE_DO_ANSWER */
    bool at_once;             /* before the body is read; the connection is closed */
    bool has_body;
};

/* True when the headers left too little memory for an answer through MHD: answered past it. */
bool route_is_crammed(const struct route_request *request);

void route_note_header(struct route_request *request, const char *name, const char *value);
void route_note_argument(struct route_request *request, const char *name, const char *value);

struct route route_decide(const struct route_request *request);

#endif
