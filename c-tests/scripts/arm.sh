#!/bin/sh
# arm.sh TARGET [program...] - builds the library and test programs for 64-bit Arm, and runs them under qemu-user:
# the programs that are named, or those below. Without a cross compiler, Rust's standard library for Arm, or
# qemu-user of version 8 or later (the first that wipes memory on fork), all of it is skipped, or fails if
# QNET_REQUIRE_ARM=1. ARM_CC and QNET_QEMU_ARM name the compiler and qemu-aarch64. QEMU_LD_PREFIX is where the C
# library for Arm is.

cd "$(dirname "$0")" || exit 2
. ./report.sh
cd .. || exit 2
triple=aarch64-unknown-linux-gnu
cc=${ARM_CC:-aarch64-linux-gnu-gcc}
qemu=${QNET_QEMU_ARM:-qemu-aarch64}
target=$1
shift

# What qemu-user can do. It does not know options of UDP sockets and packet sockets that the library or the
# tests set (SO_MEMINFO, PACKET_IGNORE_OUTGOING), ignores RLIMIT_AS, blocks no signals that it needs itself, and may
# hang in a fork beside busy threads. Tests that measure memory or take minutes are left out as well.
programs='conn cred info listener refusals seqpacket socket_file
    jam parts paths send turns uncork at_hand batch handlers poll receive runs
    end inside linger race waiting redial state
    clock hub hub_calls hub_ports link link_calls link_end loops pairs port_crowd port_options ring table vlans
    impair_calls impaired_end impaired_hub impaired_link on_time pulled
    capture_files capture_readers captured dlopen fork handle idle signals files'
# Of these, the tests of Unix datagrams alone, but all of them, since a sample may have none.
partly='absent dgram impaired_messages messages ports remote'

# Prints what is missing.
missing()
{
    command -v "$cc" >/dev/null || echo "no $cc"
    ls "$(rustc --print target-libdir --target $triple)"/libstd-*.rlib >/dev/null 2>&1 ||
        echo "no standard library of Rust for $triple"
    case $("$qemu" --version 2>/dev/null) in
    '') echo "no $qemu" ;;
    *' version '[1-7].*) echo "$qemu is older than version 8" ;;
    esac
}

why=$(missing | paste -sd ';' | sed 's/;/, /g')
if [ "$why" ]; then
    lack "${QNET_REQUIRE_ARM:-0}" "64-bit Arm: $why"
    finish
    exit
fi

[ $# -eq 0 ] || programs=$* partly=
build=$target/c-tests-arm
export CARGO_BUILD_TARGET=$triple CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="$cc" CARGO_TARGET_DIR="$target"
# The lists are split into words on purpose.
# shellcheck disable=SC2086
"${MAKE:-make}" programs TESTS="$(echo $programs $partly)" CC="$cc" BUILD="$build" \
    LIBRARY="$target/$triple/release/libqnet.so" >"$work/log" 2>&1 || {
    cat "$work/log"
    exit 1
}

set --
for program in $programs; do
    set -- "$@" "$qemu $build/$program"
done
for program in $partly; do
    set -- "$@" "env CHECK_ONLY=unixgram CHECK_SAMPLE=1 $qemu $build/$program"
done
QEMU_LD_PREFIX=${QEMU_LD_PREFIX:-/usr/aarch64-linux-gnu} CHECK_SLOW=${CHECK_SLOW:-4} CHECK_SAMPLE=${CHECK_SAMPLE:-8} \
    CHECK_EMULATED=1 scripts/run.sh "$@"
