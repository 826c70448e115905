"""The package: what is built, and the code of its README."""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import zipfile
from typing import Callable, Dict, List

import pytest
import qnet
from qnet._library import declarations

from .conftest import LONG, frame, receives

HERE = pathlib.Path(__file__).resolve().parents[1]
HEADER = HERE / "qnet" / "qnet.h"


def dialled(path: str) -> qnet.Conn:
    """Dials who is about to listen."""
    end = time.monotonic() + LONG
    while True:
        try:
            return qnet.dial("unix", path)
        except qnet.Refused:
            assert time.monotonic() < end
            time.sleep(0.01)


def machine_that_leaves() -> None:
    with dialled("vm.sock") as vm:
        vm.send(frame(1, source=b"\x02abcde"))
        assert receives(vm)[:6] == b"\x02abcde"


def machine_on_the_hub() -> None:
    with dialled("sw.sock") as vm:
        while vm.close_reason() is None:
            vm.send(frame(1))
            time.sleep(0.01)


def machine_that_hears_itself() -> None:
    with dialled("echo.sock") as vm:
        vm.send(frame(1))
        assert receives(vm) == frame(1)


def machine_in_a_vlan() -> None:
    with dialled("lab.sock") as vm:
        vm.send(frame(1, source=b"\x02abcde"))
        vm.wait(LONG)


def nobody() -> None:
    pass


# What each block of the README is run beside, and what it has to print.
BLOCKS: Dict[str, List[object]] = {
    "vm.sock": [machine_that_leaves, r"qemu-system-x86_64 -netdev stream,id=n0,.* \.\.\.\n"
                r"60 bytes from 02:61:62:63:64:65\n1 frames\n"],
    "nobody.sock": [nobody, r"True 2 .*nobody\.sock.*\n"],
    "sw.sock": [machine_on_the_hub, r"\[\('.*', 'delay 40ms 5ms loss 1% rate 20mbit seed 1'\)\]\n"],
    "lab.sock": [machine_in_a_vlan, r"8100000a 1\n\[\('02:61:62:63:64:65', 10, True\)\]\n"],
    "echo.sock": [machine_that_hears_itself, ""],
    "Clock": [nobody, r"due at 40000000 ns\n1 frame: 60 bytes\n"],
}


def blocks(language: str) -> List[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", (HERE / "README.md").read_text())


def test_every_block_is_known() -> None:
    assert len(blocks("python")) == len(BLOCKS) and len(blocks("sh")) == 2
    assert blocks("sh")[0].startswith("pip install ./python ") and "pytest python " in blocks("sh")[1]


@pytest.mark.parametrize("phrase", BLOCKS)
def test_readme(phrase: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [block for block in blocks("python") if phrase in block]
    beside, printed = BLOCKS[phrase]
    assert callable(beside)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    failed: List[BaseException] = []

    def run(peer: Callable[[], None]) -> None:
        try:
            peer()
        except BaseException as error:
            failed.append(error)

    peer = threading.Thread(target=run, args=(beside,))
    peer.start()
    done = subprocess.run([sys.executable, "-W", "error", "-c", block], capture_output=True, text=True,
                          timeout=LONG, check=False)
    peer.join()
    assert (done.returncode, done.stderr, failed) == (0, "", [])
    assert re.fullmatch(str(printed), done.stdout), done.stdout


def test_declarations_leave_nothing_of_the_preprocessor() -> None:
    plain = declarations(HEADER.read_text())
    assert "__cplusplus" not in plain and not re.search(r"(?m)^#(?!define QNET_VERSION)", plain)
    functions = set(re.findall(r"\b(qnet_\w+)\(", re.sub(r"(?s)/\*.*?\*/", "", HEADER.read_text())))
    assert functions and functions <= set(re.findall(r"\bqnet_\w+", plain))


def test_every_function_is_used() -> None:
    """So that a new one is not forgotten: each is called by its name, or by that of its object and its own."""
    text = "\n".join(path.read_text().split("__all__")[0] for path in (HERE / "qnet").glob("*.py"))
    prefixes = ["qnet_", "qnet_listener_", "qnet_hub_", "qnet_clock_", "qnet_capture_"]
    code = re.sub(r"(?s)/\*.*?\*/", "", HEADER.read_text())
    named = {name for name in re.findall(r"\b(qnet_\w+)\(", code)}
    unused = {
        name for name in named
        if not re.search(rf"lib\.{name}\b", text)
        and not any(f'"{name[len(p):]}"' in text for p in prefixes if name.startswith(p))
    }
    # Replaced: by qnet_dial_with(), by bytes in one piece, and by the texts of errors.
    assert unused == {"qnet_dial", "qnet_send_batch", "qnet_recv_batch"}


def has(module: str, major: int, minor: int = 0) -> bool:
    """Whether there is a module of that version or a later one."""
    try:
        version = importlib.metadata.version(module).split(".")
    except importlib.metadata.PackageNotFoundError:
        return False
    return (int(version[0]), int(version[1])) >= (major, minor)


builds = has("pip", 20) and has("wheel", 0) and has("setuptools", 61)  # which reads pyproject.toml


@pytest.mark.skipif(not builds, reason="no pip, wheel or setuptools 61")
def test_wheels_and_installations_contain_the_header(tmp_path: pathlib.Path) -> None:
    quiet = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    copy = tmp_path / "python"
    subprocess.run(["cp", "-r", "--parents", "python", "include", "LICENSE", str(tmp_path)],
                   cwd=HERE.parent, check=True)
    # What pip makes a wheel of is a source distribution first, so that what that lacks is missed.
    subprocess.run([sys.executable, "setup.py", "--quiet", "sdist"], cwd=copy, check=True, capture_output=True)
    (source,) = (copy / "dist").glob("qnet-*.tar.gz")
    subprocess.run([*quiet, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)],
                   check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"qnet-{qnet.version()}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("qnet/qnet.h") == HEADER.read_bytes() and "qnet/py.typed" in archive.namelist()
        assert any(name.endswith("LICENSE") for name in archive.namelist())
    subprocess.run([*quiet, "install", "--no-deps", "--no-build-isolation", "--target", str(tmp_path / "site"),
                    "./python"], cwd=tmp_path, check=True)
    said = subprocess.run([sys.executable, "-c", "import qnet; print(qnet.__file__, qnet.version())"], check=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
                          cwd=tmp_path, capture_output=True, text=True).stdout
    assert said == f"{tmp_path}/site/qnet/__init__.py {qnet.version()}\n"


@pytest.mark.skipif(not has("mypy", 1, 5), reason="no mypy 1.5, which knows Buffer")
def test_types_are_strict() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy", "--cache-dir", "/dev/null"], cwd=HERE, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
