#!/usr/bin/env bash
# Everything: installs what the tests need, then checks, builds, tests, and runs the demo once.
#
#   scripts/test.sh           under half an hour on two cores
#   scripts/test.sh --long    ten minutes of chaos instead of one, every place at which the engine may die with every kind of
#                             edit on both stores, all kills on both; the results are to be kept in docs/CHAOS.md
#
# For a fresh clone on a machine with Rust, a C compiler and Debian's packages; needs no terminal and no input. Leaves
# nothing running: every process started from here carries a mark in its environment, and is looked for at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

case "${1:-}" in
    "") ;;
    --long) export CALBRIDGE_TEST_LONG=1 ;;
    *)
        echo "test: \`$1\` is not understood; there is only \`--long\`" >&2
        exit 2
        ;;
esac

target=${CARGO_TARGET_DIR:-target}
export CALBRIDGE_TEST_REQUIRE_REDIS=1
export CALBRIDGE_TEST_REQUIRE_POSTGRES=1
export CALBRIDGE_TEST_RUN="$$-$RANDOM$RANDOM"
[ "${CI:-}" = true ] && export CARGO_INCREMENTAL=0
# Tests of the suite mostly wait for the timers of the engine under test: more of them than cores at a time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 3))}
mkdir -p "$target"
TMPDIR=$(mktemp -d "$(cd "$target" && pwd)/test-XXXXXX")
export TMPDIR

summary=()
doing="start"
policy=""

say() { printf '\n== %s\n' "$*"; }

step() { # NAME COMMAND...
    doing=$1
    local began=$SECONDS
    shift
    say "$doing"
    # In the background, so that a signal is acted upon at once and not when the command ends.
    "$@" &
    wait $!
    summary+=("$(printf '%5d s  %s' $((SECONDS - began)) "$doing")")
}

# Starts a command beside the steps that follow; `joined` waits for it and shows what it printed.
beside() { # COMMAND...
    "$@" >"$TMPDIR/beside.txt" 2>&1 &
    beside=$!
    beside_began=$SECONDS
}

joined() { # NAME
    doing=$1
    local status=0
    wait "$beside" || status=$?
    say "$doing"
    cat "$TMPDIR/beside.txt"
    summary+=("$(printf '%5d s  %s, beside the steps before' $((SECONDS - beside_began)) "$doing")")
    return "$status"
}

# Prints the ids of living processes that carry our mark. This shell's own environment, as the system shows it, does not.
marked() {
    local id
    env -u CALBRIDGE_TEST_RUN grep -lzxF "CALBRIDGE_TEST_RUN=$CALBRIDGE_TEST_RUN" /proc/[0-9]*/environ 2>/dev/null \
        | while IFS=/ read -r _ _ id _; do echo "$id"; done || true
}

describe() { # IDS...
    local id
    for id in "$@"; do
        printf '  %s %s\n' "$id" "$(tr '\0' ' ' 2>/dev/null <"/proc/$id/cmdline" | cut -c1-160)"
    done
}

finish() {
    local status=$?
    trap - EXIT
    [ -z "$policy" ] || as_root rm -f "$policy"
    local left
    # A process that ends together with its parent may still be on its way out.
    for _ in 1 2 3 4 5; do
        mapfile -t left < <(marked)
        [ ${#left[@]} -gt 0 ] || break
        sleep 1
    done
    if [ ${#left[@]} -gt 0 ]; then
        echo "test: still running at the end, now stopped:" >&2
        describe "${left[@]}" >&2
        kill "${left[@]}" 2>/dev/null || true
        sleep 2
        mapfile -t left < <(marked)
        [ ${#left[@]} -eq 0 ] || kill -9 "${left[@]}" 2>/dev/null || true
        [ "$status" -ne 0 ] || { status=1 doing="leave nothing running"; }
    fi
    rm -rf "$TMPDIR"
    say "summary"
    [ ${#summary[@]} -eq 0 ] || printf '%s\n' "${summary[@]}"
    if [ "$status" -eq 0 ]; then
        echo "everything passed in $SECONDS s"
    else
        echo "FAILED at: $doing (after $SECONDS s)" >&2
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "test: $1" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_be_root() { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }

install_needs() {
    command -v cargo >/dev/null || fail "cargo is missing; install Rust, see https://rustup.rs"
    command -v cc >/dev/null || fail "a C compiler is missing; on Debian: apt-get install gcc libc6-dev"
    for component in fmt clippy; do
        cargo "$component" --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null || fail "cargo $component is missing; install that component of Rust"
        rustup --quiet component add "${component/#fmt/rustfmt}"
    done
    local packages=()
    command -v redis-server >/dev/null || packages+=(redis-server)
    # Debian keeps the server's programs off the path, one folder a version.
    compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || command -v initdb >/dev/null || packages+=(postgresql)
    mapfile -t -O "${#packages[@]}" packages < <(scripts/clients.sh --needs)
    if [ ${#packages[@]} -gt 0 ]; then
        command -v apt-get >/dev/null || fail "please install: ${packages[*]}"
        may_be_root || fail "please install: ${packages[*]} (not root, and no sudo without a password)"
        # Packages of services start them; tests start their own on free ports. A rule that is there already stands.
        if [ ! -e /usr/sbin/policy-rc.d ]; then
            policy=/usr/sbin/policy-rc.d
            printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
            as_root chmod 755 "$policy"
        fi
        as_root apt-get -qq update
        # Without our mark: what a package leaves running is not ours to stop.
        as_root env -u CALBRIDGE_TEST_RUN DEBIAN_FRONTEND=noninteractive \
            apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends "${packages[@]}" >/dev/null
        if [ -n "$policy" ]; then
            as_root rm -f "$policy"
            policy=""
        fi
    fi
    cargo --version
    redis-server --version
    psql --version
}

# One selection for everything that runs: features are the union of what the whole workspace and its tests need, so each
# dependency is compiled once. Binaries and the demo come out of it too and are used below without another cargo call.
# (With --all-targets cargo would make a test of the demo instead of the demo.)
build() {
    cargo test --workspace --no-run --locked --quiet
}

mappings() {
    local file
    for file in mappings/*.yaml; do
        "$target/debug/calbridge" mapping lint "$file"
        "$target/debug/calbridge" mapping test "$file"
    done
}

# What computes for minutes takes what the suite, which mostly waits, leaves of the machine.
computed=(random_schedules every_mutant every_schedule)

simulation() {
    nice -n 19 cargo test --workspace --locked --no-fail-fast --test simulation -- "${computed[@]}"
}

tests() {
    cargo test --workspace --locked --no-fail-fast -- "${computed[@]/#/--skip=}"
}

# What the summary counts was counted by the tests before.
emptied() {
    env -u CALBRIDGE_TEST_LONG CALBRIDGE_TEST_FLUSH_REDIS=1 \
        cargo test --workspace --locked --no-fail-fast --test suite
}

clients() {
    timeout --kill-after=10 900 scripts/clients.sh
}

demo() {
    timeout --kill-after=10 180 "$target/debug/examples/demo"
}

doing="install what is missing"
say "$doing"
install_needs
step "format, pages of codes, documents" scripts/check.sh format pages documents
step "licences, dependency rule" scripts/check.sh licences dependencies
step "build" build
step "generated files, examples in documents" env CALBRIDGE="$target/debug/calbridge" scripts/check.sh generated examples
step "mapping files" mappings
beside clients
step "lints" scripts/check.sh lints
step "docs of the code" scripts/check.sh docs
joined "clients of others"
rm -f "$target/tmp/graph-contract.txt" "$target/tmp/simulation.txt" "$target/tmp/chaos"*.txt
beside simulation
step "tests" tests
joined "simulation"
step "its schedules, mutants and exhaustive exploration" cat "$target/tmp/simulation.txt"
step "chaos: two engines under every fault, and whether mistakes are noticed" \
    cat "$target/tmp/chaos.txt" "$target/tmp/chaos-mistakes-1.txt" "$target/tmp/chaos-mistakes-2.txt"
step "Graph traffic of the tests, judged by Microsoft's description" cat "$target/tmp/graph-contract.txt"
step "demo" demo
# `--long` sets it.
[ -z "${CALBRIDGE_TEST_LONG:-}" ] || step "end to end, with Redis emptied every second" emptied
