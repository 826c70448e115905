#!/bin/sh
# bridged_guest.sh TARGET - a bridge of Linux with VLANs, in a guest, as a second opinion on where a hub sends which frames,
# and with which tags (see bridged_guest.py). No KVM and no root needed. What is needed, and fetched, is as in guests.sh,
# and Python and iproute2; without it every test is skipped, or fails if QNET_REQUIRE_QEMU=1.
set -u

target=$1
cd "$(dirname "$0")" || exit 2
. ./report.sh
. ./guest.sh
. ./session.sh
modules="$modules llc stp bridge"
cache=$target/guest-bridged
limit=$((110 * ${CHECK_SLOW:-1}))
prefix=bridged_guest_
tests='floods_agree unicast_agrees reserved_groups_agree'

# The ports are in no VLAN until they are told; multicast is flooded.
# shellcheck disable=SC2016
setup='busybox ip link add br0 type bridge
for file in default_pvid multicast_snooping; do
    echo 0 >/sys/class/net/br0/bridge/$file
done
echo 1 >/sys/class/net/br0/bridge/vlan_filtering
busybox ip link set br0 up'

bridge=$(PATH=$PATH:/usr/sbin:/sbin command -v bridge) || cannot "${QNET_REQUIRE_QEMU:-0}" 'no bridge (iproute2)'
for file in "$bridge" $(ldd "$bridge" | grep -o '/[^ ]*'); do
    mkdir -p "$work/root${file%/*}" && cp -L "$file" "$work/root$file" || exit 2
done
mkdir -p "$work/root/bin" && ln -sf "$bridge" "$work/root/bin/bridge"
run_tests
