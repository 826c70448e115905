"""The same for asyncio: `async for frame in conn`, `await conn.send(frame)`."""

from __future__ import annotations

import asyncio
import functools
import socket
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Dict, Iterable, List, Optional, TypeVar

import qnet

from ._library import Text, error, CODES

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")
RETRY = 0.005  # seconds, where a descriptor does not show that there is room


class _Waiting:
    """Tasks that wait for a descriptor, of which an event loop calls one function for all."""

    def __init__(self, add: str, remove: str) -> None:
        self._add, self._remove = add, remove
        self._futures: List["asyncio.Future[None]"] = []

    async def wait(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if not self._futures:
            getattr(loop, self._add)(fd, self._wake)
        self._futures.append(future)
        try:
            await future
        finally:
            if future in self._futures:
                self._futures.remove(future)
                if not self._futures:
                    getattr(loop, self._remove)(fd)

    def _wake(self) -> None:
        for future in self._futures:
            if not future.done():
                future.set_result(None)

    def end(self, fd: int) -> None:
        """Forgets the descriptor, which is about to be closed."""
        futures, self._futures = self._futures, []
        if futures:
            getattr(futures[0].get_loop(), self._remove)(fd)
        for future in futures:
            if not future.done():
                future.set_exception(error(CODES["CLOSED"]))


class Conn:
    """A connection for one event loop, made of one that is pulled from, `conn`, whose `send_timeout_ms` becomes
    0. All that does not wait is done with that."""

    def __init__(self, conn: qnet.Conn) -> None:
        conn.set(send_timeout_ms=0)
        self.conn = conn
        self._fd = conn.fileno()
        self._reading = _Waiting("add_reader", "remove_reader")
        self._writing = _Waiting("add_writer", "remove_writer")
        self._shows_room = _is_stream(self._fd)

    async def recv(self) -> bytes:
        """Receives one frame. When this is cancelled no frame is lost."""
        while True:
            try:
                if not self.conn._pending:
                    await asyncio.sleep(0)  # lets others run, though there may be frames without end
                return self.conn._next(0)
            except qnet.Again:
                await self._reading.wait(self._fd)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Receives frames until the connection has ended."""
        try:
            while True:
                yield await self.recv()
        except qnet.Closed:
            return

    async def send(self, frame: Buffer) -> None:
        """Sends one frame, and waits while the peer does not read. When this is cancelled, it is not sent."""
        await self._when_room(self.conn.send, frame)

    async def send_many(self, frames: Iterable[Buffer]) -> None:
        """Sends frames in order. When this is cancelled, the first of them may have been sent."""
        left = list(frames)
        while left:
            try:
                self.conn.send_many(left)
                return
            except qnet.Again as failure:
                del left[:failure.taken]
            await self._room()

    async def flush(self) -> None:
        """Waits until every frame that was taken has been written."""
        await self._when_room(self.conn.flush)

    async def _when_room(self, call: Callable[..., None], *arguments: Any) -> None:
        while True:
            try:
                return call(*arguments)
            except qnet.Again:
                await self._room()

    async def _room(self) -> None:
        if self._shows_room:
            await self._writing.wait(self._fd)
        else:
            await asyncio.sleep(RETRY)

    async def close(self) -> None:
        """Closes the connection. Who waits for it gets `qnet.Closed`."""
        self._reading.end(self._fd)
        self._writing.end(self._fd)
        await asyncio.get_running_loop().run_in_executor(None, self.conn.close)

    async def __aenter__(self) -> Conn:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Listener:
    """A listener for one event loop, made of `listener`."""

    def __init__(self, listener: qnet.Listener) -> None:
        self.listener = listener
        self._fd = listener.fileno()
        self._waiting = _Waiting("add_reader", "remove_reader")

    async def accept(self) -> Conn:
        """Waits for a peer and accepts it."""
        while True:
            try:
                return Conn(self.listener.accept(timeout=0))
            except qnet.Again:
                await self._waiting.wait(self._fd)

    async def __aiter__(self) -> AsyncIterator[Conn]:
        """Accepts peers until the listener is closed."""
        try:
            while True:
                yield await self.accept()
        except qnet.Closed:
            return

    def close(self) -> None:
        """Closes the listener. Who waits for a peer gets `qnet.Closed`."""
        self._waiting.end(self._fd)
        self.listener.close()

    async def __aenter__(self) -> Listener:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _is_stream(fd: int) -> bool:
    """Whether a descriptor is a socket that is writable when its peer has room. That of a connection that
    reconnects follows the socket and shows frames alone, and a datagram's does not know the peer."""
    try:
        with socket.socket(fileno=fd) as borrowed:
            kind = borrowed.type
            borrowed.detach()
    except OSError:
        return False
    return kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)


async def _opened(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Calls what may wait, on a thread. What comes of it when nobody waits any more is closed."""
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(None, functools.partial(call, *arguments, **options))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(lambda done: done.exception() or done.result().close())
        raise


async def dial(network: str, address: Text, **options: int) -> Conn:
    """Connects to a listening QEMU or another program; see `qnet.dial()`."""
    return Conn(await _opened(qnet.dial, network, address, **options))


async def dgram(network: str, local: Optional[Text], remote: Optional[Text] = None) -> Conn:
    """Makes a connection on which each datagram is one frame; see `qnet.dgram()`."""
    return Conn(await _opened(qnet.dgram, network, local, remote))


async def listen(network: str, address: Text, **options: int) -> Listener:
    """Listens for peers; see `qnet.listen()`."""
    return Listener(await _opened(qnet.listen, network, address, **options))
