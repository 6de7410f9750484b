/* SPDX-License-Identifier: Apache-2.0 */
/* stop: see stop.h. */
#include "base/stop.h"

#include "base/clk.h"
#include "base/err.h"

#include <errno.h>

void stop_init(struct stop *stop)
{
    atomic_init(&stop->level, STOP_NONE);
    ASSERT(pthread_mutex_init(&stop->mutex, NULL) == 0);
    pthread_condattr_t attr;
    ASSERT(pthread_condattr_init(&attr) == 0);
    ASSERT(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    ASSERT(pthread_cond_init(&stop->changed, &attr) == 0);
    ASSERT(pthread_condattr_destroy(&attr) == 0);
}

void stop_deinit(struct stop *stop)
{
    ASSERT(pthread_cond_destroy(&stop->changed) == 0);
    ASSERT(pthread_mutex_destroy(&stop->mutex) == 0);
}

void stop_raise(struct stop *stop, enum stop_level level)
{
    /* The store lies under the mutex, so that no sleeper can miss it between its look and its wait. */
    ASSERT(pthread_mutex_lock(&stop->mutex) == 0);
    if ((int)level > atomic_load(&stop->level)) {
        atomic_store(&stop->level, (int)level);
        ASSERT(pthread_cond_broadcast(&stop->changed) == 0);
    }
    ASSERT(pthread_mutex_unlock(&stop->mutex) == 0);
}

enum stop_level stop_level(const struct stop *stop)
{
    return (enum stop_level)atomic_load(&stop->level);
}

bool stop_wait_ms(struct stop *stop, enum stop_level level, int64_t timeout_ms)
{
    struct timespec deadline = clk_deadline(timeout_ms > 0 ? timeout_ms : 0);
    ASSERT(pthread_mutex_lock(&stop->mutex) == 0);
    int waited = 0;
    while (atomic_load(&stop->level) < (int)level && waited != ETIMEDOUT) {
        waited = pthread_cond_timedwait(&stop->changed, &stop->mutex, &deadline);
        ASSERT(waited == 0 || waited == ETIMEDOUT);
    }
    bool reached = atomic_load(&stop->level) >= (int)level;
    ASSERT(pthread_mutex_unlock(&stop->mutex) == 0);
    return reached;
}
