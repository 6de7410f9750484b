# SPDX-License-Identifier: Apache-2.0
# The door's image. It is made of two rooms only, so that a change of the server does not change it: a release
# must not restart the door.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Makefile ./
COPY base base
COPY door door
RUN make -s -j"$(nproc)" bin/door

FROM ${BASE}
LABEL org.opencontainers.image.title="Harvey's door" \
      org.opencontainers.image.description="Owns the listening socket while servers come and go" \
      org.opencontainers.image.licenses="Apache-2.0"
# A new named volume copies this folder's owner and mode.
RUN mkdir -m 700 /run/harvey && chown 65532:65532 /run/harvey
WORKDIR /harvey
COPY --from=build /src/bin/door ./
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=2s --timeout=5s --retries=3 --start-period=60s CMD ["./door", "--health"]
ENTRYPOINT ["./door"]
