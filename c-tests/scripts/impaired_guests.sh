#!/bin/sh
# impaired_guests.sh TARGET - two real Linux guests on a link that is impaired, and on one whose cable
# examples/carrier.py pulls (see impaired_guests.py). No KVM and no root needed. What is needed, and fetched, is as in
# guests.sh, and Python; without it every test is skipped, or fails if QNET_REQUIRE_QEMU=1.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
target=$1
cd "$root/c-tests/scripts" || exit 2
. ./report.sh
. ./guest.sh
cache=$target/guest
limit=$((180 * ${CHECK_SLOW:-1}))
tests='delays loses rates pulls tells_guest hub_impairs'

# Reports all tests as ones that cannot be run, and ends the script.
cannot()    # QNET_REQUIRE_... why
{
    for one in $tests; do
        lack "$1" "impaired_guest_$one: $2"
    done
    finish
    exit
}

# Writes an init that runs each line of its standard input, and says with what status it ended. The kernel
# passes on the words of its command line that it does not know: own and peer, the ends of addresses, which
# are known, so that no ARP is among the frames that a test counts.
write_files()
{
    begin_init >"$work/root/init" && cat >>"$work/root/init" <<'END' && chmod 755 "$work/root/init"
busybox stty -echo
busybox ip link set lo up
for nic in 0 1; do
    busybox ip link set eth$nic up && busybox ip addr add 10.0.$nic.$own/24 dev eth$nic
    busybox arp -s 10.0.$nic.$peer 52:54:00:00:0$nic:0$peer
done
echo "END $?"
while read -r line; do
    eval "$line"
    echo "END $?"
done
END
}

chosen=
for one in $tests; do
    ! wanted "impaired_guest_$one" || chosen="$chosen $one"
done
[ "$chosen" ] || { finish; exit; }
command -v python3 >/dev/null || cannot "${QNET_REQUIRE_QEMU:-0}" 'no python3'
have_guest
# A process group of its own, which ends with the script. The names are split into words on purpose.
# shellcheck disable=SC2086
LD_LIBRARY_PATH=$target/release MACHINE=$machine timeout -s KILL "$limit" python3 impaired_guests.py "$work" \
    "$cache/vmlinuz" "$root/examples/carrier.py" $chosen >"$work/results" 2>"$work/log" </dev/null &
started=$!
wait "$started"
for one in $chosen; do
    if grep -q "^$one PASS" "$work/results"; then
        report ok "impaired_guest_$one"
    else
        report FAILED "impaired_guest_$one"
    fi
done
[ "$failed" -eq 0 ] || grep -v " bytes from " "$work/log" >&2    # what a ping says of each answer
finish
