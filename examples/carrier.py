#!/usr/bin/env python3
"""carrier.py QMP DEVICE VM NETWORK - a cable between a QEMU and a network, to be pulled and put back.

QEMU is started with `-qmp unix:QMP,server=on,wait=off -device virtio-net-pci,id=DEVICE,netdev=n0` and
`-netdev stream,id=n0,server=off,addr.type=unix,addr.path=VM`. NETWORK is the path of a switch, or of
anybody else who listens. Each line of the standard input is a command: `down` pulls the cable, `up` puts it
back, and an empty one asks. The answer says how it is, and how many frames went nowhere so far.

The carrier that a guest sees is QEMU's own, whatever the netdev's peer does, and only QMP's `set_link`
changes it. So this does both: the library stops the frames, and QEMU tells the guest."""

import ctypes
import json
import socket
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p

QNET_OPT_LINK = 14
TX_DROPPED, RX_REFUSED = 6, 10  # members of qnet_stats, all of which have 64 bits

lib = ctypes.CDLL("libqnet.so.0")
lib.qnet_last_error.restype = c_char_p
# Functions that take a handle need argument types, because ctypes would cut it to an int.
lib.qnet_listen.argtypes = c_char_p, c_char_p, POINTER(c_void_p)
lib.qnet_accept.argtypes = c_void_p, c_int, POINTER(c_void_p)
lib.qnet_listener_close.argtypes = (c_void_p,)
lib.qnet_dial.argtypes = c_char_p, c_char_p, POINTER(c_void_p)
lib.qnet_link.argtypes = c_void_p, c_void_p
lib.qnet_set.argtypes = c_void_p, c_int, c_int64
lib.qnet_get_stats.argtypes = c_void_p, c_void_p, c_size_t
lib.qnet_close.argtypes = (c_void_p,)


def check(code):
    """Returns a call's result, unless it failed. (Not for time-outs, which leave no text.)"""
    if code < 0:
        raise OSError(lib.qnet_last_error().decode())
    return code


class Qmp:
    """A QEMU's monitor."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile()
        if "QMP" not in json.loads(self.lines.readline() or "{}"):
            raise OSError(f"{path} is no QMP socket")
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        """Returns the answer to a command. Events that come before it are skipped."""
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        for answer in map(json.loads, self.lines):
            if "error" in answer:
                raise OSError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]
        raise OSError("QEMU has left")

    def close(self):
        self.lines.close()
        self.socket.close()


def losses(conn):
    """How many frames from and to a connection's peer went nowhere."""
    stats = (c_uint64 * (RX_REFUSED + 1))()
    check(lib.qnet_get_stats(conn, stats, ctypes.sizeof(stats)))
    return f"lost: {stats[RX_REFUSED]} frames from it, {stats[TX_DROPPED]} to it"


def set_carrier(vm, qmp, device, up):
    """Both at once. The library comes first: a guest that sees its carrier return sends at once."""
    check(lib.qnet_set(vm, QNET_OPT_LINK, up))
    qmp.ask("set_link", name=device, up=bool(up))


def obey(vm, qmp, device):
    """Does what the standard input says, until its end."""
    state = "up"
    for line in sys.stdin:
        command = line.strip()
        if command in ("up", "down"):
            set_carrier(vm, qmp, device, int(command == "up"))
            state = command
        elif command:
            print(f"carrier.py: {command}: a command is up or down", file=sys.stderr)
        print(f"{state}; {losses(vm)}", flush=True)


def main():
    if len(sys.argv) != 5:
        sys.exit("usage: carrier.py QMP DEVICE VM NETWORK\n")
    qmp_path, device, vm_path, network_path = sys.argv[1:]
    listener, vm, network = c_void_p(), c_void_p(), c_void_p()
    try:
        check(lib.qnet_listen(b"unix", vm_path.encode(), byref(listener)))
        print("listening at", vm_path, flush=True)
        check(lib.qnet_accept(listener, -1, byref(vm)))
        check(lib.qnet_dial(b"unix", network_path.encode(), byref(network)))
        check(lib.qnet_link(vm, network))
        qmp = Qmp(qmp_path)  # it is there by now: QEMU opens its monitors before its netdevs
        print("linked", flush=True)
        try:
            obey(vm, qmp, device)
        finally:
            qmp.close()
    except KeyboardInterrupt:
        pass
    except (OSError, ValueError) as error:
        sys.exit(f"carrier.py: {error}")
    finally:
        lib.qnet_close(network)  # these do nothing with what was never opened
        lib.qnet_close(vm)
        lib.qnet_listener_close(listener)


main()
