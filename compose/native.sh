# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# The native stack: the server as a process of this host, its archive a local directory.
# Sourced by stack.sh and ../restore after common.sh. .harvey-native/ holds the process's pid file and log.
# shellcheck disable=SC2154 # port and record are common.sh's

native=.harvey-native
stop_s=30 # a stop passes connections on, drains, and ships for HARVEY_STOP_TIMEOUT_MS

# A pid alone may name another process by now: with its start time it names one process only.
started_at() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# native_pid: the running server that we started, or nothing
native_pid() {
    read -r pid start 2>/dev/null <"$native/server.pid" || return 0
    if [ -n "$start" ] && [ "$(started_at "$pid")" = "$start" ]; then
        echo "$pid"
    fi
}

# The settings that decide where things lie follow the record, so that `make disaster` and ./restore
# mean what `make up` started.
native_env() {
    HARVEY_DB=${HARVEY_DB:-$(recorded db)}
    HARVEY_DB=${HARVEY_DB:-./data/state.db}
    HARVEY_ARCHIVE=${HARVEY_ARCHIVE:-$(recorded archive)}
    HARVEY_ARCHIVE=${HARVEY_ARCHIVE:-dir:./backup}
    HARVEY_LISTEN=127.0.0.1:$port
    export HARVEY_DB HARVEY_ARCHIVE HARVEY_LISTEN
}

native_start() {
    native_env
    mkdir -p "$native" "$(dirname "$HARVEY_DB")"
    setsid bin/server >>"$native/server.log" 2>&1 </dev/null &
    echo "$! $(started_at $!)" >"$native/server.pid"
}

# native_stop SIGNAL SECONDS: returns when the process is gone
native_stop() {
    pid=$(native_pid)
    if [ -n "$pid" ]; then
        kill -s "$1" "$pid"
        tries=0
        while [ -n "$(native_pid)" ]; do
            tries=$((tries + 1))
            [ "$tries" -le $(($2 * 10)) ] || die "server $pid has not stopped after $2 s, see $native/server.log"
            sleep 0.1
        done
    fi
    rm -f "$native/server.pid"
}

native_up() {
    .ci/deps build run
    make -s -j"$(nproc)" bin/server bin/restore
    pid=$(native_pid)
    if [ -n "$pid" ] && [ "$(recorded port)" = "$port" ] && cmp -s "/proc/$pid/exe" bin/server; then
        say "server $pid is running already"
    else
        native_stop TERM "$stop_s"
        native_start
    fi
    printf '%s\n' stack=native "port=$port" "db=$HARVEY_DB" "archive=$HARVEY_ARCHIVE" >"$record"
}

native_disaster() {
    native_env
    killed="no server was running"
    [ -z "$(native_pid)" ] || killed="killed the server"
    native_stop KILL 10
    if [ "$HARVEY_DB" = ./data/state.db ]; then
        rm -rf ./data
        say "$killed, deleted ./data"
    else # somebody's own directory may hold more than the database
        rm -rf "$HARVEY_DB" "$HARVEY_DB-wal" "$HARVEY_DB-shm" "$HARVEY_DB-harvey"
        say "$killed, deleted $HARVEY_DB and its -wal, -shm and -harvey"
    fi
}
