#!/bin/sh
# install.sh TARGET - installs into an empty directory, and builds from there what a user would: the
# examples by pkg-config, dynamic and static, by CMake, and with -lqnet alone; a program with another
# static library made of Rust; a plugin. And that `cargo cinstall` makes the same tree.
# QNET_REQUIRE_CARGO_C=1 fails where that is missing.

cd "$(dirname "$0")/.." || exit 2
export CARGO_TARGET_DIR="$1"
CC=${CC:-cc}
passed=0 failed=0 skipped=0
scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root
examples='responder ping poll_loop switch link'

# One test: a name, and a command that passes or fails.
try() {
    name=$1
    shift
    if "$@" >"$scratch/said" 2>&1; then
        passed=$((passed + 1))
        echo "ok      $name"
    else
        failed=$((failed + 1))
        echo "FAILED  $name:"
        cat "$scratch/said"
    fi
}

skip() {
    skipped=$((skipped + 1))
    echo "skipped $1: no $2"
}

installs() {
    make && make install PREFIX=/usr DESTDIR="$root" &&
        (cd "$root/usr" && find . -type f -o -type l | sort) | diff "$scratch/tree" -
}

uninstalls() {
    make uninstall PREFIX=/usr DESTDIR="$root" && [ -z "$(find "$root" -type f -o -type l)" ]
}

# Builds the examples with the flags given, and asks one of them for help.
build() {
    for example in $examples; do
        # Flags are words.
        # shellcheck disable=SC2086
        "$CC" -std=c99 -Wall -Wextra -Wpedantic -Werror -o "$scratch/$example" "examples/$example.c" \
            $1 -pthread || return 1
    done
    LD_LIBRARY_PATH=$2 "$scratch/ping" --help | grep '^usage: '
}

flags() {
    PKG_CONFIG_PATH=$root/usr/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root \
        PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1 pkg-config "$@" qnet
}

by_pkg_config() {
    build "$(flags --cflags --libs)" "$root/usr/lib" && needs_libqnet
}

# What is linked with is the archive alone: there is no other library to be found.
by_pkg_config_static() {
    mkdir "$scratch/static" && cp "$root/usr/lib/libqnet.a" "$scratch/static" &&
        libs=$(flags --static --libs | sed "s|-L$root/usr/lib|-L$scratch/static|") &&
        build "$(flags --cflags) $libs" '' && ! needs_libqnet
}

by_hand() {
    build "-I$root/usr/include -L$root/usr/lib -lqnet" "$root/usr/lib" && needs_libqnet
}

needs_libqnet() {
    readelf -d "${1:-$scratch/ping}" | grep 'NEEDED.*\[libqnet\.so\.0\]'
}

by_cmake() {
    mkdir "$scratch/cmake" && cat >"$scratch/cmake/CMakeLists.txt" <<END &&
cmake_minimum_required(VERSION 3.16)
project(user C)
find_package(qnet 0.1 REQUIRED)
add_executable(dynamic $PWD/examples/ping.c)
target_link_libraries(dynamic qnet::qnet)
add_executable(static $PWD/examples/ping.c)
target_link_libraries(static qnet::static)
END
        cmake -S "$scratch/cmake" -B "$scratch/built" -DCMAKE_PREFIX_PATH="$root/usr" &&
        cmake --build "$scratch/built" && "$scratch/built/dynamic" --help &&
        "$scratch/built/static" --help
}

asks_cmake_for_another() {
    sed 's/qnet 0.1 /qnet 0.9 /' "$scratch/cmake/CMakeLists.txt" >"$scratch/CMakeLists.txt" &&
        ! cmake -S "$scratch" -B "$scratch/none" -DCMAKE_PREFIX_PATH="$root/usr"
}

beside_another() {
    cat >"$scratch/other.rs" <<'END' &&
#[unsafe(no_mangle)]
pub extern "C" fn other_sum(n: u64) -> u64 {
    std::panic::catch_unwind(|| (1..=n).collect::<Vec<_>>().iter().sum()).unwrap_or(0)
}
END
        cat >"$scratch/both.c" <<'END' &&
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
            -o "$scratch/libother.a" "$scratch/other.rs" &&
        both "$root/usr/lib/libqnet.a $scratch/libother.a" &&
        both "$scratch/libother.a $root/usr/lib/libqnet.a"
}

both() {
    # Two files are two words.
    # shellcheck disable=SC2086
    "$CC" -std=c99 -I"$root/usr/include" -o "$scratch/both" "$scratch/both.c" $1 -lpthread -ldl -lm &&
        "$scratch/both"
}

# A shared object with the static library in it.
in_a_plugin() {
    "$CC" -shared -fPIC -I"$root/usr/include" -o "$scratch/plugin.so" c-tests/dlopen/plugin.c \
        "$root/usr/lib/libqnet.a" -lm && ! needs_libqnet "$scratch/plugin.so"
}

by_cargo() {
    cargo cinstall --release --locked --prefix=/usr --libdir=/usr/lib --destdir="$scratch/cargo" &&
        (cd "$scratch/cargo/usr" && find . -type f -o -type l | sort) | diff "$scratch/tree" - &&
        for same in include share; do
            diff -r "$root/usr/$same" "$scratch/cargo/usr/$same" || return 1
        done &&
        flags --modversion --libs --cflags --static >"$scratch/by-make" &&
        root=$scratch/cargo flags --modversion --libs --cflags --static |
        sed "s|$scratch/cargo|$root|g" | diff "$scratch/by-make" - &&
        readelf -d "$scratch/cargo/usr/lib/libqnet.so" | grep 'SONAME.*\[libqnet\.so\.0\]' &&
        nm -D "$scratch/cargo/usr/lib/libqnet.so" | grep ' qnet_dial@@QNET_0$'
}

cat >"$scratch/tree" <<'END'
./include/qnet.h
./include/qnet.hpp
./lib/libqnet.a
./lib/libqnet.so
./lib/libqnet.so.0
./lib/libqnet.so.0.1.0
./lib/pkgconfig/qnet.pc
./share/cmake/qnet/qnetConfig.cmake
./share/cmake/qnet/qnetConfigVersion.cmake
END

try 'make install makes the whole tree' installs
if command -v pkg-config >/dev/null; then
    try 'the examples build by pkg-config' by_pkg_config
    try 'the examples build by pkg-config --static' by_pkg_config_static
else
    skip 'the examples build by pkg-config' pkg-config
fi
try 'the examples build with -lqnet' by_hand
if command -v cmake >/dev/null; then
    try 'the examples build by CMake' by_cmake
    try 'CMake is told of the version' asks_cmake_for_another
else
    skip 'the examples build by CMake' cmake
fi
try 'libqnet.a links beside another static library of Rust' beside_another
try 'libqnet.a links into a plugin' in_a_plugin
if cargo cinstall --version >/dev/null 2>&1; then
    try 'cargo cinstall makes the same tree' by_cargo
elif [ "$QNET_REQUIRE_CARGO_C" ]; then
    try 'cargo cinstall makes the same tree' false
else
    skip 'cargo cinstall makes the same tree' cargo-c
fi
try 'make uninstall leaves nothing' uninstalls

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
