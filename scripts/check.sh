#!/bin/sh
# Checks that need no services: format, pages of codes, links in documents, licences, dependency rule, lints, docs of the
# code, generated files, examples in documents.
# `scripts/check.sh NAME...` runs single checks; `scripts/test.sh` runs this first, then every test.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "check: $1" >&2
    exit 1
}

format() {
    files=$(cargo fmt --all -- --check -l) || fail "not formatted; run \`cargo fmt --all\`:
$files"
}

lints() {
    cargo clippy --workspace --all-targets --locked -- -D warnings
}

docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
}

# Everything that is linked must be under a licence of the list in deny.toml, and no second TLS stack may creep in.
licences() {
    allowed=$(sed -n '/^allow = \[/,/^]/s/^ *"\(.*\)",*$/\1/p' deny.toml)
    [ -n "$allowed" ] || fail "deny.toml lists no licences"
    cargo tree --workspace --edges normal,build --prefix none --locked --format '{p}|{l}' \
        | sed 's/ (\*)$//' | grep . | sort -u | while IFS='|' read -r crate licence; do
        [ -n "$licence" ] || fail "$crate names no licence"
        # One alternative of an OR must be allowed as a whole; an AND needs all of its parts.
        echo "$licence" | sed 's/[()]//g; s/ OR /\n/g; s|/|\n|g' | while read -r choice; do
            bad=$(echo "$choice" | sed 's/ AND /\n/g' | grep -vxF "$allowed" || true)
            [ -n "$bad" ] || echo yes
        done | grep -q yes || fail "$crate is under \`$licence\`, which deny.toml does not allow"
    done
    forbidden=$(sed -n '/^deny = \[/,/^]/s/^ *{ name = "\([^"]*\)".*$/\1/p' deny.toml)
    for name in $forbidden; do
        if cargo tree --workspace --edges normal,build --prefix none --locked --format '{p}' | grep -q "^$name v"; then
            fail "\`$name\` is linked; deny.toml says why it must not be (\`cargo tree -i $name\` shows who brings it)"
        fi
    done
}

# core <- ports <- { outlook, salesforce, store } <- engine <- { cli, web }; only engine/build.rs names adapters.
dependencies() {
    for name in tokio reqwest sqlx redis axum tonic hyper rand getrandom; do
        if cargo tree -p calbridge-core --edges normal --prefix none --locked --format '{p}' | grep -q "^$name v"; then
            fail "the core links \`$name\`; it must stay free of IO, clocks and randomness"
        fi
    done
    # As a dev-dependency it cannot be named outside tests either: the program would not compile.
    if cargo tree -p calbridge --edges normal,build --prefix none --locked --format '{p}' | grep -q '^calbridge-sandbox v'; then
        fail "the engine links the sandbox; it may be a dev-dependency only"
    fi
    uses() { # FOLDER FORBIDDEN...: no file of the folder may name these modules of the crate
        folder=$1
        shift
        [ -d "src/$folder" ] || return 0
        for module in "$@"; do
            if grep -rnE "(crate|calbridge)::(\{[^}]*\b)?$module\b" "src/$folder"; then
                fail "src/$folder names \`$module\`; see the dependency rule in src/lib.rs"
            fi
        done
    }
    uses outlook salesforce store engine cli web config
    uses salesforce outlook store engine cli web config
    uses store outlook salesforce engine cli web config
    uses trace outlook salesforce engine cli web
    uses config outlook salesforce store engine cli web
    if [ -d src/engine ]; then
        found=$(grep -rnE 'crate::(\{[^}]*)?(outlook|salesforce)\b' src/engine --include='*.rs' | grep -v '^src/engine/build' || true)
        [ -z "$found" ] || fail "only engine/build.rs may name adapters:
$found"
    fi
    grep -rlE 'calbridge_sandbox' src | while read -r file; do
        case $file in *tests.rs | */tests/* | */testing.rs) ;; *) grep -q 'cfg(test)' "$file" || fail "$file names the sandbox outside tests" ;; esac
    done
}

# The program, from where scripts/test.sh built it or by cargo.
calbridge() {
    if [ -n "${CALBRIDGE:-}" ]; then
        "$CALBRIDGE" "$@"
    else
        cargo run --quiet --locked --bin calbridge -- "$@"
    fi
}

# config/REFERENCE.md is printed from the table of options; mapping files pass their own tests.
generated() {
    calbridge config reference | cmp -s - config/REFERENCE.md \
        || fail "config/REFERENCE.md is old; run: calbridge config reference > config/REFERENCE.md"
    for file in mappings/*.yaml; do
        calbridge mapping lint "$file" > /dev/null || fail "$file has problems"
        calbridge mapping test "$file" > /dev/null || fail "$file does not pass its own tests"
    done
}

# Whole mapping files in the documents (blocks that begin with `version: 1`) are right and pass their tests, and the example
# of a production configuration is complete but for its secrets.
examples() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    for page in docs/MAPPING.md README.md; do
        awk -v folder="$scratch" -v page="$(basename "$page" .md)" '
            /^```yaml$/ { inside = 1; first = 1; next }
            /^```$/ { inside = 0; whole = 0 }
            inside && first { first = 0; whole = ($0 == "version: 1"); if (whole) count += 1 }
            whole { print > (folder "/" page "-" count ".yaml") }' "$page"
    done
    for file in "$scratch"/*.yaml; do
        [ -e "$file" ] || fail "no document shows a whole mapping file any more"
        calbridge mapping lint "$file" > "$scratch/said" 2>&1 || fail "an example is wrong: $(cat "$scratch/said")"
        calbridge mapping test "$file" > "$scratch/said" 2>&1 || fail "an example fails: $(cat "$scratch/said")"
    done
    sed "s|/run/secrets/|$scratch/|; s|/data/|$scratch/|" config/production.example.yaml > "$scratch/config.yaml"
    echo secret | tee "$scratch/outlook_client_secret" > "$scratch/salesforce_client_secret"
    echo redis://localhost:6379 > "$scratch/redis_url"
    calbridge check --offline --config "$scratch/config.yaml" > "$scratch/said" 2>&1 \
        || fail "config/production.example.yaml is not in order: $(cat "$scratch/said")"
    rm -rf "$scratch"
    trap - EXIT
}

# Every code that the program can say has a page, and every page belongs to a code.
pages() {
    used=$(grep -rhoE '"CB[0-9]{4}"' src crates/core/src --include='*.rs' --exclude='pages.rs' --exclude='*tests.rs' | tr -d '"' | sort -u)
    written=$(find docs/errors -name 'CB*.md' | sed 's|.*/||; s|\.md$||' | sort -u)
    for code in $used; do
        echo "$written" | grep -qx "$code" || fail "$code is used and has no page in docs/errors"
        grep -q "\"$code\"" src/cli/pages.rs || fail "$code is not listed in src/cli/pages.rs"
    done
    for code in $written; do
        echo "$used" | grep -qx "$code" || fail "docs/errors/$code.md explains a code that nothing uses"
    done
}

# Relative links in documents lead somewhere; the index of codes is current; every decision is listed.
documents() {
    git ls-files --cached --others --exclude-standard '*.md' | while read -r page; do
        folder=$(dirname "$page")
        grep -oE '\]\([^)# ]+' "$page" | sed 's/^](//' | grep -vE '^[a-z]+:' | while read -r link; do
            [ -e "$folder/$link" ] || fail "$page links to \`$link\`, which is not there"
        done
    done
    scripts/index-errors.sh | cmp -s - docs/errors/README.md \
        || fail "docs/errors/README.md is old; run: scripts/index-errors.sh > docs/errors/README.md"
    # A newcomer finds every folder in the map, and every file it names.
    git ls-files --cached --others --exclude-standard | xargs -n 1 dirname | sort -u \
        | grep -vE '^\.$|/tests$|^crates/(core|pubsub-proto)$|^crates/pubsub-proto/(src|proto)$' | while read -r folder; do
        grep -q "^|.*\`$folder/\`" docs/ARCHITECTURE.md || fail "docs/ARCHITECTURE.md does not say what \`$folder/\` is for"
    done
    grep -E '^\| `[a-z./_-]+/`' docs/ARCHITECTURE.md | while IFS='|' read -r _ folders purpose files; do
        for folder in $(echo "$folders" | grep -oE '`[^`]+`' | tr -d '`'); do
            [ -d "$folder" ] || fail "docs/ARCHITECTURE.md speaks of \`$folder\`, which is not there"
        done
        for file in $(echo "$files" | grep -oE '`[a-zA-Z0-9_.-]+\.(rs|sh|md|yaml)`' | tr -d '`'); do
            echo "$folders" | grep -oE '`[^`]+`' | tr -d '`' | while read -r folder; do
                [ ! -e "$folder$file" ] || echo there
            done | grep -q there || fail "docs/ARCHITECTURE.md names \`$file\` in$folders, where it is not"
        done
    done
    for page in docs/decisions/0*.md; do
        grep -q "($(basename "$page"))" docs/decisions/README.md || fail "$page is not listed in docs/decisions/README.md"
    done
}

all="format pages documents licences dependencies lints docs generated examples"
for check in ${*:-$all}; do
    case " $all " in
        *" $check "*) ;;
        *) fail "no check is named \`$check\`; there are: $all" ;;
    esac
    echo "== $check"
    "$check"
done
echo "all checks passed"
