/* SPDX-License-Identifier: Apache-2.0 */
/*
 * golden_make: writes tests/golden/v1 anew. Called by test_golden with HARVEY_GOLDEN_MAKE=1, and only
 * for a version that is not released yet: what was released is read, never made again.
 */
#ifndef HARVEY_TESTS_UNIT_GOLDEN_MAKE_H
#define HARVEY_TESTS_UNIT_GOLDEN_MAKE_H

#define GOLDEN_DIR "tests/golden/v1"
#define GOLDEN_ID "00000003-9f2c41d7a6b0e355"
#define GOLDEN_UNIX_MS INT64_C(1795543200123) /* 2026-11-24T18:00:00.123Z */

void golden_make(void);

#endif
