"""The library and its header: functions, constants, errors, and what passes between Python and C."""

from __future__ import annotations

import errno
import itertools
import math
import os
import pathlib
import re
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Optional, Tuple, Union

import cffi

if TYPE_CHECKING:
    from typing_extensions import Buffer

Text = Union[str, bytes, "os.PathLike[str]"]
INT_MAX = 2**31 - 1


def declarations(header: str) -> str:
    """Returns what cffi can read of the header: no C++, and of the preprocessor's lines only numbers."""
    plain = re.sub(r"(?ms)^#ifdef __cplusplus$.*?^#endif.*?$", "", header)
    return re.sub(r"(?m)^#(?!define \w+ \d+$).*$", "", plain)


ffi: Any = cffi.FFI()
ffi.cdef(declarations((pathlib.Path(__file__).parent / "qnet.h").read_text()))
lib: Any = ffi.dlopen(os.environ.get("QNET_LIBRARY") or "libqnet.so.0")

#: The header's enumerations: `QNET_OPT_LINK` is `constants["OPT_LINK"]`.
constants: Dict[str, int] = {
    name[len("QNET_"):]: value
    for kind in ffi.list_types()[0]
    if ffi.typeof(kind).kind == "enum"
    for value, name in ffi.typeof(kind).elements.items()
}
FRAME_MIN = constants["FRAME_MIN"]
FRAME_MAX = constants["FRAME_MAX"]


class Error(OSError):
    """A call of the library has failed. There is a subclass for each code of enum qnet_error.

    `code` is that code, `errno` the system's number or 0, and `strerror` the text of qnet_last_error().
    `taken` is how many frames a send had taken before it failed."""

    def __init__(self, code: int, number: int, text: str) -> None:
        super().__init__(number, text)
        self.code = code
        self.taken = 0

    def __str__(self) -> str:
        return str(self.strerror)

    def __reduce__(self) -> Tuple[Any, ...]:
        return type(self), (self.code, self.errno, self.strerror)


class Invalid(Error, ValueError):
    """An argument cannot be valid."""


class Handle(Error):
    """The object was closed, or belongs to the process from which this one was forked."""


class Closed(Error, ConnectionError):
    """The connection or listener has ended in an orderly way."""


class Timeout(Error, TimeoutError):
    """The time-out has passed."""


class Again(Error, BlockingIOError):
    """The call would have to wait, and was told not to."""


class FrameSize(Error, ValueError):
    """A frame is too short or too long, or a buffer too small."""


class Protocol(Error, ConnectionError):
    """The peer broke the framing."""


class Os(Error):
    """The operating system reported an error, `errno`."""


class Busy(Error):
    """The connection is being received from in another way, or the address is in use."""


class Interrupted(Error, InterruptedError):
    """A signal handler ran. (Calls begin again by themselves, unless Python's handler raises.)"""


class Unsupported(Error):
    """This system, this kind of object or this release of the library does not support it."""


class Internal(Error):
    """The call failed because of a bug in the library."""


class Refused(Error, ConnectionRefusedError):
    """Nobody is listening at that address."""


class Resolve(Error):
    """The host name could not be resolved."""


_prefix = "ERR_"
CODES = {name[len(_prefix):]: code for name, code in constants.items() if name.startswith(_prefix)}
_classes = {code: globals().get(name.title().replace("_", ""), Error) for name, code in CODES.items()}
# The library does not record these.
_unrecorded = {
    CODES["AGAIN"]: errno.EAGAIN,
    CODES["TIMEOUT"]: errno.ETIMEDOUT,
    CODES["INTERRUPTED"]: errno.EINTR,
}


def error(code: int, text: Optional[str] = None) -> Error:
    """Makes the error of a code, with a text of its own or the code's."""
    text = text or ffi.string(lib.qnet_strerror(code)).decode()
    made: Error = _classes.get(code, Error)(code, _unrecorded.get(code, 0), text)
    return made


def check(code: int) -> int:
    """Returns what the last call on this thread has returned, or raises its error."""
    if code >= 0:
        return code
    failure = error(code)
    if code not in _unrecorded:
        failure.errno = lib.qnet_last_errno()
        failure.strerror = os.fsdecode(ffi.string(lib.qnet_last_error()))
    raise failure


def again(call: Callable[..., int], *arguments: Any) -> int:
    """Calls until no signal comes between; Python runs its handlers before the next call."""
    while True:
        code = call(*arguments)
        if code != CODES["INTERRUPTED"]:
            return check(code)


def wait(timeout: Optional[float], call: Callable[[int], int]) -> int:
    """The same for a call that waits: it is given the milliseconds that are left, or -1 for no limit."""
    if timeout is None:
        return again(call, -1)
    end = time.monotonic() + timeout
    least = 1 if timeout > 0 else 0  # a call that may not wait fails in another way
    return again(lambda: call(min(max(math.ceil((end - time.monotonic()) * 1000), least), INT_MAX)))


def to_c(text: Text) -> bytes:
    """Encodes a path, an address or another text, which C ends at the first NUL."""
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


def to_c_or_null(text: Optional[Text]) -> Any:
    return ffi.NULL if text is None else to_c(text)


def text_of(call: Callable[..., int], *arguments: Any) -> str:
    """Gets a text from a function that writes as snprintf does."""
    size = 256
    while True:
        room = ffi.new("char[]", size)
        length = check(call(*arguments, room, size))
        if length < size:
            return os.fsdecode(ffi.string(room))
        size = length + 1


def option(name: str) -> int:
    """Returns the number of an option: "link" is QNET_OPT_LINK."""
    try:
        return constants["OPT_" + name.upper()]
    except KeyError:
        raise TypeError(f"no option {name!r}") from None


def options_of(options: Dict[str, int]) -> Tuple[Any, int]:
    """Makes options and values the pairs that the library takes, and counts them."""
    pairs = [(option(name), value) for name, value in options.items()]
    return ffi.new("int64_t[]", list(itertools.chain(*pairs))), len(pairs)


def counters(kind: str, call: Callable[..., int], *arguments: Any) -> Dict[str, int]:
    """Gets a struct of numbers as a dictionary."""
    out: Any = ffi.new(kind + " *")
    check(call(*arguments, out, ffi.sizeof(kind)))
    return {name: getattr(out, name) for name, _ in ffi.typeof(kind).fields}


_allocate = ffi.new_allocator(should_clear_after_alloc=False)


def receive(size: int, timeout: Optional[float], call: Callable[[Any, int, int], int]) -> bytes:
    """Receives into a buffer of that many bytes, and returns those that were written."""
    room = _allocate("uint8_t[]", size)
    length = wait(timeout, lambda left: call(room, size, left))
    return bytes(ffi.buffer(room, length))


def pack(frames: Iterable[Buffer]) -> bytes:
    """Puts frames one after another in wire format: each behind its length, 4 bytes, big-endian."""
    parts: List[Buffer] = []
    for frame in frames:
        parts += memoryview(frame).nbytes.to_bytes(4, "big"), frame
    return b"".join(parts)


def unpack(packed: bytes) -> List[bytes]:
    """Cuts what `pack()` makes into frames again."""
    frames, at = [], 0
    while at < len(packed):
        begin = at + 4
        at = begin + int.from_bytes(packed[at:begin], "big")
        frames.append(packed[begin:at])
    return frames
