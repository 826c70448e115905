#!/bin/sh
# skips.sh what... - prints which of the tests to be run will be skipped here, or will fail, because
# something is missing. Scripts are asked themselves (DRY_RUN in report.sh); programs are known by name.
set -u

# Prints every reason once, with the number of tests.
sum_up()        # script; "how name: why" from standard input
{
    awk -v script="$1" '
        { how = $1 == "FAILED" ? "will fail" : "will skip"
          why = ""
          if ((at = index($0, ": ")) > 0) why = substr($0, at)
          key = how SUBSEP why
          if (!count[key]++) order[++keys] = key }
        END { for (i = 1; i <= keys; i++) {
            split(order[i], part, SUBSEP)
            printf "%s %d of %s%s\n", part[1], count[order[i]], script, part[2] } }'
}

say()           # what QNET_REQUIRE_... why
{
    if [ "$2" = 1 ]; then echo "will fail $1: $3"; else echo "will skip $1: $3"; fi
}

qemu=${QNET_QEMU:-qemu-system-x86_64}
# Prints 8 for "QEMU emulator version 8.2.1".
major_version()
{
    "$qemu" --version 2>/dev/null | sed -n '1s/.* version \([0-9]*\)\..*/\1/p'
}

program()       # name
{
    case $1 in
    qemu | wedge)
        if ! command -v "$qemu" >/dev/null; then
            say "$1" "${QNET_REQUIRE_QEMU:-0}" "no $qemu (apt-get install qemu-system-x86)"
        elif [ "$1" = qemu ] && [ "$(major_version)" -lt 8 ]; then
            say 'some of qemu' 0 "a QEMU that connects again is of version 8 or later"
        fi ;;
    tap)
        if [ ! -w /dev/net/tun ]; then
            say tap "${QNET_REQUIRE_TAP:-0}" 'no right to /dev/net/tun'
        elif ! unshare --net true 2>/dev/null; then
            say tap "${QNET_REQUIRE_TAP:-0}" 'no right to make a network namespace'
        fi ;;
    lookup) unshare --net --mount true 2>/dev/null || say lookup 0 'no right to have a name server' ;;
    conn) unshare --net true 2>/dev/null || say 'some of conn' 0 'no right to make a network namespace' ;;
    files) [ "$(id -u)" -eq 0 ] || say 'some of files' 0 'only root can be a stranger to itself' ;;
    esac
}

for what; do
    script=${what%% *}
    case $what in
    scripts/rust.sh* | scripts/again.sh*) ;;
    # The script and its arguments are split into words on purpose.
    # shellcheck disable=SC2086
    scripts/*) DRY_RUN=1 $what | sum_up "${script##*/}" ;;
    *) program "$what" ;;
    esac
done
