#!/bin/sh
# guests.sh - two real Linux guests, each with one NIC, ping examples/responder
# through the library: one by `-netdev stream` over a Unix socket, the other by
# `-netdev socket` over TCP. No KVM and no root needed.
#
# Debian's cloud kernel and a static busybox are fetched once into the target
# directory. Without QEMU, kernel or busybox every test is skipped, or fails if
# QNET_REQUIRE_QEMU=1. RESPONDER=program tests another responder than the one
# built here; CHECK_ONLY=word runs only the guests whose name contains word.
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
cache=$target/guest
work=$(mktemp -d "${TMPDIR:-/tmp}/qnet-guests.XXXXXX") || exit 2
slow=${CHECK_SLOW:-1}
limit=$((120 * slow))
tests='boots pings_small pings_large pings_many'
modules='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover
         net_failover virtio_net'
passed=0 failed=0 skipped=0
started=

# Ends what was started here, whatever the way out.
clean_up()
{
    for process in $started; do
        kill -KILL -- "-$process" 2>/dev/null || kill "$process" 2>/dev/null
        wait "$process" 2>/dev/null
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 2' HUP INT TERM

report()    # ok|skipped|FAILED name
{
    case $1 in
    ok) passed=$((passed + 1)) ;;
    skipped) skipped=$((skipped + 1)) ;;
    *) failed=$((failed + 1)) ;;
    esac
    printf '%-7s %s\n' "$1" "$2"
}

finish()
{
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}

wanted()    # guest
{
    case guest_$1 in
    *"${CHECK_ONLY:-}"*) return 0 ;;
    *) return 1 ;;
    esac
}

# Reports every test of the guests alike.
report_all()    # ok|skipped|FAILED guest...
{
    outcome=$1
    shift
    for guest; do
        wanted "$guest" || continue
        for one in $tests; do
            report "$outcome" "guest_${guest}_$one"
        done
    done
}

# Something to test with is missing.
cannot()    # why
{
    if [ "${QNET_REQUIRE_QEMU:-0}" = 1 ]; then
        echo "needed, as QNET_REQUIRE_QEMU=1: $1" >&2
        report_all FAILED stream socket
    else
        echo "skipped: $1" >&2
        report_all skipped stream socket
    fi
    finish
}

# Unpacks a Debian package, without installing it, below $work/unpacked.
unpack()    # package
{
    (cd "$work" && apt-get -qq download "$1" 2>"$work/apt.log") &&
        dpkg -x "$work/$1"_*.deb "$work/unpacked"
}

# Fills the cache with vmlinuz, busybox and the modules, whole or not at all.
fetch()
{
    [ -d "$cache" ] && return 0
    kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    [ -n "$kernel" ] && unpack "$kernel" && unpack busybox-static || return 1
    mkdir "$work/cache" && cp "$work"/unpacked/boot/vmlinuz-* "$work/cache/vmlinuz" &&
        cp "$(find "$work/unpacked" -path '*/bin/busybox')" "$work/cache/" || return 1
    for module in $modules; do
        file=$(find "$work/unpacked" -name "$module.ko*" | head -n 1)
        case $file in
        '') ;;    # part of this kernel itself
        *.xz) xz -dc "$file" >"$work/cache/$module.ko" || return 1 ;;
        *) cp "$file" "$work/cache/" || return 1 ;;
        esac
    done
    mkdir -p "$target" && rm -rf "$cache.new.$$" && cp -r "$work/cache" "$cache.new.$$" &&
        { mv -T "$cache.new.$$" "$cache" 2>/dev/null || rm -rf "$cache.new.$$"; }
    [ -d "$cache" ]
}

# The guest's whole user land: its lines tell on the serial console how it went.
write_init()
{
    cat <<END
#!/bin/busybox sh
busybox mkdir -p /proc /sys /dev
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
for pass in 1 2; do     # which needs which is not the same in every kernel
    for module in $(echo $modules); do
        [ ! -e /\$module.ko ] || busybox insmod /\$module.ko 2>/dev/null
    done
done
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
        busybox ip addr add 10.0.0.2/24 dev eth0
}
pings()     # of ping(8)'s options; every one must be answered
{
    busybox ping "\$@" 10.0.0.1 >/pings || return 1
    busybox cat /pings
    busybox grep -q ' 0% packet loss' /pings
}
say boots network
say pings_small pings -c 3 -i 0.2 -W 10
say pings_large pings -c 3 -i 0.2 -W 10 -s 1472
say pings_many pings -c 200 -i 0.01 -W 10 -s 512
echo GUEST done
busybox reboot -f
END
}

pack()
{
    mkdir -p "$work/root/bin" && cp "$cache/busybox" "$work/root/bin/" &&
        write_init >"$work/root/init" && chmod 755 "$work/root/init" || return 1
    for module in $modules; do
        [ ! -e "$cache/$module.ko" ] || cp "$cache/$module.ko" "$work/root/" || return 1
    done
    (cd "$work/root" && find . | "$cache/busybox" cpio -o -H newc 2>/dev/null) >"$work/initramfs"
}

build_responder()
{
    [ -n "${RESPONDER:-}" ] && return 0
    RESPONDER=$work/responder
    ${CC:-cc} -std=c99 ${CFLAGS:-} -I"$root/include" -o "$RESPONDER" "$root/examples/responder.c" \
        -L"$target/release" -lqnet -Wl,-rpath,"$target/release" ${LDFLAGS:-}
}

# A program in the background, in a process group of its own, that ends with
# the time allowed at the latest.
start()     # log program argument...
{
    log=$1
    shift
    timeout -s KILL "$limit" "$@" >"$log" 2>&1 </dev/null &
    last=$!
    started="$started $last"
}

# The address that a responder listens at, once it has said so.
address()   # guest
{
    tries=$((100 * slow))
    until listening=$(sed -n 's/^listening at [a-z0-9]* \([^,]*\),.*/\1/p' "$work/$1.responder") &&
        [ -n "$listening" ]; do
        [ "$tries" -gt 0 ] || return 1
        tries=$((tries - 1))
        sleep 0.1
    done
    echo "$listening"
}

boot()      # guest netdev
{
    start "$work/$1.qemu" qemu-system-x86_64 -M q35 -accel tcg -cpu max -m 256 \
        -nodefaults -display none -no-reboot -serial "file:$work/$1.serial" \
        -kernel "$cache/vmlinuz" -initrd "$work/initramfs" \
        -append 'console=ttyS0 quiet panic=-1' \
        -netdev "$2" -device virtio-net-pci,netdev=n,romfile=
}

# A guest and the responder that it is to ping; says nothing yet.
start_guest()   # guest network address netdev: the address follows the last =
{
    eval "qemu_$1="
    wanted "$1" || return
    start "$work/$1.responder" "$RESPONDER" "$2" "$3" 10.0.0.1
    if at=$(address "$1"); then
        boot "$1" "$4=$at"
        eval "qemu_$1=$last"
    fi
}

# Waits for the guest to be done and reports what it said.
end_guest()     # guest
{
    wanted "$1" || return
    before=$failed
    eval "qemu=\$qemu_$1"
    [ -z "$qemu" ] || wait "$qemu"
    for one in $tests; do
        if grep -q "GUEST $one PASS" "$work/$1.serial" 2>/dev/null; then
            report ok "guest_$1_$one"
        else
            report FAILED "guest_$1_$one"
        fi
    done
    [ "$failed" -eq "$before" ] && return
    for log in serial qemu responder; do
        [ -s "$work/$1.$log" ] || continue
        echo "--- $1 $log" >&2
        tail -n 40 "$work/$1.$log" >&2
    done
}

command -v qemu-system-x86_64 >/dev/null || cannot 'no QEMU (apt-get install qemu-system-x86)'
command -v apt-get >/dev/null && command -v dpkg >/dev/null || cannot 'no apt-get to fetch a kernel'
fetch || cannot 'no guest kernel or busybox to be had (apt-get update?)'
pack || cannot 'cannot pack an initramfs'
if ! build_responder; then
    report_all FAILED stream socket
    finish
fi

start_guest stream unix "$work/r.sock" 'stream,id=n,server=off,addr.type=unix,addr.path'
start_guest socket tcp 127.0.0.1:0 'socket,id=n,connect'
for guest in stream socket; do
    end_guest "$guest"
done
finish
