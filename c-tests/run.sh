#!/bin/sh
# run.sh command... - runs the commands one after another and adds up what they count.
#
# The last line of a command's output is `N passed, N failed` or `N passed, N failed, N skipped`;
# a command that does not get so far, or exits with an error for no counted failure, counts as one
# failure. The output of a command that failed is shown whole. LIMIT is the time in seconds that
# each has; WRAP goes before each command, as a debugger's would.

output=$(mktemp) || exit 2
trap 'rm -f "$output"' EXIT
passed=0 failed=0 skipped=0

for command in "$@"; do
    name=${command%% *} name=${name##*/}
    timeout -k 10 "${LIMIT:-900}" sh -c "exec ${WRAP:-} $command" >"$output" 2>&1 </dev/null
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
    set -- $counts
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
    if [ "$2" -gt 0 ]; then
        cat "$output"
    else
        grep '^skipped' "$output"
    fi
    echo "$name: $1 passed, $2 failed, $3 skipped"
done

echo "$passed passed, $failed failed$([ "$skipped" -eq 0 ] || echo ", $skipped skipped")"
[ "$failed" -eq 0 ]
