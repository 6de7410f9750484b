#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs suites of built tests and adds them up: ends with one line `N passed, N failed`, non-zero where
# any failed. Called by make, which builds first and names the programs in UNIT and FUZZ.
# usage: run.sh BUILD-DIR:SUITE...     suites: unit valgrind replay demo integration slow compose
set -u
cd "$(dirname "$0")/.." || exit 1
passed=0 failed=0 cannot=''
here=$PWD
newline='
'

pass() { passed=$((passed + $1)); }
fail() { # COUNT WHAT
    failed=$((failed + $1))
    printf 'FAILED %s\n' "$2"
}
not_here() { cannot="$cannot  $1$newline"; }

sum() { # SED-PATTERN FILE: the sum of a number that a runner prints
    sed -n "s/$1/\\1/p" "$2" | awk '{n += $1} END {print n + 0}'
}

# One cmocka program. One that dies, or passes nothing, has failed whatever it printed before.
cmocka() { # LOG COMMAND...
    log=$1
    shift
    mkdir -p "$(dirname "$log")"
    timeout -k 10 "${UNIT_TIMEOUT:-300}" "$@" >"$log" 2>&1
    code=$?
    good=$(sum '.*\[  PASSED  \] \([0-9]*\) test(s).*' "$log")
    bad=$(sum '.*\[  FAILED  \] \([0-9]*\) test(s).*' "$log")
    skipped=$(sum '.*\[  SKIPPED \] \([0-9]*\) test(s).*' "$log")
    pass "$good"
    [ "$skipped" -eq 0 ] || not_here "$skipped test(s) of $*"
    if [ "$bad" -eq 0 ] && { [ "$code" -ne 0 ] || [ $((good + skipped)) -eq 0 ]; }; then
        bad=1
    fi
    if [ "$bad" -ne 0 ]; then
        tail -n 40 "$log"
        fail "$bad" "$* (exit $code; all of it: $log)"
    fi
}

unit() {
    for name in ${UNIT:-}; do
        cmocka "$dir/log/$(basename "$name").log" "$dir/$name"
    done
}

valgrind_() {
    for name in ${UNIT:-}; do
        UNIT_TIMEOUT=1200 cmocka "$dir/log/$(basename "$name").valgrind.log" \
            valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=99 \
            --suppressions=tests/valgrind.supp "$dir/$name"
    done
}

# The inputs that a fuzzer found worth keeping, and every past crash.
replay() {
    for name in ${FUZZ:-}; do
        for input in "tests/fuzz/corpus/$name"/*; do
            [ -f "$input" ] || continue
            if timeout -k 5 30 "$dir/tests/replay/$name" "$input" >/dev/null 2>&1; then
                pass 1
            else
                fail 1 "$dir/tests/replay/$name $input"
            fi
        done
    done
}

pytest_() { # NAME ARGUMENT...
    name=$1
    shift
    mkdir -p "$dir/log"
    xml=$dir/log/$name.xml
    rm -f "$xml"
    # A black-box test mostly waits for processes, so there is a worker more than cores; containers share
    # one engine and get one.
    workers=0
    [ "$name" = compose ] || workers=$(($(nproc) + 1))
    # TSan's second of rest at each exit is for threads that outlive main: hundreds of short runs here
    TSAN_OPTIONS=${TSAN_OPTIONS:-atexit_sleep_ms=0} HARVEY_BIN=$here/$dir/bin \
        /usr/bin/python3 -m pytest -p no:cacheprovider -q -rs -n "$workers" --junitxml="$xml" "$@"
    code=$?
    counts=$(sed -n 's/.*<testsuite [^>]*errors="\([0-9]*\)" failures="\([0-9]*\)" skipped="\([0-9]*\)" tests="\([0-9]*\)".*/\1 \2 \3 \4/p' "$xml" 2>/dev/null)
    # shellcheck disable=SC2086 # four numbers
    set -- ${counts:-0 0 0 0}
    bad=$(($1 + $2))
    [ "$code" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1 # it broke before or outside any test, or found none
    pass $(($4 - $3 - $1 - $2))
    [ "$3" -eq 0 ] || not_here "$3 test(s) of $name, see the reasons above"
    [ "$bad" -eq 0 ] || fail "$bad" "$name (pytest's exit $code)"
}

demo() {
    if tests/demo.sh "$dir/bin"; then pass 1; else fail 1 "tests/demo.sh"; fi
}

# In CI a machine that lacks something is broken; anywhere else it is named.
need() { # PRESENT? WHAT
    [ "$1" = yes ] && return 0
    if [ -n "${CI:-}" ]; then fail 1 "$2 is missing"; else not_here "$2 is missing"; fi
    return 1
}
minio_here() { [ -x "${MINIO_BIN:-bin/minio}" ] && echo yes; }
docker_here() { command -v docker >/dev/null && docker info >/dev/null 2>&1 && echo yes; }

for token in "$@"; do
    dir=${token%:*}
    suite=${token##*:}
    echo "== $suite ($dir)"
    case $suite in
    unit | replay | demo) $suite ;;
    valgrind) valgrind_ ;;
    integration | slow)
        need "$(minio_here)" "MinIO (minio/build.sh makes bin/minio): its tests"
        marks=slow
        [ "$suite" = slow ] || marks='not slow'
        pytest_ "$suite" -m "$marks" tests/integration
        ;;
    compose) need "$(docker_here)" "a Docker engine: the compose tests" && pytest_ compose tests/compose ;;
    *) fail 1 "no suite is called $suite" ;;
    esac
done

[ -z "$cannot" ] || printf 'not run on this machine:\n%s' "$cannot"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
