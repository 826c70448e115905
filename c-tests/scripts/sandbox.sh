# sandbox.sh - for scripts with tests in namespaces of their own, which say there how they ended and
# are counted outside: `tests` are their names, `slow` is CHECK_SLOW. Outside report.sh is needed too.
# shellcheck shell=sh disable=SC2154

# Until a command succeeds, for twenty seconds.
await()     # command...
{
    end=$(($(date +%s) + 20 * slow))
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# In namespaces of its own, in the background and in a process group of its own, for five minutes.
# The process namespace takes every process along when it ends, and with them every interface.
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

# Reports the tests by how they ended, and leaves. What did not come to its end has failed.
conclude()  # what is reported for tests that have said nothing
{
    for name in $tests; do
        wanted "$name" || continue
        how=$(sed -n "s/ *$name\$//p" "$work/results" 2>/dev/null)
        report "${how:-$1}" "$name"
    done
    finish
    exit
}

# Something to test with is missing: reports all tests so, and leaves.
cannot()    # QNET_REQUIRE_... why
{
    for name in $tests; do
        lack "$1" "$name: $2"
    done
    finish
    exit
}
