"""Processes: forking, signals, and Python's end."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
import qnet

from .conftest import LONG, frame, receives


def runs(program: str, *arguments: str, **environment: str) -> str:
    """What a program prints, which has to end by itself, with 0 and nothing else to say."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(qnet.__file__).parents[1]), **environment},
        capture_output=True, text=True, timeout=LONG, check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_has_none_of_the_handles_and_may_begin_anew() -> None:
    a, b = qnet.socketpair()
    with a, b:
        a.set_handler(lambda _: None)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with pytest.raises(qnet.Handle):
                    a.send(frame())
                a.close()  # closes nothing
                with qnet.socketpair()[0] as c:
                    c.close()
                d, e = qnet.socketpair()
                heard = threading.Event()
                e.set_handler(lambda _: heard.set())
                d.send(frame())
                status = 0 if heard.wait(LONG) else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        a.set_handler(None)
        b.send(frame(1))
        assert receives(a) == frame(1)


def test_a_signal_ends_no_wait_unless_its_handler_raises() -> None:
    a, b = qnet.socketpair()
    seen = []

    def on_signal(*_: object) -> None:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        with a, b:
            main = threading.main_thread().ident
            assert main
            timers = [threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1)),
                      threading.Timer(0.1, b.send, (frame(1),)),
                      threading.Timer(0.15, signal.pthread_kill, (main, signal.SIGUSR1))]
            for timer in timers:
                timer.start()
            assert receives(a) == frame(1) and seen == [1]
            with pytest.raises(KeyboardInterrupt):
                a.recv()
            for timer in timers:
                timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_python_ends_in_the_middle_of_frames() -> None:
    """No handler is called any more when what was registered before the package is run."""
    program = """
        import atexit, threading, time

        @atexit.register
        def last():
            before = count
            time.sleep(0.1)
            print(count - before, "more")

        import qnet
        a, b = qnet.socketpair()
        count, done = 0, threading.Event()

        def handler(frame):
            global count
            b.send(frame)
            count += 1
            if count == 1000:
                done.set()

        b.set_handler(handler)
        a.set_handler(a.send)
        for _ in range(5):
            a.send(bytes(60))
        done.wait()
        print("leaving")
    """
    for _ in range(3):
        assert runs(program) == "leaving\n0 more\n"


def test_a_library_without_functions_can_be_imported() -> None:
    """That is what one of another release is: each function is looked for when it is called."""
    program = """
        import qnet
        assert qnet.FRAME_MAX == 69632 and qnet.constants["OPT_LINK"] == 14
        for call in (qnet.version, qnet.socketpair, qnet.Hub):
            try:
                call()
            except AttributeError as error:
                print(str(error).split("'")[1])
    """
    assert runs(program, QNET_LIBRARY="libc.so.6").split() == ["qnet_version", "qnet_socketpair", "qnet_hub_new"]


def test_the_library_is_that_of_the_header() -> None:
    assert qnet.version().count(".") == 2 and qnet.abi_version() == int(qnet.version().split(".")[0])
