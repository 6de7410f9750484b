/* SPDX-License-Identifier: Apache-2.0 */
/* err: see err.h. The one place that calls vsnprintf for errors and strerror_r. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum rc err_set(struct err *err, enum rc rc, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        err->rc = rc;
        err->sys_errno = 0;
        (void)vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return rc;
}

const char *err_strerror(int sys_errno, char *text, size_t text_bytes)
{
    return strerror_r(sys_errno, text, text_bytes); /* the GNU form: returns the text to use */
}

enum rc err_set_errno(struct err *err, enum rc rc, const char *format, ...)
{
    int saved = errno;
    if (err != NULL) {
        char reason[96];
        va_list args;
        va_start(args, format);
        err->rc = rc;
        err->sys_errno = saved;
        int n = vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        size_t used = n < 0 ? 0 : (size_t)n;
        if (used < sizeof err->text) {
            (void)snprintf(err->text + used, sizeof err->text - used, ": %s",
                           err_strerror(saved, reason, sizeof reason));
        }
    }
    errno = saved;
    return rc;
}

enum rc err_prefix(struct err *err, const char *format, ...)
{
    if (err == NULL) {
        return RC_INTERNAL;
    }
    char old[ERR_TEXT_BYTES];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, format);
    char what[ERR_TEXT_BYTES];
    (void)vsnprintf(what, sizeof what, format, args);
    va_end(args);
    (void)snprintf(err->text, sizeof err->text, "while %.200s: %.300s", what, old);
    return err->rc;
}

bool rc_is_retryable(enum rc rc)
{
    switch (rc) {
    case RC_IO:
    case RC_TIMEOUT:
    case RC_UNAVAILABLE:
    case RC_BUSY:
        return true;
    case RC_OK:
    case RC_CORRUPT:
    case RC_DENIED:
    case RC_INVALID:
    case RC_LIMIT:
    case RC_NOMEM:
    case RC_INTERNAL:
    case RC_NOT_FOUND:
    case RC_EXISTS:
    case RC_STOPPED:
        return false;
    }
    return false;
}

const char *rc_name(enum rc rc)
{
    switch (rc) {
    case RC_OK:
        return "ok";
    case RC_IO:
        return "io";
    case RC_TIMEOUT:
        return "timeout";
    case RC_UNAVAILABLE:
        return "unavailable";
    case RC_BUSY:
        return "busy";
    case RC_CORRUPT:
        return "corrupt";
    case RC_DENIED:
        return "denied";
    case RC_INVALID:
        return "invalid";
    case RC_LIMIT:
        return "limit";
    case RC_NOMEM:
        return "nomem";
    case RC_INTERNAL:
        return "internal";
    case RC_NOT_FOUND:
        return "not_found";
    case RC_EXISTS:
        return "exists";
    case RC_STOPPED:
        return "stopped";
    }
    return "unknown";
}

void err_assert_failed(const char *condition, const char *file, int line)
{
    (void)fprintf(stderr, "assertion failed: %s (%s:%d)\n", condition, file, line);
    abort();
}
