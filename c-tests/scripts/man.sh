#!/bin/sh
# man.sh - makes the manual pages, and checks them: that everything that is exported has one, that mandoc
# finds no fault in any, and that what the header says is in them. Without mandoc the last two are skipped,
# or fail if QNET_REQUIRE_PACKAGING=1.

cd "$(dirname "$0")" || exit 2
. ./report.sh
cd ../.. || exit 2
pages=$work/man

makes_them()
{
    python3 packaging/man.py "$pages"
}

all_have_a_page()
{
    grep -q . abi/symbols && while IFS=@ read -r function _; do
        [ -s "$pages/man3/$function.3" ] || { echo "$function has no page" && return 1; }
    done <abi/symbols
}

# Which pages of other projects a machine has is not for these to know.
mandoc_finds_no_fault()
{
    ! MANPATH=$pages mandoc -T lint -W style "$pages"/man*/* 2>&1 |
        grep -v 'referenced manual not found: Xr [^q]\|outdated mandoc.db' | grep .
}

shown()     # page
{
    mandoc -T ascii -O width=100 "$pages/$1" | sed 's/.\x08//g'
}

# Prints the codes that the header names in the comment of a function.
codes_of()  # function
{
    awk -v name="$1" '
        /^\/\*\*/ { comment = "" }
        { comment = comment $0 "\n" }
        index($0, " " name "(") && !/^ / { print comment }' include/qnet.h |
        grep -o 'QNET_ERR_[A-Z_]*' | sort -u
}

# Each code stands as an item of its own, with its meaning below it.
says_which_codes()
{
    shown man3/qnet_send.3 >"$work/page" && codes_of qnet_send >"$work/codes" &&
        [ "$(wc -l <"$work/codes")" -ge 9 ] && while read -r code; do
            grep "^ *$code\$" "$work/page" || { echo "$code is not in the page" && return 1; }
        done <"$work/codes"
}

has_all_sections()
{
    shown man3/qnet_send.3 >"$work/page" &&
        for title in NAME SYNOPSIS DESCRIPTION 'RETURN VALUES' ERRORS 'SEE ALSO'; do
            grep "^$title\$" "$work/page" || return 1
        done &&
        sed -n '/^SEE ALSO/,$p' "$work/page" | grep 'qnet_send_batch(3).*qnet(7)' &&
        grep '^ *qnet_send(qnet_conn \*conn, const void \*frame, size_t len);$' "$work/page"
}

# The README's Concepts: every bold word of them.
explains_concepts()
{
    shown man7/qnet.7 >"$work/page" &&
        sed -n '/^## Concepts/,/^## [^C]/s/.*\*\*\([a-z]*\)\*\*.*/\1/p' README.md >"$work/words" &&
        [ "$(wc -l <"$work/words")" -ge 4 ] && while read -r word; do
            grep "$word (.\{0,2\}qnet_" "$work/page" || { echo "$word is not explained" && return 1; }
        done <"$work/words"
}

# A text's letters and digits, with programs and functions named as in the source.
letters()
{
    sed 's/^usage: //; s/qnet-//g; s/(3)/()/g' | tr -cd '[:alnum:]'
}

# All that a program's usage text says, and nothing else. Nothing else of the program is linked.
says_what_the_usage_says()
{
    while read -r program; do
        printf '#define main program\n#include "%s.c"\n#undef main\nint main(void) { return puts(usage) < 0; }\n' \
            "$program" >"$work/usage.c" &&
            "${CC:-cc}" -Iinclude -Iexamples -ffunction-sections -fdata-sections -Wl,--gc-sections -o "$work/usage" \
                "$work/usage.c" && "$work/usage" | letters >"$work/said" && shown "man1/qnet-$program.1" |
            sed -n '/^SYNOPSIS$/,/^SEE ALSO$/{/^[A-Z]/!p}' | letters | cmp - "$work/said" ||
            { echo "qnet-$program(1) differs from the usage text" && return 1; }
    done <packaging/programs
}

# Commands have the names of the installed programs, and nothing else that is called so does.
names_what_is_installed()
{
    for page in switch link tap_bridge; do
        shown "man1/qnet-$page.1" >"$work/page" && grep "^ *qnet-$page \[*[A-Z-]" "$work/page" &&
            grep "^  *qnet-$page [a-z0-9 ]*unix:/" "$work/page" || return 1
    done
    shown man1/qnet-lab.1 | grep '^ *switch s1 move'
}

if ! command -v python3 >/dev/null; then
    lack "${QNET_REQUIRE_PACKAGING:-0}" 'manual pages: no python3'
    finish
    exit
fi
try 'the pages are made' makes_them
try 'every function that is exported has a page' all_have_a_page
if command -v mandoc >/dev/null; then
    try 'mandoc finds no fault in the pages' mandoc_finds_no_fault
    try 'a page says which codes there are' says_which_codes
    try "a function's page has all sections" has_all_sections
    try 'qnet(7) explains the concepts' explains_concepts
    try "a program's page says what its usage text says" says_what_the_usage_says
    try 'commands are those that are installed' names_what_is_installed
else
    lack "${QNET_REQUIRE_PACKAGING:-0}" 'the pages are sound: no mandoc'
fi
finish
