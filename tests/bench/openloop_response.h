/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Incremental parser of one HTTP/1.x response, fed with whatever recv() gave. It is strict where
 * framing is concerned: a doubtful length is malformed, never guessed. Knows three kinds of body:
 * Content-Length, chunked, and "until the server closes". One thread, no allocation.
 */
#ifndef OPENLOOP_RESPONSE_H
#define OPENLOOP_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A header line is remembered up to this length; nothing we read from one is longer. */
#define OPENLOOP_RESPONSE_LINE_BYTES 256
/* All header lines of a response together; more is malformed. */
#define OPENLOOP_RESPONSE_HEADER_BYTES_MAX 65536

enum openloop_verdict {
    OPENLOOP_VERDICT_MORE, /* the response goes on */
    OPENLOOP_VERDICT_DONE,
    OPENLOOP_VERDICT_MALFORMED,
};

enum openloop_response_state {
    OPENLOOP_RESPONSE_STATUS_LINE,
    OPENLOOP_RESPONSE_HEADERS,
    OPENLOOP_RESPONSE_BODY_LENGTH,
    OPENLOOP_RESPONSE_BODY_UNTIL_EOF,
    OPENLOOP_RESPONSE_CHUNK_SIZE,
    OPENLOOP_RESPONSE_CHUNK_DATA,
    OPENLOOP_RESPONSE_CHUNK_END,
    OPENLOOP_RESPONSE_TRAILERS,
    OPENLOOP_RESPONSE_DONE,
    OPENLOOP_RESPONSE_MALFORMED,
};

struct openloop_response {
    enum openloop_response_state state;
    int status;   /* valid once the status line is complete */
    bool close;   /* the server said it closes (or speaks HTTP/1.0 without keep-alive) */
    bool started; /* at least one byte arrived */
    bool has_length;
    bool chunked;
    uint64_t left_bytes; /* of the body or of the chunk */
    uint64_t header_bytes;
    size_t line_bytes; /* of the current line, may exceed what is kept in line[] */
    char line[OPENLOOP_RESPONSE_LINE_BYTES];
    char *body; /* borrowed, may be NULL: the first body_bytes_max bytes of the body land here */
    size_t body_bytes;
    size_t body_bytes_max;
};

/* Ready for a new response; the body is skipped. */
void openloop_response_init(struct openloop_response *response);

/* As above, and keeps the first `bytes_max` bytes of the body in `body` (borrowed). */
void openloop_response_init_capture(struct openloop_response *response, char *body,
                                    size_t bytes_max);

/*
 * Takes `length` bytes, says in `used` how many belong to this response. After DONE and
 * MALFORMED nothing more is used.
 */
enum openloop_verdict openloop_response_feed(struct openloop_response *response, const char *bytes,
                                             size_t length, size_t *used);

/* The server closed: DONE when that is how this body ends (or it had ended), else MALFORMED. */
enum openloop_verdict openloop_response_eof(struct openloop_response *response);

#endif
