"""Hubs, clocks and captures."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple, TypeVar, Union

from ._conn import Conn, Listener, conn_of, made, mac_of, plug
from ._library import Text, again, check, counters, ffi, lib, options_of, to_c, to_c_or_null
from ._object import Configured, Object, callback, handler_of

T = TypeVar("T")


class Clock(Object):
    """A clock that the program moves; see qnet_clock_new()."""

    _prefix = "qnet_clock_"

    def __init__(self) -> None:
        out = ffi.new("qnet_clock **")
        check(lib.qnet_clock_new(out))
        super().__init__(out[0])

    def advance(self, to_ns: int) -> int:
        """Advances the clock, does what is due until then, and returns how many frames were forwarded."""
        return again(lib.qnet_clock_advance, self._handle, to_ns)

    def link(self, a: Conn, b: Conn) -> None:
        """Connects two connections like a cable, on this clock."""
        plug(a, b, lib.qnet_link_on, self._handle)
        a._tie(self)

    @property
    def now_ns(self) -> int:
        return self._times()[0]

    @property
    def next_ns(self) -> Optional[int]:
        """When something is due next; None if nothing is."""
        due = self._times()[1]
        return None if due == 2**63 - 1 else due

    def _times(self) -> Tuple[int, int]:
        times: Any = ffi.new("int64_t[2]")
        self._call("next", times, times + 1)
        return times[0], times[1]


class Hub(Configured):
    """A learning switch, which forwards frames between the connections attached to it."""

    _prefix = "qnet_hub_"

    def __init__(self, clock: Optional[Clock] = None, **options: int) -> None:
        out = ffi.new("qnet_hub **")
        check(lib.qnet_hub_new(out))
        super().__init__(out[0])
        self._clock: Optional[Clock] = None
        try:
            self.set(**options)
            self.set_clock(clock)
        except BaseException:
            self.close()
            raise

    def attach(self, conn: Conn) -> None:
        """Attaches a connection, which stays the program's to close."""
        conn._plug()
        self._call("attach", conn._handle)
        self._tie(conn)

    def detach(self, conn: Conn) -> None:
        """Detaches a connection, which is the program's to close from then on."""
        self._call("detach", conn._handle)
        conn._untie()
        conn._owned = True

    def port(self) -> Conn:
        """Makes a connection whose other end is attached to the hub."""
        conn = made(lib.qnet_hub_port, self._handle)
        self._tie(conn)
        return conn

    def serve(self, listener: Listener) -> None:
        """Attaches the peers of a listener, which is the hub's to close from then on."""
        self._call("serve", listener._handle)
        listener._owned = False

    def ports(self) -> List[Conn]:
        """The connections that are attached."""
        return self._list("qnet_conn *", lib.qnet_hub_ports, conn_of)

    def stats(self) -> Dict[str, int]:
        """The members of qnet_hub_stats."""
        return counters("qnet_hub_stats", lib.qnet_hub_get_stats, self._handle)

    def set_clock(self, clock: Optional[Clock]) -> None:
        """Puts the hub on a clock of the program's, or back on the system's."""
        self._call("set_clock", ffi.NULL if clock is None else clock._handle)
        self._clock = clock

    def set_port_handler(self, handler: Optional[Callable[[Conn, bool], object]]) -> None:
        """Has a handler told of each peer of a listener: True before it is attached, False when it has left."""
        self._set_handler("set_port_handler", _on_port, handler)

    def fdb(self) -> List[Dict[str, Any]]:
        """The table: the members of qnet_fdb_entry, of which `mac` is bytes and `conn` a Conn."""
        call = lib.qnet_hub_fdb
        size = ffi.sizeof("qnet_fdb_entry")
        return self._list("qnet_fdb_entry", lambda hub, room, cap: call(hub, room, size, cap), _entry_of)

    def fdb_add(self, mac: bytes, vlan: int, conn: Conn) -> None:
        """Adds a static entry."""
        self._call("fdb_add", mac_of(mac), vlan, conn._handle)

    def fdb_remove(self, mac: Optional[bytes] = None, vlan: int = -1) -> int:
        """Removes an address, or all that were learned; of one VLAN or of all. Returns how many."""
        return self._call("fdb_remove", mac_of(mac) if mac is not None else ffi.NULL, vlan)

    def _list(self, kind: str, call: Callable[..., int], convert: Callable[[Any], T]) -> List[T]:
        """Gets an array from a function that says how long it is."""
        size = 0
        while True:
            room: Any = ffi.new(kind + "[]", size)
            count = check(call(self._handle, room, size))
            if count <= size:
                return [convert(one) for one in room[0:count]]
            size = count


def _entry_of(entry: Any) -> Dict[str, Any]:
    members = {name: getattr(entry, name) for name, _ in ffi.typeof("qnet_fdb_entry").fields}
    return {**members, "mac": bytes(entry.mac), "conn": conn_of(entry.conn)}


@callback("qnet_port_handler")
def _on_port(user: Any, conn: Any, attached: int) -> None:
    handler_of(user)(conn_of(conn), bool(attached))


class Capture(Object):
    """Records the frames of connections and hubs for Wireshark, in a file, a FIFO or a descriptor."""

    _prefix = "qnet_capture_"

    def __init__(self, target: Union[Text, int], **options: int) -> None:
        call = lib.qnet_capture_open_fd if isinstance(target, int) else lib.qnet_capture_open
        out = ffi.new("qnet_capture **")
        check(call(target if isinstance(target, int) else to_c(target), *options_of(options), out))
        super().__init__(out[0])

    def add(self, what: Union[Conn, Hub], name: Optional[str] = None) -> None:
        """Records the frames of a connection, or of a hub, from now on."""
        self._call("add_hub" if isinstance(what, Hub) else "add", what._handle, to_c_or_null(name))

    def remove(self, conn: Conn) -> None:
        """Records the frames of a connection no more."""
        self._call("remove", conn._handle)

    def note(self, text: str) -> None:
        """Adds a comment to the next frame."""
        self._call("note", to_c(text))

    def stats(self) -> Dict[str, int]:
        """The members of qnet_capture_stats."""
        return counters("qnet_capture_stats", lib.qnet_capture_get_stats, self._handle)
