#!/bin/sh
# header.sh - compiles include/qnet.h as the only include, twice included, in every language
# standard that it promises. CC and CXX name the compilers.

cd "$(dirname "$0")" || exit 2
. ./report.sh

compiles()
{
    printf '#include "qnet.h"\n#include "qnet.h"\n' |
        $compiler -std="$standard" -Wall -Wextra -Wpedantic -Werror -I../include -x $language \
            -c - -o "$work/header.o"
}

for standard in c99 c11 c17 c++11 c++17 c++20; do
    case $standard in
    c++*) compiler=${CXX:-g++} language=c++ ;;
    *) compiler=${CC:-cc} language=c ;;
    esac
    if ! command -v "${compiler%% *}" >/dev/null; then
        report skipped "header as $standard: there is no $compiler"
    else
        try "header as $standard" compiles
    fi
done

finish
