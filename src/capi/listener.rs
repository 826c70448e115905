use std::ffi::{c_char, c_int};
use std::ptr;

use super::conn::adopted;
use super::{OK, call, give_text, handle_of, on_listener, out, put, qnet_conn, qnet_listener};
use super::{shown, string};
use crate::listener::{self, Listener};
use crate::runtime::handle::Ref;

fn handle_of_listener(listener: Ref<Listener>) -> *mut qnet_listener {
    ptr::without_provenance_mut(listener.token as usize)
}

/// Listens for peers: a QEMU with `-netdev stream,server=off` or `-netdev socket,connect=`.
///
/// @param network  "tcp", "tcp4", "tcp6", "unix", or "unixpacket" (SEQPACKET: each message is a frame;
///                 otherwise as "unix").
/// @param address  For TCP "host:port", "[v6]:port" or ":port" (every interface); port 0 lets the
///                 system choose, and qnet_listener_addr() tells. For Unix sockets a path, or
///                 "@name" in the abstract namespace. A path's file gets mode 0600
///                 (QNET_OPT_UNIX_MODE); a dead socket's file in its way is replaced, but not another
///                 user's in a directory that others can write to.
/// @param out      The listener, to be closed with qnet_listener_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID, QNET_ERR_BUSY (the address is in use, or a file is in the way
///         that may not be replaced), QNET_ERR_RESOLVE, QNET_ERR_INTERRUPTED (in a name's look-up),
///         QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// Blocks: yes, while a name is looked up; with digits or a path no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listen(
    network: *const c_char,
    address: *const c_char,
    out: *mut *mut qnet_listener,
) -> c_int {
    // SAFETY: C promises strings that end with NUL, and that `out` may be written to.
    unsafe {
        put(out, ptr::null_mut());
        call(
            || format!("listen on {} {}", shown(network), shown(address)),
            || {
                let to = super::out(out, "out")?;
                let listener =
                    listener::listen(string(network, "network")?, string(address, "address")?)?;
                put(to, handle_of_listener(listener));
                Ok(OK)
            },
        )
    }
}

/// Waits for a peer and makes a connection of it.
///
/// @param listener    The listener. Threads may share it.
/// @param timeout_ms  How long to wait: -1 without an end, 0 not at all.
/// @param out         The connection, which starts with the listener's options; NULL on failure.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (out is NULL, and nothing is accepted; a
///         timeout below -1), QNET_ERR_AGAIN (0 was given), QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED,
///         QNET_ERR_CLOSED (the listener was closed meanwhile), QNET_ERR_OS (for example EMFILE, at
///         once; the listener goes on), QNET_ERR_INTERNAL.
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
            let to = super::out(out, "out")?;
            put(to, handle_of(listener::accept(listener, timeout_ms)?));
            Ok(OK)
        })
    }
}

/// Makes a listener of a listening stream or SEQPACKET socket (socket activation).
///
/// @param fd   The socket: the library's from success on, still the caller's on failure. Its
///             O_NONBLOCK and its file are left alone; FD_CLOEXEC is set.
/// @param out  The listener; NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (not an open descriptor, no socket, one that does not listen,
///         a NULL), QNET_ERR_UNSUPPORTED (a socket of another kind), QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_from_fd(
    fd: c_int,
    out: *mut *mut qnet_listener,
) -> c_int {
    // SAFETY: C promises that `out` is NULL or may be written to.
    unsafe {
        put(out, ptr::null_mut());
        call(
            || format!("make a listener of descriptor {fd}"),
            || {
                let to = super::out(out, "out")?;
                let (fd, own) = adopted(fd)?;
                put(to, handle_of_listener(listener::from_fd(fd, own)?));
                Ok(OK)
            },
        )
    }
}

/// Tells the listener's address, as qnet_dial() takes it.
///
/// @param buf  Filled as snprintf(3) does: cut short if need be, and then NUL-terminated all the
///             same. May be NULL if cap is 0.
/// @param cap  Its size in bytes.
/// @return The length of the whole text in bytes, without the NUL; QNET_ERR_HANDLE,
///         QNET_ERR_INVALID (buf is NULL), QNET_ERR_INTERNAL.
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

/// Writes the argument of `-netdev` with which a QEMU of some version joins: `socket` before 7.2,
/// `stream` from it on, which from 8.0 on connects again when this program was gone for a while. A
/// listener on every interface is joined through this host's own.
///
/// @param id            The netdev's: a letter, then letters, digits, '-', '.' and '_'.
/// @param qemu_version  100 times the major version, and the minor one: 702 is 7.2.
/// @param buf           As for qnet_listener_addr().
/// @param cap           As for qnet_listener_addr().
/// @return The length of the whole text in bytes, without the NUL; QNET_ERR_HANDLE,
///         QNET_ERR_INVALID (buf or id is NULL, no id, no version), QNET_ERR_UNSUPPORTED (what that
///         version cannot do: before 7.2 a Unix socket or a v6 address; before 4.2 anything; for any
///         version a SEQPACKET listener, and a path of more than 107 bytes from the root on),
///         QNET_ERR_INTERNAL.
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

/// The listener's descriptor: readable when a peer waits to be accepted.
///
/// @return The descriptor, which stays the library's; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_fd(listener: *mut qnet_listener) -> c_int {
    on_listener(listener, "tell the descriptor", |listener| listener::fd(listener))
}

/// Ends a listener: wakes every qnet_accept() with QNET_ERR_CLOSED, removes the socket file that it
/// made, and gives the handle back. Its connections live on. When it returns the descriptor is
/// closed, as after qnet_close().
///
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
///
/// Blocks: yes, until the calls of other threads that it wakes have let go of the listener, which
/// is at once.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_listener_close(listener: *mut qnet_listener) -> c_int {
    on_listener(listener, "close", |listener| listener::close(listener).map(|()| OK))
}

/// Sets an option of the listener, or one that the connections it accepts from now on start with.
///
/// @param option  One of enum qnet_option: those of connections, QNET_OPT_MAX_CONNS and
///                QNET_OPT_UNIX_MODE, which changes the mode of the file at once.
/// @param value   Its value.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or a value out of range),
///         QNET_ERR_UNSUPPORTED (not for this listener), QNET_ERR_OS, QNET_ERR_INTERNAL.
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

/// Tells an option's value: for QNET_OPT_SNDBUF and QNET_OPT_RCVBUF 0 until set.
///
/// @param option  One of enum qnet_option.
/// @param value   Where to.
/// @return As qnet_listener_set(); QNET_ERR_INVALID where value is NULL.
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
