# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# What the stack's commands share: the record of which stack is up, and how compose is called.
# Sourced by stack.sh and by ../restore, with the project's root as working directory.
# shellcheck disable=SC2034 # what is set here is used there

record=.harvey-stack

say() { printf '%s\n' "$@"; }

# fail STATUS TEXT...: what ../restore ends with is of the table in bin/restore --help
fail() {
    fail_status=$1
    shift
    printf '%s\n' "$*" >&2
    exit "$fail_status"
}
die() { fail 1 "$@"; }

# recorded KEY: what the last `make up` wrote, or nothing
recorded() { sed -n "s/^$1=//p" "$record" 2>/dev/null | head -n 1; }

docker_answers() { command -v docker >/dev/null && timeout 20 docker info >/dev/null 2>&1; }

# resolve NAME: a path, a bare name, or the name that the file had in earlier versions of this demo
# (docker-compose.NAME.yaml), whose litestream one is today's default.
resolve() {
    if [ -f "$1" ]; then
        printf '%s\n' "$1"
        return
    fi
    name=$(basename "$1")
    name=${name%.yaml}
    name=${name%.yml}
    name=${name#docker-compose.}
    case $name in litestream | docker-compose | default) name=compose ;; esac
    for candidate in "compose/$name.yaml" "compose/compose.$name.yaml"; do
        if [ -f "$candidate" ]; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail 2 "COMPOSE=$1: no such file or name; there are:" compose/*.yaml
}

# Sets file, project, port and compose_cmd for the compose stack.
use_compose() {
    file=$(resolve "${COMPOSE:-$(recorded file | grep . || echo compose/compose.yaml)}") || exit $?
    : "${COMPOSE_PROJECT_NAME:=$(sed -n 's/^COMPOSE_PROJECT_NAME=//p' compose/.env)}"
    project=$COMPOSE_PROJECT_NAME
    export COMPOSE_PROJECT_NAME PORT="$port"
    compose_cmd=${COMPOSE_CMD:-$(recorded command)}
    if [ -z "$compose_cmd" ]; then
        if docker compose version >/dev/null 2>&1; then
            compose_cmd='docker compose'
        else
            .ci/deps docker-compose || fail 6 "docker compose is missing"
            compose_cmd=docker-compose
        fi
    fi
}

# shellcheck disable=SC2086 # the command may be two words
compose_of() { file_of=$1 && shift && $compose_cmd -f "$file_of" "$@"; }
compose() { compose_of "$file" "$@"; }

# A call that fails says nothing about the services: it ends the command, with compose's own words.
has_service() {
    if ! services=$(compose --profile tools config --services 2>/dev/null); then
        compose --profile tools config --services >/dev/null || true
        fail 6 "'$compose_cmd' cannot read $file: see above; COMPOSE_CMD= names another one"
    fi
    say "$services" | grep -qx "$1"
}

# Starts the store alone, if the stack has one, and waits for it.
start_store() {
    has_service minio || return 0
    compose up -d --no-build --no-recreate minio >&2 || fail 6 "the store does not start: see above, or make logs"
    tries=0
    # an image given by MINIO_IMAGE may know no healthcheck: then it is enough that it is up
    while our_containers --filter label=com.docker.compose.service=minio --format '{{.Status}}' |
        grep -Eqv '\(healthy\)|^Up [^(]*$'; do
        tries=$((tries + 1))
        [ "$tries" -le 120 ] || fail 6 "the store is not healthy after 60 s: make logs"
        sleep 0.5
    done
}

# our_containers DOCKER-PS-ARGUMENT...: this project's containers, stopped ones too
our_containers() {
    docker ps -a --filter "label=com.docker.compose.project=$project" "$@"
}

port=${PORT:-$(recorded port)}
port=${port:-8080}
url=http://127.0.0.1:$port
