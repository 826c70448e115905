#!/bin/sh
# python.sh TARGET - runs the tests of the package in python/, with the library as it was built. They also build
# the package (with pip, setuptools and wheel) and check its types (with mypy).
#
# Without a Python that has cffi and pytest they are skipped, or fail if QNET_REQUIRE_LANGUAGES=1.
set -u

cd "$(dirname "$0")" || exit 2
. ./report.sh
cd ../../python || exit 2
export QNET_LIBRARY="$1/release/libqnet.so" PYTHONDONTWRITEBYTECODE=1

if ! python_with 'cffi, pytest'; then
    lack "${QNET_REQUIRE_LANGUAGES:-0}" "python: no $reason"
    finish
    exit
fi
[ ! "${DRY_RUN:-}" ] || exit 0

# Status 5 says that no test has the word in its name.
timeout -s KILL $((600 * ${CHECK_SLOW:-1})) "$python" -m pytest -q -rs -p no:cacheprovider \
    ${CHECK_ONLY:+-k "$CHECK_ONLY"} >"$work/log" 2>&1
status=$?
[ "$status" -eq 0 ] || [ "$status" -eq 5 ] || cat "$work/log"
sed -n 's/^SKIPPED \[\([0-9]*\)\] .*: \(.*\)/skipped \1 of python: \2/p' "$work/log"
count()     # what...
{
    tail -n 1 "$work/log" | tr ',' '\n' | awk -v what="$1" '$2 ~ what { sum += $1 } END { print sum + 0 }'
}
echo "$(count '^passed') passed, $(count '^(failed|error)') failed, $(count '^skipped') skipped"
[ "$status" -eq 0 ] || [ "$status" -eq 5 ]
