/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stop: a flag that many threads look at and can sleep on. Set once, never cleared; two levels:
 * STOP_SOON (finish what is under way within the time allowed) and STOP_NOW (a second signal).
 *
 * Thread: any.
 */
#ifndef HARVEY_BASE_STOP_H
#define HARVEY_BASE_STOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum stop_level { STOP_NONE, STOP_SOON, STOP_NOW };

struct stop {
    _Atomic int level;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
};

void stop_init(struct stop *stop);
void stop_deinit(struct stop *stop);

/* Raises the level (never lowers it) and wakes all sleepers. */
void stop_raise(struct stop *stop, enum stop_level level);

enum stop_level stop_level(const struct stop *stop);

/* Sleeps up to that long, or until the level reaches `level`; true when it has. */
bool stop_wait_ms(struct stop *stop, enum stop_level level, int64_t timeout_ms);

#endif
