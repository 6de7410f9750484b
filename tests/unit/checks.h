/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checks: cmocka with the headers that it wants included before it, and the two checks that every
 * test of a fallible function needs.
 */
#ifndef HARVEY_TESTS_UNIT_CHECKS_H
#define HARVEY_TESTS_UNIT_CHECKS_H

#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* RC_OK, or the error's text is shown. `call` is made with `&err` in scope. */
#define check_ok(call)                                                                             \
    do {                                                                                           \
        if ((call) != RC_OK) {                                                                     \
            fail_msg("%s: %s: %s", #call, rc_name(err.rc), err.text);                              \
        }                                                                                          \
    } while (0)

/* That code, and the err says the same. */
#define check_fails(wanted, call)                                                                  \
    do {                                                                                           \
        enum rc check_rc = (call);                                                                 \
        if (check_rc != (wanted) || err.rc != (wanted)) {                                          \
            fail_msg("%s: %s, err says %s (%s), wanted %s", #call, rc_name(check_rc),              \
                     rc_name(err.rc), err.text, rc_name(wanted));                                  \
        }                                                                                          \
    } while (0)

/* The error's text holds this. */
#define check_text(part)                                                                           \
    do {                                                                                           \
        if (strstr(err.text, (part)) == NULL) {                                                    \
            fail_msg("\"%s\" does not hold \"%s\"", err.text, (part));                             \
        }                                                                                          \
    } while (0)

#endif
