#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The stack that `make up` starts, on Docker Compose or natively, and what can be done to it.
# usage: stack.sh up|down|logs|ps|hammer|hammer-open|status|disaster|restore|release|rolling-release
# Environment: STACK=native|compose, COMPOSE=FILE or NAME, COMPOSE_CMD, PORT, N (rounds), MINIO_IMAGE,
# SERVER_IMAGE (prebuilt ones), RATE, MODE, METHOD, SVG (of hammer-open). Without them every command follows the record in .harvey-stack.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR/..
. compose/common.sh
. compose/native.sh
base=debian:trixie-slim

choose_stack() {
    stack=${STACK:-}
    why="STACK=$stack was given"
    if [ -z "$stack" ]; then
        stack=$(recorded stack)
        why="recorded in $record, STACK= changes it"
    fi
    if [ -z "$stack" ]; then
        if docker_answers; then
            stack=compose why="a Docker engine answers"
        else
            stack=native why="no Docker engine answers here"
        fi
    fi
    case $stack in
    native) native_env ;;
    compose) use_compose ;;
    *) die "STACK=$stack: known are compose and native" ;;
    esac
}

# A container reads these as user 65532, through bind mounts that keep the host's owner and mode:
# root gives the files to that user; anybody else, who cannot, keeps others out by the folder's mode.
make_secrets() {
    mkdir -p compose/secrets
    chmod 700 compose/secrets
    for name in minio_access_key minio_secret_key; do
        [ -s "compose/secrets/$name" ] && continue
        (
            umask 077
            od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"compose/secrets/$name.new"
        )
        if [ "$(id -u)" -eq 0 ]; then
            chown 65532:65532 "compose/secrets/$name.new"
        else
            chmod 644 "compose/secrets/$name.new"
        fi
        mv "compose/secrets/$name.new" "compose/secrets/$name"
    done
}

# build_image NAME DOCKER-BUILD-ARGUMENT...: quiet unless it fails
build_image() {
    name=$1
    shift
    say "image $name: building, where something changed (the first time takes minutes)"
    log=$(mktemp -t harvey-build.XXXXXX)
    docker build -t "$name" "$@" >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        die "image $name: the build failed, its log is $log"
    }
    rm -f "$log"
}

make_images() {
    compose/base-image.sh "$base"
    for image in door caddy; do
        if has_service "$image"; then
            build_image "harvey-$image" --build-arg "BASE=$base" -f "compose/$image.Dockerfile" .
        fi
    done
    if [ -z "${SERVER_IMAGE:-}" ]; then
        build_image harvey-server --build-arg "BASE=$base" -f compose/Dockerfile .
    fi
    if has_service minio && [ -z "${MINIO_IMAGE:-}" ]; then
        BASE=$base minio/build.sh image
    fi
}

# Left by another stack on the same port and volumes: stopped, its volumes kept.
replace_other() {
    if [ "$stack" = native ]; then
        if [ "$(recorded stack)" = compose ] && docker_answers; then
            use_compose
            compose down --remove-orphans
        fi
        return
    fi
    native_stop TERM "$stop_s"
    old=$(recorded file)
    if [ -n "$old" ] && [ "$old" != "$file" ] && [ -f "$old" ]; then
        say "replacing the stack of $old (its volumes stay)"
        compose_of "$old" down --remove-orphans
    fi
}

compose_up() {
    docker_answers || die "no Docker engine answers here; without one: make up STACK=native"
    .ci/deps run
    make_secrets
    make_images
    if has_service minio; then # external to the file, so that `down -v` cannot lose the backup
        docker volume create "$project-minio" >/dev/null
    fi
    printf '%s\n' stack=compose "file=$file" "port=$port" "command=$compose_cmd" >"$record"
    start_store
    compose up -d --no-build --remove-orphans
}

# Prints the containers that are not well; succeeds where there are any.
unhealthy() {
    [ "$stack" = compose ] || return 1
    our_containers --filter label=com.docker.compose.oneoff=False --format '{{.Names}}: {{.Status}}' |
        grep -E 'starting|unhealthy|Exited|Restarting|Created'
}

server_log() {
    if [ "$stack" = native ]; then
        tail -n 15 "$native/server.log" >&2
    else
        compose logs --tail=15 >&2
    fi
}

next_steps() {
    say "" "ready on $url/   next:" \
        "  make hammer      load for ten seconds" \
        "  make status      rows, role, lag" \
        "  make disaster    kills the server and its data; then  ./restore --to-latest"
}

# Until the server says ready and every container is healthy. A server that waits for somebody to
# act (its reason names the setting that decides: HARVEY_ON_...) will not become ready by itself; it
# gets three seconds to see what a restore has put back just now.
wait_ready() {
    deadline=$(($(date +%s) + ${WAIT_S:-180})) stuck=0
    while :; do
        code=$(curl -s -m 5 -o /dev/null -w '%{http_code}' "$url/readyz" || true)
        reason=$(curl -s -m 5 "$url/readyz" || true)
        if [ "$code" = 200 ] && ! reason=$(unhealthy); then
            return 0
        fi
        case $code$reason in
        503*HARVEY_ON_*)
            stuck=$((stuck + 1))
            if [ "$stuck" -gt 6 ]; then
                say "" "the server is up and not ready: $reason" >&2
                return 1
            fi
            ;;
        esac
        if [ "$stack" = native ] && [ -z "$(native_pid)" ]; then
            server_log
            die "the server has stopped, its log is $native/server.log"
        fi
        if [ "$(date +%s)" -ge "$deadline" ]; then
            server_log
            die "not healthy after ${WAIT_S:-180} s: ${reason:-no answer on $url}"
        fi
        sleep 0.5
    done
}

up() {
    case $stack in
    native) say "stack: native, a process of this host ($why)" ;;
    compose) say "stack: $file with '$compose_cmd' ($why)" ;;
    esac
    replace_other
    "${stack}_up"
    wait_ready
    next_steps
}

down() {
    if [ "$stack" = native ]; then
        native_stop TERM "$stop_s"
    else
        compose down --remove-orphans
    fi
}

logs() {
    follow=
    [ -t 1 ] && follow=-f
    # shellcheck disable=SC2086 # empty is no argument
    if [ "$stack" = native ]; then
        tail -n 200 $follow "$native/server.log"
    else
        compose logs --tail=200 $follow
    fi
}

ps_() {
    if [ "$stack" = compose ]; then
        compose ps
    elif pid=$(native_pid) && [ -n "$pid" ]; then
        ps -o pid,etime,rss,args -p "$pid"
    else
        say "no server is running: make up"
    fi
}

get_status() {
    curl -sS -m 10 "$url/status" 2>/dev/null || die "no server answers on $url: make up"
}

rows_of() { printf '%s\n' "$1" | sed -n 's/^Total rows: *\([0-9]*\).*/\1/p'; }

status() {
    text=$(get_status)
    if [ -t 1 ]; then # bold rows, lag in yellow, what is wrong in red
        printf '%s\n' "$text" | sed -E "s/^Total rows.*/$(printf '\033')[1m&$(printf '\033')[0m/
            s/^ *lag.*/$(printf '\033')[33m&$(printf '\033')[0m/I
            s/.*(not ready|waiting|down|retrying|error: [^n]).*/$(printf '\033')[31m&$(printf '\033')[0m/I"
    else
        printf '%s\n' "$text"
    fi
}

# The status, or nothing where nobody answers for three seconds: beside `make release` the server may be between
# two lives.
status_soon() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        (get_status 2>/dev/null) && return
        sleep 0.3
    done
}

hammer() {
    .ci/deps hey
    before=$(status_soon)
    [ -n "$before" ] || die "no server answers on $url: make up"
    hey -z "${HAMMER_S:-10}s" "$url/" || true
    after=$(status_soon)
    was=$(rows_of "$before") now=$(rows_of "$after") written=unknown
    if [ -n "$was" ] && [ -n "$now" ]; then
        written=$((now - was))
    fi
    say "rows written: $written (now ${now:-unknown})"
    printf '%s\n' "$after" | grep -i lag || true
    for _ in 1 2 3 4 5 6 7 8 9 10; do # the last rows leave within HARVEY_SHIP_INTERVAL_MS
        case $(get_status 2>/dev/null) in
        *"Lag: 0 frames"*)
            say "the archive has them all: whatever dies now, they are restored"
            return 0
            ;;
        esac
        sleep 0.3
    done
    say "the archive does not have them all yet: make status shows the lag"
}

# At a fixed rate, whatever the server does: what a release does to those who do not wait for it.
hammer_open() {
    svg=${SVG:-hammer-open.svg}
    ${OPENLOOP:-bin/openloop} --host 127.0.0.1 --port "$port" --rate "${RATE:-1000}" \
        --seconds "${HAMMER_S:-10}" --mode "${MODE:-busy}" --method "${METHOD:-POST}" --body hello \
        --rows-from-status --svg "$svg"
}

disaster() {
    if [ "$stack" = native ]; then
        native_disaster
    else
        servers=$(our_containers -q --filter label=harvey.role=server)
        # shellcheck disable=SC2086 # lists of ids
        [ -z "$servers" ] || docker rm -f $servers >/dev/null
        volumes=$(docker volume ls -q --filter "label=com.docker.compose.project=$project" \
            --filter label=harvey.role=data)
        # shellcheck disable=SC2086
        [ -z "$volumes" ] || docker volume rm $volumes >/dev/null
        say "killed $(printf '%s' "$servers" | grep -c .) server container(s), deleted volume ${volumes:-(there was none)}"
    fi
    say "the backup is untouched; get the rows back with:" "  ./restore --to-latest"
}

restore() {
    ./restore --to-latest
    if [ "$(curl -s -m 5 -o /dev/null -w '%{http_code}' "$url/readyz")" = 000 ]; then
        up
    else
        wait_ready
        say "the server went on by itself, ready on $url/"
    fi
}

# The compose services whose containers are servers.
server_services() {
    our_containers --filter label=harvey.role=server --filter label=com.docker.compose.oneoff=False \
        --format '{{.Label "com.docker.compose.service"}}' | sort -u
}

# every_round FUNCTION: each 2 s, until Ctrl-C or N rounds
every_round() {
    round=0
    while [ -z "${N:-}" ] || [ "$round" -lt "$N" ]; do
        round=$((round + 1))
        say "release $round${N:+ of $N}"
        "$1"
        sleep 2
    done
}

release_all() {
    if [ "$stack" = native ]; then
        native_stop TERM "$stop_s"
        native_start
    else
        # shellcheck disable=SC2046 # names of services
        compose up -d --no-build --no-deps --force-recreate $(server_services)
    fi
}

release_one_by_one() {
    for service in $(server_services); do
        compose up -d --no-build --no-deps --force-recreate "$service"
        wait_ready
    done
}

release() {
    wait_ready
    every_round release_all
    wait_ready
}

rolling_release() {
    if [ "$stack" = native ] || [ "$(server_services | grep -c .)" -lt 2 ]; then
        die "one server has no sibling to take over: make release"
    fi
    every_round release_one_by_one
}

command=${1:-}
choose_stack
case $command in
hammer-open) hammer_open ;;
up | down | logs | hammer | status | disaster | restore | release) "$command" ;;
ps) ps_ ;;
rolling-release) rolling_release ;;
*) die "usage: $0 up|down|logs|ps|hammer|hammer-open|status|disaster|restore|release|rolling-release" ;;
esac
