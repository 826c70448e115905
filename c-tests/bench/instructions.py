#!/usr/bin/env python3
"""Counts what a frame of 64 bytes costs, in instructions, and fails where that is above the budget.

Usage: instructions.py PROGRAM

A processor's speed, its caches and whatever else runs do not matter to this count, so it is the one
measurement that can be a gate. PROGRAM moves frames for a few rounds under callgrind, and for more
rounds; the difference has no part of starting and ending. The C library's instructions count, and
those of PROGRAM itself, which are few.
"""

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

FEW, MANY = 10, 60  # rounds
ROUND = 1536  # frames in one

# What each work is, and the most instructions that a frame may take.
BUDGET = {
    "send": ("qnet_send, one write each", 260),
    "coalesce": ("qnet_send with TX_USECS, joining what is held", 70),
    "relay": ("relay: a delivery to a handler, and its corked qnet_send", 85),
    "recv": ("qnet_recv, from frames already read", 70),
    "send-batch": ("qnet_send_batch of 512", 40),
    "recv-batch": ("qnet_recv_batch of 512", 20),
    "handler": ("a frame handler", 28),
    "batch-handler": ("a batch handler", 20),
    "hub": ("hub, runs of one pair of addresses", 50),
    "hub-mixed": ("hub, 35 pairs of addresses that change with each frame", 130),
    "hub-access": ("hub, both ports in a VLAN, runs of one pair of addresses", 50),
    "hub-captured": ("hub, all captured, runs of one pair of addresses", 300),
    "hub-vlans": ("hub with VLANs, 35 pairs, tags as they are", 130),
    "hub-tags": ("hub with VLANs, 35 pairs, each tag changed", 220),
    "link": ("link", 30),
    "link-loss": ("link, each frame perhaps lost", 160),
}


def count(program, work, rounds):
    """How many instructions a run takes, in all its threads."""
    with tempfile.TemporaryDirectory() as scratch:
        out = f"--callgrind-out-file={scratch}/out"
        run = subprocess.run(["valgrind", "--tool=callgrind", out, program, work, str(rounds)],
                             capture_output=True, text=True)
    total = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode != 0 or not total:
        sys.exit(f"{work}: callgrind failed:\n{run.stderr}")
    return int(total[1])


def cost(program, work):
    return (count(program, work, MANY) - count(program, work, FEW)) / ((MANY - FEW) * ROUND)


def main(program):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        costs = list(pool.map(lambda work: cost(program, work), BUDGET))
    print(f"{'instructions a frame of 64 bytes':<56} {'is':>6} {'at most':>8}")
    above = 0
    for (what, most), is_now in zip(BUDGET.values(), costs):
        print(f"{what:<56} {is_now:>6.1f} {most:>8}{'  ABOVE' if is_now > most else ''}")
        above += is_now > most
    print(f"{len(costs) - above} passed, {above} failed")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
