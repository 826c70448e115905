#!/bin/sh
# run.sh [seconds [target...]] - builds the fuzz targets, and runs each from its seeds for the given
# time, or for 30 s.
#
# It needs libFuzzer's crate and no more: it gives the compiler the options that cargo-fuzz would, with
# any toolchain. New inputs are kept in the build directory, not here. CARGO_TARGET_DIR is respected.

here=$(cd "$(dirname "$0")" && pwd) || exit 2
build=$(realpath -m "${CARGO_TARGET_DIR:-$here/../target}")/fuzz
triple=x86_64-unknown-linux-gnu
seconds=${1:-30}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- decoder address hub text

flags='--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module'
for coverage in level=4 inline-8bit-counters pc-table trace-compares; do
    flags="$flags -Cllvm-args=-sanitizer-coverage-$coverage"
done
RUSTC_BOOTSTRAP=1 RUSTFLAGS=$flags "${CARGO:-cargo}" build --release --locked --target $triple \
    --target-dir "$build" --manifest-path "$here/Cargo.toml" || exit 2

# Runs a target, and shows its output if it finds something. It does not look for leaks, because threads
# that are ending still have their thread-locals.
run() {
    inputs=$build/corpus/$1
    mkdir -p "$inputs" "$build/findings"
    dictionary=$here/$1.dict
    set -- "$1" "$build/$triple/release/$1" -max_total_time="$seconds" -timeout=30 -detect_leaks=0 \
        -artifact_prefix="$build/findings/$1-" -print_final_stats=1
    [ -f "$dictionary" ] && set -- "$@" -dict="$dictionary"
    name=$1
    shift
    if "$@" "$inputs" "$here/corpus/$name" >"$build/$name.log" 2>&1; then
        echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$name.log") runs"
        return 0
    fi
    grep -v '^#[0-9]' "$build/$name.log"
    finding=$(sed -n 's/.*Test unit written to //p' "$build/$name.log")
    echo "$name: a finding; again with: $build/$triple/release/$name $finding"
    return 1
}

passed=0 failed=0
for target; do
    if run "$target"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
