# report.sh - what the test scripts here share; they source it. Each test is reported in a line, and
# the last line is the counts, as run.sh wants it. CHECK_ONLY=word: only tests whose name has the word.
# DRY_RUN=1: nothing is tested, and all that is said is what would be skipped, or fail as it is required.
# shellcheck shell=sh

passed=0 failed=0 skipped=0
started= # processes, to be ended with the script
name=${0##*/}
work=$(mktemp -d "${TMPDIR:-/tmp}/qnet-${name%.sh}.XXXXXX") || exit 2

# Ends what was started here, with the process group that it may lead, whatever the way out.
clean_up()
{
    for process in $started; do
        kill -KILL -- "-$process" 2>/dev/null || kill "$process" 2>/dev/null
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

# One test: a name, and a command that passes or fails.
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

# Something to test with is missing: skipped, or failed where it is required.
lack()      # QNET_REQUIRE_... name
{
    wanted "$2" || return 0
    if [ "${1:-0}" = 1 ]; then
        report FAILED "$2"
    else
        report skipped "$2"
    fi
}

# Prints the counts; the last thing that a script does.
finish()
{
    [ ! "${DRY_RUN:-}" ] || return 0
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}
