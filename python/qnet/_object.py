"""What connections, listeners, hubs, clocks and captures have in common: a handle, and handlers."""

from __future__ import annotations

import atexit
import itertools
import threading
import warnings
from typing import Any, Callable, Dict, Optional, Set, Tuple, TypeVar

from ._library import CODES, check, constants, ffi, lib, option, text_of, to_c, to_c_or_null

IN = constants["IN"]
OUT = constants["OUT"]
BOTH = constants["BOTH"]
Self = TypeVar("Self", bound="Object")
Handler = Callable[..., object]


class Object:
    """A handle of the library's, closed by `close()` or at the end of a `with` block."""

    _prefix = "qnet_"

    def __init__(self, handle: Any, owned: bool = True) -> None:
        self._handle = handle
        self._owned = owned
        self._ties: Set[Object] = set()
        self._keys: Dict[str, int] = {}

    def _function(self, name: str) -> Callable[..., int]:
        function: Callable[..., int] = getattr(lib, self._prefix + name)
        return function

    def _call(self, name: str, *arguments: Any) -> int:
        return check(self._function(name)(self._handle, *arguments))

    def _text(self, name: str, *arguments: Any) -> str:
        return text_of(self._function(name), self._handle, *arguments)

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return not self._handle

    def close(self) -> None:
        """Closes the object; see the function of the header. What is closed already stays so."""
        code = self._function("close")(self._handle)
        if code != CODES["HANDLE"]:
            check(code)
        self._handle = ffi.NULL
        self._untie()
        for key in self._keys.values():
            _callbacks.pop(key, None)
        self._keys.clear()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_owned", False) and self._handle:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)
            self._function("close")(self._handle)

    # What is plugged in keeps what it is plugged into, and the reverse, so that neither is collected and
    # closed while the program has only one of them.
    def _tie(self, other: Object) -> None:
        self._ties.add(other)
        other._ties.add(self)

    def _untie(self) -> None:
        while self._ties:
            self._ties.pop()._ties.discard(self)

    def _set_handler(self, name: str, function: Any, handler: Optional[Handler], place: Optional[str] = None) -> None:
        """Sets a handler of C, which finds that of Python by its key; or removes it. `place` is what removes it,
        if not the function of that name."""
        place = place or name
        key = next(_numbers)
        if handler is None:
            function = ffi.NULL
        else:
            _callbacks[key] = self, handler
        try:
            self._call(name, function, ffi.cast("void *", key))
        except BaseException:
            _callbacks.pop(key, None)
            raise
        _callbacks.pop(self._keys.pop(place, 0), None)
        if handler is not None:
            self._keys[place] = key

    def _remove_handlers(self) -> None:
        for place in list(self._keys):
            self._function(place)(self._handle, ffi.NULL, ffi.NULL)


class Configured(Object):
    """An object with options, which are named as in the header: QNET_OPT_LINK is `link`."""

    def set(self, **options: int) -> None:
        """Sets options, one after another."""
        for name, value in options.items():
            self._call("set", option(name), value)

    def get(self, name: str) -> int:
        """Gets the value of an option."""
        value = ffi.new("int64_t *")
        self._call("get", option(name), value)
        return int(value[0])


class Port(Configured):
    """What a connection has, and a listener gives to the connections that it accepts."""

    def impair(self, spec: Optional[str], direction: int = BOTH) -> None:
        """Impairs frames as a text in the language of `tc netem` asks; see qnet_impair()."""
        self._call("impair", direction, to_c_or_null(spec))

    def impairment(self, direction: int) -> str:
        """Gets the text that is in force."""
        return self._text("impairment", direction)

    @property
    def vlan(self) -> str:
        """The VLANs of the port; see qnet_set_vlan()."""
        return self._text("vlan")

    @vlan.setter
    def vlan(self, spec: Optional[str]) -> None:
        self._call("set_vlan", to_c_or_null(spec))

    def netdev(self, id: str, qemu_version: int) -> str:
        """Gets the `-netdev` argument with which a QEMU joins; 702 is version 7.2."""
        return self._text("netdev", to_c(id), qemu_version)


# Handlers by the number that C has as `user`: a number may be stale, and a pointer may not. An object with a
# handler is kept here until it is closed.
_callbacks: Dict[int, Tuple[Object, Handler]] = {}
_numbers = itertools.count(1)


def callback(kind: str) -> Callable[[Callable[..., None]], Any]:
    """Makes a function one that C can call, for ever. What it raises goes to threading.excepthook."""
    made: Callable[[Callable[..., None]], Any] = ffi.callback(kind, onerror=_report)
    return made


def _report(*raised: Any) -> None:
    threading.excepthook(threading.ExceptHookArgs((*raised, None)))


def handler_of(user: Any) -> Handler:
    """Finds the handler of a call; one that was just removed does nothing."""
    return _callbacks.get(int(ffi.cast("uintptr_t", user)), (None, lambda *_: None))[1]


@atexit.register
def _remove_all() -> None:
    """Frames may still come while Python ends, when a handler can no longer be called."""
    for owner in {owner for owner, _ in _callbacks.values()}:
        owner._remove_handlers()
