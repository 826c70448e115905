"""Connections and listeners: sending, receiving, errors, and how they end."""

import array
import os
import pathlib
import pickle
import select
import socket
import threading
from typing import Any, Callable, Dict, List, Tuple

import pytest
import qnet
from qnet._library import error

from .conftest import LONG, frame, receives

Pair = Tuple[qnet.Conn, qnet.Conn]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: array.array("H", b)])
def test_sends_whatever_is_like_bytes(pair: Pair, kind: Callable[[bytes], Any]) -> None:
    pair[0].send(kind(frame(7)))
    pair[0].send_many([kind(frame(8)), frame(9)])
    pair[0].send_packed(kind(qnet.pack([frame(10)])))
    assert [receives(pair[1]) for _ in range(4)] == [frame(n) for n in (7, 8, 9, 10)]


def test_sends_numpy_arrays_without_a_copy(pair: Pair) -> None:
    numpy = pytest.importorskip("numpy")
    frames = numpy.zeros((3, 64), dtype=numpy.uint8)
    frames[:, 12] = range(3)
    pair[0].send(frames[0])
    pair[0].send_many(frames[1:])
    assert [receives(pair[1])[12] for _ in range(3)] == [0, 1, 2]
    with pytest.raises((ValueError, BufferError)):
        pair[0].send(frames[:, ::2])  # not in one piece
    room = numpy.zeros(100, dtype=numpy.uint8)
    pair[0].send(frame(5))
    assert pair[1].recv_into(room, LONG) == 60 and bytes(room[:60]) == frame(5)


def test_receives_many_frames_in_a_call(pair: Pair) -> None:
    sent = [frame(n, size=60 + n) for n in range(500)]
    pair[0].send_many(sent)
    got: List[bytes] = []
    calls = 0
    while len(got) < 500:
        got += pair[1].recv_many(LONG)
        calls += 1
    assert got == sent and calls < 10


def test_what_an_iteration_received_ahead_is_not_lost(pair: Pair) -> None:
    pair[0].send_many(frame(n) for n in range(9))
    assert [got for _, got in zip(range(3), pair[1])] == [frame(n) for n in range(3)]
    with pytest.raises(qnet.Busy, match="received ahead"):
        pair[1].set_handler(lambda _: None)
    assert qnet.poll(pair) == [pair[1]]  # does not wait for more
    room = bytearray(60)
    with pytest.raises(qnet.FrameSize):
        pair[1].recv_into(bytearray(20), 0)
    assert pair[1].recv_into(room, 0) == 60 and room == frame(3)
    assert pair[1].recv(0) == frame(4)
    assert qnet.unpack(pair[1].recv_packed(0)) == [frame(n) for n in range(5, 9)]
    pair[1].set_handler(lambda _: None)


def test_an_iteration_ends_with_the_connection(pair: Pair) -> None:
    pair[0].send_many(frame(n) for n in range(100))
    pair[0].close()
    assert list(pair[1]) == [frame(n) for n in range(100)]
    assert isinstance(pair[1].close_reason(), qnet.Closed)


def test_time_outs_are_those_of_python(pair: Pair) -> None:
    with pytest.raises(BlockingIOError) as failed:
        pair[0].recv(timeout=0)
    assert isinstance(failed.value, qnet.Again) and failed.value.code == qnet.constants["ERR_AGAIN"]
    with pytest.raises(TimeoutError):
        pair[0].recv(timeout=0.001)
    with pytest.raises(qnet.Timeout):
        pair[0].wait(timeout=0.001)
    assert qnet.poll(pair, timeout=0) == []


def test_an_error_tells_how_many_frames_were_taken(pair: Pair) -> None:
    pair[0].set(send_timeout_ms=0)
    with pytest.raises(qnet.Again) as failed:
        pair[0].send_many([frame(size=1500)] * 100_000)
    taken = failed.value.taken
    assert 0 < taken < 100_000
    got = 0
    while got < taken:
        got += len(pair[1].recv_many(LONG))
    assert got == taken
    with pytest.raises(qnet.FrameSize) as refused:
        pair[0].send_many([frame(), frame(), b"short", frame()])
    assert refused.value.taken == 2


def test_errors_have_code_errno_and_text(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConnectionRefusedError) as failed:
        qnet.dial("unix", tmp_path / "nobody")
    refused: Any = failed.value
    assert isinstance(refused, qnet.Refused) and refused.code == qnet.constants["ERR_REFUSED"]
    assert refused.errno == 2 and str(tmp_path) in str(refused)
    again = pickle.loads(pickle.dumps(refused))
    assert (type(again), again.code, again.errno, str(again)) == (qnet.Refused, refused.code, 2, str(refused))
    with pytest.raises(ValueError, match="network"):
        qnet.dial("carrier-pigeon", "somewhere")
    with pytest.raises(ValueError, match="null"):
        qnet.dial("unix", "a\0b")
    with pytest.raises(TypeError, match="no option 'speed'"):
        qnet.dial("unix", "somewhere", speed=1)
    with pytest.raises(qnet.Unsupported):
        qnet.dial("unix", "somewhere", mac_max=1)


def test_every_code_has_a_class() -> None:
    codes = [name for name in qnet.constants if name.startswith("ERR_")]
    assert len(codes) >= 14
    for name in codes:
        made = error(qnet.constants[name])
        assert type(made) is not qnet.Error and type(made).__name__ in qnet.__all__


def test_what_is_closed_stays_closed(pair: Pair) -> None:
    a, b = pair
    assert not a.closed
    a.close()
    a.close()
    assert a.closed
    for call in (lambda: a.send(frame()), a.recv, a.stats, a.fileno, lambda: a.get("link")):
        with pytest.raises(qnet.Handle):
            call()
    with pytest.raises(ConnectionError):
        receives(b)


def test_shutting_down_ends_a_wait(pair: Pair) -> None:
    threading.Timer(0.01, pair[0].shutdown).start()
    with pytest.raises(qnet.Closed):
        receives(pair[0])
    pair[1].wait(LONG)
    with pytest.raises(qnet.Closed):
        pair[0].flush()


def test_listener_accepts_with_its_options(tmp_path: pathlib.Path) -> None:
    with qnet.listen("unix", tmp_path / "vm", max_frame=2000, unix_mode=0o640) as listener:
        assert listener.addr == str(tmp_path / "vm")
        assert os.stat(tmp_path / "vm").st_mode & 0o777 == 0o640
        assert listener.netdev("n0", 800).startswith("stream,id=n0,") and listener.get("max_frame") == 2000
        with pytest.raises(qnet.Again):
            listener.accept(timeout=0)
        with qnet.dial("unix", tmp_path / "vm", pad=1) as a, listener.accept(LONG) as b:
            assert (a.get("pad"), b.get("pad"), b.get("max_frame")) == (1, 0, 2000)
            assert a.peer_addr == b.local_addr == str(tmp_path / "vm")
            a.send(frame(3, size=20))
            assert receives(b) == frame(3)
    with pytest.raises(qnet.Handle):
        listener.accept()
    with pytest.raises(qnet.Unsupported):
        qnet.listen("unix", tmp_path / "vm", mac_max=1)
    assert not (tmp_path / "vm").exists()


def test_iterating_over_a_listener_ends_when_it_is_closed(tmp_path: pathlib.Path) -> None:
    listener = qnet.listen("unix", tmp_path / "vm")
    peer = qnet.dial("unix", tmp_path / "vm")
    seen = 0
    for conn in listener:
        conn.close()
        seen += 1
        threading.Timer(0.01, listener.close).start()
    assert seen == 1
    peer.close()


def test_adopts_sockets() -> None:
    ours, theirs = socket.socketpair()
    with qnet.from_fd(ours) as conn:
        assert ours.fileno() == -1  # the library's now
        theirs.sendall(qnet.pack([frame(1)]))
        assert receives(conn) == frame(1)
    theirs.close()
    with socket.socket(socket.AF_INET) as listening:
        listening.bind(("127.0.0.1", 0))
        with pytest.raises(qnet.Invalid):
            qnet.listener_from_fd(listening)
        assert listening.fileno() >= 0  # still the program's
        listening.listen()
        with qnet.listener_from_fd(listening) as listener, qnet.dial("tcp", listener.addr) as a:
            with listener.accept(LONG) as b:
                a.send(frame(2))
                assert receives(b) == frame(2)


def test_a_child_inherits_a_peer() -> None:
    conn, fd = qnet.socketpair_fd()
    with conn, socket.socket(fileno=fd) as theirs:
        conn.send(frame(4))
        assert qnet.unpack(theirs.recv(1000)) == [frame(4)]


def test_datagrams(tmp_path: pathlib.Path) -> None:
    with qnet.dgram("unixgram", tmp_path / "a", tmp_path / "b") as a:
        assert a.netdev("n0", 702).startswith("dgram,id=n0,")
        with qnet.dgram("unixgram", tmp_path / "b") as b:  # the first sender
            a.send(frame(1))
            assert receives(b) == frame(1) and b.peer_addr == str(tmp_path / "a")
            b.send(frame(2))
            assert receives(a) == frame(2)


def test_tap() -> None:
    try:
        conn = qnet.tap("qnetpy%d")
    except qnet.Error as failed:
        assert isinstance(failed, (qnet.Os, qnet.Unsupported))
        pytest.skip(f"no right to make a TAP: {failed}")
    with conn:
        assert conn.local_addr.startswith("qnetpy") and conn.local_addr in os.listdir("/sys/class/net")


def test_descriptor_is_for_select(pair: Pair) -> None:
    with pytest.raises(qnet.Again):
        pair[1].recv(timeout=0)
    assert select.select([pair[1]], [pair[0]], [], 0) == ([], [pair[0]], [])
    pair[0].send(frame())
    assert select.select([pair[1]], [], [], LONG)[0] == [pair[1]]
    assert receives(pair[1]) == frame()


def test_options_counters_and_addresses(pair: Pair) -> None:
    a, b = pair
    a.set(linger_ms=5, pad=1)
    assert (a.get("linger_ms"), a.get("pad")) == (5, 1)
    with pytest.raises(qnet.Invalid):
        a.set(linger_ms=-1)
    with pytest.raises(TypeError):
        a.get("nothing")
    a.hwaddr = b"\x02abcde"
    assert a.hwaddr == b"\x02abcde" != b.hwaddr
    with pytest.raises(ValueError):
        a.hwaddr = b"\x02"
    a.send(frame(size=20))
    assert receives(b) == frame()
    counted: Dict[str, int] = a.stats()
    assert (counted["tx_frames"], counted["tx_bytes"], b.stats()["rx_frames"]) == (1, 60, 1)


def test_impairment_is_read_back(pair: Pair) -> None:
    pair[0].impair("Delay 5ms  loss 1% seed 7", qnet.IN)
    assert pair[0].impairment(qnet.IN) == "delay 5ms loss 1% seed 7"
    assert pair[0].impairment(qnet.OUT) == ""
    assert pair[0].impair_stats(qnet.IN)["lost"] == 0
    with pytest.raises(qnet.Invalid, match="unit"):
        pair[0].impair("delay 10")
    long = "loss frames " + ",".join(str(n) for n in range(1, 1000, 2)) + " seed 1"
    pair[0].impair(long)
    assert pair[0].impairment(qnet.OUT) == long  # longer than what is tried first
    pair[0].impair(None)
    assert pair[0].impairment(qnet.IN) == ""
