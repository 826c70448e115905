#!/bin/sh
# switched_guests.sh TARGET - three real Linux guests in a laboratory of examples/lab: on a switch with VLANs, one of them
# on a trunk, and two of them with a bond over two cables (see switched_guests.py). No KVM and no root needed. What is
# needed, and fetched, is as in guests.sh, and Python; without it every test is skipped, or fails if QNET_REQUIRE_QEMU=1.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
target=$1
cd "$root/c-tests/scripts" || exit 2
. ./report.sh
. ./guest.sh
. ./blocks.sh
. ./session.sh
modules="$modules llc stp garp mrp 8021q tls bonding"
cache=$target/guest-switched
limit=$((240 * ${CHECK_SLOW:-1}))
prefix=switched_guest_
tests='vlans_are_apart trunk_hears_both vlan_is_changed bond_forms bond_survives'

# No guest asks again for an address that it knows: such frames would be among those that a test counts.
# shellcheck disable=SC2016
setup='for device in default eth0; do
    echo 1000 >/proc/sys/net/ipv4/neigh/$device/delay_first_probe_time
done
busybox ip link set eth0 up'
[ "${DRY_RUN:-}" ] || (cd "$root" && compile examples/lab.c "$work/lab") || exit
run_tests "$work/lab"
