#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Which room may include which, and which file owns which outside library (docs/architecture.md).
set -u
bad=0
say() { echo "$*" && bad=1; }

# may ROOM ROOM...: the rooms whose headers the first may include, besides its own
may() {
    room=$1
    shift
    allowed=$(echo "$room $*" | tr ' ' '|')
    hits=$(grep -nE '^#include "' "$room"/*.[ch] 2>/dev/null | grep -vE "#include \"($allowed)/")
    [ -z "$hits" ] || say "$room/ may include only: $room $*
$hits"
}
may base
may archive base
may replicator archive base
may restorer archive base
may door base
may server archive base replicator restorer door

# The server sees the libraries by their one door.
hits=$(grep -nE '#include "(replicator|restorer)/' server/*.[ch] 2>/dev/null |
    grep -vE '"(replicator/replicator|restorer/restorer)\.h"')
[ -z "$hits" ] || say "server/ sees replicator/replicator.h and restorer/restorer.h only:
$hits"

# owner HEADER FILES-REGEX: nobody else includes that library
owner() {
    hits=$(grep -nE "#include <$1" base/*.[ch] archive/*.[ch] replicator/*.[ch] restorer/*.[ch] \
        server/*.[ch] door/*.[ch] 2>/dev/null | grep -vE "^($2)")
    [ -z "$hits" ] || say "<$1> belongs to $2:
$hits"
}
owner microhttpd.h 'server/http'
owner libs3.h 'archive/(store_s3|s3_)'
owner curl/ 'archive/(store_s3|s3_)'
owner zstd.h 'archive/codec'
owner openssl/ 'base/hash'

# The VFS methods of SQLite's shared memory are called in one place.
hits=$(grep -nE 'xShm(Map|Lock|Barrier|Unmap)' base/*.c archive/*.c replicator/*.c restorer/*.c server/*.c \
    2>/dev/null | grep -v '^replicator/wal_index\.c' | grep -vE '^[^:]*:[0-9]*: *(\*|/\*)')
[ -z "$hits" ] || say "xShm* belongs to replicator/wal_index.c:
$hits"
[ "$bad" -eq 0 ]
