/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log: one line per event on stderr:
 *
 *   2026-11-24T18:00:00.123Z info  replicator  generation begun  id=… cause=first_start
 *
 * Time, level, component, fixed message, then key=value pairs with units in their names. A line is
 * written by one write(2), so lines of several threads and processes do not mix. errno survives.
 * State changes are info, repeats are limited by their caller, errors end with a hint.
 *
 * Thread: any.
 */
#ifndef HARVEY_BASE_LOG_H
#define HARVEY_BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Called once in main, before any thread starts. The default is info. */
void log_set_level(enum log_level level);

/* `component` is the room or module ("http", "leader", "shipper"); the rest is a printf format. */
void log_line(enum log_level level, const char *component, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
