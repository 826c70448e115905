#!/bin/sh
# hpp.sh - compiles include/qnet.hpp, alone and in its tests, with each compiler, in each language
# standard that it promises, with and without exceptions, and with more warnings than users are likely
# to enable. CXX and CLANGXX name the compilers. Tests with one that is missing are skipped, or fail if
# QNET_REQUIRE_CLANG=1.

cd "$(dirname "$0")" || exit 2
. ./report.sh

warnings='-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Weffc++ -Werror'

compiles()  # file option...
{
    file=$1
    shift
    # Each of these is split into words on purpose.
    # shellcheck disable=SC2086
    $compiler -std="$standard" $warnings -D_GNU_SOURCE -DHPP_PLUGIN='""' -I../../include -I../support \
        -fsyntax-only "$@" "$file"
}

# Compiles each file. The header must compile without exceptions, too.
everywhere()
{
    printf '#include "qnet.hpp"\n#include "qnet.hpp"\n' >"$work/alone.cc"
    try "alone, $1" compiles "$work/alone.cc"
    try "alone without exceptions, $1" compiles "$work/alone.cc" -fno-exceptions
    try "its tests, $1" compiles ../cxx/hpp.cc
    try "the tests of its functions, $1" compiles ../cxx/hpp_functions.cc
    try "its tests without exceptions, $1" compiles ../cxx/hpp_codes.cc -fno-exceptions
}

for compiler in "${CXX:-g++}" "${CLANGXX:-clang++}"; do
    if ! command -v "${compiler%% *}" >/dev/null; then
        lack "${QNET_REQUIRE_CLANG:-0}" "qnet.hpp by $compiler: no ${compiler%% *}"
        continue
    fi
    for standard in c++17 c++20 c++2b; do
        everywhere "$standard by $compiler"
    done
done

finish
