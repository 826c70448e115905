#!/usr/bin/env python3
"""carrier.py PROGRAM DIRECTORY - tests examples/carrier.py (PROGRAM) as a QEMU and as a network.

The QEMU is a netdev and a monitor that speaks the greeting, qmp_capabilities and set_link, and tells of an
event in between. It knows one device, nic0."""

import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time

program, directory = sys.argv[1:]
qmp_path, vm_path, network_path = (f"{directory}/{name}.sock" for name in ("qmp", "vm", "network"))
asked = []  # the commands that the monitor was given


def listen(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def serve_monitor(listener):
    """Answers one client after another."""
    while True:
        client = listener.accept()[0]
        lines = client.makefile("rw")

        def say(answer):
            lines.write(json.dumps(answer) + "\r\n")
            lines.flush()

        say({"QMP": {"version": {}, "capabilities": ["oob"]}})
        for command in map(json.loads, lines):
            asked.append((command["execute"], command.get("arguments") or {}))
            name, arguments = asked[-1]
            say({"event": "NIC_RX_FILTER_CHANGED", "data": {}, "timestamp": {}})
            if asked[0][0] != "qmp_capabilities":
                say({"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation"}})
            elif name == "set_link" and arguments["name"] != "nic0":
                say({"error": {"class": "DeviceNotFound", "desc": f"Device '{arguments['name']}' not found"}})
            else:
                say({"return": {}})


def frame(number):
    return b"\xff" * 6 + b"\2" + bytes(5) + b"\x88\xb5" + bytes([number]) * 46


def send(peer, number):
    peer.sendall(struct.pack(">I", 60) + frame(number))


def expect(peer, *numbers):
    """Checks that these frames come, and no other before them."""
    for number in numbers:
        got = peer.recv(64, socket.MSG_WAITALL)
        assert got == struct.pack(">I", 60) + frame(number), got


def start(device):
    """Starts the program, and both its peers. Returns the three."""
    process = subprocess.Popen(
        [sys.executable, program, qmp_path, device, vm_path, network_path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == f"listening at {vm_path}\n"
    vm = socket.socket(socket.AF_UNIX)
    vm.connect(vm_path)
    network = networks.accept()[0]
    assert process.stdout.readline() == "linked\n"
    return process, vm, network


def tell(process, command):
    """Gives a command. Returns how the cable is, and how many frames were lost from it and to it."""
    process.stdin.write(command + "\n")
    process.stdin.flush()
    said = process.stdout.readline()
    match = re.fullmatch(r"(up|down); lost: (\d+) frames from it, (\d+) to it\n", said)
    assert match, said
    return match[1], int(match[2]), int(match[3])


monitor, networks = listen(qmp_path), listen(network_path)
threading.Thread(target=serve_monitor, args=(monitor,), daemon=True).start()

process, vm, network = start("nic0")
assert asked == [("qmp_capabilities", {})], asked
send(vm, 1)
expect(network, 1)
assert tell(process, "") == ("up", 0, 0)
for times in 1, 2:
    assert tell(process, "down") == ("down", times - 1, times - 1)
    assert asked[-1] == ("set_link", {"name": "nic0", "up": False}), asked
    send(vm, 2)
    send(network, 3)
    while tell(process, "") != ("down", times, times):
        time.sleep(0.05)
    assert tell(process, "up") == ("up", times, times)
    assert asked[-1] == ("set_link", {"name": "nic0", "up": True}), asked
    send(vm, 4)
    expect(network, 4)
    send(network, 5)
    expect(vm, 5)
assert process.communicate() == ("", ""), "it said more than it should"
assert process.returncode == 0, process.returncode
assert vm.recv(1) == b"" and network.recv(1) == b""
assert len(asked) == 5, asked

process, vm, network = start("nic1")
assert process.communicate("down\n") == ("", "carrier.py: Device 'nic1' not found\n")
assert process.returncode == 1, process.returncode
