#!/usr/bin/env python3
"""bridged_guest.py DIRECTORY KERNEL TEST... - sends the same frames into a bridge of Linux, whose ports are a guest's NICs,
and into a hub, whose ports have the same VLANs, and compares what comes out: whether, and each byte.

One port, whose mode changes, sends; the others have a mode each. For each test that passes, a line with its name and PASS
is printed. What the guest says goes to the standard error."""

import ctypes
import os
import socket
import struct
import sys
from ctypes import byref, c_char_p, c_int, c_int64, c_void_p

import guest as guests
from guest import directory

# What a port is told in the hub, and in the bridge.
MODES = {
    "access 10": ("vid 10 pvid untagged",),
    "trunk": ("vid 1-4094",),
    "trunk 10,20-29": ("vid 10", "vid 20-29"),
    "trunk 10 native 20": ("vid 10", "vid 20 pvid untagged"),
    "trunk native 10": ("vid 1-9", "vid 11-4094", "vid 10 pvid untagged"),
}
OUTS = list(MODES)
IN = len(OUTS)  # the port that sends

# Types and tags of frames, from the addresses on.
KINDS = {
    "untagged": "0800",
    "priority": "8100 a000 0800",
    "10": "8100 700a 0800",
    "20": "8100 0014 0800",
    "30": "8100 001e 0800",
    "4095": "8100 0fff 0800",
    "88a8": "88a8 000a 0800",
    "10 in 10": "8100 000a 8100 000a 0800",
    "20 in 10": "8100 000a 8100 0014 0800",
    "20 in 88a8": "88a8 000a 8100 0014 0800",
    "20 in priority": "8100 0000 8100 0014 0800",
    "10 in 20": "8100 0014 8100 000a 0800",
    "cut short": "8100 000a",
}
MARKER = 255
EVERYBODY = b"\xff" * 6
GROUP_FWD_MASK = 23

lib = ctypes.CDLL("libqnet.so.0")
lib.qnet_last_error.restype = c_char_p
lib.qnet_hub_attach.argtypes = c_void_p, c_void_p
lib.qnet_set_vlan.argtypes = c_void_p, c_char_p
lib.qnet_hub_fdb_add.argtypes = c_void_p, c_char_p, c_int, c_void_p
lib.qnet_hub_set.argtypes = c_void_p, c_int, c_int64


def check(code):
    assert code >= 0, lib.qnet_last_error().decode()


def frame_of(tags, to, number):
    """A frame that says its number in its last byte. One whose tag is cut short never comes, and says none."""
    frame = to + bytes.fromhex("02 00 00 00 00 63") + bytes.fromhex(tags)
    return frame if tags == KINDS["cut short"] else frame.ljust(63, b"\x5a") + bytes([number])


def address_of(port):
    return bytes([2, 0, 0, 0, 1, port])


def vlans_of(port):
    return (10,) if OUTS[port] == "access 10" else (10, 20)


class Switch:
    """Plain sockets at the ports of a hub or bridge."""

    def __init__(self, sockets):
        self.sockets = sockets
        for one in sockets:
            one.settimeout(30 * int(os.environ.get("CHECK_SLOW", 1)))

    def send(self, frame):
        self.sockets[IN].sendall(struct.pack(">I", len(frame)) + frame)

    def receive(self, port):
        length = struct.unpack(">I", self.sockets[port].recv(4, socket.MSG_WAITALL))[0]
        return self.sockets[port].recv(length, socket.MSG_WAITALL)

    def pass_on(self, mode, frames):
        """Sends frames from a port of this mode. Returns what comes at each of the others, as a dict of each.
        Each hears what comes last, which is of VLAN 10."""
        self.set_mode(IN, mode)
        for frame in frames:
            self.send(frame)
        tags = KINDS["untagged"] if mode in ("access 10", "trunk native 10") else KINDS["10"]
        self.send(frame_of(tags, EVERYBODY, MARKER))
        came = [{} for _ in OUTS]
        for port in range(IN):
            while (frame := self.receive(port))[-1] != MARKER:
                assert frame[-1] not in came[port], "a frame has come twice"
                came[port][frame[-1]] = frame
        return came


class Hub(Switch):
    def __init__(self):
        self.hub = c_void_p()
        check(lib.qnet_hub_new(byref(self.hub)))
        self.conns = [c_void_p() for _ in range(IN + 1)]
        fds = [c_int() for _ in self.conns]
        for conn, fd in zip(self.conns, fds):
            check(lib.qnet_socketpair_fd(byref(conn), byref(fd)))
            check(lib.qnet_hub_attach(self.hub, conn))
        super().__init__([socket.socket(fileno=fd.value) for fd in fds])
        for port, mode in enumerate(OUTS):
            self.set_mode(port, mode)
        check(lib.qnet_hub_set(self.hub, GROUP_FWD_MASK, 0))

    def set_mode(self, port, mode):
        check(lib.qnet_set_vlan(self.conns[port], mode.encode()))

    def learn(self, port):
        for vlan in vlans_of(port):
            check(lib.qnet_hub_fdb_add(self.hub, address_of(port), vlan, self.conns[port]))


class Bridge(Switch):
    def __init__(self):
        paths = [f"{directory}/nic{port}.sock" for port in range(IN + 1)]
        listeners = [socket.socket(socket.AF_UNIX) for _ in paths]
        for listener, path in zip(listeners, paths):
            listener.bind(path)
            listener.listen(1)
        # The NICs take whatever comes from the beginning, and not once a driver has told them.
        self.guest = guests.Guest(1, "", [
            (f"stream,id=n{port},server=off,addr.type=unix,addr.path={path}",
             f"mac=52:54:00:00:00:0{port},ctrl_rx=off,ctrl_vlan=off") for port, path in enumerate(paths)])
        super().__init__([listener.accept()[0] for listener in listeners])
        assert self.guest.finish()[1] == 0, "no bridge in this kernel"
        for port in range(IN + 1):
            self.do(f"busybox ip link set eth{port} up && busybox brctl addif br0 eth{port}")
        for port, mode in enumerate(OUTS):
            self.set_mode(port, mode)

    def do(self, command):
        said, status = self.guest.run(command)
        assert status == 0, said

    def set_mode(self, port, mode):
        device = f"eth{port}"
        self.do(f"busybox brctl delif br0 {device} && busybox brctl addif br0 {device}")
        self.do(" && ".join(f"bridge vlan add dev {device} {words}" for words in MODES[mode]))

    def learn(self, port):
        for vlan in vlans_of(port):
            self.do(f"bridge fdb add {address_of(port).hex(':')} dev eth{port} master static vlan {vlan}")


def known_difference(mode, kind, sent, theirs, ours):
    """Why a hub refuses a frame that Linux passes on, where it does so on purpose; None elsewhere."""
    if ours is not None or theirs is None:
        return None
    if mode == "access 10" and kind in ("10", "10 in 10", "20 in 10"):
        return "a port of Linux takes its own VLAN with a tag, too"
    if theirs == sent[:12] + sent[16:] and theirs[12:14] == b"\x81\x00":
        return "Linux lets a guest into another VLAN by a second tag, where that is all that is left"
    return None


def compare(addresses):
    """Sends each kind to each of these addresses, from a port of each mode."""
    wrong, differences = 0, set()
    for mode in MODES:
        kinds = [kind for _ in addresses for kind in KINDS]
        sent = [frame_of(KINDS[kind], addresses[n // len(KINDS)], n) for n, kind in enumerate(kinds)]
        by_bridge, by_hub = bridge.pass_on(mode, sent), hub.pass_on(mode, sent)
        for port, out in enumerate(OUTS):
            for number, kind in enumerate(kinds):
                theirs, ours = by_bridge[port].get(number), by_hub[port].get(number)
                if theirs == ours:
                    continue
                why = known_difference(mode, kind, sent[number], theirs, ours)
                differences.add(why)
                if not why:
                    wrong += 1
                    print(f"{mode} to {out}, {sent[number].hex()}: {theirs and theirs.hex()} comes from a bridge, "
                          f"{ours and ours.hex()} from a hub", file=sys.stderr)
    assert not wrong
    assert len(differences) == 2, "what is said to differ does not"


def floods_agree():
    compare([EVERYBODY])


def unicast_agrees():
    for port in range(IN):
        bridge.learn(port)
        hub.learn(port)
    compare([address_of(port) for port in range(IN)])


def reserved_groups_agree():
    sent = [frame_of(KINDS["untagged"], bytes.fromhex(f"0180c20000{last:02x}"), last) for last in range(34)]
    by_bridge, by_hub = bridge.pass_on("access 10", sent), hub.pass_on("access 10", sent)
    for came in by_bridge:
        assert came.pop(0, None), "a bridge that speaks no STP passes it on"
    assert by_bridge == by_hub and len(by_hub[0]) == 18


bridge, hub = Bridge(), Hub()
try:
    guests.run_tests(guests.arguments, globals(), lambda: None)
finally:
    bridge.guest.qemu.kill()
