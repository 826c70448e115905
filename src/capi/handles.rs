//! Handles, as C sees them.

use std::ptr;

use crate::capture::Capture;
use crate::conn::Conn;
use crate::forward::clock::Clock;
use crate::forward::hub::Hub;
use crate::listener::Listener;
use crate::runtime::handle::{Object, Ref, Token};

/// A connection to a layer-2 device: frames are sent to it and received from it.
///
/// The pointer is a handle, not an address. Using a stale or invented one gives QNET_ERR_HANDLE.
pub struct qnet_conn {
    _token: u8,
}

/// A listener, to which peers connect. The pointer is a handle, as for qnet_conn.
pub struct qnet_listener {
    _token: u8,
}

/// A hub, which is a learning switch. The pointer is a handle, as for qnet_conn.
pub struct qnet_hub {
    _token: u8,
}

/// A clock that the program moves; see qnet_clock_new(). The pointer is a handle, as for qnet_conn.
pub struct qnet_clock {
    _token: u8,
}

/// Writes the frames of connections and hubs to a file; see qnet_capture_open(). The pointer is a
/// handle, as for qnet_conn.
pub struct qnet_capture {
    _token: u8,
}

/// The handle that stands for an object in C.
fn pointer<T: Object, H>(object: Ref<T>) -> *mut H {
    ptr::without_provenance_mut(object.token as usize)
}

pub fn of_conn(conn: Ref<Conn>) -> *mut qnet_conn {
    pointer(conn)
}

pub fn of_listener(listener: Ref<Listener>) -> *mut qnet_listener {
    pointer(listener)
}

pub fn of_hub(hub: Ref<Hub>) -> *mut qnet_hub {
    pointer(hub)
}

pub fn of_clock(clock: Ref<Clock>) -> *mut qnet_clock {
    pointer(clock)
}

pub fn of_capture(capture: Ref<Capture>) -> *mut qnet_capture {
    pointer(capture)
}

/// The token that a handle of C is.
pub fn token_of<H>(handle: *mut H) -> Token {
    handle.addr() as Token
}
