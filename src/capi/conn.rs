use std::ffi::{c_char, c_int};
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;

use crate::capi::args::{self, chosen, out, put, shown, string};
use crate::capi::boundary::{OK, call, give_new};
use crate::capi::handles::{of_conn, qnet_conn};
use crate::conn::open;
use crate::error::{Error, Result};
use crate::options::Holder;

/// Connects to a listening QEMU or to any other program that uses the same framing. With
/// "unixpacket" it connects to a SEQPACKET socket, on which each message is one frame, such as that
/// of gvproxy's `-listen-bess`.
///
/// @param network  "tcp", "tcp4", "tcp6", "unix" or "unixpacket".
/// @param address  For TCP, "host:port", "[v6]:port" or ":port" (this host); every address that a
///                 host name resolves to is tried. For Unix sockets, a path, or "@name" in the
///                 abstract namespace. A reconnecting connection resolves a relative path against
///                 the working directory of each attempt.
/// @param out      Receives the connection, to be closed with qnet_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (a NULL, an unknown network, a malformed address),
///         QNET_ERR_REFUSED (nobody listens there, or there is no such socket file),
///         QNET_ERR_RESOLVE, QNET_ERR_INTERRUPTED, QNET_ERR_OS (EPROTOTYPE if a stream socket
///         listens where SEQPACKET was requested, or the reverse), QNET_ERR_INTERNAL.
///
/// The call waits as long as the system does; qnet_dial_with() can limit that. The library starts a
/// thread only to resolve a host name, not for a numeric address or a path.
///
/// Blocks: yes, until the peer has accepted or the attempt has failed.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_dial(
    network: *const c_char,
    address: *const c_char,
    out: *mut *mut qnet_conn,
) -> c_int {
    // SAFETY: what C promises is what is asked for here; there are no options.
    unsafe { dial(network, address, ptr::null(), 0, out) }
}

/// Connects like qnet_dial(), with options that are set before connecting.
///
/// @param network  As for qnet_dial().
/// @param address  As for qnet_dial().
/// @param options  An array of pairs, each an option (enum qnet_option) followed by its value.
///                 Options of connections and QNET_OPT_DIAL_TIMEOUT_MS are allowed. May be NULL if
///                 pairs is 0.
/// @param pairs    The number of pairs.
/// @param out      Receives the connection, to be closed with qnet_close(); NULL on failure.
/// @return The codes of qnet_dial(), and QNET_ERR_TIMEOUT, or QNET_ERR_AGAIN if
///         QNET_OPT_DIAL_TIMEOUT_MS is 0. An unknown option or a value out of range gives
///         QNET_ERR_INVALID, and an option of other objects QNET_ERR_UNSUPPORTED; nothing is
///         dialled then.
///
/// With QNET_OPT_RECONNECT_MS above 0, it is no failure if the peer is not there yet. If nobody
/// listens, the name cannot be resolved, the network or host is unreachable or the time-out passes,
/// the call succeeds with a connection that is down and keeps dialling; see
/// qnet_set_state_handler().
///
/// Blocks: yes, until the peer has accepted or the attempt has failed, for at most
/// QNET_OPT_DIAL_TIMEOUT_MS.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_dial_with(
    network: *const c_char,
    address: *const c_char,
    options: *const i64,
    pairs: usize,
    out: *mut *mut qnet_conn,
) -> c_int {
    // SAFETY: what C promises is what is asked for here.
    unsafe { dial(network, address, options, pairs, out) }
}

/// # Safety
/// The strings are NULL or end with NUL; there are `pairs` pairs; `to` is NULL or may be written to.
unsafe fn dial(
    network: *const c_char,
    address: *const c_char,
    options: *const i64,
    pairs: usize,
    to: *mut *mut qnet_conn,
) -> c_int {
    // SAFETY: the caller's promise, for each use below.
    unsafe {
        give_new(to, &|| format!("dial {} {}", shown(network), shown(address)), || {
            let options = chosen(options, pairs, Holder::Dial)?;
            let (network, address) = (string(network, "network")?, string(address, "address")?);
            open::dial(network, address, options).map(of_conn)
        })
    }
}

/// Creates two connections that are each other's peer, using socketpair(2).
///
/// @param a  Receives one connection, to be closed with qnet_close(); NULL on failure.
/// @param b  Receives the other connection, to be closed with qnet_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (a NULL, or a equals b), QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_socketpair(
    a: *mut *mut qnet_conn,
    b: *mut *mut qnet_conn,
) -> c_int {
    // SAFETY: C promises that both are NULL or may be written to.
    unsafe {
        put(a, ptr::null_mut());
        put(b, ptr::null_mut());
        call(&|| "make a socket pair".into(), || {
            let (to_a, to_b) = (out(a, "a")?, out(b, "b")?);
            if ptr::eq(to_a, to_b) {
                return Err(Error::invalid("one place for two connections"));
            }
            let (one, other) = open::pair()?;
            put(to_a, of_conn(one));
            put(to_b, of_conn(other));
            Ok(OK)
        })
    }
}

/// Creates a connection whose peer is a descriptor, to be inherited by a child QEMU
/// (`-netdev socket,fd=` or `-netdev stream,addr.type=fd,addr.str=`).
///
/// @param out      Receives the connection, to be closed with qnet_close(); NULL on failure.
/// @param peer_fd  Receives the descriptor of the other end; -1 on failure. The caller owns it and
///                 closes it. It is close-on-exec, so the child has to clear FD_CLOEXEC.
/// @return QNET_OK; QNET_ERR_INVALID (a NULL), QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_socketpair_fd(
    out: *mut *mut qnet_conn,
    peer_fd: *mut c_int,
) -> c_int {
    // SAFETY: C promises that both are NULL or may be written to.
    unsafe {
        put(out, ptr::null_mut());
        put(peer_fd, -1);
        call(&|| "make a socket pair".into(), || {
            let (to, to_fd) = (args::out(out, "out")?, args::out(peer_fd, "peer_fd")?);
            let (conn, fd) = open::pair_with_fd()?;
            put(to, of_conn(conn));
            put(to_fd, fd.into_raw_fd());
            Ok(OK)
        })
    }
}

/// Creates a connection from a connected socket or an open TAP. A stream socket carries QEMU's
/// framing. On a datagram socket, a SEQPACKET socket or a TAP each message is one frame. SEQPACKET
/// is as reliable as a stream: a sender waits for a peer that does not read, and nothing is lost.
///
/// @param fd   The descriptor. On success the library owns it; on failure it stays the caller's.
///             The library sets FD_CLOEXEC and leaves O_NONBLOCK as it is.
/// @param out  Receives the connection, to be closed with qnet_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (fd is not open, is neither a socket nor a TAP, is a listening
///         socket or has no peer; or out is NULL), QNET_ERR_UNSUPPORTED (a TUN, a TAP with
///         IFF_VNET_HDR, or another kind of socket), QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// A TAP has to have been opened with IFF_NO_PI, which the library cannot check.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_from_fd(fd: c_int, out: *mut *mut qnet_conn) -> c_int {
    let make = || {
        let (fd, own) = adopted(fd)?;
        open::from_fd(fd, own).map(of_conn)
    };
    // SAFETY: C promises that `out` is NULL or may be written to.
    unsafe { give_new(out, &|| format!("make a connection of descriptor {fd}"), make) }
}

/// A caller's descriptor to look at, and what makes it the library's.
pub(super) fn adopted(fd: RawFd) -> Result<(BorrowedFd<'static>, impl FnOnce() -> OwnedFd)> {
    if fd < 0 {
        return Err(Error::invalid(format!("{fd} is no descriptor")));
    }
    // SAFETY: C gives the descriptor with the call, which ends with it the library's (`own` was
    // called) or the caller's as before; a number that is not open fails the first check.
    Ok(unsafe { (BorrowedFd::borrow_raw(fd), move || OwnedFd::from_raw_fd(fd)) })
}
