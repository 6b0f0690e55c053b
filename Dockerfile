# The one image: every role of maintenance-os, PgBouncer for the poolers, PostgreSQL's client programs for backups.
#
#   docker build -t maintenance-os .                                  builds the binary too
#   docker build --target prebuilt -f Dockerfile DIRECTORY            DIRECTORY holds the finished binary `maintenance-os`
#
# BASE_IMAGE is any Debian 13. One that already has the packages (e2e/cluster/rootfs.sh makes one) needs no network.
ARG BASE_IMAGE=debian:trixie-slim
ARG RUST_IMAGE=rust:1.95-trixie

FROM ${BASE_IMAGE} AS runtime
RUN if ! command -v pgbouncer > /dev/null || [ ! -x /usr/lib/postgresql/17/bin/pg_dump ]; then \
        apt-get update \
        && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates pgbouncer postgresql-client-17 \
        && rm -rf /var/lib/apt/lists/*; \
    fi
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/17/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/maintenance-os"]

FROM runtime AS prebuilt
COPY maintenance-os /usr/local/bin/maintenance-os

FROM ${RUST_IMAGE} AS builder
WORKDIR /source
COPY . .
RUN cargo build --release --locked && install -D target/release/maintenance-os /out/maintenance-os

FROM runtime
COPY --from=builder /out/maintenance-os /usr/local/bin/maintenance-os
