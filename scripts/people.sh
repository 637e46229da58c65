#!/bin/sh
# People at work on both sides of a local sandbox, in a circle: used by docker-compose.yml, and by hand:
#
#   PATH="$PWD/target/debug:$PATH" sh scripts/people.sh target/sandbox.json
#
# Prints what each did and when the other side shows it. PAUSE (seconds, 3) is the wait between steps, ROUNDS ends the circle,
# PATIENCE (seconds, 120) is how long an edit may take to cross before this gives up with exit code 1.
set -eu
endpoints=${1:?give the endpoints file of the local sandbox}
pause=${PAUSE:-3}
rounds=${ROUNDS:-0}
patience=${PATIENCE:-120}

person() { calbridge-sandbox person --endpoints "$endpoints" "$@"; }

# Tells whether a side lists a record whose field has this value.
shows() { person "$1" list | grep -F -q "\"$2\": \"$3\""; }

# Waits until a side shows a value, or, with `not`, no longer shows it.
await() { # SIDE FIELD VALUE [not]
    left=$patience
    until if [ "${4:-}" = not ]; then ! shows "$1" "$2" "$3"; else shows "$1" "$2" "$3"; fi; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || { echo "$1 does not show it after $patience s: ${4:-} \"$3\"" >&2; exit 1; }
        sleep 1
    done
    if [ "${4:-}" = not ]; then echo "$1 no longer shows \"$3\""; else echo "$1 shows \"$3\""; fi
    sleep "$pause"
}

round=0
while :; do
    round=$((round + 1))
    day=$(date -u -d "+$((round % 20 + 1)) day" +%F)
    event=$(person outlook create --subject "Planning $round" --start "${day}T10:00" --minutes 30)
    echo "outlook: someone created \"Planning $round\""
    await salesforce Subject "Planning $round"
    person outlook update "$event" --location "Room $round" >/dev/null
    echo "outlook: someone moved it to \"Room $round\""
    await salesforce Location "Room $round"
    record=$(person salesforce create --subject "Visit $round" --start "${day}T14:00" --minutes 60)
    echo "salesforce: someone created \"Visit $round\""
    await outlook subject "Visit $round"
    person salesforce delete "$record" >/dev/null
    echo "salesforce: someone deleted \"Visit $round\""
    await outlook subject "Visit $round" not
    [ "$round" != "$rounds" ] || exit 0
done
