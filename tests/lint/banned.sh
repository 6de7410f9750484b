#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Functions that have a safe sibling here, each with what to use instead. Comments are not searched.
set -u
bad=0
sources=$(git ls-files -co --exclude-standard -- 'base/*.c' 'archive/*.c' 'replicator/*.c' 'restorer/*.c' \
    'server/*.c' 'door/*.c' '*.h')

# ban WORDS-REGEX INSTEAD
ban() {
    # shellcheck disable=SC2086 # names without spaces
    hits=$(grep -nE "(^|[^A-Za-z0-9_.>])($1) *\(" $sources | grep -vE '^[^:]*:[0-9]+: *(\*|/\*|//)' | grep -v 'lint: allowed')
    [ -z "$hits" ] || { echo "banned, $2:" && echo "$hits" && bad=1; }
}
ban 'sprintf|vsprintf|strcpy|strcat|stpcpy|gets' 'write with a bound (snprintf, buf_*)'
ban 'strncpy|strncat' 'they leave strings without an end'
ban 'strtok|gmtime|localtime|ctime|asctime|strerror|readdir_r' 'not thread-safe (strtok_r, gmtime_r, err.c)'
ban 'atoi|atol|atoll|atof' 'they hide errors (strtoll with its end checked)'
ban 'sleep|usleep' 'wait with a deadline and see the stop flag (stop.h)'
ban 'rand|srand|random|drand48' 'no randomness of quality (getrandom)'
ban 'alloca' 'no bound on the stack'
ban 'system|popen' 'no shell'
[ "$bad" -eq 0 ]
