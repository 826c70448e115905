"""asyncio: two ends, waiting, cancelling, closing."""

import asyncio
import gc
import pathlib
from typing import Any, Callable, Coroutine, List

import pytest
import qnet
from qnet import aio

from .conftest import LONG, frame


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Makes a coroutine a test, which may not take for ever."""

    def runs() -> None:
        asyncio.run(asyncio.wait_for(test(), LONG))

    return runs


def ends() -> List[aio.Conn]:
    return [aio.Conn(conn) for conn in qnet.socketpair()]


async def both_ends() -> None:
    a, b = ends()

    async def echo() -> None:
        async for got in b:
            await b.send(got)

    async with a, b:
        echoing = asyncio.ensure_future(echo())
        await a.send_many(frame(n) for n in range(300))
        assert [await a.recv() for _ in range(300)] == [frame(n) for n in range(300)]
        await a.send(memoryview(frame(7)))
        await a.flush()
        assert await a.recv() == frame(7)
        await a.close()
        await echoing
        with pytest.raises(qnet.Handle):
            await a.recv()


async def waits_for_room() -> None:
    """Sends more than the socket takes before anybody reads, with other tasks running."""
    a, b = ends()
    big = [frame(n, size=1500) for n in range(3000)]
    async with a, b:
        one = asyncio.ensure_future(a.send_many(big))
        while a.conn.stats()["tx_frames"] == 0 or not a._writing._futures:
            await asyncio.sleep(0)
        two = asyncio.ensure_future(a.send(frame(5)))
        await asyncio.sleep(0)
        assert not one.done() and not two.done()
        got = [await b.recv() for _ in range(3001)]
        await asyncio.gather(one, two)
        assert sorted(g for g in got if len(g) == 1500) == big and frame(5) in got


async def cancelled_receive_loses_nothing() -> None:
    a, b = ends()
    async with a, b:
        for n in range(50):
            waiting = asyncio.ensure_future(b.recv())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await a.send(frame(n))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await b.recv() == frame(n)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(b.recv(), 0.01)
        assert not b._reading._futures
        assert not asyncio.get_running_loop().remove_reader(b._fd)


async def cancelled_send_is_not_sent() -> None:
    a, b = ends()
    async with a, b:
        sending = asyncio.ensure_future(a.send_many([frame(size=1500)] * 100_000))
        while not a._writing._futures:
            await asyncio.sleep(0)
        last = asyncio.ensure_future(a.send(frame(9)))
        await asyncio.sleep(0)
        last.cancel()
        sending.cancel()
        await asyncio.gather(last, sending, return_exceptions=True)
        assert last.cancelled() and sending.cancelled()
        assert not asyncio.get_running_loop().remove_writer(a._fd)
        await asyncio.gather(a.close(), drained(b))


async def drained(conn: aio.Conn) -> None:
    assert {len(got) async for got in conn} == {1500}


async def closing_wakes_who_waits() -> None:
    a, b = ends()
    async with b:
        waiting = [asyncio.ensure_future(a.recv()) for _ in range(3)]
        ending = asyncio.ensure_future(drained_of_nothing(a))
        await asyncio.sleep(0.01)
        await a.close()
        for one in waiting:
            with pytest.raises(qnet.Closed):
                await one
        await ending


async def shutting_down_wakes_who_waits() -> None:
    a, b = ends()
    async with a, b:
        ending = asyncio.ensure_future(drained_of_nothing(a))
        await asyncio.sleep(0.01)
        a.conn.shutdown()
        await ending


async def drained_of_nothing(conn: aio.Conn) -> None:
    assert [got async for got in conn] == []


async def frames_without_end_let_others_run() -> None:
    a, b = ends()
    async with a, b:
        a.conn.recv_packed = lambda timeout=None: qnet.pack([frame()])  # type: ignore[method-assign]
        other = asyncio.ensure_future(asyncio.sleep(0))
        for _ in range(100):
            assert await a.recv() == frame()
        assert other.done()


async def errors_are_raised() -> None:
    a, b = ends()
    async with a, b:
        with pytest.raises(qnet.FrameSize):
            await a.send(b"short")
        with pytest.raises(qnet.FrameSize):
            await a.send_many([frame(), b"short"])
        assert await b.recv() == frame()
        with pytest.raises(qnet.Refused):
            await aio.dial("unix", "/nobody/there")


test_both_ends = run(both_ends)
test_a_send_waits_for_room = run(waits_for_room)
test_a_cancelled_receive_loses_nothing = run(cancelled_receive_loses_nothing)
test_a_cancelled_send_is_not_sent = run(cancelled_send_is_not_sent)
test_closing_wakes_who_waits = run(closing_wakes_who_waits)
test_shutting_down_wakes_who_waits = run(shutting_down_wakes_who_waits)
test_frames_without_end_let_others_run = run(frames_without_end_let_others_run)
test_errors_are_raised = run(errors_are_raised)


def test_listener_accepts_and_ends(tmp_path: pathlib.Path) -> None:
    async def test() -> None:
        async with await aio.listen("unix", tmp_path / "vm", max_frame=1514) as listener:
            accepted: List[aio.Conn] = []

            async def serve() -> None:
                async for conn in listener:
                    accepted.append(conn)
                    await conn.send(frame(len(accepted)))

            serving = asyncio.ensure_future(serve())
            for n in (1, 2):
                async with await aio.dial("unix", tmp_path / "vm") as conn:
                    assert await conn.recv() == frame(n)
            assert accepted[0].conn.get("max_frame") == 1514
            listener.close()
            await serving
            for conn in accepted:
                await conn.close()

    run(test)()


async def arrives(conn: qnet.Conn) -> bytes:
    while not qnet.poll([conn], 0):
        await asyncio.sleep(0)
    return conn.recv(0)


def test_reconnecting_and_datagrams_are_tried_again(tmp_path: pathlib.Path) -> None:
    async def test() -> None:
        async with await aio.dgram("unixgram", tmp_path / "a", tmp_path / "b") as a:
            with qnet.dgram("unixgram", tmp_path / "b", tmp_path / "a") as b:
                sending = asyncio.ensure_future(a.send_many(frame(n) for n in range(2000)))
                while not sending.done() and a.conn.stats()["tx_frames"] < 5:
                    await asyncio.sleep(0)
                for n in range(2000):
                    assert await arrives(b) == frame(n)
                await sending
        with qnet.listen("unix", tmp_path / "vm") as listener:
            async with await aio.dial("unix", tmp_path / "vm", reconnect_ms=1) as conn:
                with listener.accept(LONG) as peer:
                    sending = asyncio.ensure_future(conn.send_many(frame(n, size=1500) for n in range(3000)))
                    await asyncio.sleep(0.01)
                    assert not sending.done() and not conn._shows_room
                    for n in range(3000):
                        assert await arrives(peer) == frame(n, size=1500)
                    await sending

    run(test)()


def test_what_is_dialled_when_nobody_waits_any_more_is_closed(tmp_path: pathlib.Path) -> None:
    async def test() -> None:
        with qnet.listen("unix", tmp_path / "vm") as listener:
            dialling = asyncio.ensure_future(aio.dial("unix", tmp_path / "vm"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            dialling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dialling
            with listener.accept(LONG) as peer:
                while peer.close_reason() is None:
                    await asyncio.sleep(0.001)

    run(test)()
    gc.collect()
