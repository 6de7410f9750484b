/* SPDX-License-Identifier: Apache-2.0 */
/* clk: see clk.h. The only file that reads a clock. */
#include "base/clk.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define NS_PER_US 1000
#define NS_PER_MS 1000000
#define US_PER_MS 1000
#define US_PER_S 1000000
#define MS_PER_S 1000

static _Atomic int64_t clk_unix_offset_ms;

static int64_t clk_read_ns(clockid_t clock)
{
    struct timespec now;
    ASSERT(clock_gettime(clock, &now) == 0);
    return (int64_t)now.tv_sec * MS_PER_S * NS_PER_MS + now.tv_nsec;
}

int64_t clk_monotonic_ms(void)
{
    return clk_read_ns(CLOCK_MONOTONIC) / NS_PER_MS;
}

int64_t clk_monotonic_us(void)
{
    return clk_read_ns(CLOCK_MONOTONIC) / 1000;
}

int64_t clk_boottime_ms(void)
{
    return clk_read_ns(CLOCK_BOOTTIME) / NS_PER_MS;
}

int64_t clk_unix_ms(void)
{
    return clk_read_ns(CLOCK_REALTIME) / NS_PER_MS + atomic_load(&clk_unix_offset_ms);
}

int64_t clk_coarse_unix_ns(void)
{
    return clk_read_ns(CLOCK_REALTIME_COARSE);
}

void clk_set_unix_offset_ms(int64_t offset_ms)
{
    atomic_store(&clk_unix_offset_ms, offset_ms);
}

void clk_format_rfc3339(int64_t unix_ms, char text[CLK_RFC3339_BYTES])
{
    int64_t seconds = unix_ms / MS_PER_S;
    int64_t ms = unix_ms % MS_PER_S;
    if (ms < 0) {
        ms += MS_PER_S;
        seconds--;
    }
    time_t when = (time_t)seconds;
    struct tm parts;
    char day[24]; /* years of up to eight digits; strftime says 0 when it does not fit */
    if (gmtime_r(&when, &parts) == NULL ||
        strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &parts) == 0) {
        (void)snprintf(text, CLK_RFC3339_BYTES, "(unix_ms %lld)", (long long)unix_ms);
        return;
    }
    (void)snprintf(text, CLK_RFC3339_BYTES, "%s.%03dZ", day, (int)ms);
}

static enum rc clk_parse_fail(const char *text, struct err *err)
{
    return err_set(
        err, RC_INVALID,
        "\"%.60s\" is not a time; expected RFC 3339, for example 2026-11-24T18:00:00Z or "
        "2026-11-24T18:00:00.250+01:00",
        text);
}

/* Parses what follows the seconds: an optional fraction (into *ms), then the zone (into *offset_s). */
static bool clk_parse_tail(const char *rest, int *ms, int *offset_s)
{
    *ms = 0;
    *offset_s = 0;
    if (*rest == '.') {
        rest++;
        int digits = 0;
        while (*rest >= '0' && *rest <= '9') {
            if (digits < 3) {
                *ms = *ms * 10 + (*rest - '0');
            }
            digits++;
            rest++;
        }
        if (digits == 0 || digits > 9) {
            return false;
        }
        for (; digits < 3; digits++) {
            *ms *= 10;
        }
    }
    if ((*rest == 'Z' || *rest == 'z') && rest[1] == '\0') {
        return true;
    }
    if (*rest != '+' && *rest != '-') {
        return false;
    }
    int sign = *rest == '-' ? -1 : 1;
    int hours = 0;
    int minutes = 0;
    int used = 0;
    if (sscanf(rest + 1, "%2d:%2d%n", &hours, &minutes, &used) != 2 || rest[1 + used] != '\0' ||
        used != 5 || hours < 0 || hours > 23 || minutes < 0 || minutes > 59) {
        return false;
    }
    *offset_s = sign * (hours * 3600 + minutes * 60);
    return true;
}

enum rc clk_parse_rfc3339(const char *text, int64_t *unix_ms, struct err *err)
{
    struct tm parts;
    memset(&parts, 0, sizeof parts);
    char separator = 0;
    int used = 0;
    int fields =
        sscanf(text, "%4d-%2d-%2d%c%2d:%2d:%2d%n", &parts.tm_year, &parts.tm_mon, &parts.tm_mday,
               &separator, &parts.tm_hour, &parts.tm_min, &parts.tm_sec, &used);
    if (fields != 7 || used != 19 || (separator != 'T' && separator != 't' && separator != ' ')) {
        return clk_parse_fail(text, err);
    }
    struct tm given = parts;
    given.tm_year -= 1900;
    given.tm_mon -= 1;
    parts = given;
    time_t seconds = timegm(&parts);
    bool leap_second = given.tm_sec == 60; /* RFC 3339 allows it; timegm carries it over */
    bool same_day =
        leap_second || (parts.tm_year == given.tm_year && parts.tm_mon == given.tm_mon &&
                        parts.tm_mday == given.tm_mday && parts.tm_hour == given.tm_hour &&
                        parts.tm_min == given.tm_min && parts.tm_sec == given.tm_sec);
    int ms = 0;
    int offset_s = 0;
    if (!same_day || !clk_parse_tail(text + used, &ms, &offset_s)) {
        return clk_parse_fail(text, err);
    }
    *unix_ms = ((int64_t)seconds - offset_s) * MS_PER_S + ms;
    return RC_OK;
}

void clk_pause_us(int64_t pause_us)
{
    struct timespec pause = {.tv_sec = (time_t)(pause_us / US_PER_S),
                             .tv_nsec = (long)(pause_us % US_PER_S) * NS_PER_US};
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
}

void clk_pause_ms(int64_t pause_ms)
{
    clk_pause_us(pause_ms * US_PER_MS);
}

struct timespec clk_deadline(int64_t after_ms)
{
    struct timespec when;
    ASSERT(clock_gettime(CLOCK_MONOTONIC, &when) == 0);
    when.tv_sec += (time_t)(after_ms / MS_PER_S);
    when.tv_nsec += (long)(after_ms % MS_PER_S) * NS_PER_MS;
    if (when.tv_nsec >= MS_PER_S * NS_PER_MS) {
        when.tv_sec++;
        when.tv_nsec -= (long)MS_PER_S * NS_PER_MS;
    }
    return when;
}
