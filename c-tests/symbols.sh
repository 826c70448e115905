#!/bin/sh
# symbols.sh libqnet.so - checks what the shared library exports and what its dynamic section says.

library=$1
cd "$(dirname "$0")" || exit 2
passed=0 failed=0

# Passes when the lines on standard input are none; else shows them.
none() {
    if lines=$(grep .); then
        failed=$((failed + 1))
        printf 'FAILED  %s:\n%s\n' "$1" "$lines"
    else
        passed=$((passed + 1))
        echo "ok      $1"
    fi
}

# Passes when standard input has a line with such a text.
has() {
    if grep -q "$2"; then
        none "$1" </dev/null
    else
        echo "no such line: $2" | none "$1"
    fi
}

# Exported functions and data as name@@version; the version nodes themselves (A) are left out.
exported=$(nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | sort)
declared=$(echo '#include "qnet.h"' | ${CC:-cc} -std=c99 -I../include -E -P - |
    grep -o 'qnet_[a-z0-9_]* *(' | tr -d ' (' | sort -u)

scratch=$(mktemp -d) || exit 2
trap 'rm -r "$scratch"' EXIT
echo "$exported" | sed 's/@.*//' >"$scratch/exported"
echo "$declared" >"$scratch/declared"

grep -v '^qnet_' "$scratch/exported" >"$scratch/foreign"
none 'only qnet_* is exported' <"$scratch/foreign"
echo "$exported" | grep -v '@@QNET_0$' >"$scratch/unversioned"
none 'every symbol has the version QNET_0' <"$scratch/unversioned"
diff "$scratch/declared" "$scratch/exported" >"$scratch/difference"
none 'what the header declares is what is exported' <"$scratch/difference"
sed -n 's/^ *PLAY(\([a-z_]*\), .*/qnet_\1/p' random.c | sort -u | diff "$scratch/declared" - >"$scratch/unplayed"
none 'random.c calls what the header declares' <"$scratch/unplayed"
readelf -d "$library" >"$scratch/dynamic"
has 'the soname is libqnet.so.0' 'SONAME.*\[libqnet\.so\.0\]' <"$scratch/dynamic"
has 'the library is never unloaded' 'FLAGS_1.*NODELETE' <"$scratch/dynamic"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
