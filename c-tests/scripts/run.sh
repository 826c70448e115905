#!/bin/sh
# run.sh command... - runs the commands, JOBS at a time (as many as there are processors), adds up their
# counts, and prints which ones took longest, and again, of those that failed, what went wrong.
#
# The last line of a command's output is `N passed, N failed` or `N passed, N failed, N skipped`;
# a command that does not get so far, or exits with an error for no counted failure, counts as one
# failure. The output of a command that failed is shown whole. LIMIT is the time in seconds that
# each command has. WRAP is put before each command, for example valgrind.

# Sets `used` to the user and system time of this shell's children, which `times` prints in minutes and
# seconds. (In a subshell, `times` would print the time of that one's children.)
processor_time() {
    times >"$output"
    used=$(awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, t, /[ms]/); sum += 60 * t[1] + t[2] } }
        END { printf "%.1f", sum }' "$output")
}

# Runs a command, prints how it went, and adds a line to the file $COUNTS: its counts, how long it took, and
# how much processor time it used.
run_one() {
    began=$(date +%s%N)
    name=$(echo "$1" | sed 's|[^ "]*/||g')
    output=$(mktemp) || exit 2
    timeout -k 10 "${LIMIT:-900}" sh -c "exec ${WRAP:-} $1" >"$output" 2>&1 </dev/null
    status=$?
    counts=$(tail -n 1 "$output" |
        awk '/^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/ { print $1, $3, $5 + 0 }')
    if [ -z "$counts" ]; then
        counts='0 1 0'
        echo "$name: ended by status $status without its counts" >>"$output"
    elif [ "$status" -ne 0 ] && [ "${counts#* 0 }" != "$counts" ]; then
        counts="${counts%% *} 1 ${counts##* }"
        echo "$name: ended by status $status" >>"$output"
    fi
    took=$((($(date +%s%N) - began) / 1000000))
    set -- $counts
    {
        flock 9
        if [ "$2" -gt 0 ]; then
            cat "$output"
            { echo "---- $name, which failed:"; grep -v '^ok ' "$output" | tail -n 40; } >>"$FAILURES"
        else
            grep '^skipped' "$output"
        fi
        echo "$name: $1 passed, $2 failed, $3 skipped"
        processor_time
        echo "$counts $took $used $name" >&9
    } 9>>"$COUNTS"
    rm -f "$output"
}

if [ "$1" = --one ]; then
    run_one "$2"
    exit 0
fi

COUNTS=$(mktemp) FAILURES=$(mktemp) || exit 2
export COUNTS FAILURES
trap 'rm -f "$COUNTS" "$FAILURES"' EXIT
printf '%s\0' "$@" | xargs -0 -P "${JOBS:-$(nproc)}" -n 1 "$0" --one
[ $# -lt 10 ] || sort -k4nr "$COUNTS" | head -n 10 |
    while read -r _ _ _ took used name; do
        printf '%4d s, %6.1f s of processor time: %s\n' $((took / 1000)) "$used" "$name"
    done
# The middle of a long report may be cut out by who keeps it.
[ $# -lt 10 ] || cat "$FAILURES"
awk -v commands=$# '{ passed += $1; failed += $2; skipped += $3 }
    END {
        failed += commands - NR # one that was never counted
        printf "%d passed, %d failed", passed, failed
        print skipped ? ", " skipped " skipped" : ""
        exit failed > 0
    }' "$COUNTS"
