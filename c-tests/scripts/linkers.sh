#!/bin/sh
# linkers.sh TARGET PROGRAM - links the shared library as `make` does, by each linker that Debian has, and
# checks what it exports and what its dynamic section says; then the same of the one that cargo builds, which
# has versions only if its linker is lld. The program is that of turns.c: it has to run on each of them. The
# first one, stripped, has to have at most as many bytes as docs/decisions.md says.
# A linker that is not installed is skipped, or fails if QNET_REQUIRE_LINKERS=1.

cd "$(dirname "$0")" || exit 2
. ./report.sh
cd ../.. || exit 2
export CARGO_TARGET_DIR="$1" MAKEFLAGS='' LC_ALL=C
program=$2
largest=1350000

# Functions and data as name@@version; the version nodes themselves (A) are left out.
exported()
{
    nm -D --defined-only "$1" | awk '$2 != "A" { print $3 }' | sort
}

says()      # library
{
    readelf -d "$1" >"$work/dynamic" && grep 'SONAME.*\[libqnet\.so\.0\]' "$work/dynamic" &&
        grep 'FLAGS_1.*NODELETE' "$work/dynamic"
}

runs()      # directory
{
    LD_LIBRARY_PATH=$1 ldd "$program" | grep -F "$1/libqnet.so.0" || return 1
    for way in pull handler hub; do
        LD_LIBRARY_PATH=$1 "$program" "$way" 10 || return 1
    done
}

# Into a directory of its own: other tests use what `make` has put into the usual one.
into()      # name [make's arguments]
{
    directory=$work/$1
    shift
    mkdir "$directory" &&
        make STATIC="$work/libqnet.a" PRIVATE="$work/private" MAN="$work/man" \
            SHARED="$directory/libqnet.so" "$@"
}

links()     # linker
{
    { [ -e "$work/private" ] || into default; } && into "$1" shared LDFLAGS="-fuse-ld=$1" && is_right "$1"
}

is_right()  # name
{
    library=$work/$1/libqnet.so
    exported "$library" | diff abi/symbols - && says "$library" && runs "$work/$1"
}

links_by_default()
{
    into default && is_right default
}

is_small()  # name
{
    strip -o "$work/stripped" "$work/$1/libqnet.so" && bytes=$(wc -c <"$work/stripped") &&
        echo "$bytes bytes" && [ "$bytes" -le "$largest" ]
}

is_right_by_cargo()
{
    exported "$1" | sed 's/@.*//' >"$work/names" && sed 's/@.*//' abi/symbols | diff - "$work/names" && says "$1"
}

try 'the library, linked as it comes' links_by_default
small="the library, stripped, has at most $largest bytes"
case $("${RUSTC:-rustc}" --version) in
'rustc 1.8'*) lack 0 "$small: with a Rust before 1.90 it has more" ;;
*) try "$small" is_small default ;;
esac
for linker in bfd gold lld mold; do
    if command -v "ld.$linker" >/dev/null; then
        try "the library, linked by $linker" links "$linker"
    else
        lack "${QNET_REQUIRE_LINKERS:-0}" "the library, linked by $linker: no ld.$linker"
    fi
done
try 'the library that cargo builds' is_right_by_cargo "$1/release/libqnet.so"
finish
