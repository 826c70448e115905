"""Handlers, which the library calls on threads of its own."""

import gc
import pathlib
import threading
import weakref
from typing import Any, List, Tuple

import pytest
import qnet

from .conftest import LONG, Heard, frame, receives

Pair = Tuple[qnet.Conn, qnet.Conn]


def test_handler_gets_each_frame_on_another_thread(pair: Pair) -> None:
    heard, threads = Heard(), set()

    def handler(got: bytes) -> None:
        threads.add(threading.get_ident())
        heard(got)

    pair[1].set_handler(handler)
    pair[0].send_many(frame(n) for n in range(1000))
    assert heard.wait(lambda h: len(h) >= 1000) == [frame(n) for n in range(1000)]
    assert len(threads) == 1 and threading.get_ident() not in threads
    with pytest.raises(qnet.Busy):
        pair[1].recv()
    pair[1].set_handler(None)
    pair[0].send(frame(5))
    assert receives(pair[1]) == frame(5)
    assert len(heard) == 1000


def test_batch_handler_gets_many_frames(pair: Pair) -> None:
    heard = Heard()
    pair[0].send_many(frame(n) for n in range(1000))
    pair[1].set_batch_handler(heard)
    heard.wait(lambda h: sum(map(len, h)) == 1000)
    assert [got for batch in heard for got in batch] == [frame(n) for n in range(1000)]
    assert len(heard) < 500
    single = Heard()
    pair[1].set_handler(single)  # in its place
    pair[0].send(frame(1))
    assert single.wait(lambda h: len(h) == 1) == [frame(1)] and sum(map(len, heard)) == 1000


def test_handler_may_answer_and_close_its_own_connection(pair: Pair) -> None:
    closed = Heard()

    def answer(got: bytes) -> None:
        pair[1].send(got)
        pair[1].close()
        closed(pair[1].closed)

    pair[1].set_handler(answer)
    pair[0].send(frame(1))
    assert receives(pair[0]) == frame(1)
    with pytest.raises(qnet.Closed):
        receives(pair[0])
    assert closed.wait(lambda h: len(h) == 1) == [True]


def test_what_a_handler_raises_is_reported_and_the_next_frame_comes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised, heard = Heard(), Heard()
    monkeypatch.setattr(threading, "excepthook", raised)

    def handler(got: bytes) -> None:
        heard(got)
        raise RuntimeError(got[17])

    pair[1].set_handler(handler)
    pair[0].send_many([frame(1), frame(2)])
    raised.wait(lambda h: len(h) == 2)
    assert [str(one.exc_value) for one in raised] == ["1", "2"] and heard == [frame(1), frame(2)]


def test_close_handler_is_told_the_reason_once(pair: Pair) -> None:
    frames, reasons = Heard(), Heard()
    pair[1].set_close_handler(reasons)
    pair[1].set_handler(frames)
    pair[0].send(frame(1))
    pair[0].close()
    pair[1].wait(LONG)
    assert frames == [frame(1)] and len(reasons) == 1
    assert isinstance(reasons[0], qnet.Closed) and "ended" in str(reasons[0])


def test_close_handler_of_one_that_is_pulled_runs_in_the_receive(pair: Pair) -> None:
    reasons: List[Any] = []
    pair[1].set_close_handler(lambda reason: reasons.append((type(reason), threading.get_ident())))
    pair[0].close()
    with pytest.raises(qnet.Closed):
        receives(pair[1])
    assert reasons == [(qnet.Closed, threading.get_ident())]


def test_a_handler_that_is_refused_is_forgotten(pair: Pair) -> None:
    with qnet.Hub() as hub:
        hub.attach(pair[0])
        with pytest.raises(qnet.Busy):
            pair[0].set_handler(lambda _: None)
        with pytest.raises(qnet.Unsupported):
            pair[0].set_state_handler(lambda _: None)


def test_a_connection_with_a_handler_stays_though_it_is_forgotten() -> None:
    a, b = qnet.socketpair()
    b.set_handler(lambda got: a.send(got[::-1]))
    gone = weakref.ref(b)
    del b
    gc.collect()
    kept = gone()
    assert kept and not kept.closed
    c, d = qnet.socketpair()
    d.set_handler(c.send)
    kept.close()
    d.close()
    del kept, d
    gc.collect()
    assert gone() is None
    a.close()
    c.close()


def test_reconnecting_tells_its_state(tmp_path: pathlib.Path) -> None:
    states = Heard()
    with qnet.dial("unix", tmp_path / "vm", reconnect_ms=1) as conn:  # nobody is there yet
        conn.set_state_handler(states)
        for times in (1, 2):
            with qnet.listen("unix", tmp_path / "vm") as listener, listener.accept(LONG) as peer:
                states.wait(lambda h: h.count(True) == times)
                conn.send(frame(times))
                assert receives(peer) == frame(times)
            with pytest.raises(qnet.Timeout):
                conn.recv(0.05)  # who pulls has to keep pulling
            states.wait(lambda h: h.count(False) == times)
        assert states[:4] == [True, False, True, False]
        assert conn.stats()["reconnects"] == 2


def test_many_threads_send_and_receive(pair: Pair) -> None:
    got: List[bytes] = []

    def send(first: int) -> None:
        for n in range(first, first + 500):
            pair[0].send(frame(n))

    def pull() -> None:
        try:
            while True:
                got.append(receives(pair[1]))
        except qnet.Closed:
            return

    senders = [threading.Thread(target=send, args=(n * 500,)) for n in range(4)]
    pullers = [threading.Thread(target=pull) for _ in range(3)]
    for thread in senders + pullers:
        thread.start()
    for thread in senders:
        thread.join()
    pair[0].close()
    for thread in pullers:
        thread.join()
    assert sorted(got) == [frame(n) for n in range(2000)]
