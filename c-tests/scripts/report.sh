# report.sh - what the test scripts here share; they source it. Each test is reported on a line, and the
# last line has the counts, in the form that run.sh reads. CHECK_ONLY=word runs only tests whose name
# contains word. DRY_RUN=1 tests nothing, and prints only which tests would be skipped, or would fail because
# they are required.
# shellcheck shell=sh

passed=0 failed=0 skipped=0
started= # processes, to be ended with the script
name=${0##*/}
work=$(mktemp -d "${TMPDIR:-/tmp}/qnet-${name%.sh}.XXXXXX") || exit 2

# Ends what the script has started, including process groups, whichever way the script ends.
clean_up()
{
    for process in $started; do
        kill -KILL "-$process" 2>/dev/null || kill "$process" 2>/dev/null
        wait "$process" 2>/dev/null
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 2' HUP INT TERM

report()    # ok|skipped|FAILED name
{
    if [ "${DRY_RUN:-}" ]; then
        [ "$1" = ok ] || printf '%s %s\n' "$1" "$2"
        return 0
    fi
    case $1 in
    ok) passed=$((passed + 1)) ;;
    skipped) skipped=$((skipped + 1)) ;;
    *) failed=$((failed + 1)) ;;
    esac
    printf '%-7s %s\n' "$1" "$2"
}

wanted()    # name
{
    case $1 in
    *"${CHECK_ONLY:-}"*) return 0 ;;
    *) return 1 ;;
    esac
}

# Runs one test: a command that passes or fails.
try()       # name command...
{
    name=$1
    shift
    wanted "$name" && [ ! "${DRY_RUN:-}" ] || return 0
    if "$@" >"$work/log" 2>&1; then
        report ok "$name"
    else
        report FAILED "$name"
        cat "$work/log"
    fi
}

# Reports a test that lacks something: as skipped, or as failed if that is required.
lack()      # QNET_REQUIRE_... name
{
    wanted "$2" || return 0
    if [ "${1:-0}" = 1 ]; then
        report FAILED "$2"
    else
        report skipped "$2"
    fi
}

# Has ping, of the examples, ask responder, another one of them.
pinged()    # responder ping
{
    : >"$work/said" # not what an earlier one has said
    "$1" unix "$work/responder.sock" 10.0.0.1 >"$work/said" &
    started=$!
    until grep '^listening' "$work/said"; do
        kill -0 "$started" || return 1
        sleep 0.1
    done
    "$2" -c 1 unix "$work/responder.sock" 10.0.0.1 && kill "$started" && wait "$started"
    status=$? started=
    return "$status"
}

# Finds the first Python that has modules: the one in the path need not be the system's.
python_with()   # "module, module"
{
    reason="Python with $1"
    for python in python3 /usr/bin/python3; do
        "$python" -c "import $1" 2>/dev/null && return
    done
    return 1
}

# Prints the counts, as the last thing that a script does.
finish()
{
    [ ! "${DRY_RUN:-}" ] || return 0
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}
