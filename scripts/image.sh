#!/usr/bin/env bash
# Builds both images of the Dockerfile without a Docker engine, and runs them as docker-compose.yml does.
#
#   scripts/image.sh            # as root, on Debian; needs 6 GB and a release build's time: it is not part of scripts/test.sh
#   scripts/image.sh --again    # keeps the base images of the run before, and what was compiled
#
# The base images are made here: Debian from its packages, and the builder from that, a C compiler and this machine's Rust.
# buildah builds, podman runs. The containers have a read-only root, no capabilities, no network but a loopback of their own,
# and the users that the images name. Prints what was proven, sizes and times; ends with the first thing that is not so.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "image: $1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "run this as root"
# In a mount namespace of its own: what is mounted here is gone at the end, and containers get a plain cgroup tree.
if [ -z "${CALBRIDGE_IMAGE_INSIDE:-}" ]; then
    exec env CALBRIDGE_IMAGE_INSIDE=1 unshare --mount --propagation private "$0" "$@"
fi
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup
fi

work=$(mkdir -p "${CALBRIDGE_IMAGE_WORK:-target/image}" && cd "${CALBRIDGE_IMAGE_WORK:-target/image}" && pwd)
export TMPDIR="$work/tmp"
mkdir -p "$TMPDIR"
storage=(--root "$work/storage" --runroot "$work/run" --storage-driver overlay)
certificates=/etc/ssl/certs/ca-certificates.crt
base=localhost/calbridge-base
names=(people engine second redis sandbox)

say() { printf '\n== %s\n' "$*"; }
buildah() { command buildah "${storage[@]}" "$@"; }
# Without systemd nothing repeats the health checks of its own accord, which is said at each start; they are asked for below.
podman() {
    command podman "${storage[@]}" --cgroup-manager cgroupfs "$@" 2> >(grep -v 'systemd connection to .* healthchecks' >&2)
}
has() { podman image exists "$1"; }
now_ms() { date +%s%3N; }

clear_away() {
    # The sandbox last: the others live in its network.
    for name in "${names[@]}"; do
        podman rm --force --time 5 "$name" >/dev/null 2>&1 || true
    done
    podman volume rm --force calbridge-rehearsal calbridge-data >/dev/null 2>&1 || true
}

finish() {
    status=$?
    trap - EXIT
    if [ "$status" -ne 0 ]; then
        for name in sandbox engine; do
            podman logs "$name" 2>&1 | tail -20 | sed "s/^/$name: /" >&2 || true
        done
    fi
    clear_away
    exit "$status"
}
trap finish EXIT

say "what is missing"
missing=()
for program in buildah podman crun debootstrap docker-compose; do
    command -v "$program" >/dev/null || missing+=("$program")
done
command -v cargo >/dev/null || fail "cargo is missing; install Rust, see https://rustup.rs"
if [ ${#missing[@]} -gt 0 ]; then
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}" >/dev/null
fi
command buildah --version
command podman --version

say "the compose file"
docker-compose --file docker-compose.yml config --quiet || fail "docker-compose.yml is not valid"
echo "valid by $(docker-compose --version)"

# IMAGE FROM TAR FOLDER: makes an image of another one and an archive that is unpacked in it.
layer() {
    local container
    container=$(buildah from "$2")
    buildah add --quiet "$container" "$3" "$4" >/dev/null
    buildah commit --quiet "$container" "$1" >/dev/null
    buildah rm "$container" >/dev/null
}

# IMAGE FROM PACKAGES...: makes an image of another one and Debian's packages.
installed() {
    local image=$1 container
    container=$(buildah from "$2")
    shift 2
    buildah run --isolation chroot "$container" -- sh -c "apt-get -qq update \
        && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends $* >/dev/null 2>&1 \
        && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb"
    buildah commit --quiet "$container" "$image" >/dev/null
    buildah rm "$container" >/dev/null
}

say "base images"
[ "${1:-}" = --again ] || podman rmi --force "$base:runtime" "$base:redis" "$base:tools" "$base:builder" >/dev/null 2>&1 || true
if ! has "$base:runtime"; then
    rm -rf "$work/debian"
    debootstrap --variant=minbase bookworm "$work/debian" >"$work/debootstrap.log" 2>&1 || fail "see $work/debootstrap.log"
    rm -rf "$work"/debian/var/cache/apt/archives/*.deb "$work"/debian/var/lib/apt/lists/*
    tar -C "$work/debian" -cf "$work/debian.tar" .
    layer "$base:runtime" scratch "$work/debian.tar" /
    rm -rf "$work/debian" "$work/debian.tar"
fi
has "$base:redis" || installed "$base:redis" "$base:runtime" redis-server
if ! has "$base:builder"; then
    installed "$base:tools" "$base:runtime" gcc libc6-dev ca-certificates
    tar -C "$(rustc --print sysroot)" -cf "$work/rust.tar" bin lib
    layer "$base:builder" "$base:tools" "$work/rust.tar" /usr/local
    rm -f "$work/rust.tar"
fi

say "build"
# How this machine reaches the registry is its own matter: its authorities and cargo's settings, for the build only.
machine=()
[ ! -f "$certificates" ] || machine+=(--volume "$certificates:$certificates:ro")
for settings in "${CARGO_HOME:-$HOME/.cargo}"/config.toml; do
    [ ! -f "$settings" ] || machine+=(--volume "$settings:/cargo/config.toml:ro")
done
build() { # TARGET IMAGE
    local began=$SECONDS
    buildah build --isolation chroot --network host --layers --format docker "${machine[@]}" \
        --build-arg BUILDER_IMAGE="$base:builder" --build-arg RUNTIME_IMAGE="$base:runtime" \
        --target "$1" --tag "$2" . >"$work/build-$1.log" 2>&1 || { tail -30 "$work/build-$1.log" >&2; fail "$2 does not build"; }
    echo "$2: built in $((SECONDS - began)) s"
}
build engine localhost/calbridge
build sandbox localhost/calbridge-sandbox

say "run, as docker-compose.yml does"
clear_away
# Limits are set because raising them to the maximum is not allowed everywhere.
closed=(--cgroups=disabled --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges
    --ulimit nofile=4096:4096 --ulimit nproc=4096:4096)
within=(--network container:sandbox)
paths=(--config /etc/calbridge/rehearsal.yaml --sandbox-endpoints /rehearsal/sandbox.json)
engine_mounts=(--volume calbridge-rehearsal:/rehearsal:ro --volume calbridge-data:/data
    --volume "$PWD/config/rehearsal.yaml:/etc/calbridge/rehearsal.yaml:ro")
calbridge() { # PODMAN-OPTIONS... -- ARGUMENTS...
    local options=()
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    podman run "${closed[@]}" "${within[@]}" "${engine_mounts[@]}" "${options[@]}" localhost/calbridge "$@"
}

podman run --detach --name sandbox "${closed[@]}" --network none --tmpfs /tmp --volume calbridge-rehearsal:/rehearsal \
    localhost/calbridge-sandbox serve --endpoints /rehearsal/sandbox.json --state-dir /rehearsal --profile office \
    --port-base 20400 >/dev/null
podman run --detach --name redis "${closed[@]}" "${within[@]}" --user 10001:10001 "$base:redis" \
    redis-server --bind 127.0.0.1 --save "" --appendonly no >/dev/null
until podman exec sandbox test -s /rehearsal/sandbox.json; do
    [ "$(podman inspect --format '{{.State.Running}}' sandbox)" = true ] || fail "the sandbox ended"
    sleep 0.2
done

began=$(now_ms)
calbridge --rm -- --version
version_ms=$(($(now_ms) - began))

calbridge --rm -- check "${paths[@]}"

began=$(now_ms)
calbridge --detach --name engine --env CALBRIDGE_REDIS__URL=redis://127.0.0.1:6379 -- run "${paths[@]}" >/dev/null
# One look after the other inside the container: ready is 200 on /readyz.
podman exec engine bash -c 'until exec 3<>/dev/tcp/127.0.0.1/9465 \
    && printf "GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n" >&3 && grep -q "200 OK" <&3; do sleep 0.05; done 2>/dev/null'
ready_ms=$(($(now_ms) - began))

podman healthcheck run engine || fail "the image's health check of a healthy engine fails"
echo "the health check passes"

podman exec engine sh -c 'touch /data/proof && rm /data/proof' || fail "/data cannot be written"
for folder in / /tmp /usr/local/bin /etc/calbridge /rehearsal; do
    ! podman exec engine sh -c "touch $folder/proof" 2>/dev/null || fail "$folder can be written"
done
echo "user $(podman exec engine id -u) writes to /data and nowhere else"

say "meetings cross"
podman run --name people "${closed[@]}" "${within[@]}" --volume calbridge-rehearsal:/rehearsal:ro --env ROUNDS=1 --env PAUSE=0 \
    --entrypoint /bin/sh localhost/calbridge-sandbox /usr/local/bin/people /rehearsal/sandbox.json

process=$(podman inspect --format '{{.State.Pid}}' engine)
memory=$(awk '/^VmRSS/ {print int($2 / 1024)}' "/proc/$process/status")

say "a second engine on the same volume"
code=0
calbridge --name second --env CALBRIDGE_WEB__ADDRESS=127.0.0.1:9466 -- run "${paths[@]}" >"$work/second.log" 2>&1 || code=$?
grep -h "in use by process" "$work/second.log" || { cat "$work/second.log" >&2; fail "it does not name the holder"; }
[ "$code" = 2 ] || fail "it ends with $code and not with 2"

say "SIGTERM"
began=$(now_ms)
podman stop --time 30 engine >/dev/null
stop_ms=$(($(now_ms) - began))
code=$(podman inspect --format '{{.State.ExitCode}}' engine)
[ "$code" = 0 ] || fail "the engine ends with $code and not with 0"
podman logs engine 2>&1 | grep -E 'stopped' | tail -1 || fail "the log does not end with \`stopped\`"

say "sizes and times"
mounted=$(podman image mount localhost/calbridge)
binary=$(stat -c %s "$mounted/usr/local/bin/calbridge")
podman image unmount localhost/calbridge >/dev/null
size() { podman image inspect --format '{{.Size}}' "$1"; }
mib() { awk -v bytes="$1" 'BEGIN { printf "%.1f MiB", bytes / 1048576 }'; }
image=$(size localhost/calbridge)
printf '%-44s %s\n' \
    "engine's image" "$(mib "$image")" \
    "  of it the runtime base" "$(mib "$(size "$base:runtime")")" \
    "  of it the program" "$(mib "$binary")" \
    "container that prints its version and is gone" "$version_ms ms" \
    "container start until /readyz answers 200" "$ready_ms ms" \
    "resident memory after the rehearsal" "$memory MiB" \
    "SIGTERM until the end" "$stop_ms ms"
