#!/usr/bin/env bash
# Runs clients that others wrote (Python, Node) unchanged against the sandbox; see tests/clients/README.md.
#
# `scripts/clients.sh [NAME...]` runs all or the named ones; `--list` lists them; `--install` only installs them.
# Everything goes under the build's target folder. CALBRIDGE_SANDBOX names another calbridge-sandbox program.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

# Used only where the system has no Node of version 20 or later.
NODE_VERSION=22.23.3

mkdir -p "${CARGO_TARGET_DIR:-target}"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
here=tests/clients
runtime=$target/clients/runtime-$NODE_VERSION/node_modules/runtime
sandbox=${CALBRIDGE_SANDBOX:-$target/debug/calbridge-sandbox}

fail() {
    echo "clients: $1" >&2
    exit 1
}

# Names of Debian's packages that are missing; `scripts/test.sh` installs them.
needs() {
    "$(python)" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || echo python3-venv
    command -v node >/dev/null || echo nodejs
    command -v npm >/dev/null || echo npm
}

# The system's own Python before one that a version manager put first.
python() {
    if [ -x /usr/bin/python3 ]; then echo /usr/bin/python3; else echo python3; fi
}

# A folder per content of the lists: a changed list makes a new one, an unchanged list costs nothing.
folder() { # NAME FILES...
    local name=$1
    shift
    echo "$target/clients/$name-$(cat "$@" | sha256sum | cut -c1-12)"
}

install_python() {
    [ -e "$venv/.complete" ] && return
    rm -rf "$venv"
    "$(python)" -m venv "$venv"
    # Each package is named with its version, so nothing is left to resolve; unused modules are never compiled.
    "$venv/bin/pip" --disable-pip-version-check install --quiet --no-input --no-deps --no-compile --only-binary :all: \
        --requirement "$here/requirements.txt"
    "$venv/bin/pip" --disable-pip-version-check check >/dev/null || fail "requirements.txt leaves a package out"
    touch "$venv/.complete"
}

# The system's Node, or one from the npm registry where that is older than the clients take (Debian 12 has 18).
node_program() {
    local major
    major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
    if [ "$major" -ge 20 ]; then command -v node; else echo "$runtime/bin/node"; fi
}

install_node() {
    local arch folder
    if [ ! -x "$(node_program)" ]; then
        arch=$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')
        folder=${runtime%/node_modules/*}
        mkdir -p "$folder"
        npm install --silent --prefix "$folder" --ignore-scripts --no-save --no-audit --no-fund \
            "runtime@npm:node-linux-$arch@$NODE_VERSION"
    fi
    [ -e "$modules/.complete" ] && return
    rm -rf "$modules"
    mkdir -p "$modules"
    cp "$here/package.json" "$here/package-lock.json" "$modules"
    # No script of a package is run: none of these needs one.
    (cd "$modules" && npm ci --silent --ignore-scripts --no-audit --no-fund)
    touch "$modules/.complete"
}

install() {
    local missing began=$SECONDS one two
    missing=$(needs | tr '\n' ' ')
    [ -z "$missing" ] || fail "please install: $missing(on Debian: apt-get install $missing)"
    venv=$(folder python "$here/requirements.txt")
    modules=$(folder node "$here/package.json" "$here/package-lock.json")
    # One waits for the network while the other unpacks.
    install_python >"$target/clients-python.log" 2>&1 &
    one=$!
    install_node >"$target/clients-node.log" 2>&1 &
    two=$!
    wait "$one" || { wait "$two" || true; told python "PyPI"; }
    wait "$two" || told node "npm"
    echo "clients: installed in $((SECONDS - began)) s"
}

told() { # WHICH REGISTRY
    tail -n 20 "$target/clients-$1.log" >&2
    fail "could not install the $1 packages; is the $2 registry reachable? (whole log: $target/clients-$1.log)"
}

case ${1:-} in
    --needs) needs ;;
    --install) install ;;
    *)
        [ -x "$sandbox" ] || fail "$sandbox is missing; build it: cargo build -p calbridge-sandbox"
        install
        exec "$venv/bin/python" "$here/run.py" --sandbox "$sandbox" --python "$venv/bin/python" --node "$modules" \
            --node-program "$(node_program)" "$@"
        ;;
esac
