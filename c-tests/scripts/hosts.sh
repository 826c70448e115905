#!/bin/sh
# hosts.sh - runs the commands of "More than one machine" in docs/recipes.md as they are written, on three
# hosts, which are network namespaces on one wire. Each host has an emulated machine (examples/responder,
# connected by examples/link), and pings those of the other hosts (examples/ping).
#
# All of it runs in a process namespace, whose end kills every process and so removes every interface.
# Needs root, or user namespaces, and Linux with VXLAN, bridges, veth and TAPs. Otherwise every test is
# skipped, or fails if QNET_REQUIRE_HOSTS=1. CHECK_ONLY=word reports only the tests whose name contains
# word.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
slow=${CHECK_SLOW:-1}
. "$root/c-tests/scripts/sandbox.sh"
programs='tap_bridge responder link ping'
tests='hosts_two_join hosts_1_pings_2 hosts_2_pings_1 hosts_full_packets_pass
       hosts_third_joins hosts_3_pings_1 hosts_1_pings_3 hosts_3_pings_2 hosts_2_pings_3
       hosts_undone'

# ---- Inside the namespaces, in the directory with the programs ----

# Prints the commands of a step: the section's code block with that number.
step()      # number
{
    awk -v wanted="$1" '
        /^## / { section = ($0 == "## More than one machine") }
        /^```$/ { inside = 0 }
        inside { print }
        section && /^```sh$/ { inside = (++number == wanted) }' "$root/docs/recipes.md"
}

# Runs a command on a host, in the host's own directory.
on()        # host command...
{
    (cd "host$1" && shift && exec nsenter --net=network -- "$@")
}

# Makes a host and connects it to the wire, which is a bridge outside of all hosts.
make_host() # host
{
    mkdir "host$1" && : >"host$1/network" && unshare --net="host$1/network" true &&
        ip link add "wire$1" type veth peer name "far$1" &&
        ip link set "wire$1" master wire && ip link set "wire$1" up &&
        ip link set "far$1" netns "$PWD/host$1/network" &&
        on "$1" ip link set "far$1" name eth0 && on "$1" ip link set eth0 up &&
        on "$1" ip link set lo up && on "$1" ip addr add "192.0.2.$1/24" dev eth0
}

# Does what the page says, and adds a machine with the address 10.0.0.HOST.
join()      # host peer
{
    on "$1" env OWNER="$(id -un)" PEER="192.0.2.$2" sh -eux -c "$(step 1)" || return 1
    on "$1" sh -c "echo \$\$ >pid && exec $(step 2)" >"host$1/tap_bridge" 2>&1 &
    eval "bridge$1=$!"
    on "$1" responder unix r.sock "10.0.0.$1" >"host$1/responder" 2>&1 &
    await test -S "host$1/vms.sock" && await test -S "host$1/r.sock" || return 1
    on "$1" link unix:r.sock unix:vms.sock >"host$1/link" 2>&1 &
    await grep '^linked' "host$1/link"
}

learn()     # host third
{
    on "$1" env THIRD="192.0.2.$2" sh -eux -c "$(step 3)"
}

hosts_two_join()
{
    ip link add wire type bridge && ip link set wire up &&
        make_host 1 && make_host 2 && join 1 2 && join 2 1
}

hosts_third_joins()
{
    make_host 3 && join 3 1 && learn 3 2 && learn 2 3 && learn 1 3
}

# The kernel takes a moment to forward to an interface that has come up, so one answer is awaited first.
pings()     # host other
{
    await on "$1" ping -c 1 -I "10.0.0.1$1" unix vms.sock "10.0.0.$2" || return 1
    on "$1" ping -c 5 -i 0.1 -W 10 -I "10.0.0.1$1" unix vms.sock "10.0.0.$2" | tee answers
    grep ' 0% packet loss' answers
}

# Pings with the longest packets that the bridge lets pass, from a host that has an address on it. None of
# the packets that carry them may be fragmented.
hosts_full_packets_pass()
{
    mtu=$(on 2 ip link show br0 | sed -n 's/.* mtu \([0-9]*\) .*/\1/p')
    on 2 ip addr add 10.0.0.100/24 dev br0 &&
        on 2 busybox ping -c 5 -s $((mtu - 28)) 10.0.0.1 | tee answers
    for host in 1 2; do
        on "$host" awk '/^Ip:/ && at { print $at, "fragments"; exit $at > 0 }
            /^Ip:/ { while ($(++at) != "FragCreates") continue }' /proc/net/snmp || return 1
    done
    grep ' 0% packet loss' answers
}

undo()      # host
{
    kill "$(cat "host$1/pid")" && eval "wait \$bridge$1" && [ ! -e "host$1/vms.sock" ] &&
        on "$1" sh -eux -c "$(step 4)" || return 1
    for interface in br0 vxlan0 qnet0; do
        ! on "$1" ip link show "$interface" || return 1
    done
}

hosts_undone()
{
    undo 1 && undo 2 && undo 3
}

# Runs all tests, one after another.
inside()
{
    PATH=$PWD:$PATH
    for name in $tests; do
        case $name in
        *_pings_*) pair=${name#hosts_} && set -- pings "${pair%%_*}" "${pair##*_}" ;;
        *) set -- "$name" ;;
        esac
        if "$@" >log 2>&1; then
            echo "ok      $name"
        else
            echo "FAILED  $name"
            tail -n 20 log host*/tap_bridge host*/link host*/responder >&2
        fi
    done
}

if [ "${1:-}" = inside ]; then
    inside
    exit
fi

# ---- Outside ----

. "$root/c-tests/scripts/report.sh"

for tool in ip bridge unshare nsenter busybox; do
    command -v $tool >/dev/null ||
        cannot "${QNET_REQUIRE_HOSTS:-0}" "no $tool (apt-get install iproute2 util-linux busybox)"
done
sandbox true 2>"$work/log" ||
    cannot "${QNET_REQUIRE_HOSTS:-0}" "no right to make namespaces: $(tail -n 1 "$work/log")"
sandbox sh -ec ': >network; unshare --net=network true; nsenter --net=network ip link set lo up
    ip tuntap add tap0 mode tap; ip link add type veth; ip link add br0 type bridge
    ip link add vxlan0 type vxlan id 1 remote 192.0.2.1 dstport 4789' 2>"$work/log" ||
    cannot "${QNET_REQUIRE_HOSTS:-0}" "not all kinds of interfaces: $(tail -n 1 "$work/log")"
[ ! "${DRY_RUN:-}" ] || exit 0
for program in $programs; do
    ${CC:-cc} -std=c99 ${CFLAGS:-} -I"$root/include" -o "$work/$program" \
        "$root/examples/$program.c" -L"$target/release" -lqnet -Wl,-rpath,"$target/release" \
        ${LDFLAGS:-} || conclude FAILED
done
sandbox "$root/c-tests/scripts/hosts.sh" inside >"$work/results"
conclude FAILED
