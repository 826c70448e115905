"""The rows of the table: which work is measured, of which contenders, and what ratio is required.

A contender is a name, a kind (a bar of the plot), and its processes: a program with its role and
settings. A work is measured at one frame size; each of its references makes a row.
"""

import os
from dataclasses import dataclass, replace

AHEAD = 1.0  # the limit where libqnet only has to be ahead


@dataclass(frozen=True)
class Contender:
    name: str
    kind: str
    sender: str
    receiver: str
    relay: str = ""  # if there is one, only its processor time is measured
    beside: tuple[str, ...] = ()  # what else runs meanwhile


@dataclass(frozen=True)
class Reference:
    contender: Contender
    limit: float | None = None  # the least ratio, or for latencies the greatest


@dataclass(frozen=True)
class Work:
    name: str
    size: int
    ours: Contender
    references: list[Reference]
    network: str = "unix"
    latency: str = ""  # which time of single frames is compared, if one is: "median" or "p99"
    pinned: bool = False  # all processes on one processor, but those that run beside
    seconds: float = 0.3  # what a run should take
    plot: str = ""  # its label in the plot, or "" if it is not shown


def qnet(sender, receiver, relay=""):
    relay = relay and "qnet " + relay
    tuned = ("tuned send", "tuned receive")
    sender, receiver = tuned if relay else ("qnet " + sender, "qnet " + receiver)
    return Contender("libqnet", "libqnet", sender, receiver, relay)


TUNED = Contender("tuned C", "tuned C", "tuned send", "tuned receive")
PLAIN = Contender("plain C", "plain C", "plain lock", "plain receive")
WRITE = Contender("C, one write a frame", "plain C", "plain write", "tuned receive")
LOCK = Contender("C, mutex and a write a frame", "plain C",
                 "plain lock threads=4", "tuned receive")
TUNED_RELAY = Contender("tuned C", "tuned C", "tuned send", "tuned receive", "tuned relay")
PLAIN_RELAY = Contender("plain C", "plain C", "tuned send", "tuned receive", "plain relay")
PING = Contender("C, blocking read and write", "plain C", "plain ping", "plain pong")
HUB = Contender("QEMU hub", "QEMU hub", "tuned send", "tuned receive", "qemu hub")
PKTKIT = Contender("pktkit", "pktkit", "pktkit send", "pktkit handler")
PKTKIT_4 = Contender("pktkit", "pktkit", "pktkit send threads=4", "pktkit handler")
PKTKIT_RELAY = Contender("pktkit", "pktkit", "tuned send", "tuned receive", "pktkit relay")
PKTKIT_PING = Contender("pktkit", "pktkit", "pktkit ping", "pktkit pong")
PKTKIT_LONE = Contender("pktkit", "pktkit", "pktkit lone", "pktkit delay")

KNOWN = ("tuned send", "tuned receive-known")
PKTKIT_HUB = Contender("pktkit", "pktkit", *KNOWN, "pktkit hub")
MESH = "mesh mesh ports=64"
PKTKIT_MESH = Contender("pktkit", "pktkit", MESH, "", "pktkit serve")
ECHO = "mesh echo ports=64"
PLAIN_ECHO = Contender("C, one epoll loop", "plain C", ECHO, "", "plain switch")
PKTKIT_ECHO = Contender("pktkit", "pktkit", ECHO, "", "pktkit serve")
PASSED = Contender("tuned C", "tuned C", "qnet lone", "qnet delay", "tuned relay")

TUNED_MESSAGES = Contender("C, sendmmsg and recvmmsg", "tuned C",
                           "tuned send-messages", "tuned receive-messages")
PLAIN_MESSAGES = Contender("C, one call a frame", "plain C",
                           "plain send-messages", "plain receive-messages")
READ_WRITE = Contender("C, read and write", "plain C",
                       "plain send-messages", "plain receive-messages")

BATCH = qnet("send-batch", "batch-handler")
BATCH_MESSAGES = qnet("send-batch", "receive-messages")
SINGLE_HANDLER = qnet("send-batch", "handler")
PULLED = qnet("send-batch", "receive-batch")
PACKED = qnet("send-packed", "receive-packed")
SINGLE = qnet("send", "batch-handler")
HELD = qnet("send usecs=50", "batch-handler")
RELAY = qnet("", "", "relay")
FOUR = qnet("send threads=4", "batch-handler")
FOUR_HELD = qnet("send threads=4 usecs=50", "batch-handler")
PINGS = qnet("ping", "pong")
ANSWERS = qnet("ping", "pong-handler")
LONE = qnet("lone usecs=50", "delay")
LINK = qnet("", "", "link")
PLAIN_LINK = replace(LINK, name="link with nothing set")
FORMER_LINK = replace(LINK, name="library in FORMER", relay="former link")
LOSS, DELAY = " loss=1", " delay=1000"
LOSSY, LATE = qnet("", "", "link" + LOSS), qnet("", "", "link" + DELAY)
PKTKIT_LOSSY = replace(PKTKIT_RELAY, relay="pktkit link" + LOSS)
PKTKIT_LATE = replace(PKTKIT_RELAY, relay="pktkit link" + DELAY)
SWITCH = Contender("libqnet", "libqnet", *KNOWN, "qnet hub")
FORMER_HUB = replace(SWITCH, name="library in FORMER", relay="former hub")
PLAIN_SWITCH = replace(SWITCH, name="hub without VLANs")
IN_VLAN = replace(SWITCH, relay="qnet hub vlan=10")
CROWDED = Contender("libqnet", "libqnet", *KNOWN, "qnet hub ports=1000")
TWO_PORTS = Contender("hub with 2 ports", "libqnet", *KNOWN, "qnet hub")
CAPTURED_LINK = replace(LINK, name="captured", relay="qnet link capture=read")
CAPTURED = replace(SWITCH, name="captured", relay="qnet hub capture=read")
UNREAD_LINK = replace(LINK, name="captured, unread", relay="qnet link capture=unread")
UNREAD = replace(SWITCH, name="captured, unread", relay="qnet hub capture=unread")
MIXED = Contender("libqnet", "libqnet", MESH, "", "qnet serve")
ECHOED = Contender("libqnet", "libqnet", ECHO, "", "qnet serve")
THROUGH = Contender("libqnet", "libqnet", "qnet lone", "qnet delay", "qnet hub")
QUIET = Contender("libqnet without the 64", "libqnet",
                  "qnet lone", "qnet delay-known", "qnet crowd")
FULL = replace(QUIET, name="libqnet", beside=("mesh trickle ports=64",))
FLOODED = replace(QUIET, name="libqnet", beside=("mesh flood ports=64",))
BURNERS = ("plain burn",) * len(os.sched_getaffinity(0))
BUSY = replace(THROUGH, beside=BURNERS)
PASSED_BUSY = replace(PASSED, beside=BURNERS)
LONE_AT_ONCE = Contender("libqnet without", "libqnet", "qnet lone", "qnet delay")


def both(name, ours, small, large, plot=None, **how):
    """The same work with frames of 64 and of 1514 bytes."""
    return [
        Work(name, size, ours, [Reference(*reference) for reference in references],
             plot=plot[size] if plot and size in plot else "", **how)
        for size, references in ((64, small), (1514, large))
    ]


WORKS = [
    *both("batch send to batch handler", BATCH,
          [(TUNED, 0.95), (PLAIN,), (PKTKIT, 20)],
          [(TUNED, 0.88), (PLAIN,), (PKTKIT, 10)],
          plot={64: "batches, 64 B", 1514: "batches, 1514 B"}),
    *both("batch send to single-frame handler", SINGLE_HANDLER,
          [(TUNED, 0.90), (PKTKIT, 20)], [(TUNED,), (PKTKIT, 10)]),
    *both("batch send to qnet_recv_batch", PULLED,
          [(TUNED, 0.95), (PKTKIT, 20)], [(TUNED,), (PKTKIT, 10)]),
    *both("packed both ways", PACKED,
          [(TUNED, 0.95), (PKTKIT, 20)], [(TUNED,), (PKTKIT, 10)]),
    *both("single send", SINGLE,
          [(WRITE, 0.95), (PKTKIT, AHEAD)], [(WRITE, 0.95), (PKTKIT, AHEAD)],
          plot={64: "single sends, 64 B"}),
    *both("single send, TX_USECS 50", HELD,
          [(WRITE, 30), (PKTKIT, AHEAD)], [(WRITE,), (PKTKIT, AHEAD)],
          plot={64: "coalesced, 64 B"}),
    *both("relay by handler", RELAY,
          [(TUNED_RELAY, 0.80), (PLAIN_RELAY,), (PKTKIT_RELAY, AHEAD), (HUB, AHEAD)],
          [(TUNED_RELAY,), (PLAIN_RELAY,), (PKTKIT_RELAY, AHEAD), (HUB, AHEAD)],
          plot={64: "relay, 64 B", 1514: "relay, 1514 B"}),
    *both("link", LINK,
          [(TUNED_RELAY, 0.90), (FORMER_LINK, 0.98)], [(TUNED_RELAY, 0.90), (FORMER_LINK, 0.98)]),
    *both("link, loss 1%", LOSSY,
          [(PLAIN_LINK, 0.50), (PKTKIT_LOSSY, 20)], [(PLAIN_LINK,), (PKTKIT_LOSSY,)]),
    *both("link, delay 1ms", LATE,
          [(PLAIN_LINK, 0.35), (PKTKIT_LATE, 20)], [(PLAIN_LINK,), (PKTKIT_LATE,)]),
    *both("hub, 2 ports", SWITCH,
          [(TUNED_RELAY, 0.80), (HUB, 20), (PKTKIT_HUB, 40), (FORMER_HUB, 0.98)],
          [(TUNED_RELAY, 0.90), (HUB, 2), (PKTKIT_HUB, 5), (FORMER_HUB, 0.98)],
          plot={64: "hub, 64 B", 1514: "hub, 1514 B"}),
    *both("hub, both ports in a VLAN", IN_VLAN, [(PLAIN_SWITCH, 0.5)], [(PLAIN_SWITCH, 0.5)]),
    *both("hub, 1000 ports, traffic between 2", CROWDED, [(TWO_PORTS, 0.90)], [(TWO_PORTS, 0.90)]),
    *both("link, all captured to a pipe", CAPTURED_LINK, [(LINK,)], [(LINK,)]),
    *both("hub, all captured to a pipe", CAPTURED, [(SWITCH, 0.5)], [(SWITCH, 0.5)]),
    *both("link, a capture that nobody reads", UNREAD_LINK, [(LINK, 0.97)], [(LINK, 0.97)]),
    *both("hub, a capture that nobody reads", UNREAD, [(SWITCH, 0.97)], [(SWITCH, 0.97)]),
    *both("hub, 64 ports, frames mixed", MIXED, [(PKTKIT_MESH, 10)], [(PKTKIT_MESH,)]),
    *both("hub, 64 ports, one frame each, echoed", ECHOED,
          [(PLAIN_ECHO, 0.90), (PKTKIT_ECHO, AHEAD)],
          [(PLAIN_ECHO, 0.90), (PKTKIT_ECHO, AHEAD)]),
    *both("lone frame through an idle hub", THROUGH,
          [(PASSED, 1.2)], [(PASSED,)], latency="median"),
    # A second's frames, of which one in a hundred is more than a few.
    Work("lone frame, hub, processors busy", 64, BUSY,
         [Reference(PASSED_BUSY, 1.2)], latency="median", pinned=True, seconds=1),
    Work("lone frame's p99, hub, processors busy", 64, BUSY,
         [Reference(PASSED_BUSY, 1.2)], latency="p99", pinned=True, seconds=1),
    Work("lone frame, hub with 64 full ports", 64, FULL,
         [Reference(QUIET, 1.3)], latency="median", pinned=True),
    # Nothing is asked here: the hub has no time left, and its turn for a single one of the 64 takes
    # longer than the whole delay without them.
    Work("lone frame, hub with 64 ports flooding", 64, FLOODED,
         [Reference(QUIET)], latency="median"),
    *both("4 threads sending", FOUR,
          [(LOCK, 1.2), (PKTKIT_4, AHEAD)], [(LOCK,), (PKTKIT_4, AHEAD)],
          plot={64: "4 threads, 64 B"}),
    *both("4 threads sending, TX_USECS 50", FOUR_HELD,
          [(LOCK, 8), (PKTKIT_4, AHEAD)], [(LOCK,), (PKTKIT_4, AHEAD)]),
    *both("batch, TCP loopback", BATCH,
          [(TUNED,), (PKTKIT, 20)], [(TUNED, 0.90), (PLAIN,), (PKTKIT, 10)],
          network="tcp"),
    *both("batch, UDP", BATCH_MESSAGES,
          [(TUNED_MESSAGES, 0.85), (PLAIN_MESSAGES, 3)],
          [(TUNED_MESSAGES, 0.85), (PLAIN_MESSAGES, 3)], network="udp"),
    *both("batch, Unix datagrams", BATCH_MESSAGES,
          [(TUNED_MESSAGES, 0.85), (PLAIN_MESSAGES,)],
          [(TUNED_MESSAGES, 0.85), (PLAIN_MESSAGES,)], network="unixgram"),
    *both("batch, TAP", BATCH_MESSAGES,
          [(READ_WRITE, 0.90)], [(READ_WRITE, 0.90)], network="tap"),
    *both("ping-pong", PINGS,
          [(PING, 1.10), (PKTKIT_PING, AHEAD)], [(PING,), (PKTKIT_PING, AHEAD)],
          latency="median", pinned=True),
    *both("ping-pong, a handler answers", ANSWERS,
          [(PING, 1.10), (PKTKIT_PING, AHEAD)], [(PING,), (PKTKIT_PING, AHEAD)],
          latency="median", pinned=True),
    *both("lone send's delay, TX_USECS 50", LONE,
          [(LONE_AT_ONCE, 1.5), (PKTKIT_LONE, AHEAD)],
          [(LONE_AT_ONCE,), (PKTKIT_LONE, AHEAD)], latency="median"),
]

# The user memory of a connection, and the most bytes that it may take.
MEMORY = [
    ("idle", 1000, "before being received from", 1 << 10),
    ("handler", 1000, "with a handler", 32 << 10),
    ("burst", 1000, "with a handler, after full load both ways", 32 << 10),
    ("attached", 8000, "attached to a hub, idle", 1 << 10),
]

# Every way of libqnet to send, to receive and to forward: none may allocate memory for each frame.
ALLOCATION_SIZES = (64, 1514, 9000)
# The network is "unix" unless another one is given.
ALLOCATIONS = [
    *((sender, Contender(sender, "libqnet", "qnet " + sender, "tuned receive"))
      for sender in ("send", "send usecs=50", "send threads=4", "send-batch", "send-packed")),
    *((receiver, Contender(receiver, "libqnet", "tuned send", "qnet " + receiver))
      for receiver in ("handler", "batch-handler", "receive", "receive-batch", "receive-packed")),
    ("relay", RELAY),
    ("link", LINK),
    ("hub", SWITCH),
    *((network, BATCH_MESSAGES, network) for network in ("udp", "unixgram", "tap")),
]
