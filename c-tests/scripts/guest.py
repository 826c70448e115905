"""guest.py - real guests, whose init does what its standard input says, for the programs of session.sh."""

import os
import re
import subprocess
import sys
import traceback

directory, kernel, *arguments = sys.argv[1:]


class Guest:
    """A guest with these words on its kernel's command line, and for each NIC a -netdev argument, whose id is n0, n1
    and so on, and what its device has besides."""

    def __init__(self, name, words, nics, more=()):
        self.name = name
        command = ["qemu-system-x86_64", *os.environ["MACHINE"].split(), "-serial", "stdio", "-kernel", kernel,
                   "-initrd", f"{directory}/initramfs", *more, "-append",
                   f"console=ttyS0 quiet panic=-1 ipv6.disable=1 {words}"]
        for number, (netdev, device) in enumerate(nics):
            command += ["-netdev", netdev, "-device",
                        f"virtio-net-pci,netdev=n{number},id=nic{number},romfile=,{device}"]
        self.qemu = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                     errors="replace")

    def finish(self):
        """Waits until a command has ended. Returns its output and its status."""
        said = ""
        for line in self.qemu.stdout:
            print(f"guest {self.name}: {line.rstrip()}", file=sys.stderr)
            if match := re.fullmatch(r"END (\d+)\s*", line):
                return said, int(match[1])
            said += line
        raise EOFError(f"guest {self.name} has left")

    def run(self, command):
        self.qemu.stdin.write(command + "\n")
        self.qemu.stdin.flush()
        return self.finish()


def run_tests(names, module, after):
    """Runs these functions of a module, and prints which of them pass. After each one it calls a function."""
    for name in names:
        try:
            module[name]()
            print(name, "PASS", flush=True)
        except AssertionError:
            traceback.print_exc()
        after()
