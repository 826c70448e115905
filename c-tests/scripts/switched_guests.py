#!/usr/bin/env python3
"""switched_guests.py DIRECTORY KERNEL LAB TEST... - runs these tests, between three real guests.

LAB is examples/lab, which makes a switch, whose ports are the guests' first NICs, and two cables between the further NICs
of guests 1 and 2. The guests join by the arguments that it prints. For each test that passes, a line with its name and
PASS is printed. What the guests say goes to the standard error."""

import re
import signal
import subprocess
import sys

import guest as guests
from guest import directory

lab_program, *wanted = guests.arguments
file = f"{directory}/lab.txt"
LINES = {
    "s1": "switch s1",
    "vm1": f"port s1 vm1 unix:{directory}/vm1.sock vlan \"access 10\"",
    "vm2": f"port s1 vm2 unix:{directory}/vm2.sock vlan \"access 20\"",
    "vm3": f"port s1 vm3 unix:{directory}/vm3.sock vlan \"trunk 10,20\"",
    "cable1": f"cable unix:{directory}/left1.sock unix:{directory}/right1.sock",
    "cable2": f"cable unix:{directory}/left2.sock unix:{directory}/right2.sock",
}


def read_netdevs():
    """Reads what the laboratory prints until its file is in force. Returns the -netdev argument of each socket."""
    netdevs = {}
    for line in lab.stdout:
        print(f"lab: {line}", end="", file=sys.stderr)
        if line.endswith(" is in force\n"):
            return netdevs
        if match := re.search(r"-netdev (.*addr\.path=.*/(\w+)\.sock.*)\n", line):
            netdevs[match[2]] = match[1]
    raise EOFError("the laboratory has ended")


def write_file(**lines):
    """Writes the laboratory's file, with some lines changed, or without them."""
    with open(file, "w", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in (LINES | lines).values() if line)


def change(**lines):
    write_file(**lines)
    lab.send_signal(signal.SIGHUP)
    read_netdevs()


def start(number, *sockets):
    """Starts a guest whose NICs are at these sockets, with a speed, without which there is no bond."""
    nics = [(re.sub("id=[^,]*", f"id=n{nic}", netdevs[name]),
             f"speed=10000,duplex=full,mac=52:54:00:00:0{nic}:0{number}") for nic, name in enumerate(sockets)]
    return guests.Guest(number, "", nics)


def do(guest, *commands):
    for command in commands:
        said, status = guest.run(f"busybox {command}")
        assert status == 0, (command, said)


def hears(guest, address):
    """Whether an address answers a guest, sooner or later: the guest may still give up what it asked before."""
    return any(guest.run(f"busybox ping -c 1 -W 2 {address}")[1] == 0 for _ in range(20))


def is_deaf(guest, address):
    """Whether an address does not answer a guest, which has stopped asking for it by ARP when this returns."""
    return guest.run(f"busybox ping -c 3 -i 0.2 -W 4 {address}")[1] != 0


def received(guest, nic="eth0"):
    return int(guest.run(f"busybox cat /sys/class/net/{nic}/statistics/rx_packets")[0])


# ---- The tests, in this order. Each begins with the file as it was at first. ----

def vlans_are_apart():
    """Guests 1 and 2 have addresses of one network, and nothing of what one asks gets as far as the other."""
    for guest, other in (one, two), (two, one):
        before = received(other)
        assert is_deaf(guest, f"10.0.10.{other.name}")
        assert received(other) == before


def trunk_hears_both():
    """Guest 3 has an interface in each VLAN, and each guest answers there, and is not heard in the other."""
    assert hears(three, "10.0.10.1") and hears(one, "10.0.10.3")
    assert hears(three, "10.0.20.2") and hears(two, "10.0.20.3")
    before = received(three, "v10"), received(three, "v20")
    assert is_deaf(one, "10.0.10.99")
    assert received(three, "v10") > before[0] and received(three, "v20") == before[1]


def vlan_is_changed():
    """A guest that gets another VLAN stays where it is, and hears others."""
    change(vm2=LINES["vm2"].replace("access 20", "access 10"))
    assert hears(two, "10.0.10.1") and hears(two, "10.0.10.3") and is_deaf(two, "10.0.20.3")


def aggregated(guest):
    """How many ports of a guest's bond are in its active aggregator, and who the partner is."""
    said = guest.run("busybox cat /proc/net/bonding/bond0")[0]
    ports = re.search(r"Number of ports: (\d+)", said)
    partner = re.search(r"Partner Mac Address: ([\w:]+)", said)
    return int(ports[1]) if ports else 0, partner[1] if partner else ""


def await_ports(guest, ports):
    """Waits until so many ports of a guest's bond are with the other guest's, by LACP, for half a minute at most."""
    expected = ports, f"52:54:00:00:01:0{3 - guest.name}"
    for _ in range(60):
        if aggregated(guest) == expected:
            return
        guest.run("busybox sleep 0.5")
    raise AssertionError((guest.name, aggregated(guest), expected))


def make_bonds():
    """Makes the bonds of guests 1 and 2, unless there are some, and waits until both cables are in use."""
    bonding = "/sys/class/net/bond0/bonding"
    for guest in one, two:
        if guest.run(f"busybox grep eth2 {bonding}/slaves")[1] == 0:
            continue
        do(guest, f"sh -c 'echo 802.3ad >{bonding}/mode && echo 100 >{bonding}/miimon && echo 1 >{bonding}/lacp_rate'",
           f"sh -c 'echo +eth1 >{bonding}/slaves && echo +eth2 >{bonding}/slaves'",
           f"ip addr add 10.0.30.{guest.name}/24 dev bond0", "ip link set bond0 up")
    for guest in one, two:
        await_ports(guest, 2)


def bond_forms():
    """LACP passes the cables: the guests find each other, and use both."""
    make_bonds()
    assert hears(one, "10.0.30.2") and hears(two, "10.0.30.1")


def bond_survives():
    """A cable goes. The guests' carriers do not tell of it, but LACP does, and the other cable is left."""
    make_bonds()
    change(cable1=None)
    for guest in one, two:
        await_ports(guest, 1)
    assert hears(one, "10.0.30.2") and hears(two, "10.0.30.1")


write_file()
lab = subprocess.Popen([lab_program, file], stdout=subprocess.PIPE, text=True)
running = [lab]
try:
    netdevs = read_netdevs()
    one, two, three = (start(number, *sockets) for number, sockets in enumerate(
        (("vm1", "left1", "left2"), ("vm2", "right1", "right2"), ("vm3",)), 1))
    running += [one.qemu, two.qemu, three.qemu]
    for guest in one, two, three:
        guest.finish()  # it has booted
    for guest in one, two:
        do(guest, *(f"ip addr add 10.0.{vlan}.{guest.name}/24 dev eth0" for vlan in (10, 20)))
    for vlan in 10, 20:
        do(three, f"ip link add link eth0 name v{vlan} type vlan id {vlan}",
           f"ip addr add 10.0.{vlan}.3/24 dev v{vlan}", f"ip link set v{vlan} up")
    guests.run_tests(wanted, globals(), change)
finally:
    for process in running:
        process.kill()
        process.wait()
