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
. ./session.sh
cache=$target/guest
limit=$((180 * ${CHECK_SLOW:-1}))
prefix=impaired_guest_
tests='delays loses rates pulls tells_guest hub_impairs'

# The kernel passes on the words of its command line that it does not know: own and peer, the ends of addresses, which
# are known, so that no ARP is among the frames that a test counts.
# shellcheck disable=SC2016
setup='for nic in 0 1; do
    busybox ip link set eth$nic up && busybox ip addr add 10.0.$nic.$own/24 dev eth$nic
    busybox arp -s 10.0.$nic.$peer 52:54:00:00:0$nic:0$peer
done'
run_tests "$root/examples/carrier.py"
