/* SPDX-License-Identifier: Apache-2.0 */
/* log: see log.h. */
#include "base/log.h"

#include "base/clk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOG_LINE_BYTES 1024

static enum log_level log_threshold = LOG_LEVEL_INFO; /* written before any thread starts */

static const char *const log_level_names[] = {"error", "warn ", "info ", "debug"};

void log_set_level(enum log_level level)
{
    log_threshold = level;
}

void log_line(enum log_level level, const char *component, const char *format, ...)
{
    if (level > log_threshold) {
        return;
    }
    int saved = errno;
    char line[LOG_LINE_BYTES];
    char when[CLK_RFC3339_BYTES];
    clk_format_rfc3339(clk_unix_ms(), when);
    int n = snprintf(line, sizeof line, "%s %s %-10s ", when, log_level_names[level], component);
    size_t used = n < 0 ? 0 : (size_t)n;
    va_list args;
    va_start(args, format);
    n = vsnprintf(line + used, sizeof line - used - 1, format, args);
    va_end(args);
    used += n < 0 ? 0 : (size_t)n;
    if (used > sizeof line - 2) {
        used = sizeof line - 2;
    }
    for (size_t i = 0; i < used; i++) { /* a foreign text must not forge a second line */
        if (line[i] == '\n' || line[i] == '\r') {
            line[i] = ' ';
        }
    }
    line[used++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, used);
    (void)written; /* nobody is left to be told */
    errno = saved;
}
