# session.sh - for scripts whose tests are functions of a Python program, NAME.py for NAME.sh, which runs guests by
# guest.py. They source this after report.sh and guest.sh, with their `tests`, `prefix` (before the names of tests, when
# these are reported), `setup` (commands of each guest's init) and `limit` (in seconds).
# shellcheck shell=sh disable=SC2154

# Reports all tests as ones that cannot be run, and ends the script.
cannot()    # QNET_REQUIRE_... why
{
    for one in $tests; do
        lack "$1" "$prefix$one: $2"
    done
    finish
    exit
}

# Writes an init that runs each line of its standard input, and says with what status it ended.
write_files()
{
    { begin_init && printf '%s\n' 'busybox stty -echo' 'busybox ip link set lo up' "$setup" && cat <<'END'; } >"$work/root/init"
echo "END $?"
while read -r line; do
    eval "$line"
    echo "END $?"
done
END
    chmod 755 "$work/root/init"
}

# Runs the tests that are wanted, and ends the script. The program is given a directory with the initramfs and the
# kernel, and then these arguments and the names of the tests, of each of which that passes it prints the name and PASS.
run_tests() # argument...
{
    chosen=
    for one in $tests; do
        ! wanted "$prefix$one" || chosen="$chosen $one"
    done
    [ "$chosen" ] || { finish; exit; }
    command -v python3 >/dev/null || cannot "${QNET_REQUIRE_QEMU:-0}" 'no python3'
    have_guest
    program=${0##*/}
    # A process group of its own, which ends with the script. The names are split into words on purpose.
    # shellcheck disable=SC2086
    LD_LIBRARY_PATH=$target/release MACHINE=$machine timeout -s KILL "$limit" python3 "${program%.sh}.py" "$work" \
        "$cache/vmlinuz" "$@" $chosen >"$work/results" 2>"$work/log" </dev/null &
    started=$!
    wait "$started"
    for one in $chosen; do
        if grep -q "^$one PASS" "$work/results"; then
            report ok "$prefix$one"
        else
            report FAILED "$prefix$one"
        fi
    done
    [ "$failed" -eq 0 ] || grep -v " bytes from " "$work/log" >&2    # what a ping says of each answer
    finish
    exit
}
