#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# MinIO from source, once: upstream publishes neither binaries nor images any more.
# usage: build.sh            makes bin/minio, a static binary for the native tests and the image
#        build.sh image      makes that, and the image harvey-minio around it
set -eu
cd "$(dirname "$0")/.."
version=v0.0.0-20260212201848-7aac2a2c5b7c
image=harvey-minio
BASE=${BASE:-debian:trixie-slim}
install="go install -trimpath -tags kqueue github.com/minio/minio@$version"

# go_1_24 PROGRAM: whether it is a Go that MinIO builds with
go_1_24() {
    command -v "$1" >/dev/null || return 1
    minor=$(GOTOOLCHAIN=local "$1" env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge 24 ]
}

on_this_host() {
    # shellcheck disable=SC2086 # a command and its arguments
    GOBIN="$PWD/bin" PATH="$(dirname "$(command -v "$1")"):$PATH" \
        CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-buildvcs=false nice $install
}

# The host's CA file goes along: a proxy's certificate may be one that only the host trusts.
in_a_container() {
    compose/base-image.sh "$BASE"
    docker run --rm --network host -v "$PWD/bin:/out" \
        -v /etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro \
        -e CGO_ENABLED=0 -e GOTOOLCHAIN=local -e GOBIN=/out -e GOFLAGS=-buildvcs=false -e GOPROXY -e GOSUMDB \
        -e OWNER="$(id -u):$(id -g)" "$BASE" sh -ec "
            apt-get -qq update
            DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends golang-1.24-go >/dev/null
            PATH=/usr/lib/go-1.24/bin:\$PATH $install
            chown \"\$OWNER\" /out/minio"
}

binary() {
    mkdir -p bin
    if [ -x bin/minio ]; then
        return
    fi
    echo "bin/minio: building MinIO from source, once (3 to 10 minutes)"
    for go in go /usr/local/go/bin/go /usr/lib/go-1.24/bin/go; do
        if go_1_24 "$go"; then
            on_this_host "$go"
            return
        fi
    done
    if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
        in_a_container
        return
    fi
    .ci/deps /usr/lib/go-1.24/bin/go:golang-1.24-go
    on_this_host /usr/lib/go-1.24/bin/go
}

case ${1:-binary} in
binary) binary ;;
image)
    # The label names the build, so that a new pin or a changed recipe makes a new image.
    recipe=$(cat minio/Dockerfile minio/healthcheck.sh minio/build.sh | cksum | tr ' ' -)
    [ "$(docker image inspect -f '{{index .Config.Labels "harvey.recipe"}}' "$image" 2>/dev/null)" = "$recipe" ] &&
        exit 0
    binary
    compose/base-image.sh "$BASE"
    tar -c -C minio Dockerfile healthcheck.sh -C ../bin minio |
        docker build -q -t "$image" --build-arg "BASE=$BASE" --label "harvey.recipe=$recipe" - >/dev/null
    ;;
*) echo "usage: $0 [binary|image]" >&2 && exit 2 ;;
esac
