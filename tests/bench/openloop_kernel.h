/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two counters of the kernel that explain a one-second latency: SYNs sent again, and connections
 * that found a listener's queue full. They count for the whole network namespace.
 */
#ifndef OPENLOOP_KERNEL_H
#define OPENLOOP_KERNEL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct openloop_kernel {
    bool known; /* false where /proc/net/netstat says neither */
    int64_t syn_retrans_count;
    int64_t listen_overflows_count;
};

/* Reads /proc/net/netstat. */
struct openloop_kernel openloop_kernel_read(void);

/* The same from an open file of that format. */
struct openloop_kernel openloop_kernel_parse(FILE *netstat);

#endif
