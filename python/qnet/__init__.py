"""Plugs QEMU virtual machines into a network of your own, with libqnet. Each name is that of the header,
qnet.h, which says what it does: `qnet_hub_attach(hub, conn)` is `hub.attach(conn)`."""

from ._conn import Conn, Listener, dgram, dial, from_fd, link, listen, listener_from_fd, poll, socketpair
from ._conn import socketpair_fd, tap
from ._hub import Capture, Clock, Hub
from ._library import FRAME_MAX, FRAME_MIN, Again, Busy, Closed, Error, FrameSize, Handle, Internal, Interrupted
from ._library import Invalid, Os, Protocol, Refused, Resolve, Timeout, Unsupported, constants, pack, unpack
from ._library import ffi as _ffi
from ._library import lib as _lib
from ._object import BOTH, IN, OUT


def version() -> str:
    """The version of the library."""
    return str(_ffi.string(_lib.qnet_version()).decode())


def abi_version() -> int:
    """The ABI version of the library."""
    return int(_lib.qnet_abi_version())


__all__ = [
    "BOTH", "FRAME_MAX", "FRAME_MIN", "IN", "OUT", "Again", "Busy", "Capture", "Clock", "Closed", "Conn",
    "Error", "FrameSize", "Handle", "Hub", "Internal", "Interrupted", "Invalid", "Listener", "Os", "Protocol",
    "Refused", "Resolve", "Timeout", "Unsupported", "abi_version", "constants", "dgram", "dial", "from_fd",
    "link", "listen", "listener_from_fd", "pack", "poll", "socketpair", "socketpair_fd", "tap", "unpack",
    "version",
]
