#!/bin/sh
# header.sh - compiles include/qnet.h as the only include, included twice, in every language
# standard that it promises, and checks what its comments have to state. CC and CXX name the
# compilers.

cd "$(dirname "$0")" || exit 2
. ./report.sh

compiles()
{
    printf '#include "qnet.h"\n#include "qnet.h"\n' |
        $compiler -std="$standard" -Wall -Wextra -Wpedantic -Werror -I../../include -x $language \
            -c - -o "$work/header.o"
}

# Prints the functions whose comment does not state whether they block and whether they call back.
says_of_each_function()
{
    awk '
        /^\/\*\*/ { blocks = calls_back = 0 }
        /^ \* Blocks: (no|yes)[,.]/ { blocks = 1 }
        /^ \* Calls back: (no|yes)[,.]/ { calls_back = 1 }
        /^[a-z].*qnet_[a-z0-9_]*\(/ && !/^typedef/ {
            functions++
            if (!blocks || !calls_back)
                print
        }
        END { if (functions == 0) print "no functions" }' ../../include/qnet.h >"$work/silent"
    cat "$work/silent"
    ! grep -q . "$work/silent"
}

for standard in c99 c11 c17 c++11 c++17 c++20; do
    case $standard in
    c++*) compiler=${CXX:-g++} language=c++ ;;
    *) compiler=${CC:-cc} language=c ;;
    esac
    if ! command -v "${compiler%% *}" >/dev/null; then
        report skipped "header as $standard: no ${compiler%% *}"
    else
        try "header as $standard" compiles
    fi
done

try 'the header says of each function whether it blocks and calls back' says_of_each_function

finish
