#!/bin/sh
# readme.sh TARGET - runs every code block of the README as it is written. Commands that would take too
# long here must be steps of .ci/run instead.
#
# Blocks that use paths in /tmp or ports are run in namespaces of their own (see blocks.sh). They need
# QEMU, and root or user namespaces; otherwise they are skipped, or fail if QNET_REQUIRE_QEMU=1 or
# QNET_REQUIRE_HOSTS=1.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
target=$1
slow=${CHECK_SLOW:-1}
. "$root/c-tests/scripts/sandbox.sh"
. "$root/c-tests/scripts/blocks.sh"
tests='readme_program_prints readme_machines_join readme_user_network_answers readme_link_cables'

# ---- Inside the namespaces ----

# The machine's firmware asks for an address, and the program prints who asks.
readme_program_prints()
{
    begin vm 1 && machine=$! && await test -S /tmp/vm.sock || return 1
    stdbuf -oL program >said 2>ended &
    program=$!
    await grep '^[0-9]* bytes from 52:54:00:12:34:56$' said || return 1
    kill "$machine"
    wait "$program" && grep . ended
}

# The switch, which runs on a terminal, counts both machines.
readme_machines_join()
{
    command_of network 1 >switch && ! command_of network 4 | grep . &&
        script -qfc 'sh -ux switch' counts >log 2>&1 </dev/zero &
    await test -S /tmp/sw.sock && begin network 2 && begin network 3 &&
        await grep '2 ports, 2 devices' counts
}

readme_user_network_answers()
{
    begin router 1 && await ping -c 1 -W 10 -I 10.0.2.77 unix /tmp/sw.sock 10.0.2.2
}

readme_link_cables()
{
    responder unix /tmp/a.sock 10.0.0.1 >log &
    switch tcp:127.0.0.1:7001 >log &
    await test -S /tmp/a.sock || return 1
    sh -ux link &
    await ping -c 1 tcp 127.0.0.1:7001 10.0.0.1
}

inside()
{
    enter || return 1
    for name in $tests; do
        if "$name" >"$name.log" 2>&1; then
            echo "ok      $name"
        else
            echo "FAILED  $name"
            tail -n 20 "$name.log" ./*.log said ended counts >&2
        fi
    done
}

if [ "$target" = inside ]; then
    inside
    exit
fi

# ---- Outside ----

. "$root/c-tests/scripts/report.sh"
cd "$root" || exit 2
tmp=$work/tmp
mkdir -p "$tmp/bin" "$work/home" "$work/user"
export CARGO_TARGET_DIR="$target"

# Checks that every command of a block is a step of .ci/run, where check-all includes check.
steps_of_ci()   # block
{
    sed 's/ *#.*//' "$1" | while read -r command; do
        grep -q "^step '.*' $command\(-all\)\?\$" .ci/run || { echo "not in .ci/run: $command" && exit 1; }
    done
}

examples_run()
{
    take 'make -C examples run ' "$work/first" && steps_of_ci "$work/first"
}

program_compiles()
{
    take 'int main(void)' "$work/user/program.c" && compile "$work/user/program.c" "$tmp/bin/program"
}

program_in_cpp_compiles()
{
    take 'qnet.hpp' "$work/user/program.cc" && "${CXX:-g++}" -std=c++17 -Wall -Wextra -Wpedantic -Werror \
        -Iinclude -o "$work/user/cpp" "$work/user/program.cc" -L"$target/release" -lqnet
}

# Installs as a user with another home directory, with the Rust tools of the present one.
installs()
{
    take 'make install ' "$work/install" &&
        CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup} \
            HOME=$work/home sh -eux "$work/install" && [ -e "$work/home/.local/lib/libqnet.so.0" ]
}

# A program must link, and one that needs the shared library must find it when it starts, too.
links()
(
    take 'cc program.c -lqnet' "$work/user/commands" && cd "$work/user" || return 1
    HOME=$work/home && . "$work/environment" || return 1
    number=0
    for needed in 'libqnet.so.0 libc.so.6' 'libqnet.so.0 libc.so.6' libc.so.6 ''; do
        number=$((number + 1))
        command_of commands $number >command && rm -f a.out &&
            sh -eux ./command || return 1
        needs=$(readelf -d a.out | sed -n 's/.*(NEEDED).*\[\(lib[qc].*\)\]/\1/p' | xargs)
        echo "needs $needs" && [ "$needs" = "$needed" ] || return 1
        case $needs in *libqnet*) ldd a.out | grep "=> $HOME/.local/lib/libqnet" || return 1 ;; esac
    done
    ! command_of commands 5 | grep .
)

found_by_cmake()
(
    mkdir "$work/cmake" && cd "$work/cmake" && HOME=$work/home && . "$work/environment" || return 1
    printf 'cmake_minimum_required(VERSION 3.13)\nproject(user C)\nfind_package(qnet REQUIRED)\n' \
        >CMakeLists.txt && cmake . && grep "qnet_DIR:PATH=$HOME/.local/" CMakeCache.txt
)

# Measures one row of the benchmark, and draws it in a copy of the tree.
measures()
(
    take 'make -C c-tests bench-plot' "$work/bench" && mkdir "$work/tree" "$work/target" &&
        cp -r Makefile Cargo.toml c-tests "$work/tree" &&
        command_of "$work/bench" 1 >"$work/measure" && ROUNDS=1 ROWS="$row" sh -eux "$work/measure" &&
        cp "$target/bench-part.json" "$work/target/bench.json" &&
        command_of "$work/bench" 2 >"$work/draw" && cd "$work/tree" &&
        CARGO_TARGET_DIR=$work/target sh -eux "$work/draw" && grep '</svg>' docs/speed.svg &&
        ! command_of "$work/bench" 3 | grep .
)

[ "${DRY_RUN:-}" ] || split_blocks README.md
row='send to batch handler 1514'
try 'CI runs what the README runs first' examples_run
try "the README's program compiles" program_compiles
try "the README's program in C++ compiles" program_in_cpp_compiles
try "the README's programs come first" comes_first_in_path
try 'it installs as the README says' installs
[ "${DRY_RUN:-}" ] || take 'CMAKE_PREFIX_PATH' "$work/environment"
if command -v pkg-config >/dev/null; then
    try 'programs link as the README says' links
else
    report skipped 'programs link as the README says: no pkg-config'
fi
if command -v cmake >/dev/null; then
    try 'CMake finds it as the README says' found_by_cmake
else
    report skipped 'CMake finds it as the README says: no cmake'
fi
try 'it is measured as the README says' measures

if [ ! "${DRY_RUN:-}" ]; then
    take '/tmp/vm.sock' "$tmp/vm"
    take 'switch unix:' "$tmp/network"
    take 'netdev user' "$tmp/router"
    grep -o '`link [^`]*`' README.md | tr -d '`' >"$tmp/link"
fi
try 'every block of the README is run' all_are_taken

command -v qemu-system-x86_64 >/dev/null ||
    cannot "${QNET_REQUIRE_QEMU:-0}" 'no QEMU (apt-get install qemu-system-x86)'
need_namespaces "${QNET_REQUIRE_HOSTS:-0}"
[ ! "${DRY_RUN:-}" ] || exit 0
furnish responder ping switch link || conclude FAILED
sandbox "$root/c-tests/scripts/readme.sh" inside >"$work/results"
conclude FAILED
