#!/bin/sh
# abi.sh libqnet.so - checks that programs compiled against what is released run on the shared library:
# what the header declares, and what has changed since each release in abi/. See linkers.sh for what it exports.
#
# abi.sh libqnet.so --programs - compiles all tests against the header of each release, and runs some of
# them on the shared library.
#
# abi.sh libqnet.so --write - writes abi/VERSION/ anew, for the version in Cargo.toml.
#
# A release is its header and libabigail's description of it. What is described is not the library
# itself, whose types are Rust's, but a stub: a library that is compiled from the header and has the types
# that C sees. Without abidiff the tests that compare them are skipped, or fail if QNET_REQUIRE_ABI=1.
set -u

library=$1
cd "$(dirname "$0")" || exit 2
. ./report.sh
abi=$(cd ../../abi && pwd)
# All test programs are compiled against a release, but only these quick ones are run as well.
quick='conn listener socket_file refusals info handle netdev tap cork uncork coalesce hub hub_ports hub_served hub_calls link link_end link_calls'
export LC_ALL=C

# Prints each declaration of a header on a line of its own.
declarations()  # header
{
    "${CC:-cc}" -std=c99 -E -P "$1" | tr '\n' ' ' | sed 's/[;}]/&\n/g'
}

declared()
{
    declarations ../../include/qnet.h | grep -v typedef | grep -o 'qnet_[a-z0-9_]* *(' | tr -d ' (' | sort
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

# Writes a stub: the functions that a header declares, with empty bodies; a variable of every enum, as no
# function takes one; and for each member of a struct an array as large as its offset, and one as large as
# itself, because abidiff does not notice how members change in a struct that may grow.
write_stub()    # header
{
    echo '#include "qnet.h"'
    declarations "$1" | awk '
        /enum qnet_[a-z_]* {/ { sub(".*enum ", ""); print "enum " $1 " enum_" $1 ";" }
        /typedef struct qnet_[a-z_]* {/ { struct = $3 }
        /}/ { struct = "" }
        struct {
            member = $NF
            sub("\\[.*", "", member)
            gsub("[^a-z0-9_]", "", member)
            print "char at_" struct "_" member "[offsetof(" struct ", " member ") + 1];"
            print "char size_" struct "_" member "[sizeof(((" struct " *)0)->" member ")];"
        }
        !/typedef/ && /qnet_[a-z0-9_]* *\(.*\);/ { sub(";", " { __builtin_trap(); }"); print }'
}

# Describes a header, with the versions of the symbols as abi/symbols lists them.
describe()      # header description
{
    write_stub "$1" >"$work/stub.c" &&
        "$abi/version-script" | sed 's/ local: \*;//' >"$work/stub.map" &&
        "${CC:-cc}" -std=c99 -g -fdebug-prefix-map="$work"=. -fPIC -shared -I"$(dirname "$1")" \
            -Wl,-soname,libqnet.so.0 -Wl,--version-script="$work/stub.map" -o "$work/libqnet.so.0" "$work/stub.c" &&
        abidw --no-corpus-path --no-comp-dir-path --no-show-locs --out-file "$2" "$work/libqnet.so.0"
}

# Additions are allowed: functions, constants and, at the end of a struct, what abi/suppressions permits.
keeps()         # release
{
    describe ../../include/qnet.h "$work/today.abi" &&
        abidiff --no-added-syms --suppressions "$abi/suppressions" \
            "$abi/$1/qnet.abi" "$work/today.abi"
}

# Compiles all tests against a release's header. Those that use what it does not declare may fail: the
# Makefile has the compiler stop at a program's first error, which has to name something of that kind.
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

# The tests, compiled against a release's header, stand for the programs of its users.
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
    try 'what the header declares is what abi/symbols lists' declares_what_is_listed
    try 'random.c calls what abi/symbols lists' plays_what_is_listed
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
