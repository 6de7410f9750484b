#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes sure that the image all ours stand on is here: present, else pulled, else made by debootstrap
# under the same name (a place without a registry, such as CI, has Debian's packages all the same).
# usage: base-image.sh [IMAGE]     IMAGE is debian:SUITE-slim
set -eu
image=${1:-debian:trixie-slim}
suite=${image#debian:}
suite=${suite%-slim}

docker image inspect "$image" >/dev/null 2>&1 && exit 0
echo "base image $image: pulling"
if timeout 60 docker pull -q "$image" 2>/dev/null; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "base image $image: cannot be pulled, and making it takes root (debootstrap): run 'sudo $0 $image'" >&2
    exit 1
fi
echo "base image $image: cannot be pulled, making it with debootstrap (about a minute)"
"$(dirname "$0")/../.ci/deps" debootstrap
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
trap 'exit 1' HUP INT TERM
# The host's own mirror is the one that is known to answer here; Ubuntu's does not carry Debian.
mirror=
if grep -q '^ID=debian' /etc/os-release; then
    mirror=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\/debian\/\{0,1\}\) .*/\2/p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)
fi
# shellcheck disable=SC2086 # an empty mirror is no argument
debootstrap --variant=minbase "$suite" "$root" $mirror >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    echo "base image $image: debootstrap failed, its log is $root.log" >&2
    exit 1
}
rm -rf "$root.log" "${root:?}"/var/cache/apt/archives/*.deb \
    "$root"/var/lib/apt/lists/* "${root:?}"/dev/* "${root:?}"/proc/*
tar -C "$root" -c . | docker import --change 'CMD ["bash"]' - "$image" >/dev/null
echo "base image $image: made"
