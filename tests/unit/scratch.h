/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scratch: a directory of its own for a test, below $TMPDIR or /tmp, removed with all that is in it.
 */
#ifndef HARVEY_TESTS_UNIT_SCRATCH_H
#define HARVEY_TESTS_UNIT_SCRATCH_H

#define SCRATCH_PATH_BYTES 256

struct scratch {
    char dir[SCRATCH_PATH_BYTES];
};

void scratch_init(struct scratch *scratch);
void scratch_deinit(struct scratch *scratch);

/* <dir>/<name> in one of eight buffers that take turns: good for a few names in one expression. */
const char *scratch_path(const struct scratch *scratch, const char *name);

#endif
