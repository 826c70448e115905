#!/bin/sh
# house.sh - checks the rules of this directory: headers do not include each other in a circle,
# no file is longer than 900 lines, and no two programs have the same name.

cd "$(dirname "$0")" || exit 2
. ./report.sh
cd .. || exit 2
longest=900

# If there is a circle, tsort prints its headers.
headers_make_no_circle()
{
    find . -name '*.h' | while read -r header; do
        sed -n "s|^#include \"\\(.*/\\)*\\(.*\\)\"|${header##*/} \\2|p" "$header"
    done >"$work/includes" && grep -q . "$work/includes" && tsort "$work/includes" >"$work/order"
}

is_short()
{
    ! find ./* -name '*.[ch]' -o -name '*.cc' -o -name '*.sh' -o -name '*.py' | xargs wc -l |
        awk -v longest="$longest" '$2 != "total" && $1 > longest { print $2 " has " $1 " lines" }' | sort | grep .
}

names_are_unique()
{
    ! find . -mindepth 2 -maxdepth 2 '(' -name '*.c' -o -name '*.cc' ')' ! -path './soak/*' ! -path './bench/*' |
        sed 's|.*/||; s|\.[a-z]*$||' | sort | uniq -d | grep .
}

try 'the headers make no circle' headers_make_no_circle
try "no file is longer than $longest lines" is_short
try 'no two programs have the same name' names_are_unique
finish
