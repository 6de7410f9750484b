/* SPDX-License-Identifier: Apache-2.0 */
/*
 * s3_guard: stands between libs3 2.0 and libcurl. libs3 sets options and callbacks on a curl handle
 * and performs it; the linker (--wrap=curl_easy_setopt, --wrap=curl_easy_perform, with libs3.a)
 * brings both calls here. The guard
 *   - sets what libs3 leaves open or sets wrongly: connect time-out, HTTP/1.1, certificate
 *     verification, no redirects, no proxy, no low-speed limit of 15 s, the stop flag;
 *   - ends a call at its time-out, but gives a body that moves more: a second for every 16 KiB;
 *   - adds If-None-Match: * when asked, and drops Expect for small bodies (Signature V2 signs
 *     neither);
 *   - sends the body itself, from memory, so that libcurl can repeat it on a fresh connection;
 *   - collects status, headers and byte counts into a struct s3_answer. Bodies of errors, and all
 *     headers, never reach libs3, whose parsers overrun their memory on some of them.
 * The caller goes by the answer; what libs3 says is not looked at.
 *
 * A program that was linked without --wrap would run unguarded and lose data silently:
 * store_s3_create makes one request to a closed port and refuses to work when the guard did not see
 * it.
 *
 * Thread: a call belongs to the thread that began it; many threads may have one each.
 */
#ifndef HARVEY_ARCHIVE_S3_GUARD_H
#define HARVEY_ARCHIVE_S3_GUARD_H

#include "archive/s3_answer.h"
#include "base/failpoint.h"
#include "base/stop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct curl_slist;

/* One request of libs3, from before it is composed until its answer is read. */
struct s3_guard_call {
    /* set by the caller before s3_guard_begin */
    const struct stop *stop; /* borrowed, may be NULL */
    const char *ca_file;     /* borrowed; "" = the system's */
    int64_t connect_timeout_ms;
    int64_t request_timeout_ms; /* from the request to the answer's end, where no body moves */
    bool if_none_match;
    bool wants_body;         /* the body of a good answer goes on to libs3 (GET, LIST) */
    bool is_xml;             /* and is an XML document: refused when it has a document type */
    uint64_t body_bytes_max; /* a longer one is refused; 0 = its receiver sees to that */
    const uint8_t *upload;   /* borrowed: the body of a PUT */
    size_t upload_bytes;

    /* read by the caller after s3_guard_end */
    struct s3_answer answer;
    unsigned performed_count; /* requests that libs3 made through the guard */

    /* the guard's own */
    bool is_upload;
    bool locked;
    bool too_slow; /* ended by its time-out */
    int64_t began_ms;
    int64_t moved_ms;     /* since the beginning, when the body moved last */
    uint64_t moved_bytes; /* of the upload, or of what went on to libs3 */
    size_t upload_offset;
    const struct curl_slist *libs3_headers;
    size_t (*libs3_write)(char *bytes, size_t size, size_t count, void *arg);
    void *libs3_write_arg;
    char curl_text[256]; /* CURL_ERROR_SIZE */
};

/*
 * The next libs3 request of this thread belongs to `call`. Until it is on its way, other threads'
 * s3_guard_begin waits: libs3 makes the date of a request with gmtime(), which all threads share,
 * and a date that another thread overwrote is refused as clock skew.
 */
void s3_guard_begin(struct s3_guard_call *call);

/* After the libs3 function has returned. call->answer is complete. */
void s3_guard_end(struct s3_guard_call *call);

/*
 * True only with test hooks and HARVEY_TEST_S3_GUARD_OFF (base/failpoint.h), which shows what libs3
 * does without the guard: then options pass through untouched, no answer is collected, and libs3's
 * status counts.
 */
static inline bool s3_guard_is_off(void)
{
    return FAILPOINT_SWITCH("S3_GUARD_OFF");
}

#endif
