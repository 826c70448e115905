#!/bin/sh
# install.sh TARGET - installs into an empty directory, and builds from there what a user would: the
# examples with pkg-config and with CMake (with the shared library, with libqnet.a, and with no shared
# library at all), and with -lqnet alone; a program with another static library made of Rust; a plugin.
# Checks that `cargo cinstall` makes the same tree, but for the manual pages, which cargo does not make.
# Without cargo-c that is skipped, or fails if QNET_REQUIRE_CARGO_C=1.

cd "$(dirname "$0")" || exit 2
. ./report.sh
cd ../.. || exit 2
export CARGO_TARGET_DIR="$1"
CC=${CC:-cc}
root=$work/root
examples='responder ping poll_loop switch link'

installs() {    # target
    make && make install PREFIX=/usr DESTDIR="$root" && manual_pages "$1" >"$work/pages" &&
        sort "$work/tree" "$work/pages" >"$work/tree-and-pages" &&
        (cd "$root/usr" && find . -type f -o -type l | sort) | diff "$work/tree-and-pages" -
}

# Lists the manual pages to be installed, which are none where nothing can make them.
manual_pages() {    # target
    ! command -v python3 >/dev/null ||
        (cd "$1/man" && [ -f man7/qnet.7 ] && find man3 man7 -type f | sed 's|^|./share/man/|')
}

uninstalls() {
    make uninstall PREFIX=/usr DESTDIR="$root" && [ -z "$(find "$root" -type f -o -type l)" ]
}

# Builds the examples with the flags given, and runs two of them.
build() {
    for example in $examples; do
        # The flags are split into words on purpose.
        # shellcheck disable=SC2086
        "$CC" -std=c99 -Wall -Wextra -Wpedantic -Werror -o "$work/$example" "examples/$example.c" \
            $1 -pthread || return 1
    done
    LD_LIBRARY_PATH=$2 pinged "$work/responder" "$work/ping"
}

flags() {
    PKG_CONFIG_PATH=$root/usr/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root \
        PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1 pkg-config "$@" qnet
}

by_pkg_config() {
    build "$(flags --cflags --libs)" "$root/usr/lib" && needs_libqnet
}

# The linker would prefer the shared library: the README says how to choose libqnet.a.
with_the_archive() {
    build "$(flags --cflags --libs --static | sed 's/-lqnet/-l:libqnet.a/')" '' &&
        has_it_inside "$work/ping"
}

with_nothing_shared() {
    build "-static $(flags --cflags --libs --static)" '' && has_nothing_shared "$work/ping"
}

has_it_inside() {
    readelf -d "$1" | grep 'NEEDED.*\[libc\.so\.6\]' && ! needs_libqnet "$1"
}

has_nothing_shared() {
    ! readelf -d "$1" | grep NEEDED && ! readelf -l "$1" | grep INTERP
}

by_hand() {
    build "-I$root/usr/include -L$root/usr/lib -lqnet" "$root/usr/lib" && needs_libqnet
}

needs_libqnet() {
    readelf -d "${1:-$work/ping}" | grep 'NEEDED.*\[libqnet\.so\.0\]'
}

by_cmake() {
    mkdir "$work/cmake" && cat >"$work/cmake/CMakeLists.txt" <<END &&
cmake_minimum_required(VERSION 3.16)
project(user C)
find_package(qnet ${version%.*} REQUIRED)
add_executable(responder $PWD/examples/responder.c)
target_link_libraries(responder qnet::qnet)
add_executable(dynamic $PWD/examples/ping.c)
target_link_libraries(dynamic qnet::qnet)
add_executable(inside $PWD/examples/ping.c)
target_link_libraries(inside qnet::static)
add_executable(static $PWD/examples/ping.c)
target_link_libraries(static qnet::static)
target_link_options(static PRIVATE -static)
END
        cmake -S "$work/cmake" -B "$work/built" -DCMAKE_PREFIX_PATH="$root/usr" &&
        cmake --build "$work/built" || return 1
    for program in dynamic inside static; do
        pinged "$work/built/responder" "$work/built/$program" || return 1
    done
    needs_libqnet "$work/built/dynamic" && has_it_inside "$work/built/inside" &&
        has_nothing_shared "$work/built/static"
}

asks_cmake_for_another() {
    sed 's/qnet [0-9.]* /qnet 0.9 /' "$work/cmake/CMakeLists.txt" >"$work/CMakeLists.txt" &&
        ! cmake -S "$work" -B "$work/none" -DCMAKE_PREFIX_PATH="$root/usr"
}

beside_another() {
    cat >"$work/other.rs" <<'END' &&
#[unsafe(no_mangle)]
pub extern "C" fn other_sum(n: u64) -> u64 {
    std::panic::catch_unwind(|| (1..=n).collect::<Vec<_>>().iter().sum()).unwrap_or(0)
}
END
        cat >"$work/both.c" <<'END' &&
#include <qnet.h>

uint64_t other_sum(uint64_t n);

int main(void)
{
    uint8_t frame[64] = { 0 };
    qnet_conn *a, *b;
    int result = 1;

    if (qnet_socketpair(&a, &b) != QNET_OK)
        return 1;
    if (qnet_send(a, frame, sizeof frame) == QNET_OK && qnet_recv(b, frame, sizeof frame, -1) == 64)
        result = other_sum(10) != 55;
    return qnet_close(a) != QNET_OK || qnet_close(b) != QNET_OK || result;
}
END
        rustc --edition 2024 --crate-type staticlib -Clto=fat -Copt-level=2 \
            -o "$work/libother.a" "$work/other.rs" &&
        both "$root/usr/lib/libqnet.a $work/libother.a" &&
        both "$work/libother.a $root/usr/lib/libqnet.a"
}

both() {
    # The two files are split into words on purpose.
    # shellcheck disable=SC2086
    "$CC" -std=c99 -I"$root/usr/include" -o "$work/both" "$work/both.c" $1 -lpthread -ldl -lm &&
        "$work/both"
}

# A shared object with the static library in it.
in_a_plugin() {
    "$CC" -shared -fPIC -I"$root/usr/include" -o "$work/plugin.so" c-tests/process/dlopen/plugin.c \
        "$root/usr/lib/libqnet.a" -lm && ! needs_libqnet "$work/plugin.so"
}

by_cargo() {
    cargo cinstall --release --locked --prefix=/usr --libdir=/usr/lib --destdir="$work/cargo" &&
        (cd "$work/cargo/usr" && find . -type f -o -type l | sort) | diff "$work/tree" - &&
        for same in include share/cmake; do
            diff -r "$root/usr/$same" "$work/cargo/usr/$same" || return 1
        done &&
        flags --modversion --libs --cflags --static >"$work/by-make" &&
        root=$work/cargo flags --modversion --libs --cflags --static |
        sed "s|$work/cargo|$root|g; s/-lgcc_s *//" | diff "$work/by-make" - &&
        readelf -d "$work/cargo/usr/lib/libqnet.so" | grep 'SONAME.*\[libqnet\.so\.0\]' &&
        nm -D "$work/cargo/usr/lib/libqnet.so" | grep ' qnet_dial@@QNET_0$'
}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
cat >"$work/tree" <<END
./include/qnet.h
./include/qnet.hpp
./lib/libqnet.a
./lib/libqnet.so
./lib/libqnet.so.0
./lib/libqnet.so.$version
./lib/pkgconfig/qnet.pc
./share/cmake/qnet/qnetConfig.cmake
./share/cmake/qnet/qnetConfigVersion.cmake
END
try 'make install makes the whole tree' installs "$CARGO_TARGET_DIR"
if command -v pkg-config >/dev/null; then
    try 'the examples build by pkg-config' by_pkg_config
    try 'the examples build by pkg-config, with libqnet.a inside' with_the_archive
    try 'the examples build by pkg-config, with nothing shared' with_nothing_shared
else
    report skipped 'the examples build by pkg-config: no pkg-config'
fi
try 'the examples build with -lqnet' by_hand
if command -v cmake >/dev/null; then
    try 'the examples build by CMake' by_cmake
    try 'CMake is told of the version' asks_cmake_for_another
else
    report skipped 'the examples build by CMake: no cmake'
fi
try 'libqnet.a links beside another static library of Rust' beside_another
try 'libqnet.a links into a plugin' in_a_plugin
if cargo cinstall --version >/dev/null 2>&1; then
    try 'cargo cinstall makes the same tree' by_cargo
else
    lack "${QNET_REQUIRE_CARGO_C:-0}" 'cargo cinstall makes the same tree: no cargo-c'
fi
try 'make uninstall leaves nothing' uninstalls

finish
