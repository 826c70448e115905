# sandbox.sh - for scripts whose tests run in namespaces of their own, print their results there and are
# counted outside. `tests` has their names, `slow` is CHECK_SLOW. Outside, report.sh is needed too.
# shellcheck shell=sh disable=SC2154

# Repeats a command until it succeeds, for at most twenty seconds.
await()     # command...
{
    end=$(($(date +%s) + 20 * slow))
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# Runs a command in namespaces of its own, in a process group of its own, for at most five minutes. The end
# of the process namespace kills every process, and so removes every interface.
sandbox()   # command...
{
    [ "$(id -u)" -eq 0 ] || set -- --map-root-user "$@"
    (cd "$work" && exec timeout -s KILL $((300 * slow)) unshare --net --pid --fork --kill-child \
        --mount-proc "$@" </dev/null) &
    started=$!
    wait "$started"
    status=$?
    started=
    return "$status"
}

# Reports the tests by their results, and exits.
conclude()  # what to report for tests without a result
{
    for name in $tests; do
        wanted "$name" || continue
        how=$(sed -n "s/ *$name\$//p" "$work/results" 2>/dev/null)
        report "${how:-$1}" "$name"
    done
    finish
    exit
}

# Reports that all tests lack something, and exits.
cannot()    # QNET_REQUIRE_... why
{
    for name in $tests; do
        lack "$1" "$name: $2"
    done
    finish
    exit
}
