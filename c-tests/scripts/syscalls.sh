#!/bin/sh
# syscalls.sh program - counts the system calls that the library makes for a frame that comes, and for one
# that goes, while they go to and fro one at a time. The program is that of turns.c, which is run for a number
# of turns and for twice as many; the difference has no part of starting and ending. Without strace, or the
# right to trace, the tests are skipped, or fail if QNET_REQUIRE_STRACE=1.

cd "$(dirname "$0")" || exit 2
. ./report.sh
turns=400
# What a few turns more may cost, of a thread that slept for something else, does not count.
few=$((turns / 20))

# Prints how many calls of the names that match there were.
calls()     # file pattern
{
    awk -v names="^($2)\$" '$NF ~ names && $NF != "total" && $4 ~ /^[0-9]+$/ { sum += $4 } END { print sum + 0 }' "$1"
}

# Checks that further turns make at most so many calls each.
at_most()   # how-many what pattern
{
    more=$(($(calls "$work/many" "$3") - $(calls "$work/few" "$3")))
    echo "$more calls $2 in $turns turns"
    [ "$more" -le $(($1 * turns + few)) ]
}

few_calls() # way
{
    strace -f -c -o "$work/few" "$program" "$1" "$turns" &&
        strace -f -c -o "$work/many" "$program" "$1" $((2 * turns)) || return 1
    receiving='poll|ppoll|epoll_wait|epoll_pwait|epoll_pwait2|recvfrom|recvmsg|recvmmsg'
    sending='sendto|sendmsg|sendmmsg'
    # In all there are two calls of the peers' besides.
    at_most 2 'to receive' "$receiving" && at_most 1 'to send' "$sending" && at_most 5 'in all' '.*' && return
    cat "$work/few" "$work/many"
    return 1
}

program=$1
what='the system calls of a frame'
if ! command -v strace >/dev/null; then
    lack "${QNET_REQUIRE_STRACE:-0}" "$what: no strace (apt-get install strace)"
elif ! strace -o "$work/probe" -c true 2>/dev/null; then
    lack "${QNET_REQUIRE_STRACE:-0}" "$what: no right to trace"
else
    for way in pull handler hub; do
        try "$what, by $way" few_calls "$way"
    done
fi
finish
