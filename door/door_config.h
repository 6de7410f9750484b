/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_config: what the door is told by its environment, read once and validated.
 *
 * Thread: main, before anything else runs.
 */
#ifndef HARVEY_DOOR_CONFIG_H
#define HARVEY_DOOR_CONFIG_H

#include "base/err.h"
#include "base/log.h"

#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#define DOOR_PARKED_MAX 16384 /* connections without an app; past it leavers must keep theirs */

struct door_config {
    struct sockaddr_storage listen; /* HARVEY_DOOR_LISTEN, 127.0.0.1:8080 */
    socklen_t listen_bytes;
    const char *listen_text;  /* borrowed from the environment, as socket_path */
    const char *socket_path;  /* HARVEY_DOOR_SOCKET, /run/harvey/door.sock */
    uid_t uid;                /* HARVEY_DOOR_UID: may join, as the door's own uid may */
    uint32_t parked_max;      /* DOOR_PARKED_MAX */
    enum log_level log_level; /* HARVEY_LOG_LEVEL, info */
};

/*
 * RC_INVALID with the variable, its value and what it may be; also for a HARVEY_DOOR_… that does
 * not exist. Variables of other programs (HARVEY_DB …) are none of the door's business.
 */
RC_MUST_CHECK enum rc door_config_read(struct door_config *config, struct err *err);

/* HOST:PORT with a numeric host, IPv6 in brackets; RC_INVALID. */
RC_MUST_CHECK enum rc door_config_parse_address(const char *text, struct sockaddr_storage *address,
                                                socklen_t *address_bytes, struct err *err);

#endif
