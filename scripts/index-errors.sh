#!/bin/sh
# Prints docs/errors/README.md from the pages: one line a code. `scripts/check.sh documents` compares.
set -eu
cd "$(dirname "$0")/.."

group() { # TITLE PAGES...
    printf '\n## %s\n\n| code | name | in one sentence |\n|---|---|---|\n' "$1"
    shift
    for page in "$@"; do
        code=$(basename "$page" .md)
        name=$(sed -n '1s/^# CB[0-9]* //p' "$page")
        # The first sentence of what follows **Means**, up to the next heading of that kind.
        means=$(awk '/^\*\*/ { inside = /^\*\*Means\*\*/; sub(/^\*\*[A-Za-z]*\*\* */, "") } inside { printf "%s ", $0 }' "$page" \
            | sed 's/^ *//; s/ *$//; s/\([^.]\{12,\}[^.0-9]\)\. .*$/\1./; s/|/\\|/g')
        printf '| [%s](%s.md) | `%s` | %s |\n' "$code" "$code" "$name" "$means"
    done
}

cat <<'HEAD'
# Codes

Every code that calbridge says, with its page. `calbridge explain CB2014` prints the page, by code or by name; pages are built
into the program. Codes keep their meaning for ever; a code that is no longer said is not given to something else.

This index is printed by `scripts/index-errors.sh`; do not edit.
HEAD
cd docs/errors
group "Configuration" CB10*.md
group "Mapping files" CB11*.md
group "Database, and memory of notifications seen" CB12*.md
group "Outlook" CB13[0-4]*.md
group "Salesforce" CB13[5-9]*.md
group "Streams" CB14*.md
group "Reasons: why a change ended the way it did" CB20*.md
