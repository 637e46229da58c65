# Two images: the engine (default) and, with `--target sandbox`, the local sandbox for rehearsals.
#
#   docker build -t calbridge .
#   docker build -t calbridge-sandbox --target sandbox .
#
# The engine's image holds one program, CA certificates, and nothing to write to but /data; its root may be read-only.
# Both base images may be others of the same kind; scripts/image.sh builds on ones that it makes itself.
ARG BUILDER_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${BUILDER_IMAGE} AS builder
WORKDIR /src
COPY . .
# What was downloaded and compiled stays on the building machine for the next build; the layers hold only /out.
ENV CARGO_HOME=/cargo
RUN --mount=type=cache,target=/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package calbridge --bin calbridge \
    && mkdir -p /out/data /out/rehearsal \
    && cp target/release/calbridge /out/

FROM builder AS sandbox-builder
RUN --mount=type=cache,target=/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package calbridge-sandbox --bin calbridge-sandbox \
    && cp target/release/calbridge-sandbox /out/

FROM ${RUNTIME_IMAGE} AS sandbox
COPY --from=sandbox-builder /out/calbridge-sandbox /usr/local/bin/calbridge-sandbox
COPY --from=sandbox-builder /src/scripts/people.sh /usr/local/bin/people
# An empty volume takes over who owns this folder.
COPY --from=sandbox-builder --chown=10001:10001 /out/rehearsal /rehearsal
USER 10001:10001
VOLUME /rehearsal
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=2s --timeout=2s --start-period=10s --retries=10 CMD ["test", "-s", "/rehearsal/sandbox.json"]
ENTRYPOINT ["/usr/local/bin/calbridge-sandbox"]
CMD ["serve", "--endpoints", "/rehearsal/sandbox.json", "--state-dir", "/rehearsal"]

FROM ${RUNTIME_IMAGE} AS engine
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /out/calbridge /usr/local/bin/calbridge
COPY --from=builder /src/LICENSE /src/NOTICE /usr/share/doc/calbridge/
COPY --from=builder --chown=10001:10001 /out/data /data
USER 10001:10001
WORKDIR /data
VOLUME /data
# SIGTERM drains: listeners stop, writes under way are finished and settled.
STOPSIGNAL SIGTERM
# Needs bash, which Debian's images have; on another RUNTIME_IMAGE let the orchestrator ask for /healthz instead. An outage
# of a cloud never fails it. Follows the default of `web.address`.
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/9465 && printf 'GET /healthz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && grep -q '200 OK' <&3"]
ENTRYPOINT ["/usr/local/bin/calbridge"]
CMD ["run", "--config", "/data/calbridge.yaml"]
