#!/bin/sh
# rust.sh target-directory - runs the Rust tests and counts them. Of the programs in C, which `cargo test` runs as
# well, it runs one, since the Makefile runs them all.

cd "$(dirname "$0")/../.." || exit 2
output=$(mktemp) || exit 2
trap 'rm -f "$output"' EXIT

{
    ${CARGO:-cargo} test --release --target-dir "$1" --lib &&
        ${CARGO:-cargo} test --release --target-dir "$1" --test c -- uncork
} >"$output" 2>&1
status=$?
cat "$output"
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
    END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$output"
exit $status
