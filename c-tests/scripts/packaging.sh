#!/bin/sh
# packaging.sh TARGET - makes the tarball and builds it where there is no network; makes the Debian
# packages of it, has lintian look at them, installs them into an empty directory, and builds and runs
# programs there. Without debhelper and lintian the packages are skipped, or fail if
# QNET_REQUIRE_PACKAGING=1.

cd "$(dirname "$0")" || exit 2
. ./report.sh
cd ../.. || exit 2
export CARGO_TARGET_DIR="$1"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
tree=$work/libqnet-$version
root=$work/root
libraries=$root/usr/lib/x86_64-linux-gnu
manuals=$root/usr/share/man

# Runs a command where nothing but this machine can be reached, and nothing that cargo has downloaded.
offline()   # command...
{
    set -- env -u CARGO_TARGET_DIR "$@"
    [ "$(id -u)" -eq 0 ] || set -- --map-root-user "$@"
    RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup} CARGO_HOME=$work/cargo unshare --net "$@"
}

makes_a_tarball()
{
    make dist && tar -xf "$1/libqnet-$version.tar.xz" -C "$work" && [ -f "$tree/Cargo.toml" ]
}

# Everything that git knows is in it as it is here, and nothing else but the crates.
has_all_files()
{
    git ls-files | sort >"$work/known" &&
        (cd "$tree" && find . -type f -o -type l) | sed 's|^\./||' |
        grep -v '^vendor/\|^\.cargo/config.toml$\|^target/' | sort | diff "$work/known" - &&
        while read -r file; do cmp "$file" "$tree/$file" || return 1; done <"$work/known"
}

# What names the version, and what a release consists of.
names_the_version()
{
    grep "^Version $version:" README.md && grep "/libqnet-$version.tar.xz" README.md &&
        grep "^## \[$version\] - " CHANGELOG.md && [ -f "abi/$version/qnet.abi" ] &&
        sed 1q packaging/debian/changelog | grep "($version-1)"
}

# dpkg-buildpackage would clean the tree first. Here that is done before the one build that there is.
builds_offline()
{
    mkdir -p "$work/cargo" && cp -r "$tree/packaging/debian" "$tree/" &&
        (cd "$tree" && { ! command -v dh || debian/rules clean; } && offline make) &&
        [ -f "$tree/target/release/libqnet.so" ]
}

makes_packages()
{
    cp -r "$tree/packaging/debian" "$tree/" && (cd "$tree" && dpkg-buildpackage -us -uc -b -nc) &&
        for package in libqnet0 libqnet-dev libqnet-tools; do
            [ -f "$work/${package}_$version-1_amd64.deb" ] || return 1
        done
}

# root may run lintian in CI.
lintian_finds_no_error()
{
    lintian --allow-root --fail-on error "$work"/*.changes
}

# What dpkg knows of the symbols, from the package: all of them, each with a version that exists.
lists_the_symbols()
{
    dpkg -e "$work/libqnet0_$version-1_amd64.deb" "$work/control" &&
        sed 's/@@/@/' abi/symbols | sort >"$work/listed" &&
        sed -n 's/^ \(qnet_[^ ]*\) [0-9.]*$/\1/p' "$work/control/symbols" | sort | diff "$work/listed" -
}

installs()
{
    mkdir -p "$root/var/lib/dpkg" && touch "$root/var/lib/dpkg/status" "$root/var/lib/dpkg/available" &&
        PATH=$PATH:/sbin:/usr/sbin dpkg --root="$root" --log="$work/dpkg.log" --force-not-root --force-depends \
            -i "$work"/*.deb || return 1
    for file in "$libraries/libqnet.so.0" "$libraries/libqnet.a" "$manuals/man3/qnet_send.3.gz" \
        "$manuals/man7/qnet.7.gz"; do
        [ -e "$file" ] || { echo "no $file" && return 1; }
    done
}

programs_have_pages()
{
    while read -r program; do
        [ -x "$root/usr/bin/qnet-$program" ] && [ -f "$manuals/man1/qnet-$program.1.gz" ] ||
            { echo "qnet-$program is missing" && return 1; }
    done <packaging/programs
}

# A program of the examples is built by what the packages have, and answers a program of the packages.
programs_run()
{
    flags=$(PKG_CONFIG_LIBDIR=$libraries/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 \
        PKG_CONFIG_ALLOW_SYSTEM_LIBS=1 pkg-config --cflags --libs qnet) || return 1
    # The flags are split into words on purpose.
    # shellcheck disable=SC2086
    "${CC:-cc}" -std=c99 -o "$work/responder" examples/responder.c $flags -pthread &&
        readelf -d "$work/responder" | grep 'NEEDED.*\[libqnet\.so\.0\]' || return 1
    LD_LIBRARY_PATH=$libraries pinged "$work/responder" "$root/usr/bin/qnet-ping"
}

if [ ! -e .git ]; then
    report skipped 'the tarball: this tree is not a git repository'
    finish
    exit
fi
try 'make dist makes a tarball' makes_a_tarball "$1"
try 'the tarball has all files' has_all_files
try 'all texts name the version' names_the_version
if unshare --net true 2>/dev/null || unshare --map-root-user --net true 2>/dev/null; then
    try 'the tarball builds without a network' builds_offline
else
    report skipped 'the tarball builds without a network: no right to make a network namespace'
fi
if command -v dh >/dev/null && command -v lintian >/dev/null; then
    try 'the tree makes Debian packages' makes_packages
    try 'lintian finds no error in the packages' lintian_finds_no_error
    try 'the package of the library lists the symbols' lists_the_symbols
    try 'dpkg installs the packages' installs
    try 'the programs of the packages have manual pages' programs_have_pages
    try 'programs build and run with the packages' programs_run
else
    lack "${QNET_REQUIRE_PACKAGING:-0}" 'Debian packages: no debhelper or lintian'
fi
finish
