#!/bin/sh
# abi.sh libqnet.so - checks that programs compiled against what is released run on the shared library:
# what it exports, what its dynamic section says, and what has changed since each release in abi/.
#
# abi.sh libqnet.so --programs - and the tests themselves: all of them are compiled against the header of
# each release, and some of them run.
#
# abi.sh libqnet.so --write - writes abi/VERSION/ anew, of the version in Cargo.toml.
#
# A release is its header and what libabigail makes of it. That is a description not of the library
# itself, whose types are Rust's, but of a stub: a library compiled from the header, with what C sees.
# Without abidiff those tests are skipped, or fail if QNET_REQUIRE_ABI=1.
set -u

library=$1
cd "$(dirname "$0")" || exit 2
. ./report.sh
abi=$(cd ../../abi && pwd)
# Programs that are compiled against a release are many, those that are run as well are quick ones.
quick='conn listener socket_file refusals info handle netdev tap cork uncork coalesce hub hub_ports hub_served hub_calls link link_end link_calls'
export LC_ALL=C

# Functions and data as name@@version; the version nodes themselves (A) are left out.
exported()
{
    nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | sort
}

# Each declaration of a header in a line of its own.
declarations()  # header
{
    "${CC:-cc}" -std=c99 -E -P "$1" | tr '\n' ' ' | sed 's/[;}]/&\n/g'
}

declared()
{
    declarations ../../include/qnet.h | grep -v typedef | grep -o 'qnet_[a-z0-9_]* *(' | tr -d ' (' | sort
}

exports_what_is_listed()
{
    exported | diff "$abi/symbols" -
}

declares_what_is_listed()
{
    declared >"$work/declared" && sed 's/@.*//' "$abi/symbols" | sort | diff - "$work/declared"
}

plays_what_is_listed()
{
    sed -n 's/^ *PLAY(\([a-z_]*\), .*/qnet_\1/p' ../hostile/random.c | sort -u >"$work/played" &&
        sed 's/@.*//' "$abi/symbols" | sort | diff - "$work/played"
}

dynamic_section_has()   # line
{
    readelf -d "$library" | grep "$1"
}

# The functions that a header declares, without their work; a variable of every enum, as no function
# takes one; and one as large as every member's offset, for abidiff does not see members change places
# where a struct may grow.
write_stub()    # header
{
    echo '#include "qnet.h"'
    declarations "$1" | awk '
        /enum qnet_[a-z_]* {/ { sub(".*enum ", ""); print "enum " $1 " enum_" $1 ";" }
        /typedef struct qnet_[a-z_]* {/ { struct = $3 }
        /}/ { struct = "" }
        struct {
            member = $NF
            gsub("[^a-z0-9_]", "", member)
            print "char at_" struct "_" member "[offsetof(" struct ", " member ") + 1];"
        }
        !/typedef/ && /qnet_[a-z0-9_]* *\(.*\);/ { sub(";", " { __builtin_trap(); }"); print }'
}

# Describes a header, with the symbols' versions as they are listed.
describe()      # header description
{
    write_stub "$1" >"$work/stub.c" &&
        sed 's/\(.*\)@@\(.*\)/\2 { \1; };/' "$abi/symbols" |
        awk '{ nodes[$1] = nodes[$1] " " $3 } END { for (n in nodes) print n " {" nodes[n] " };" }' \
            >"$work/stub.map" &&
        "${CC:-cc}" -std=c99 -g -fdebug-prefix-map="$work"=. -fPIC -shared -I"$(dirname "$1")" \
            -Wl,-soname,libqnet.so.0 -Wl,--version-script="$work/stub.map" -o "$work/libqnet.so.0" "$work/stub.c" &&
        abidw --no-corpus-path --no-comp-dir-path --no-show-locs --out-file "$2" "$work/libqnet.so.0"
}

# Additions are no change, be they functions, constants or, at a struct's end, what abi/suppressions says.
keeps()         # release
{
    describe ../../include/qnet.h "$work/today.abi" &&
        abidiff --no-added-syms --suppressions "$abi/suppressions" \
            "$abi/$1/qnet.abi" "$work/today.abi"
}

# Compiles all tests against a release's header, but for those that use what it had not yet.
compile()       # release
{
    MAKEFLAGS='' make -C .. --no-print-directory -k programs RELEASE="$1" >"$work/make" 2>&1
    status=$?
    cat "$work/make"
    [ "$status" -eq 0 ] && return
    sed -n "s/.*\.[ch]:[0-9:]* error: [^']*'\([A-Za-z_0-9]*\)'.*/\1/p" "$work/make" | sort -u >"$work/unknown"
    grep . "$work/unknown" && ! declarations "$abi/$1/qnet.h" | grep -w -f "$work/unknown"
}

if [ "${2:-}" = --write ]; then
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' ../../Cargo.toml | head -n 1)
    mkdir -p "$abi/$version" && cp ../../include/qnet.h "$abi/$version/" &&
        describe "$abi/$version/qnet.h" "$abi/$version/qnet.abi"
    exit
fi

# What a release's programs are: the tests, compiled against its header.
try_programs()  # release
{
    built=$(dirname "$library")/../c-tests-$1
    try "the tests compile with the header of $1" compile "$1"
    for test in $quick; do
        if [ "${DRY_RUN:-}" ]; then
            continue
        elif [ -e "$built/$test" ]; then
            try "$test with the header of $1" ./run.sh "$built/$test"
        else
            report skipped "$test with the header of $1: it uses what is newer"
        fi
    done
}

try_symbols()
{
    try 'what is exported is what abi/symbols lists' exports_what_is_listed
    try 'what the header declares is what abi/symbols lists' declares_what_is_listed
    try 'random.c calls what abi/symbols lists' plays_what_is_listed
    try 'the soname is libqnet.so.0' dynamic_section_has 'SONAME.*\[libqnet\.so\.0\]'
    try 'the library is never unloaded' dynamic_section_has 'FLAGS_1.*NODELETE'
}

[ "${2:-}" = --programs ] || try_symbols
for directory in "$abi"/*/; do
    release=$(basename "$directory")
    if [ "${2:-}" = --programs ]; then
        try_programs "$release"
    elif command -v abidiff >/dev/null; then
        try "what $release has is as it was" keeps "$release"
    else
        lack "${QNET_REQUIRE_ABI:-0}" "what $release has is as it was: no abidiff (apt-get install abigail-tools)"
    fi
done
finish
