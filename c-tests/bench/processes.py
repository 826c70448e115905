"""Runs the processes of one measurement and reads what they print."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 60  # no measurement takes nearly as long
QEMU = "qemu-system-x86_64"
FORMER = os.environ.get("FORMER", "")  # where the library is that the program `former` uses
MESSAGES = ("udp", "unixgram", "tap")  # networks on which a message is a frame


class Failed(Exception):
    """A measurement failed."""


@dataclass
class Sample:
    asked: int
    frames: int  # how many arrived
    seconds: float
    cpu: float  # seconds of processor time, of the processes that are measured
    fields: dict  # what they printed

    def per_frame(self, latency):
        """What ratios are calculated from: the seconds for each frame, or the named latency."""
        return self.fields[latency] / 1e9 if latency else self.seconds / self.frames


class Process:
    """A process that prints lines of name=value, and may print "ready" before them."""

    def __init__(self, arguments, processor=None, **streams):
        pin = processor is not None and (lambda: os.sched_setaffinity(0, {processor}))
        self.arguments = [str(argument) for argument in arguments]
        self.process = subprocess.Popen(
            self.arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=pin or None, **streams)
        self.printed = ""
        self.cpu = 0.0

    def wait_ready(self):
        for line in self.process.stdout:
            if line == "ready\n":
                return
            self.printed += line
        raise Failed(f"{' '.join(self.arguments)}: not ready")

    def wait_file(self, path):
        """Waits for the socket file of a listener that does not print "ready"."""
        while not os.path.exists(path):
            if self.process.poll() is not None:
                raise Failed(f"{' '.join(self.arguments)}: ended")
            time.sleep(0.01)
        time.sleep(0.05)  # between bind and listen

    def begin_cpu(self):
        """Leaves out the processor time that the process has used until now."""
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            self.cpu -= int(task.read_text().split()[0]) / 1e9

    def finish(self, signals=False):
        """Waits for its end. Returns what it printed, of equal names the first."""
        self.process.stdin.close()
        if signals:
            self.process.terminate()
        text = self.printed + self.process.stdout.read()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = status
        self.cpu += usage.ru_utime + usage.ru_stime
        if status and not signals:
            raise Failed(f"{' '.join(self.arguments)}: status {status}")
        pairs = [line.split("=") for line in text.splitlines() if "=" in line]
        return {name: int(value) for name, value in reversed(pairs)}

    def wait_printed(self):
        """Waits until the process has ended by itself."""
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)

    def kill(self):
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()


def free_port(network):
    kind = socket.SOCK_DGRAM if network == "udp" else socket.SOCK_STREAM
    with socket.socket(type=kind) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def hub(address, to):
    """QEMU's network layer alone: a hub with two sockets."""
    ports = (f"stream,id=a,server=on,addr.type=unix,addr.path={address}",
             f"stream,id=b,server=off,addr.type=unix,addr.path={to}")
    netdevs = (("-netdev", port, "-netdev", f"hubport,id=h{id},hubid=0,netdev={id}")
               for port, id in zip(ports, "ab"))
    return [QEMU, "-M", "none", "-nodefaults", "-display", "none", *sum(netdevs, ())]


class Taps:
    """A network namespace in which two TAPs, `from` and `to`, are the ports of a bridge."""

    SETUP = """
        set -e
        ! test -e /proc/sys/net/ipv6 || echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
        ip link add bridge type bridge
        ip link set bridge up
        for name in from to; do
            ip tuntap add $name mode tap
            ip link set $name txqueuelen 10000 mtu 9000 master bridge up
        done
        echo ready
        cat
    """

    def __init__(self):
        rights = [] if os.geteuid() == 0 else ["--map-root-user"]
        command = ["unshare", "--net", *rights, "sh", "-c", self.SETUP]
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True,
                                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.is_ready = self.process.stdout.readline() == "ready\n"
            self.why = None if self.is_ready else self.process.communicate()[1].strip()
        except OSError as error:
            self.process, self.why = None, str(error)

    @property
    def enter(self):
        """The words before a command that make it run in the namespace."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self.process.pid}", "--net", *user]

    def close(self):
        if self.process:
            self.process.communicate()


class Bench:
    """The programs, and the order in which they are started."""

    def __init__(self, programs):
        self.programs = Path(programs)
        self.taps = None
        # The last one sees the fewest interrupts, and what is pinned runs there.
        self.processors = sorted(os.sched_getaffinity(0))

    def lacks(self, contender, network="unix"):
        """Why this contender cannot be measured here, or None."""
        if network == "tap" and (why := self.open_taps().why) is not None:
            return f"no TAPs: {why}"
        roles = (contender.sender, contender.receiver, contender.relay, *contender.beside)
        for role in roles:
            program = role.split(" ")[0] if role else "tuned"
            if program == "qemu" and not shutil.which(QEMU):
                return f"{QEMU} is missing"
            if program == "former" and not os.path.exists(f"{FORMER}/libqnet.so.0"):
                return "FORMER names no directory with another libqnet.so.0"
            if program not in ("former", "qemu") and not os.access(self.programs / program, os.X_OK):
                return f"{program} is not built"
        return None

    def command(self, program):
        if program == "former":
            return ["env", f"LD_LIBRARY_PATH={FORMER}", self.programs / "qnet"]
        return [self.programs / program]

    def open_taps(self):
        self.taps = self.taps or Taps()
        return self.taps

    def close(self):
        if self.taps:
            self.taps.close()

    def measure(self, contender, network, size, frames, pinned=False):
        """Has a contender move that many frames. Returns a sample."""
        started = []

        def expire(_signal, _frame):
            raise Failed(f"{contender.name}: no end after {LIMIT_S} s")

        signal.signal(signal.SIGALRM, expire)
        signal.alarm(LIMIT_S)
        try:
            with tempfile.TemporaryDirectory(prefix="bench-") as directory:
                return self.run(contender, network, directory, size, frames,
                                self.processors[-1] if pinned else None, started)
        finally:
            signal.alarm(0)
            for process in started:
                process.kill()

    def run(self, contender, network, directory, size, frames, processor, started):
        def address(name):
            if network == "tap":
                return {"end": "to", "entry": "from"}[name]
            if network.startswith("unix"):
                return f"{directory}/{name}"
            return f"127.0.0.1:{free_port(network)}"

        def start(role, at, *more, on=processor):
            program, name, *settings = role.split(" ")
            arguments = [*self.command(program), name, network, at, size, frames]
            enter = self.open_taps().enter if network == "tap" else []
            started.append(Process([*enter, *arguments, *settings, *more], on))
            return started[-1]

        end = entry = address("end")
        has_messages = network in MESSAGES
        if has_messages:
            entry = address("entry")
        receiver = relay = None
        measured = []
        if contender.receiver:
            receiver = start(contender.receiver, end, *([f"to={entry}"] if has_messages else []))
            receiver.wait_ready()
            measured = [receiver]
        if contender.relay:
            entry = address("entry")
            if contender.relay == "qemu hub":
                relay = Process(hub(entry, end), stderr=subprocess.DEVNULL)
                started.append(relay)
                relay.wait_file(entry)
            else:
                relay = start(contender.relay, entry, f"to={end}")
                relay.wait_ready()
            measured = [relay]
        # Each stays on a processor of its own: by moving it the scheduler would disturb the others.
        beside = [start(role, entry, on=own)
                  for own, role in zip(self.processors, contender.beside)]
        for process in beside:
            process.wait_ready()
        for process in measured:
            process.begin_cpu()
        sender = start(contender.sender, entry, *([f"to={end}"] if has_messages else []))
        if not contender.relay:
            measured.append(sender)
        # A sender that times round trips or is alone ends first; otherwise the receiver does.
        is_first = not receiver or contender.receiver.split(" ")[1].startswith("pong")
        (sender if is_first else receiver).wait_printed()
        fields = sender.finish()
        if receiver:
            fields |= receiver.finish()
        for process in beside:
            process.finish(signals=True)
        if relay:
            fields |= relay.finish(signals=contender.relay == "qemu hub")
        cpu = sum(process.cpu for process in measured)
        return self.sample(fields.get("sent", frames), fields, cpu)

    def sample(self, asked, fields, cpu):
        missing = {"begin", "end", "frames"} - fields.keys()
        if missing or fields["frames"] == 0:
            raise Failed(f"nothing measured: {fields}")
        return Sample(asked, fields["frames"], max(fields["end"] - fields["begin"], 1) / 1e9, cpu,
                      fields)

    def memory(self, *arguments):
        process = Process([self.programs / "memory", *arguments])
        try:
            return process.finish()
        finally:
            process.kill()
