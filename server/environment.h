/* SPDX-License-Identifier: Apache-2.0 */
/*
 * environment: the value of a variable in an environ-like array, so that nothing calls getenv.
 *
 * Thread: main, at start.
 */
#ifndef HARVEY_SERVER_ENVIRONMENT_H
#define HARVEY_SERVER_ENVIRONMENT_H

/* The value of `name` among "NAME=value" strings, or NULL when it is not set or empty. Borrowed. */
const char *environment_find(char *const *environment, const char *name);

#endif
