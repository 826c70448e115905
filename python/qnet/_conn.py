"""Connections and listeners."""

from __future__ import annotations

import collections
import socket
import weakref
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, TypeVar, Union

from ._library import (CODES, FRAME_MAX, Closed, Error, Text, again, check, counters, error, ffi, lib, options_of,
                       pack, receive, to_c, to_c_or_null, unpack, wait)
from ._object import Port, callback, handler_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")
PACKED = 1 << 18  # how many bytes are received at once, where many frames are


class Conn(Port):
    """A connection to a layer-2 device: frames are sent to it and received from it."""

    def __init__(self, handle: Any, owned: bool = True) -> None:
        super().__init__(handle, owned)
        self._pending: Deque[bytes] = collections.deque()  # what an iteration has received ahead
        self._number = int(ffi.cast("uintptr_t", handle))
        _known[self._number] = self

    def __repr__(self) -> str:
        return f"<qnet.Conn {self._number:#x}>"

    # Two objects may stand for one connection that is the library's.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Conn) and self._number == other._number

    def __hash__(self) -> int:
        return self._number

    # ---- Sending ----

    def send(self, frame: Buffer) -> None:
        """Sends one frame, as a whole or not at all."""
        view = ffi.from_buffer(frame)
        again(lib.qnet_send, self._handle, view, len(view))

    def send_many(self, frames: Iterable[Buffer]) -> None:
        """Sends frames in order, many in one call. An error tells how many were `taken`."""
        left = list(frames)
        taken = 0
        while taken < len(left):
            try:
                taken += self.send_packed(pack(left[taken:]))
            except Error as failure:
                failure.taken = taken
                raise

    def send_packed(self, packed: Buffer) -> int:
        """Sends frames in wire format, see `pack()`, and returns how many were taken."""
        view = ffi.from_buffer(packed)
        return again(lib.qnet_send_packed, self._handle, view, len(view))

    def flush(self) -> None:
        """Waits until every frame that was taken has been written."""
        again(lib.qnet_flush, self._handle)

    # ---- Receiving ----

    def recv(self, timeout: Optional[float] = None) -> bytes:
        """Receives one frame, and waits for it, for at most so many seconds."""
        if self._pending:
            return self._pending.popleft()
        return receive(FRAME_MAX, timeout, lambda *room: lib.qnet_recv(self._handle, *room))

    def recv_into(self, buffer: Buffer, timeout: Optional[float] = None) -> int:
        """Receives one frame into a buffer, and returns its length."""
        view = ffi.from_buffer(buffer, require_writable=True)
        if not self._pending:
            return wait(timeout, lambda left: lib.qnet_recv(self._handle, view, len(view), left))
        if len(self._pending[0]) > len(view):
            raise error(CODES["FRAME_SIZE"])
        frame = self._pending.popleft()
        ffi.memmove(view, frame, len(frame))
        return len(frame)

    def recv_many(self, timeout: Optional[float] = None) -> List[bytes]:
        """Receives the frames that are there, and waits for the first."""
        return self._take_pending() or unpack(self.recv_packed(timeout))

    def recv_packed(self, timeout: Optional[float] = None) -> bytes:
        """Receives the frames that are there in wire format, see `unpack()`, and waits for the first."""
        if self._pending:
            return pack(self._take_pending())
        return receive(PACKED, timeout, lambda *room: lib.qnet_recv_packed(self._handle, *room))

    def __iter__(self) -> Iterator[bytes]:
        """Receives frames until the connection has ended."""
        try:
            while True:
                yield self._next(None)
        except Closed:
            return

    def _next(self, timeout: Optional[float]) -> bytes:
        """Receives a frame, and those that are there behind it ahead."""
        if not self._pending:
            self._pending.extend(unpack(self.recv_packed(timeout)))
        return self._pending.popleft()

    def _take_pending(self) -> List[bytes]:
        taken = list(self._pending)
        self._pending.clear()
        return taken

    def fileno(self) -> int:
        """The descriptor of qnet_fd(), for `select` and the like. A frame that a `for` has received ahead does
        not show there; `poll()` knows."""
        return self._call("fd")

    # ---- Receiving by a handler ----

    def set_handler(self, handler: Optional[Callable[[bytes], object]]) -> None:
        """Has each frame given to a handler, on a thread of the library's. The connection stays open, though
        the program may forget it, until it is closed."""
        self._plug()
        self._set_handler("set_handler", _on_frame, handler)

    def set_batch_handler(self, handler: Optional[Callable[[List[bytes]], object]]) -> None:
        """The same with many frames at a time."""
        self._plug()
        self._set_handler("set_batch_handler", _on_batch, handler, "set_handler")

    def set_close_handler(self, handler: Optional[Callable[[Error], object]]) -> None:
        """Has a handler called once, with the reason, when the connection has ended."""
        self._set_handler("set_close_handler", _on_close, handler)

    def set_state_handler(self, handler: Optional[Callable[[bool], object]]) -> None:
        """Has a handler told when a reconnecting connection has gone down (False) or come up (True)."""
        self._set_handler("set_state_handler", _on_state, handler)

    # ---- Its end ----

    def wait(self, timeout: Optional[float] = None) -> None:
        """Waits until the connection has ended."""
        wait(timeout, lambda left: lib.qnet_wait(self._handle, left))

    def close_reason(self) -> Optional[Error]:
        """The reason for which the connection has ended; None while it is open."""
        code = lib.qnet_close_reason(self._handle)
        if code in (CODES["CLOSED"], CODES["PROTOCOL"], CODES["OS"]):
            return error(code)
        check(code)
        return None

    def shutdown(self) -> None:
        """Ends the connection without waiting."""
        self._call("shutdown")

    # ---- About it ----

    @property
    def hwaddr(self) -> bytes:
        """The hardware (MAC) address, 6 bytes."""
        mac: Any = ffi.new("uint8_t[6]")
        self._call("hwaddr", mac)
        return bytes(mac)

    @hwaddr.setter
    def hwaddr(self, mac: bytes) -> None:
        self._call("set_hwaddr", mac_of(mac))

    @property
    def local_addr(self) -> str:
        return self._text("local_addr")

    @property
    def peer_addr(self) -> str:
        return self._text("peer_addr")

    def peer_cred(self) -> Dict[str, int]:
        """Who the peer over a Unix socket is: `uid`, `gid` and `pid`."""
        return counters("qnet_cred", self._function("peer_cred"), self._handle)

    def stats(self) -> Dict[str, int]:
        """The members of qnet_stats."""
        return counters("qnet_stats", lib.qnet_get_stats, self._handle)

    def impair_stats(self, direction: int) -> Dict[str, int]:
        """The members of qnet_impair_stats."""
        return counters("qnet_impair_stats", lib.qnet_get_impair_stats, self._handle, direction)

    # ---- Plugging ----

    def unlink(self) -> None:
        """Removes a link at once, on both sides."""
        self._call("unlink")
        self._untie()

    def _plug(self) -> None:
        """Before frames go elsewhere: those that an iteration has received ahead would be overtaken."""
        if self._pending:
            raise error(CODES["BUSY"], f"{len(self._pending)} frames were received ahead; take them with recv_many()")


# The objects of handles, so that a hub gives those that the program has.
_known: "weakref.WeakValueDictionary[int, Conn]" = weakref.WeakValueDictionary()


def conn_of(handle: Any) -> Conn:
    """Finds the object of a handle, or makes one that does not close what is the library's."""
    return _known.get(int(ffi.cast("uintptr_t", handle))) or Conn(handle, owned=False)


def mac_of(mac: bytes) -> bytes:
    if len(mac) != 6:
        raise ValueError("a hardware address has 6 bytes")
    return bytes(mac)


@callback("qnet_handler")
def _on_frame(user: Any, frame: Any, length: int) -> None:
    handler_of(user)(ffi.buffer(frame, length)[:])


@callback("qnet_batch_handler")
def _on_batch(user: Any, frames: Any, count: int) -> None:
    handler_of(user)([ffi.buffer(frames[i].data, frames[i].len)[:] for i in range(count)])


@callback("qnet_close_handler")
def _on_close(user: Any, reason: int) -> None:
    handler_of(user)(error(reason))


@callback("qnet_state_handler")
def _on_state(user: Any, up: int) -> None:
    handler_of(user)(bool(up))


def made(call: Callable[..., int], *arguments: Any) -> Conn:
    """Calls a function that makes a connection."""
    out = ffi.new("qnet_conn **")
    again(call, *arguments, out)
    return Conn(out[0])


def dial(network: str, address: Text, **options: int) -> Conn:
    """Connects to a listening QEMU or another program; see qnet_dial_with()."""
    return made(lib.qnet_dial_with, to_c(network), to_c(address), *options_of(options))


def dgram(network: str, local: Optional[Text], remote: Optional[Text] = None) -> Conn:
    """Makes a connection on which each datagram is one frame; see qnet_dgram()."""
    return made(lib.qnet_dgram, to_c(network), to_c_or_null(local), to_c_or_null(remote))


def tap(name: Optional[str] = None) -> Conn:
    """Makes a connection to a TAP interface; `local_addr` is its name."""
    return made(lib.qnet_tap, to_c_or_null(name))


def from_fd(fd: Union[int, socket.socket]) -> Conn:
    """Makes a connection from a connected socket or an open TAP, which is the library's from then on."""
    return _taken(made, lib.qnet_from_fd, fd)


def _taken(make: Callable[..., T], call: Callable[..., int], fd: Union[int, socket.socket]) -> T:
    if isinstance(fd, int):
        return make(call, fd)
    taken = make(call, fd.fileno())
    fd.detach()
    return taken


def socketpair() -> Tuple[Conn, Conn]:
    """Makes two connections that are each other's peer."""
    out = ffi.new("qnet_conn *[2]")
    check(lib.qnet_socketpair(out, out + 1))
    return Conn(out[0]), Conn(out[1])


def socketpair_fd() -> Tuple[Conn, int]:
    """Makes a connection, and the descriptor of its peer, for a child to inherit. The caller closes that."""
    out, fd = ffi.new("qnet_conn **"), ffi.new("int *")
    check(lib.qnet_socketpair_fd(out, fd))
    return Conn(out[0]), int(fd[0])


def poll(conns: Sequence[Conn], timeout: Optional[float] = None) -> List[Conn]:
    """Waits until some connections have a frame or an end to report, and returns these."""
    ready: Any = ffi.new("uint8_t[]", len(conns))
    handles = ffi.new("qnet_conn *[]", [conn._handle for conn in conns])
    if any(conn._pending for conn in conns):
        timeout = 0
    wait(timeout, lambda left: lib.qnet_poll(handles, ready, len(conns), left))
    return [conn for conn, is_ready in zip(conns, ready) if is_ready or conn._pending]


def link(a: Conn, b: Conn) -> None:
    """Connects two connections like a cable."""
    plug(a, b, lib.qnet_link)


def plug(a: Conn, b: Conn, call: Callable[..., int], *before: Any) -> None:
    a._plug()
    b._plug()
    check(call(*before, a._handle, b._handle))
    for conn in (a, b):  # one that has outlived another may still be tied to that
        conn._untie()
    a._tie(b)


class Listener(Port):
    """A listener, to which peers connect."""

    _prefix = "qnet_listener_"

    @property
    def addr(self) -> str:
        """The address, in the form that `dial()` takes."""
        return self._text("addr")

    def accept(self, timeout: Optional[float] = None) -> Conn:
        """Waits for a peer and accepts it."""
        out = ffi.new("qnet_conn **")
        wait(timeout, lambda left: lib.qnet_accept(self._handle, left, out))
        return Conn(out[0])

    def __iter__(self) -> Iterator[Conn]:
        """Accepts peers until the listener is closed."""
        try:
            while True:
                yield self.accept()
        except Closed:
            return

    def fileno(self) -> int:
        """The descriptor, which is readable when a peer waits."""
        return self._call("fd")


def made_listener(call: Callable[..., int], *arguments: Any) -> Listener:
    out = ffi.new("qnet_listener **")
    again(call, *arguments, out)
    return Listener(out[0])


def listen(network: str, address: Text, **options: int) -> Listener:
    """Listens for peers, whose connections begin with these options; see qnet_listen()."""
    listener = made_listener(lib.qnet_listen, to_c(network), to_c(address))
    try:
        listener.set(**options)
    except BaseException:
        listener.close()
        raise
    return listener


def listener_from_fd(fd: Union[int, socket.socket]) -> Listener:
    """Makes a listener from a listening socket, which is the library's from then on."""
    return _taken(made_listener, lib.qnet_listener_from_fd, fd)
