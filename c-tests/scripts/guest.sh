# guest.sh - a Linux guest for scripts that source this after report.sh: Debian's cloud kernel and a static
# busybox, fetched once into the directory $cache, and an initramfs, in which the file init is all that runs.
# shellcheck shell=sh disable=SC2154

modules='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover
         net_failover virtio_net'
# What every guest's QEMU gets besides its netdevs and serial port. It is split into words on purpose.
# shellcheck disable=SC2034
machine='-M q35 -accel tcg -cpu max -m 256 -nodefaults -display none -no-reboot'

# Unpacks a Debian package, without installing it, below $work/unpacked.
unpack()    # package
{
    (cd "$work" && apt-get -qq download "$1" 2>"$work/apt.log") &&
        dpkg -x "$work/$1"_*.deb "$work/unpacked"
}

# Fills the cache with vmlinuz, busybox and the modules: with all of them, or with nothing.
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
        '') ;;    # it is built into this kernel
        *.xz) xz -dc "$file" >"$work/cache/$module.ko" || return 1 ;;
        *) cp "$file" "$work/cache/" || return 1 ;;
        esac
    done
    mkdir -p "${cache%/*}" && rm -rf "$cache.new.$$" && cp -r "$work/cache" "$cache.new.$$" &&
        { mv -T "$cache.new.$$" "$cache" 2>/dev/null || rm -rf "$cache.new.$$"; }
    [ -d "$cache" ]
}

# Calls `cannot` with QNET_REQUIRE_QEMU and the reason if there is no guest to be had. With DRY_RUN it fetches none.
have_guest()
{
    require=${QNET_REQUIRE_QEMU:-0}
    command -v qemu-system-x86_64 >/dev/null || cannot "$require" 'no QEMU (apt-get install qemu-system-x86)'
    command -v apt-get >/dev/null && command -v dpkg >/dev/null ||
        cannot "$require" 'no apt-get to fetch a kernel'
    [ ! "${DRY_RUN:-}" ] || exit 0
    fetch || cannot "$require" 'no guest kernel or busybox to be had (apt-get update?)'
    pack || cannot "$require" 'cannot pack an initramfs'
}

# Prints the beginning of an init.
begin_init()
{
    cat <<END
#!/bin/busybox sh
busybox mkdir -p /proc /sys /dev
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
busybox mount -t sysfs sys /sys
for pass in 1 2; do     # the modules' dependencies differ between kernels
    for module in $(echo $modules); do
        [ ! -e /\$module.ko ] || busybox insmod /\$module.ko 2>/dev/null
    done
done
END
}

# Makes $work/initramfs of what write_files writes into $work/root, with busybox and the modules.
pack()
{
    mkdir -p "$work/root/bin" && cp "$cache/busybox" "$work/root/bin/" && write_files || return 1
    for module in $modules; do
        [ ! -e "$cache/$module.ko" ] || cp "$cache/$module.ko" "$work/root/" || return 1
    done
    (cd "$work/root" && find . | "$cache/busybox" cpio -o -H newc 2>/dev/null) >"$work/initramfs"
}
