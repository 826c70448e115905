#!/usr/bin/env python3
"""python_ctypes.py NETWORK ADDRESS [--leave] - from Python with ctypes: asks who has 10.0.2.1, and
receives the answer by pulling, then with a handler. With --leave it sends back what comes, and exits in
the middle of it without closing anything."""

import atexit
import ctypes
import sys
import threading
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p

QNET_FRAME_MAX = 69632
QNET_BOTH = 3
Handler = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_size_t)

lib = ctypes.CDLL("libqnet.so.0")  # CDLL, not PyDLL: other threads run while a call waits
lib.qnet_last_error.restype = c_char_p
# Functions that take a handle need argument types, because ctypes would cut it to an int.
lib.qnet_dial.argtypes = c_char_p, c_char_p, POINTER(c_void_p)
lib.qnet_hwaddr.argtypes = c_void_p, c_char_p
lib.qnet_impair.argtypes = c_void_p, c_int, c_char_p
lib.qnet_send.argtypes = c_void_p, c_char_p, c_size_t
lib.qnet_recv.argtypes = c_void_p, c_char_p, c_size_t, c_int
lib.qnet_set_handler.argtypes = c_void_p, Handler, c_void_p
lib.qnet_close.argtypes = (c_void_p,)


def check(code):
    """Returns a call's result, unless it failed. (Not for time-outs, which leave no text.)"""
    if code < 0:
        raise OSError(lib.qnet_last_error().decode())
    return code


def arp_request(mac):
    head = bytes.fromhex("0806 0001 0800 06 04 0001")
    return b"\xff" * 6 + mac + head + mac + bytes([10, 0, 2, 15]) + bytes(6) + bytes([10, 0, 2, 1])


def show(how, frame):
    if frame[12:14] == b"\x08\x06" and frame[21] == 2:
        print(how, "10.0.2.1 is at", frame[22:28].hex(":"), flush=True)


network, address = sys.argv[1:3]
leave = len(sys.argv) > 3
conn = c_void_p()
mac = ctypes.create_string_buffer(6)
buf = ctypes.create_string_buffer(QNET_FRAME_MAX)
done = threading.Event()
count = 0


# Runs on a thread of the library and must not be freed while it is set, so this module refers to it. The
# frame is lent for the call; string_at copies it.
@Handler
def on_frame(_user, frame, length):
    global count
    data = ctypes.string_at(frame, length)
    if leave:
        check(lib.qnet_send(conn, data, length))
    else:
        show("handled:", data)
    count += 1
    if not leave or count == 100:
        done.set()


check(lib.qnet_dial(network.encode(), address.encode(), byref(conn)))
check(lib.qnet_hwaddr(conn, mac))
check(lib.qnet_impair(conn, QNET_BOTH, b"delay 20ms loss 1%"))  # in force once it is linked or in a hub
if not leave:
    check(lib.qnet_send(conn, arp_request(mac.raw), 42))
    length = check(lib.qnet_recv(conn, buf, len(buf), -1))
    show("pulled:", buf[:length])
# Python frees on_frame when it exits, and frames may still arrive, so the handler is removed first.
atexit.register(lib.qnet_set_handler, conn, Handler(), None)
check(lib.qnet_set_handler(conn, on_frame, None))
if not leave:
    check(lib.qnet_send(conn, arp_request(mac.raw), 42))
done.wait()
if leave:
    print("leaving")
else:
    check(lib.qnet_close(conn))  # waits for the handler
