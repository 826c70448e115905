"""Runs the processes of one measurement, and takes what they print."""

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


class Failed(Exception):
    """A measurement came to nothing."""


@dataclass
class Sample:
    asked: int
    frames: int  # that arrived
    seconds: float
    cpu: float  # seconds of the processes that are measured
    latency: float | None  # seconds, the median of single frames
    fields: dict  # what they printed besides

    @property
    def per_frame(self):
        """What ratios are made of: seconds a frame, or its latency."""
        return self.seconds / self.frames if self.latency is None else self.latency


class Process:
    """A process that prints name=value, and perhaps "ready" before."""

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
        """Waits for a listener's socket file instead."""
        while not os.path.exists(path):
            if self.process.poll() is not None:
                raise Failed(f"{' '.join(self.arguments)}: ended")
            time.sleep(0.01)
        time.sleep(0.05)  # between bind and listen

    def begin_cpu(self):
        """What it has used until now does not count."""
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            self.cpu -= int(task.read_text().split()[0]) / 1e9

    def finish(self, signals=False):
        """Waits for its end; what it printed. The first of equal names counts."""
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
        """Waits until it ends by itself."""
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)

    def kill(self):
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def hub(address, to):
    """QEMU's network layer alone: a hub with two sockets."""
    ports = (f"stream,id=a,server=on,addr.type=unix,addr.path={address}",
             f"stream,id=b,server=off,addr.type=unix,addr.path={to}")
    netdevs = (("-netdev", port, "-netdev", f"hubport,id=h{id},hubid=0,netdev={id}")
               for port, id in zip(ports, "ab"))
    return [QEMU, "-M", "none", "-nodefaults", "-display", "none", *sum(netdevs, ())]


class Bench:
    """The programs, and the order in which they are started."""

    def __init__(self, programs):
        self.programs = Path(programs)
        # The last processor sees the fewest interrupts.
        self.processor = max(os.sched_getaffinity(0))

    def lacks(self, contender):
        """Why this contender cannot be measured here, or None."""
        for role in (contender.sender, contender.receiver, contender.relay):
            program = role.split(" ")[0] if role else "tuned"
            if program == "qemu" and not shutil.which(QEMU):
                return f"{QEMU} is missing"
            if program != "qemu" and not os.access(self.programs / program, os.X_OK):
                return f"{program} is not built"
        return None

    def measure(self, contender, network, size, frames, pinned=False):
        """Lets a contender move that many frames."""
        started = []

        def expire(_signal, _frame):
            raise Failed(f"{contender.name}: no end after {LIMIT_S} s")

        signal.signal(signal.SIGALRM, expire)
        signal.alarm(LIMIT_S)
        try:
            with tempfile.TemporaryDirectory(prefix="bench-") as directory:
                return self.run(contender, network, directory, size, frames,
                                self.processor if pinned else None, started)
        finally:
            signal.alarm(0)
            for process in started:
                process.kill()

    def run(self, contender, network, directory, size, frames, processor, started):
        def address(name):
            return f"{directory}/{name}" if network == "unix" else f"127.0.0.1:{free_port()}"

        def start(role, at, *more):
            program, name, *settings = role.split(" ")
            arguments = [self.programs / program, name, network, at, size, frames]
            started.append(Process([*arguments, *settings, *more], processor))
            return started[-1]

        end = entry = address("end")
        receiver = relay = None
        measured = []
        if contender.receiver:
            receiver = start(contender.receiver, end)
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
        for process in measured:
            process.begin_cpu()
        sender = start(contender.sender, entry)
        if not contender.relay:
            measured.append(sender)
        # A side that times round trips ends first, or that is alone; otherwise the receiver does.
        is_first = not receiver or contender.receiver.split(" ")[1].startswith("pong")
        (sender if is_first else receiver).wait_printed()
        fields = sender.finish()
        if receiver:
            fields |= receiver.finish()
        if relay:
            fields |= relay.finish(signals=contender.relay == "qemu hub")
        cpu = sum(process.cpu for process in measured)
        return self.sample(fields.get("sent", frames), fields, cpu)

    def sample(self, asked, fields, cpu):
        missing = {"begin", "end", "frames"} - fields.keys()
        if missing or fields["frames"] == 0:
            raise Failed(f"nothing measured: {fields}")
        latency = fields.get("median")
        return Sample(asked, fields["frames"], max(fields["end"] - fields["begin"], 1) / 1e9, cpu,
                      latency and latency / 1e9, fields)

    def memory(self, *arguments):
        process = Process([self.programs / "memory", *arguments])
        try:
            return process.finish()
        finally:
            process.kill()
