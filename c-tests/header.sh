#!/bin/sh
# header.sh - compiles include/qnet.h as the only include, twice included, in every language
# standard that it promises. CC and CXX name the compilers.

cd "$(dirname "$0")" || exit 2
passed=0 failed=0 skipped=0

for standard in c99 c11 c17 c++11 c++17 c++20; do
    case $standard in
    c++*) compiler=${CXX:-g++} language=c++ ;;
    *) compiler=${CC:-cc} language=c ;;
    esac
    if ! command -v "${compiler%% *}" >/dev/null; then
        skipped=$((skipped + 1))
        echo "skipped header as $standard: there is no $compiler"
    elif printf '#include "qnet.h"\n#include "qnet.h"\n' |
        $compiler -std=$standard -Wall -Wextra -Wpedantic -Werror -I../include -x $language \
            -c - -o /dev/null; then
        passed=$((passed + 1))
        echo "ok      header as $standard"
    else
        failed=$((failed + 1))
        echo "FAILED  header as $standard"
    fi
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
