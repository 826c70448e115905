#!/usr/bin/env python3
"""python_cffi.py NETWORK ADDRESS [--leave] - from Python with cffi, which reads the header itself:
asks who has 10.0.2.1, and receives the answer by pulling, then with a handler. With --leave it sends back
what comes, and exits in the middle of it without closing anything."""

import atexit
import pathlib
import re
import sys
import threading

import cffi

HEADER = pathlib.Path(__file__).resolve().parents[2] / "include" / "qnet.h"

ffi = cffi.FFI()
# The header without the preprocessor's lines and without what only C++ sees.
text = re.sub(r"(?ms)^#ifdef __cplusplus$.*?^#endif.*?$", "", HEADER.read_text())
ffi.cdef(re.sub(r"(?m)^#.*$", "", text))
lib = ffi.dlopen("libqnet.so.0")


def check(code):
    """Returns a call's result, unless it failed. (Not for time-outs, which leave no text.)"""
    if code < 0:
        raise OSError(ffi.string(lib.qnet_last_error()).decode())
    return code


def arp_request(mac):
    head = bytes.fromhex("0806 0001 0800 06 04 0001")
    return b"\xff" * 6 + mac + head + mac + bytes([10, 0, 2, 15]) + bytes(6) + bytes([10, 0, 2, 1])


def show(how, frame):
    if frame[12:14] == b"\x08\x06" and frame[21] == 2:
        print(how, "10.0.2.1 is at", frame[22:28].hex(":"), flush=True)


network, address = sys.argv[1:3]
leave = len(sys.argv) > 3
out = ffi.new("qnet_conn **")
mac = ffi.new("uint8_t[6]")
buf = ffi.new("uint8_t[]", lib.QNET_FRAME_MAX)
done = threading.Event()
count = 0


# Runs on a thread of the library and must not be freed while it is set, so this module refers to it. The
# frame is lent for the call; bytes() copies it.
@ffi.callback("qnet_handler")
def on_frame(_user, frame, length):
    global count
    if leave:
        check(lib.qnet_send(conn, frame, length))
    else:
        show("handled:", bytes(ffi.buffer(frame, length)))
    count += 1
    if not leave or count == 100:
        done.set()


check(lib.qnet_dial(network.encode(), address.encode(), out))
conn = out[0]
check(lib.qnet_hwaddr(conn, mac))
check(lib.qnet_impair(conn, lib.QNET_BOTH, b"delay 20ms loss 1%"))  # in force once linked or in a hub
request = arp_request(bytes(mac))
if not leave:
    check(lib.qnet_send(conn, request, len(request)))
    length = check(lib.qnet_recv(conn, buf, len(buf), -1))
    show("pulled:", bytes(buf[0:length]))
# Python frees on_frame when it exits, and frames may still arrive, so the handler is removed first.
atexit.register(lib.qnet_set_handler, conn, ffi.NULL, ffi.NULL)
check(lib.qnet_set_handler(conn, on_frame, ffi.NULL))
if not leave:
    check(lib.qnet_send(conn, request, len(request)))
done.wait()
if leave:
    print("leaving")
else:
    check(lib.qnet_close(conn))  # waits for the handler
