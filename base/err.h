/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err: what every fallible function returns, and the text that goes with it.
 *
 * A function that can fail returns `enum rc` (RC_OK = 0) and takes a `struct err *err` as its last
 * parameter. The code says what the caller can do next; the text says what happened, in words for
 * the person who runs the program. Nothing here allocates; a struct err lives on a caller's stack.
 * An error is either returned or logged, never both: logging happens at the top of a thread.
 *
 * Thread: a struct err belongs to the thread whose stack it is on.
 */
#ifndef HARVEY_BASE_ERR_H
#define HARVEY_BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>

enum rc {
    RC_OK = 0,
    /* transient: the same call may succeed a moment later */
    RC_IO,          /* local file or socket: errno is in the struct err */
    RC_TIMEOUT,     /* a deadline passed */
    RC_UNAVAILABLE, /* the store (or a lock's owner) does not answer, or asks to come back */
    RC_BUSY,        /* somebody else holds it: a lock, a name, a database */
    /* final: repeating it changes nothing until a person acts */
    RC_CORRUPT, /* bytes that fail their check: damage, or a foreign object */
    RC_DENIED,  /* credentials or permissions refused */
    RC_INVALID, /* input, option or configuration out of its range */
    RC_LIMIT,   /* a stated maximum was reached */
    RC_NOMEM,
    RC_INTERNAL, /* a library answered what it must not; a bug if it is ours */
    /* expected: part of normal work */
    RC_NOT_FOUND,
    RC_EXISTS,  /* a conditional put or an exclusive create found the name taken */
    RC_STOPPED, /* the stop flag was seen */
};

#define ERR_TEXT_BYTES 512

struct err {
    enum rc rc;
    int sys_errno; /* 0 when no system call was involved */
    char text[ERR_TEXT_BYTES];
};

#define ERR_INIT                                                                                   \
    {                                                                                              \
        RC_OK, 0, ""                                                                               \
    }

#define RC_MUST_CHECK __attribute__((warn_unused_result))

/* Sets code and text (printf format; cut at ERR_TEXT_BYTES) and returns the code. `err` may be NULL. */
enum rc err_set(struct err *err, enum rc rc, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for a failed system call: saves errno first and appends ": <its text>". */
enum rc err_set_errno(struct err *err, enum rc rc, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "while <what>: " before the text, on the way up. Returns err's code. */
enum rc err_prefix(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* True for the transient codes: the caller may repeat the call after a pause. */
bool rc_is_retryable(enum rc rc);

/* The code's name in lower case, for logs and tests: "ok", "io", "timeout" … */
const char *rc_name(enum rc rc);

/* strerror, safe in threads: writes into `text` and returns it. */
const char *err_strerror(int sys_errno, char *text, size_t text_bytes);

/* Kept on in release: a broken invariant stops the process before it can ship wrong bytes. */
#define ASSERT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            err_assert_failed(#condition, __FILE__, __LINE__);                                     \
        }                                                                                          \
    } while (0)

void err_assert_failed(const char *condition, const char *file, int line) __attribute__((noreturn));

#endif
