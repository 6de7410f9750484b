#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The README's story on this host, asserted: start, write, kill -9, lose the disk, restore, compare.
# usage: demo.sh BIN-DIRECTORY     everything it makes lies in a temporary folder of build/, which is
# a real filesystem where /tmp may be a container's overlay, and is gone afterwards
set -euo pipefail
bin=$(cd "$1" && pwd)
rows=200
mkdir -p "$(dirname "$0")/../build"
work=$(mktemp -d "$(cd "$(dirname "$0")/../build" && pwd)/demo.XXXXXX")
cd "$work" # a socket's path must be short
export HARVEY_DB=./data/state.db HARVEY_ARCHIVE=dir:./backup HARVEY_LISTEN=unix:./socket
server=
mkdir data

cleanup() {
    [ -z "$server" ] || { kill -9 "$server" && wait "$server"; } 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

step() { printf '%s\n' "-- $*"; }
broken() {
    printf 'demo: %s\n' "$*" >&2
    tail -n 20 server.log >&2
    exit 1
}
get() { curl -s -m 5 --unix-socket socket "$@"; }
code_of() { get -o /dev/null -w '%{http_code}' "http://demo$1" || true; }

start() {
    "$bin/server" >>server.log 2>&1 &
    server=$!
}

# until_ SECONDS COMMAND...: polls until the command succeeds
until_() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || broken "not within its time: $*"
        sleep 0.1
    done
}
answers() { [ "$(code_of "$1")" = "$2" ]; }
shipped() { get 'http://demo/status?format=json' | tr -d ' \n' | grep -q '"lag":{"frames":0,'; }

step "start a server on an empty folder"
start
until_ 20 answers /readyz 200

step "write $rows rows, each acknowledged"
for ((i = 1; i <= rows; i++)); do
    [ "$(get -o /dev/null -w '%{http_code}' -d "row $i" http://demo/)" = 200 ] || broken "row $i was refused"
    echo "row $i" >>ledger
done
until_ 20 shipped
get http://demo/status | head -n 8

step "kill -9, and lose the disk"
{ kill -9 "$server" && wait "$server"; } 2>/dev/null || true
rm -rf data
mkdir data

step "a server that starts now takes no write, and waits"
start
until_ 20 answers /livez 200
until_ 20 answers /readyz 503
[ "$(get -o /dev/null -w '%{http_code}' -d lost http://demo/)" = 503 ] || broken "it took a write"

step "restore --to-latest"
"$bin/restore" --to-latest
"$bin/restore" --to-latest --quiet -o copy.db

step "compare"
sqlite3 copy.db 'SELECT value FROM test ORDER BY id' | cmp - ledger ||
    broken "the restored rows differ from those acknowledged"
until_ 20 answers /readyz 200
[ "$(get http://demo/status | sed -n 's/^Total rows: *//p')" = "$rows" ] || broken "the server shows other rows"
kill -TERM "$server"
wait "$server" || broken "SIGTERM: exit $?"
server=
echo "demo: all $rows rows are back"
