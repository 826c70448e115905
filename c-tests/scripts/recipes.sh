#!/bin/sh
# recipes.sh TARGET - runs every code block of docs/recipes.md as it is written, each recipe in namespaces of
# its own (see blocks.sh), and checks what it promises. The blocks of "More than one machine" are left to
# hosts.sh. A recipe whose programs are not installed is skipped, or fails if QNET_REQUIRE_RECIPES=1. So is
# every recipe without root or user namespaces.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
target=$1
slow=${CHECK_SLOW:-1}
. "$root/c-tests/scripts/sandbox.sh"
. "$root/c-tests/scripts/blocks.sh"
tests='recipe_passt recipe_gvproxy_qemu recipe_gvproxy_bess recipe_gvproxy_vfkit recipe_no_remote
       recipe_vde_plug recipe_vde_qemu recipe_ssh recipe_tls recipe_frames recipe_plug recipe_cable recipe_waiting
       recipe_bond recipe_killed'

# The programs that a recipe needs and that may be missing.
tools_of()  # test
{
    case $1 in
    recipe_passt) echo passt busybox ;;
    recipe_gvproxy_qemu | recipe_gvproxy_bess) echo gvproxy busybox ;;
    recipe_vde_*) echo vde_switch vde_plug qemu-system-x86_64 ;;
    recipe_ssh) echo ssh ssh-keygen sshd ;;
    recipe_tls) echo socat openssl ;;
    recipe_frames | recipe_no_remote) echo python3 ;;
    recipe_plug | recipe_bond) echo python3 qemu-system-x86_64 ;;
    esac
}

# ---- Inside the namespaces ----

# Waits until an address on the switch answers a ping.
answers()   # address [own address]
{
    await ping -c 1 -W 10 -I "${2:-10.0.0.77}" unix /tmp/sw.sock "$1"
}

# Starts the page's first switch.
switched()
{
    begin switch 1 && await grep '^listening' switch.1.log
}

# Starts an emulated host, on a switch of its own.
host()      # address switch-argument...
{
    responder unix /tmp/r.sock "$1" >responder.log 2>&1 &
    shift
    switch dial=unix:/tmp/r.sock "$@" >host.log 2>&1 &
}

# Whether an interface that tap_bridge joins to the switch is leased an address by DHCP.
leases()    # address
{
    await test -S /tmp/sw.sock && { tap_bridge asker dial=unix:/tmp/sw.sock >asker.log 2>&1 & } &&
        await ip link set asker up && busybox udhcpc -i asker -n -q -t 30 -T 2 -s /bin/true 2>&1 | tee lease
    grep "lease of $1 obtained" lease
}

# passt gives its guest the address of an interface of the host's, which is made for it.
recipe_passt()
{
    ip link add eth0 type veth peer name wire && ip addr add 192.0.2.1/24 dev eth0 &&
        ip link set eth0 up && ip link set wire up && ip route add default via 192.0.2.254 || return 1
    begin passt 2 && await grep 'No such file' passt.2.log && begin passt 1 && leases 192.0.2.1
}

recipe_gvproxy_qemu()
{
    begin qemu 2 && begin qemu 1 && leases '192\.168\.127\.[0-9]*' && answers 192.168.127.1 192.168.127.77
}

recipe_gvproxy_bess()
{
    begin bess 2 && begin bess 1 && leases '192\.168\.127\.[0-9]*' && answers 192.168.127.1 192.168.127.77
}

# If there is no gvproxy, or it has no such socket, a switch of ours takes its place.
recipe_gvproxy_vfkit()
{
    if command -v gvproxy; then begin vfkit 1; else echo 'gvproxy exiting' >vfkit.1.log; fi
    await sh -c 'test -S /tmp/vfkit.sock || grep exiting vfkit.1.log'
    grep 'exiting' vfkit.1.log && host 192.168.127.1 unixgram:/tmp/vfkit.sock,/tmp/vfkit-switch.sock
    await test -S /tmp/vfkit.sock && begin vfkit 2 && answers 192.168.127.1 192.168.127.77
}

# Each machine begins as vfkit does and asks by ARP, and the answer comes to its own socket.
recipe_no_remote()
{
    begin named 1 && host 10.0.0.1 dial=unix:/tmp/sw.sock && await test -S /tmp/vm.sock || return 1
    for machine in 1 2; do
        await python3 -c 'import os, socket, sys
vm, mac = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), b"\2\0\0\0\0" + bytes([int(sys.argv[1])])
vm.bind(f"/tmp/vm-{os.getpid()}.sock")
vm.connect("/tmp/vm.sock")
vm.send(b"VFKT")
vm.send(b"\xff" * 6 + mac + bytes.fromhex("08060001080006040001") + mac + bytes([10, 0, 0, 9])
    + bytes(6) + bytes([10, 0, 0, 1]))
vm.settimeout(1)
assert vm.recv(2000)[6:12] != mac' $machine || return 1
    done
}

# Starts VDE's switch, with a router on it.
vde()
{
    vde_switch -s /tmp/vde.ctl -d && await test -S /tmp/vde.ctl/ctl || return 1
    qemu-system-x86_64 -M none -nodefaults -display none \
        -netdev user,id=out -netdev hubport,id=p0,hubid=0,netdev=out \
        -netdev vde,id=vde,sock=/tmp/vde.ctl -netdev hubport,id=p1,hubid=0,netdev=vde &
}

recipe_vde_plug()
{
    vde && begin plugged 1 && begin plugged 2 && answers 10.0.2.2 10.0.2.77
}

recipe_vde_qemu()
{
    vde && switched && begin hubbed 1 && answers 10.0.2.2 10.0.2.77
}

recipe_ssh()
{
    mount -t tmpfs none /run && mkdir /run/sshd ssh && ssh-keygen -q -t ed25519 -N '' -f ssh/key || return 1
    cat >ssh/server <<'END'
ListenAddress 127.0.0.1:7022
HostKey /tmp/ssh/key
AuthorizedKeysFile /tmp/ssh/key.pub
StrictModes no
UsePAM no
END
    cat >ssh/client <<'END'
Host far
    HostName 127.0.0.1
    Port 7022
    IdentityFile /tmp/ssh/key
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
END
    printf '#!/bin/sh\nexec %s -F /tmp/ssh/client "$@"\n' "$(command -v ssh)" >bin/ssh && chmod +x bin/ssh
    "$(command -v sshd)" -D -e -f ssh/server 2>sshd.log &
    { sh -ux ssh_loop >ssh.log 2>&1 & } && begin near 1 && host 10.0.0.1 unix:/tmp/far.sock &&
        answers 10.0.0.1
}

# A client without a certificate is refused.
recipe_tls()
{
    echo '127.0.0.1 far' >hosts && mount --bind hosts /etc/hosts && sh -eux certificates || return 1
    begin near 1 && begin tls_near 1 && begin tls_far 1 && host 10.0.0.1 unix:/tmp/far.sock &&
        answers 10.0.0.1 || return 1
    socat -u OPENSSL:far:7443,cafile=far.crt -
    await grep 'peer did not return a certificate' tls_far.1.log
}

# One program writes frames of several lengths, and the other reads each frame by itself.
recipe_frames()
{
    switched || return 1
    frames unix /tmp/sw.sock python3 -uc 'import os
while True: print(len(os.read(3, 70000)))' >seen &
    frames unix /tmp/sw.sock python3 -c 'import os, time
while True:
    for length in 60, 1514, 14: os.write(3, b"\xff" * 6 + b"\2" + bytes(length - 7))
    time.sleep(0.1)' &
    await sh -c 'test "$(wc -l <seen)" -ge 4' && head -n 4 seen | tr '\n' ' ' | tee /dev/stderr |
        grep '^\(60 1514 14 60\|1514 14 60 1514\|14 60 1514 14\) $'
}

# QEMU's firmware boots without a disk. After a reset it asks the NICs that it finds for something to boot.
recipe_plug()
{
    switched || return 1
    qemu-system-x86_64 -M pc -accel tcg -m 64 -nodefaults -display none \
        -qmp unix:/tmp/qmp.sock,server=on,wait=off &
    await python3 plug.py /tmp/qmp.sock /tmp/sw.sock 52:54:00:00:00:09 || return 1
    frames unix /tmp/sw.sock python3 -uc 'import os
while True: print(os.read(3, 70000)[6:12].hex(":"))' >seen &
    ask_qmp '{"execute": "system_reset"}' && await grep 52:54:00:00:00:09 seen
}

# Prints what a QEMU answers to a QMP command.
ask_qmp()   # json
{
    python3 -c 'import socket, sys
qmp = socket.socket(socket.AF_UNIX)
qmp.connect("/tmp/qmp.sock")
answers = qmp.makefile()
answers.readline()
for command in "{\"execute\": \"qmp_capabilities\"}", sys.argv[1]:
    qmp.send(command.encode())
    answer = next(answer for answer in answers if "\"return\"" in answer or "\"error\"" in answer)
print(answer)' "$1"
}

# A second program comes when the first has left, while the one at the other end stays.
recipe_cable()
{
    begin cable 1 && responder unix /tmp/r.sock 10.0.0.1 >responder.log 2>&1 &
    await grep right cable.1.log && await grep '^listening' responder.log &&
        link --once unix:/tmp/r.sock unix:/tmp/left.sock &
    other=$!
    for _ in 1 2; do
        await ping -c 1 unix /tmp/right.sock 10.0.0.1 || return 1
    done
    kill -0 "$other"
}

recipe_waiting()
{
    waiting | tee counts | awk '{ exit !($1 >= 100 && $4 >= 1 && $4 <= 8) }' && cat counts
}

recipe_bond()
{
    switched || return 1
    sed 's/ \.\.\. / ... -qmp unix:\/tmp\/qmp.sock,server=on,wait=off /' bond >bond_qmp
    begin bond_qmp 1 && await ask_qmp '{"execute": "query-status"}' && ask_qmp '{"execute": "qom-get", "arguments":
        {"path": "/machine/peripheral-anon/device[0]", "property": "speed"}}' | tee speed
    grep 10000 speed
}

recipe_killed()
{
    switched && kill -KILL $! && ! wait $! && test -S /tmp/sw.sock && switched &&
        host 10.0.0.1 dial=unix:/tmp/sw.sock && answers 10.0.0.1
}

if [ "$target" = inside ]; then
    run_inside "$2"
    exit
fi

# ---- Outside ----

. "$root/c-tests/scripts/report.sh"
cd "$root" || exit 2
tmp=$work/tmp
PATH=$PATH:/usr/sbin
export PATH

# The first tool that a recipe lacks.
missing()   # test
{
    for tool in $(tools_of "$1"); do
        command -v "$tool" >/dev/null || { echo "$tool" && return; }
    done
}

# Takes the blocks that hosts.sh runs, each of which it must name by its number in the section.
hosts_run()
{
    number=0
    for text in 'ip tuntap add' 'tap_bridge qnet0' 'bridge fdb append' 'ip link del br0'; do
        number=$((number + 1))
        take "$text" "$work/host" && grep "step $number)" c-tests/scripts/hosts.sh || return 1
    done
}

takes_all()
{
    split_blocks docs/recipes.md && comes_first_in_path && take 'passt -f' "$tmp/passt" && take '-listen-qemu' "$tmp/qemu" &&
        take '-listen-bess' "$tmp/bess" && take '-listen-vfkit' "$tmp/vfkit" && take 'unixgram:/tmp/vm.sock' "$tmp/named" &&
        take 'vde_plug' "$tmp/plugged" && take '-netdev vde' "$tmp/hubbed" && take 'ssh -N' "$tmp/ssh_loop" &&
        take 'dial=unix:/tmp/near.sock' "$tmp/near" && take 'openssl req' "$tmp/certificates" &&
        take 'OPENSSL-LISTEN' "$tmp/tls_far" && take 'UNIX-LISTEN' "$tmp/tls_near" &&
        take 'execvp' "$tmp/frames.c" && take 'plug.py' "$tmp/plug.py" && take 'left.sock' "$tmp/cable" &&
        take 'int waiting' "$tmp/waiting.c" && take 'speed=' "$tmp/bond" && hosts_run &&
        take 'switch unix:/tmp/sw.sock' "$tmp/switch" && all_are_taken &&
        furnish switch link tap_bridge responder ping && bring gvproxy &&
        compile "$tmp/frames.c" "$tmp/bin/frames" && compile "$tmp/waiting.c" "$tmp/bin/waiting"
}

mkdir -p "$tmp" && chmod 1777 "$tmp" && chmod 755 "$work" # passt makes its socket as nobody
try_blocks recipes
need_namespaces "${QNET_REQUIRE_RECIPES:-0}"
for test in $tests; do
    wanted "$test" || continue
    tool=$(missing "$test")
    if [ "$tool" ]; then
        lack "${QNET_REQUIRE_RECIPES:-0}" "$test: no $tool"
        continue
    fi
    try_inside "$test"
done
finish
