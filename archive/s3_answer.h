/* SPDX-License-Identifier: Apache-2.0 */
/*
 * s3_answer: what came back for one S3 request, collected by the guard (s3_guard.h) from the bytes
 * on the wire, and what it means for the caller: success, or an enum rc with words for a person.
 *
 * libs3 2.0 says OK for failed uploads and for truncated downloads and listings, and knows only the
 * error codes of 2008, so none of this goes by what libs3 says. It trusts nothing in the answer:
 * all that is kept has a cap, and what is shown to a person is printable ASCII.
 *
 * Thread: the owner's (pure functions on one struct).
 */
#ifndef HARVEY_ARCHIVE_S3_ANSWER_H
#define HARVEY_ARCHIVE_S3_ANSWER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define S3_ANSWER_HEAD_BYTES 4096 /* of a body: an error document is shorter than 1 KiB */
#define S3_ANSWER_TAIL_BYTES 64   /* of a body: the closing tag of a listing */

/* How far the exchange itself came. */
enum s3_transport {
    S3_TRANSPORT_NONE,      /* no request was made: libs3 refused it, or libcurl was not reached */
    S3_TRANSPORT_OK,        /* a whole answer came back, whatever it says */
    S3_TRANSPORT_REFUSED,   /* no connection: nothing was sent */
    S3_TRANSPORT_UNTRUSTED, /* https: the certificate is not one we trust */
    S3_TRANSPORT_UNUSABLE,  /* the address or the CA file cannot be used */
    S3_TRANSPORT_TIMEOUT,
    S3_TRANSPORT_BROKEN,  /* connection lost, answer cut or malformed */
    S3_TRANSPORT_ABORTED, /* the receiver of the body ended it */
    S3_TRANSPORT_STOPPED, /* the stop flag */
    S3_TRANSPORT_NOMEM,
};

struct s3_answer {
    enum s3_transport transport;
    char transport_text[256]; /* libcurl's words, "" when OK */
    bool sent;                /* bytes of the request left: it may have been carried out */
    bool resent;              /* libcurl sent the body twice (a kept connection had died) */
    long http_status;         /* 0 = no answer */
    char etag[64];            /* without quotes; "" = none */
    bool has_length;
    uint64_t length; /* Content-Length */
    bool chunked;    /* the end of the body is marked */
    bool has_range;
    uint64_t range_first; /* Content-Range */
    uint64_t range_last;
    uint64_t range_total;
    int64_t date_unix_ms; /* the store's clock; 0 = it did not say */
    char location[128];   /* of a redirect */
    uint64_t body_bytes;  /* received */
    size_t head_count;
    char head[S3_ANSWER_HEAD_BYTES];
    char tail[S3_ANSWER_TAIL_BYTES]; /* last bytes, right-aligned; zero bytes before them */
    bool is_head;                    /* the answer to a HEAD: an error has no words */
    char code[64];                   /* <Code> of an error; "" = none */
    char message[160];               /* <Message> */
};

void s3_answer_init(struct s3_answer *answer);

/* One header line, with or without its line end; a status line forgets the answer before it. */
void s3_answer_add_header(struct s3_answer *answer, const char *line, size_t count);

/* A piece of the body. */
void s3_answer_add_body(struct s3_answer *answer, const char *bytes, size_t count);

/* Reads code and message out of an error's body (or its headers). Call once, at the end. */
void s3_answer_finish(struct s3_answer *answer);

/* The whole exchange worked and the status is 2xx. */
bool s3_answer_is_success(const struct s3_answer *answer);

/* Success, and every byte of a body whose end is marked was received. */
bool s3_answer_is_whole(const struct s3_answer *answer);

/* Success, whole, and the body is one complete ListBucketResult. */
bool s3_answer_is_listing(const struct s3_answer *answer);

/* A short listing (one without keys) says that there is more. */
bool s3_answer_has_more(const struct s3_answer *answer);

/* The request may or may not have been carried out: ask the store before believing either. */
bool s3_answer_is_unknown(const struct s3_answer *answer);

/*
 * The store refused Signature V2 (AWS, R2, B2, Garage, versitygw have words of their own for it).
 */
bool s3_answer_wants_v4(const struct s3_answer *answer);

/*
 * What an answer that is no success means. `what` and `key` say which request ("PUT", a key).
 * RC_UNAVAILABLE, RC_TIMEOUT, RC_DENIED, RC_NOT_FOUND (the text of a missing bucket says "bucket"),
 * RC_EXISTS (412, and a bucket that is there), RC_INVALID, RC_LIMIT, RC_NOMEM, RC_STOPPED,
 * RC_CORRUPT (a success that is not whole).
 */
enum rc s3_answer_fail(const struct s3_answer *answer, const char *what, const char *key,
                       struct err *err);

#endif
