"""What the tests share: every test has to close what it opens."""

import gc
import os
import threading
from typing import Any, Callable, Iterator, List

import pytest
import qnet
from qnet import _conn, _object

LONG = 30.0 * int(os.environ.get("CHECK_SLOW", "1"))  # seconds, against hanging


def frame(number: int = 0, to: bytes = b"\xff" * 6, source: bytes = b"\x02\0\0\0\0\1", size: int = 60) -> bytes:
    """A frame that bears a number."""
    return (to + source + b"\x88\xb5" + number.to_bytes(4, "big")).ljust(size, b"\0")


def receives(conn: qnet.Conn) -> bytes:
    return conn.recv(timeout=LONG)


class Heard(List[Any]):
    """What a handler was called with, for a thread that waits for that."""

    def __init__(self) -> None:
        self._changed = threading.Condition()

    def __call__(self, *arguments: Any) -> None:
        with self._changed:
            self.append(arguments[0] if len(arguments) == 1 else arguments)
            self._changed.notify_all()

    def wait(self, is_enough: Callable[["Heard"], bool]) -> "Heard":
        with self._changed:
            assert self._changed.wait_for(lambda: is_enough(self), LONG), f"heard only {list(self)}"
            return self


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert not _object._callbacks
    assert not [conn for conn in list(_conn._known.values()) if not conn.closed and conn._owned]


@pytest.fixture
def pair() -> Iterator[Any]:
    a, b = qnet.socketpair()
    with a, b:
        yield a, b
