#!/bin/sh
# People at work on both sides of a local sandbox, in a circle: used by docker-compose.yml, and by hand:
#
#   PATH="$PWD/target/debug:$PATH" sh scripts/people.sh target/sandbox.json
#
# Prints what each did and what the other side shows. PAUSE is the wait between steps, ROUNDS ends the circle.
set -eu
endpoints=${1:?give the endpoints file of the local sandbox}
pause=${PAUSE:-8}
rounds=${ROUNDS:-0}

person() { calbridge-sandbox person --endpoints "$endpoints" "$@"; }

# The value of a field in each of the records listed, one a line.
shown() { person "$1" list | sed -n "s/^ *\"$2\": \(.*[^,]\),*\$/\1/p" | tail -3 | paste -sd' ' -; }

round=0
while :; do
    round=$((round + 1))
    day=$(date -u -d "+$((round % 20 + 1)) day" +%F)
    event=$(person outlook create --subject "Planning $round" --start "${day}T10:00" --minutes 30)
    echo "outlook: someone created \"Planning $round\""
    sleep "$pause"
    echo "salesforce shows: $(shown salesforce Subject)"
    person outlook update "$event" --location "Room $round" >/dev/null
    echo "outlook: someone moved it to \"Room $round\""
    sleep "$pause"
    echo "salesforce shows: $(shown salesforce Location)"
    record=$(person salesforce create --subject "Visit $round" --start "${day}T14:00" --minutes 60)
    echo "salesforce: someone created \"Visit $round\""
    sleep "$pause"
    echo "outlook shows: $(shown outlook subject)"
    person salesforce delete "$record" >/dev/null
    echo "salesforce: someone deleted \"Visit $round\""
    sleep "$pause"
    echo "outlook shows: $(shown outlook subject)"
    [ "$round" != "$rounds" ] || exit 0
done
