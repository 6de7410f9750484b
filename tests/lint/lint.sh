#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every check of `make lint` in turn; goes on after a failure, so that one run shows all of them.
# usage: lint.sh [CHECK...]     a check is a function below or a script beside this one
set -u
cd "$(dirname "$0")/../.." || exit 1
failed=''

# files PATTERN...: tracked ones and new ones, never ignored ones
files() { git ls-files -co --exclude-standard -- "$@" | while read -r f; do [ -f "$f" ] && echo "$f"; done; }

format() {
    files '*.c' '*.h' | xargs -r clang-format --dry-run --Werror
}

# Each header alone, under both compilers: it includes what it uses.
headers() {
    bad=0
    for header in $(files '*.h'); do
        for cc in gcc clang; do
            "$cc" -std=gnu17 -I. -D_GNU_SOURCE -DHARVEY_VERSION='"0"' -Wall -Wextra -Werror \
                -fsyntax-only -x c "$header" -Wno-unused-function -include stdarg.h -include stddef.h \
                2>&1 || bad=1
        done
    done
    return $bad
}

# Programs and libraries that black-box tests build for themselves, some of them only in slow ones.
probes() {
    bad=0
    for source in $(files 'tests/integration/*.c'); do
        gcc -std=gnu17 -I. -D_GNU_SOURCE -DHARVEY_TEST_HOOKS -Wall -Wextra -Werror -fsyntax-only "$source" 2>&1 || bad=1
    done
    return $bad
}

# The licence in the first lines of everything that can carry a comment.
spdx() {
    bad=0
    for file in $(files '*.c' '*.h' '*.py' '*.sh' '*.yaml' '*Dockerfile' Makefile restore .ci '*.service'); do
        head -n 3 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' || {
            [ ! -s "$file" ] || { echo "$file: no SPDX line in its first three lines" && bad=1; }
        }
    done
    return $bad
}

scripts() {
    # shellcheck disable=SC2046 # names without spaces
    shellcheck -x $(files '*.sh' restore .ci/run .ci/deps)
}

# What begins with #! is run by its name, as the docs do.
executable() {
    bad=0
    for file in $(files '*.py' '*.sh' restore .ci); do
        ! head -n 1 "$file" | grep -q '^#!' || [ -x "$file" ] || {
            echo "$file begins with #! and is not executable: chmod +x" && bad=1
        }
    done
    return $bad
}

# A file name is said in logs and reports without its folder: two would be one too many.
names() {
    twice=$(files '*.c' '*.h' | xargs -r -n1 basename | sort | uniq -d)
    [ -z "$twice" ] || { echo "file names that are there twice: $twice" && return 1; }
}

tidy() {
    make -s compile_commands.json >/dev/null || return 1
    ! files 'base/*.c' 'archive/*.c' 'replicator/*.c' 'restorer/*.c' 'server/*.c' 'door/*.c' |
        xargs -r -n 4 -P "$(nproc)" clang-tidy --quiet -p . 2>/dev/null |
        grep -E ': (error|warning): ' # the path to it: clang-tidy -p . FILE
}

# Code moves; a mutant whose piece is nowhere proves nothing.
mutants() { tests/mutations/run.py -l; }

layers() { tests/lint/layers.sh; }
banned() { tests/lint/banned.sh; }

[ $# -gt 0 ] || set -- layers banned names spdx scripts executable mutants probes headers format tidy
for check in "$@"; do
    if output=$($check 2>&1); then
        echo "ok      $check"
    else
        printf '%s\n' "$output" | tail -n 60
        echo "FAILED  $check"
        failed="$failed $check"
    fi
done
[ -z "$failed" ] || { echo "lint:$failed" && exit 1; }
