#!/usr/bin/env python3
"""impaired_guests.py DIRECTORY KERNEL CARRIER TEST... - runs these tests, between two real guests.

DIRECTORY has an initramfs, whose init does what its standard input says. The guests' first NICs are joined by a
link of this program, which is impaired; their second ones by examples/carrier.py (CARRIER) and another link. For
each test that passes, a line with its name and PASS is printed. What the guests say goes to the standard error."""

import ctypes
import re
import shlex
import subprocess
import sys
import time
from ctypes import byref, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p

import guest as guests
from guest import directory

IN, OUT, BOTH, OPT_LINK = 1, 2, 3, 14
TX_DROPPED, RX_REFUSED = 6, 10  # members of qnet_stats, all of which have 64 bits
FRAMES, LOST, DROPPED, PASSED, PASSED_BYTES = 0, 3, 7, 10, 11  # and of qnet_impair_stats
PINGS = 1000

lib = ctypes.CDLL("libqnet.so.0")
lib.qnet_last_error.restype = c_char_p
lib.qnet_accept.argtypes = c_void_p, c_int, c_void_p
lib.qnet_link.argtypes = lib.qnet_hub_attach.argtypes = c_void_p, c_void_p
lib.qnet_unlink.argtypes = (c_void_p,)
lib.qnet_set.argtypes = c_void_p, c_int, c_int64
lib.qnet_get_stats.argtypes = c_void_p, c_void_p, c_size_t
lib.qnet_impair.argtypes = c_void_p, c_int, c_char_p
lib.qnet_get_impair_stats.argtypes = c_void_p, c_int, c_void_p, c_size_t

carrier_program, *wanted = guests.arguments


def check(code):
    assert code >= 0, lib.qnet_last_error().decode()


def path(name):
    return f"{directory}/{name}.sock"


def listen(name):
    listener = c_void_p()
    check(lib.qnet_listen(b"unix", path(name).encode(), byref(listener)))
    return listener


def accept(listener):
    conn = c_void_p()
    check(lib.qnet_accept(listener, -1, byref(conn)))
    return conn


class Guest(guests.Guest):
    """A guest, whose addresses end in `number`; the other's end in 3 - number. Its second NIC dials `second`."""

    def __init__(self, number, second):
        self.number = number
        listener = listen(f"guest{number}")
        nics = [(f"stream,id=n{nic},server=off,addr.type=unix,addr.path={path(name)}",
                 f"mac=52:54:00:00:0{nic}:0{number}") for nic, name in enumerate((f"guest{number}", second))]
        super().__init__(number, f"own={number} peer={3 - number}", nics,
                         ("-qmp", f"unix:{path(f'qmp{number}')},server=on,wait=off"))
        self.conn = accept(listener)

    def ping(self, count, interval, more=""):
        """Pings the other guest. Returns how many pings were sent and answered, and each one's time in ms."""
        said, _ = self.run(f"busybox ping -c {count} -i {interval} -W 1 {more} 10.0.0.{3 - self.number} >/said 2>&1; "
                           "busybox cat /said")
        assert "No buffer space available" not in said, "the guest cannot send"
        sent, answered = re.search(r"(\d+) packets transmitted, (\d+) packets received", said).groups()
        return int(sent), int(answered), [float(ms) for ms in re.findall(r" time=([\d.]+) ms", said)]

    def has_carrier(self, value):
        """Waits until the guest sees that its second NIC has a carrier, or has none."""
        loop = f"until busybox grep {value} /sys/class/net/eth1/carrier; do busybox usleep 50000; done"
        status = self.run(f"busybox timeout 10 busybox sh -c {shlex.quote(loop)}")[1]
        assert status == 0, f"the carrier of guest {self.number} is not {value}"

    def set_link(self, value):
        check(lib.qnet_set(self.conn, OPT_LINK, value))

    def impair(self, spec):
        check(lib.qnet_impair(self.conn, BOTH, spec.encode()))

    def stats(self, direction=None):
        """The counts of an impaired direction, or without one of the connection."""
        counts = (c_uint64 * 20)()
        if direction:
            check(lib.qnet_get_impair_stats(self.conn, direction, counts, ctypes.sizeof(counts)))
        else:
            check(lib.qnet_get_stats(self.conn, counts, ctypes.sizeof(counts)))
        return list(counts)

    def counted(self, direction=None):
        """Returns a function that tells how much each count has grown since."""
        before = self.stats(direction)
        return lambda: [now - then for now, then in zip(self.stats(direction), before)]


def carrier_says(answer):
    said = carrier.stdout.readline()
    print(f"carrier.py: {said}", end="", file=sys.stderr)
    assert said.startswith(answer), said


# ---- The tests. Each begins with a link that is not impaired. ----

def delays():
    """No ping is answered sooner than after the delay, and the fastest hardly later. (Where a machine has other work,
    some wait so long for a processor that the mean, and even the median, tells of that alone.)"""
    plain = one.ping(100, 0.02)[2]
    one.impair("delay 20ms")
    delayed = one.ping(100, 0.02)[2]
    assert len(plain) == len(delayed) == 100
    assert min(delayed) >= 40 and abs(min(delayed) - min(plain) - 40) <= 2, (min(delayed), min(plain))


def check_lost(counts):
    """Checks that of so many frames, each lost with a probability of 20%, about as many were: four sigma at most."""
    frames, lost = counts[FRAMES], counts[LOST]
    assert abs(lost - 0.2 * frames) <= 4 * (frames * 0.2 * 0.8) ** 0.5, (lost, frames)


def loses():
    """What the guest misses is what was lost, of the requests and of the answers."""
    one.impair("loss 20% seed 1")
    grown_in, grown_out = one.counted(IN), one.counted(OUT)
    sent, answered, _ = one.ping(PINGS, 0.002, "-q")
    requests, answers = grown_in(), grown_out()
    assert sent == requests[FRAMES] == PINGS, (sent, requests)
    assert requests[PASSED] == answers[FRAMES] and answers[PASSED] == answered, (requests, answers, answered)
    check_lost(requests)
    check_lost(answers)


def fetch():
    """Returns how long it takes guest 2 to fetch a file of guest 1."""
    began = time.monotonic()
    got, _ = two.run("busybox wget -q -O - http://10.0.0.1/data | busybox md5sum")
    took = time.monotonic() - began
    assert got == one.run("busybox md5sum </www/data")[0]
    return took


def rates():
    """A file arrives whole, although the limit drops some frames, and no faster than the rate, nor much slower."""
    size = 3_000_000
    one.run(f"busybox mkdir -p /www && busybox head -c {size} /dev/urandom >/www/data && busybox httpd -h /www")
    plain = fetch()
    one.impair("rate 5mbit limit 50")
    grown = one.counted(IN)
    took = fetch()
    counts = grown()
    assert counts[PASSED_BYTES] >= size and counts[DROPPED] > 0, counts
    assert counts[PASSED_BYTES] * 8 / 5e6 <= took <= 2 * (size * 8 / 5e6 + plain), (counts, took, plain)


def pulls():
    """All that is sent on a cable that is pulled is lost, and more than any queue holds can be sent."""
    one.set_link(0)
    for guest, count in (one, RX_REFUSED), (two, TX_DROPPED):
        grown = one.counted()
        sent, answered, _ = guest.ping(PINGS, 0.002, "-q -s 1400")
        assert (sent, answered, grown()[count]) == (PINGS, 0, PINGS), (sent, answered, grown())
    one.set_link(1)
    for guest in one, two:
        assert guest.ping(10, 0.01)[:2] == (10, 10)


def ask_carrier(command, answer):
    carrier.stdin.write(command + "\n")
    carrier.stdin.flush()
    carrier_says(answer)


def tells_guest():
    """The guest sees its carrier go, and come back. Meanwhile what is for it does not get as far as its QEMU."""
    for times in 1, 2:
        for value in "down", "up":
            ask_carrier(value, f"{value}; ")
            one.has_carrier(int(value == "up"))
            two.has_carrier(1)
            for guest in one, two:
                answered = guest.run(f"busybox ping -c 3 -i 0.1 -W 2 10.0.1.{3 - guest.number}")[1] == 0
                assert answered == (value == "up"), (guest.number, value)
            ask_carrier("", f"{value}; lost: 0 frames from it, {3 * times} to it")


def hub_impairs():
    """The same in a hub. It is the last test, as the guests remain there."""
    hub = c_void_p()
    check(lib.qnet_hub_new(byref(hub)))
    check(lib.qnet_unlink(one.conn))
    for guest in one, two:
        check(lib.qnet_hub_attach(hub, guest.conn))
    delays()
    loses()


def restore():
    one.impair("")
    one.set_link(1)


network = listen("network")
two = Guest(2, "network")
plugged = accept(network)
carrier = subprocess.Popen([sys.executable, carrier_program, path("qmp1"), "nic1", path("vm"), path("network")],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
carrier_says("listening")
one = Guest(1, "vm")
carrier_says("linked")
check(lib.qnet_link(accept(network), plugged))
check(lib.qnet_link(one.conn, two.conn))
try:
    for guest in one, two:
        guest.finish()  # it has booted
    guests.run_tests(wanted, globals(), restore)
finally:
    for process in one.qemu, two.qemu, carrier:
        process.kill()
        process.wait()
