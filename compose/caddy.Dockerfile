# SPDX-License-Identifier: Apache-2.0
# Debian's Caddy, for the stacks that show what a proxy does about releases. A stack mounts its Caddyfile.
ARG BASE=debian:trixie-slim
FROM ${BASE}
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends caddy \
    && rm -rf /var/lib/apt/lists/*
ENV XDG_CONFIG_HOME=/tmp XDG_DATA_HOME=/tmp
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
