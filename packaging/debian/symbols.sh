#!/bin/sh
# symbols.sh - prints the symbols file of libqnet0, made from abi/symbols: with each symbol the first
# release whose header declares it, and until there is one the version that is being made.
set -eu

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

echo 'libqnet.so.0 libqnet0 #MINVER#'
# Some linkers make a symbol of each version's name.
first=$(basename "$(ls -dv abi/[0-9]* | head -n 1)")
sed "s/.*@@\(.*\)/ (optional)\1@\1 $first/" abi/symbols | sort -u
sed 's/@@/ /' abi/symbols | while read -r name node; do
    since=$(grep -l "\b$name(" abi/*/qnet.h | sed 's|abi/\(.*\)/qnet.h|\1|' | sort -V | head -n 1)
    echo " $name@$node ${since:-$version}"
done
