use std::ffi::{c_char, c_int};
use std::ptr;

use crate::capi::args::{self, give_text, out, put, shown, string};
use crate::capi::boundary::{OK, give_new, on_listener};
use crate::capi::conn::adopted;
use crate::capi::handles::{of_conn, of_listener, qnet_conn, qnet_listener};
use crate::listener;

/// Listens for peers, such as a QEMU with `-netdev stream,server=off` or `-netdev socket,connect=`.
///
/// @param network  "tcp", "tcp4", "tcp6", "unix" or "unixpacket" (SEQPACKET: each message is one
///                 frame).
/// @param address  For TCP, "host:port", "[v6]:port" or ":port" (every interface); with port 0 the
///                 system chooses one, which qnet_listener_addr() gives. For Unix sockets, a path,
///                 or "@name" in the abstract namespace. The socket file is created with mode 0600
///                 (see QNET_OPT_UNIX_MODE). A dead socket file in its place is replaced, unless it
///                 belongs to another user and lies in a directory that others can write to.
/// @param out      Receives the listener, to be closed with qnet_listener_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (a NULL, an unknown network, a malformed address),
///         QNET_ERR_BUSY (the address is in use, or a file that may not be replaced is there),
///         QNET_ERR_RESOLVE, QNET_ERR_INTERRUPTED (while a name was resolved), QNET_ERR_OS,
///         QNET_ERR_INTERNAL.
///
/// Blocks: yes, while a host name is resolved; not for a numeric address or a path.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listen(
    network: *const c_char,
    address: *const c_char,
    out: *mut *mut qnet_listener,
) -> c_int {
    // SAFETY: C promises strings that end with NUL, and that `out` may be written to.
    unsafe {
        give_new(out, &|| format!("listen on {} {}", shown(network), shown(address)), || {
            let (network, address) = (string(network, "network")?, string(address, "address")?);
            listener::listen(network, address).map(of_listener)
        })
    }
}

/// Waits for a peer and accepts it as a new connection. Several threads may accept from one
/// listener.
///
/// @param timeout_ms  How long to wait, in milliseconds: -1 waits without limit, 0 does not wait.
/// @param out         Receives the connection, to be closed with qnet_close(); NULL on failure. It
///                    starts with the options that were set on the listener.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (out is NULL, in which case no peer is
///         accepted; or timeout_ms is below -1), QNET_ERR_AGAIN (timeout_ms is 0 and no peer is
///         waiting), QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED, QNET_ERR_CLOSED (the listener was
///         closed during the wait), QNET_ERR_OS (returned at once, for example for EMFILE; the
///         listener keeps working), QNET_ERR_INTERNAL.
///
/// Blocks: yes, at most for timeout_ms.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_accept(
    listener: *mut qnet_listener,
    timeout_ms: c_int,
    out: *mut *mut qnet_conn,
) -> c_int {
    // SAFETY: C promises that `out` is NULL or may be written to.
    unsafe {
        put(out, ptr::null_mut());
        on_listener(listener, "accept", |listener| {
            let to = args::out(out, "out")?;
            put(to, of_conn(listener::accept(listener, timeout_ms)?));
            Ok(OK)
        })
    }
}

/// Creates a listener from a listening stream or SEQPACKET socket, as systemd's socket activation
/// provides.
///
/// @param fd   The socket. On success the library owns it; on failure it stays the caller's. The
///             library sets FD_CLOEXEC, and leaves O_NONBLOCK and the socket file as they are.
/// @param out  Receives the listener, to be closed with qnet_listener_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (fd is not open, is not a socket or does not listen; or out is
///         NULL), QNET_ERR_UNSUPPORTED (another kind of socket), QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_from_fd(
    fd: c_int,
    out: *mut *mut qnet_listener,
) -> c_int {
    let make = || {
        let (fd, own) = adopted(fd)?;
        listener::from_fd(fd, own).map(of_listener)
    };
    // SAFETY: C promises that `out` is NULL or may be written to.
    unsafe { give_new(out, &|| format!("make a listener of descriptor {fd}"), make) }
}

/// Gets the address of the listener, in the form that qnet_dial() takes.
///
/// @param buf  Receives the address as snprintf(3) would write it: truncated if necessary, always
///             NUL-terminated. May be NULL if cap is 0.
/// @param cap  The size of buf in bytes.
/// @return The length of the whole address in bytes, without the NUL, even if buf is too small for
///         it; QNET_ERR_HANDLE, QNET_ERR_INVALID (buf is NULL), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_addr(
    listener: *mut qnet_listener,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    on_listener(listener, "tell the address", |listener| {
        // SAFETY: C promises room for `cap` bytes.
        unsafe { give_text(&listener::addr(listener)?, buf, cap) }
    })
}

/// Writes the `-netdev` argument with which QEMU connects to the listener: `socket` before version
/// 7.2, `stream` from then on, and from 8.0 on with the option that makes QEMU reconnect after
/// losing this program. For a listener on every interface, the argument names this host's loopback
/// address.
///
/// @param id            The id of the netdev: a letter, then letters, digits, '-', '.' and '_'.
/// @param qemu_version  The version of QEMU, 100 * major + minor: 702 is 7.2. At least 402.
/// @param buf           Receives the argument as snprintf(3) would write it: truncated if
///                      necessary, always NUL-terminated. May be NULL if cap is 0.
/// @param cap           The size of buf in bytes.
/// @return The length of the whole argument in bytes, without the NUL, even if buf is too small for
///         it; QNET_ERR_HANDLE, QNET_ERR_INVALID (buf or id is NULL, a malformed id, not a
///         version), QNET_ERR_UNSUPPORTED (QEMU cannot connect: before 4.2 in any way; before 7.2
///         over Unix sockets or IPv6; in any version to a SEQPACKET socket or an absolute path
///         longer than 107 bytes), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_netdev(
    listener: *mut qnet_listener,
    id: *const c_char,
    qemu_version: c_int,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    on_listener(listener, "write a -netdev argument", |listener| {
        // SAFETY: C promises a string, and room for `cap` bytes.
        unsafe {
            give_text(&listener::netdev(listener, string(id, "id")?, qemu_version)?, buf, cap)
        }
    })
}

/// Gets the listener's descriptor, for poll, epoll or another event loop. It is readable when a
/// peer is waiting to be accepted. The library still owns it.
///
/// @return The descriptor; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_fd(listener: *mut qnet_listener) -> c_int {
    on_listener(listener, "tell the descriptor", listener::fd)
}

/// Closes a listener and invalidates its handle. Every qnet_accept() that is waiting returns
/// QNET_ERR_CLOSED. A socket file that the listener created is removed. Connections that it
/// accepted stay open. The descriptor is closed when the call returns.
///
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
///
/// Blocks: yes, until the woken calls of other threads have let go of the listener, which takes
/// only a moment.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_close(listener: *mut qnet_listener) -> c_int {
    on_listener(listener, "close", |listener| listener::close(listener).map(|()| OK))
}

/// Sets an option of the listener, or an option with which the connections that it accepts from now
/// on start.
///
/// @param option  One of enum qnet_option: an option of connections, QNET_OPT_MAX_CONNS, or
///                QNET_OPT_UNIX_MODE, which changes the mode of the socket file at once.
/// @param value   The new value.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or the value is out of
///         range), QNET_ERR_UNSUPPORTED (not an option of this listener), QNET_ERR_OS,
///         QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_set(
    listener: *mut qnet_listener,
    option: c_int,
    value: i64,
) -> c_int {
    on_listener(listener, "set an option", |listener| {
        listener::set(listener, option, value).map(|()| OK)
    })
}

/// Gets the value of an option of the listener. QNET_OPT_SNDBUF and QNET_OPT_RCVBUF are 0 until
/// they are set.
///
/// @param option  One of the options that qnet_listener_set() takes.
/// @param value   Receives the value.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or value is NULL),
///         QNET_ERR_UNSUPPORTED (not an option of this listener), QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_get(
    listener: *mut qnet_listener,
    option: c_int,
    value: *mut i64,
) -> c_int {
    on_listener(listener, "get an option", |listener| {
        let to = out(value, "value")?;
        // SAFETY: C promises that it may be written to.
        unsafe { put(to, listener::get(listener, option)?) };
        Ok(OK)
    })
}
