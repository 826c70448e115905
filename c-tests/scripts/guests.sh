#!/bin/sh
# guests.sh - real Linux guests, each with one NIC, on the library's networks.
# Two ping examples/responder, one by `-netdev stream` over a Unix socket, the
# other by `-netdev socket` over TCP. Two more, by the same ways on
# examples/switch, ping each other, and then QEMU's router on that switch, which
# gives them addresses by DHCP. No KVM and no root needed.
#
# Debian's cloud kernel and a static busybox are fetched once into the target
# directory. Without QEMU, kernel or busybox every test is skipped, or fails if
# QNET_REQUIRE_QEMU=1. RESPONDER=program and SWITCH=program test others than
# those built here; CHECK_ONLY=word reports only the guests whose name contains
# word.
set -u

cd "$(dirname "$0")" || exit 2
. ./report.sh
. ./guest.sh
root=$(cd ../.. && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
cache=$target/guest
slow=${CHECK_SLOW:-1}
limit=$((120 * slow))
guests='stream socket switch_stream switch_socket'

# The tests of a guest, each of which it has to report as passed.
tests_of()  # guest
{
    echo boots has_speed pings_small pings_large pings_many
    case $1 in
    switch_*) echo leases pings_router ;;
    esac
}

wanted_guest()  # guest
{
    wanted "guest_$1"
}

# Reports every test of every guest as one that cannot be run, and ends the script.
cannot()    # QNET_REQUIRE_... why
{
    for guest in $guests; do
        wanted_guest "$guest" || continue
        for one in $(tests_of "$guest"); do
            lack "$1" "guest_${guest}_$one: $2"
        done
    done
    finish
    exit
}

# Writes a guest's init, which is its whole user land and prints the results on the serial console. The
# kernel passes on the words of its command line that it does not know: own, peer and router, which are
# addresses.
write_init()
{
    begin_init
    cat <<END
say()       # name command...
{
    name=\$1
    shift
    if "\$@" >/log 2>&1; then
        echo "GUEST \$name PASS"
    else
        busybox cat /log
        echo "GUEST \$name FAIL"
    fi
}
network()
{
    busybox ip link set lo up && busybox ip link set eth0 up &&
        busybox ip addr add \$own/24 dev eth0
}
meet()      # address: it may still be booting
{
    tries=$((60 * slow))
    until busybox ping -c 1 -W 1 "\$1"; do
        [ \$((tries -= 1)) -gt 0 ] || return 1
    done
}
pings()     # options of ping(8); every packet must be answered
{
    busybox ping "\$@" >/pings
    busybox cat /pings
    busybox grep -q ' 0% packet loss' /pings
}
say boots network
say has_speed busybox grep 10000 /sys/class/net/eth0/speed
meet \$peer >/dev/null 2>&1
say pings_small pings -c 3 -i 0.2 -W 10 \$peer
say pings_large pings -c 3 -i 0.2 -W 10 -s 1472 \$peer
say pings_many pings -c 200 -i 0.01 -W 10 -s 512 \$peer
if [ -n "\$router" ]; then
    say leases busybox udhcpc -n -q -t 5 -s /lease
    say pings_router pings -c 3 -i 0.2 -W 10 \$router
fi
echo GUEST done
exec busybox sleep 1000     # others may still ping this one
END
}

# Writes the script that udhcpc runs at each event.
write_lease()
{
    cat <<'END'
#!/bin/busybox sh
[ "$1" != bound ] || exec busybox ip addr add "$ip/$mask" dev "$interface"
END
}

write_files()
{
    write_init >"$work/root/init" && write_lease >"$work/root/lease" &&
        chmod 755 "$work/root/init" "$work/root/lease"
}

# Builds an example and prints its path.
build()     # example
{
    ${CC:-cc} -std=c99 ${CFLAGS:-} -I"$root/include" -o "$work/$1" "$root/examples/$1.c" \
        -L"$target/release" -lqnet -Wl,-rpath,"$target/release" ${LDFLAGS:-} &&
        echo "$work/$1"
}

# Starts a program in the background, in a process group of its own, which is killed when its time is
# over.
start()     # log program argument...
{
    log=$1
    shift
    timeout -s KILL "$limit" "$@" >"$log" 2>&1 </dev/null &
    last=$!
    started="$started $last"
}

# Waits until a program has logged something. Sets $said to what sed makes of the log.
await()     # process log sed-expression
{
    until said=$(sed -n "$3" "$2" 2>/dev/null) && [ -n "$said" ]; do
        kill -0 "$1" 2>/dev/null || return 1
        sleep 0.1
    done
}

boot()      # guest netdev own-address peer [router]
{
    # shellcheck disable=SC2086
    start "$work/$1.qemu" qemu-system-x86_64 $machine -serial "file:$work/$1.serial" \
        -kernel "$cache/vmlinuz" -initrd "$work/initramfs" \
        -append "console=ttyS0 quiet panic=-1 own=$3 peer=$4 router=${5:-}" \
        -netdev "$2,id=n" -device \
        "virtio-net-pci,netdev=n,romfile=,speed=10000,duplex=full,mac=52:54:00:00:00:0${3##*.}"
    eval "qemu_$1=$last"
}

# Starts a guest and the responder that it is to ping.
start_responder()   # guest network address netdev: the address follows the last =
{
    wanted_guest "$1" || return
    start "$work/$1.responder" "$RESPONDER" "$2" "$3" 10.0.0.1
    await "$last" "$work/$1.responder" 's/^listening at [a-z0-9]* \([^,]*\),.*/\1/p' &&
        boot "$1" "$4=$said" 10.0.0.2 10.0.0.1
}

# Starts two guests that are to ping each other, and a router, on one switch.
start_switch()
{
    wanted_guest switch_stream || wanted_guest switch_socket || return
    start "$work/switch.log" "$SWITCH" "unix:$work/s.sock" tcp:127.0.0.1:0
    await "$last" "$work/switch.log" 's/^listening at tcp://p' || return
    unix=server=off,addr.type=unix,addr.path=$work/s.sock
    start "$work/switch.router" qemu-system-x86_64 -M none -nodefaults -display none \
        -netdev "stream,id=a,$unix" -netdev hubport,id=ha,hubid=0,netdev=a \
        -netdev user,id=b -netdev hubport,id=hb,hubid=0,netdev=b
    boot switch_stream "stream,$unix" 10.0.0.1 10.0.0.2 10.0.2.2
    boot switch_socket "socket,connect=$said" 10.0.0.2 10.0.0.1 10.0.2.2
}

# Reports a guest's results.
judge()     # guest
{
    wanted_guest "$1" || return
    before=$failed
    for one in $(tests_of "$1"); do
        if grep -q "GUEST $one PASS" "$work/$1.serial" 2>/dev/null; then
            report ok "guest_$1_$one"
        else
            report FAILED "guest_$1_$one"
        fi
    done
    [ "$failed" -eq "$before" ] && return
    for log in "$work/${1%_*}"[._]*; do     # also of the other programs on its network
        [ -s "$log" ] || continue
        echo "--- ${log##*/}" >&2
        tail -n 40 "$log" >&2
    done
}

have_guest
RESPONDER=${RESPONDER:-$(build responder)} SWITCH=${SWITCH:-$(build switch)}
if [ -z "$RESPONDER" ] || [ -z "$SWITCH" ]; then
    cannot 1 'an example does not build'
fi

start_responder stream unix "$work/r.sock" 'stream,server=off,addr.type=unix,addr.path'
start_responder socket tcp 127.0.0.1:0 'socket,connect'
start_switch
for guest in $guests; do
    eval "qemu=\${qemu_$guest:-}"
    [ -z "$qemu" ] || await "$qemu" "$work/$guest.serial" '/^GUEST done/p'
done
for guest in $guests; do
    judge "$guest"
done
finish
