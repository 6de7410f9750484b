/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spooled: what a spool beside the target still holds that the archive does not: a database file was
 * lost, but its -harvey folder was not. A restore does not use it (a server that starts there sends
 * it first), but says so.
 *
 * Thread: the owner's.
 */
#ifndef HARVEY_RESTORER_SPOOLED_H
#define HARVEY_RESTORER_SPOOLED_H

#include "archive/catalog.h"
#include "archive/position.h"

#include <stddef.h>

/* Objects of that generation in the spool that end behind `end`; 0 when there is no spool to read. */
size_t spooled_objects_beyond(const char *spool_path, const struct generation_id *generation,
                              struct position end);

#endif
