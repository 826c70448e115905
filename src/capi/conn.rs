use std::ffi::{c_char, c_int};
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;

use super::{OK, call, handle_of, out, put, qnet_conn, shown, slice, string};
use crate::conn;
use crate::error::{Error, Result};
use crate::options::{Holder, Options};

/// Connects to a listening QEMU, or to anything else that speaks its framing; or to a SEQPACKET
/// socket, on which each message is a frame (gvproxy's `-listen-bess`).
///
/// @param network  "tcp", "tcp4", "tcp6", "unix", or "unixpacket" (SEQPACKET, otherwise as "unix").
/// @param address  For TCP "host:port", "[v6]:port" or ":port" (this host); every address that a
///                 name has is tried. For Unix sockets a path, or "@name" in the abstract namespace.
///                 Dialled again, a relative path begins at the working directory of that time.
/// @param out      The connection, to be closed with qnet_close(); NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (a NULL, an unknown network, a malformed address),
///         QNET_ERR_REFUSED (nobody listens there, or no such socket file), QNET_ERR_RESOLVE,
///         QNET_ERR_INTERRUPTED, QNET_ERR_OS (EPROTOTYPE: a stream listens where SEQPACKET was asked
///         for, or the reverse), QNET_ERR_INTERNAL.
///
/// Waits as long as the system does; qnet_dial_with() can bound it. Only a name that is no digits
/// needs a thread, for its look-up. Any thread may call it.
///
/// Blocks: yes, until somebody has accepted or it has failed.
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

/// The same with options that are set before connecting.
///
/// @param options  Pairs of an option (enum qnet_option) and its value: {option, value}, ...
///                 Options of connections, and QNET_OPT_DIAL_TIMEOUT_MS. May be NULL for no pairs.
/// @param pairs    How many pairs there are.
/// @return As qnet_dial(), and QNET_ERR_TIMEOUT (QNET_ERR_AGAIN where the time given was 0);
///         QNET_ERR_INVALID for an unknown option or a value out of range, and QNET_ERR_UNSUPPORTED
///         for an option of other objects: nothing has been dialled then.
///
/// With QNET_OPT_RECONNECT_MS above 0 a peer that is not there yet is no failure: where nobody
/// listens, the name has no address, the network or host cannot be reached or the time passed, the
/// connection begins down, and is dialled again; see qnet_set_state_handler().
///
/// Blocks: yes, until somebody has accepted or it has failed: at most for QNET_OPT_DIAL_TIMEOUT_MS.
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
        put(to, ptr::null_mut());
        call(
            || format!("dial {} {}", shown(network), shown(address)),
            || {
                let to = out(to, "out")?;
                let pairs = slice(options.cast::<[i64; 2]>(), pairs, "options")?;
                let options = chosen(pairs)?;
                let conn =
                    conn::dial(string(network, "network")?, string(address, "address")?, options)?;
                put(to, handle_of(conn));
                Ok(OK)
            },
        )
    }
}

fn chosen(pairs: &[[i64; 2]]) -> Result<Options> {
    let mut options = Options::default();
    for &[option, value] in pairs {
        let option = i32::try_from(option)
            .map_err(|_| Error::invalid(format!("unknown option {option}")))?;
        options.set(option, value, Holder::Dial)?;
    }
    Ok(options)
}

/// Makes two connections that are each other's peer, over socketpair(2).
///
/// @param a  One, and
/// @param b  the other; each to be closed with qnet_close(). Both NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (a NULL, or the same place twice), QNET_ERR_OS,
///         QNET_ERR_INTERNAL.
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
        call(
            || "make a socket pair".into(),
            || {
                let (to_a, to_b) = (out(a, "a")?, out(b, "b")?);
                if ptr::eq(to_a, to_b) {
                    return Err(Error::invalid("one place for two connections"));
                }
                let (one, other) = conn::pair()?;
                put(to_a, handle_of(one));
                put(to_b, handle_of(other));
                Ok(OK)
            },
        )
    }
}

/// Makes a connection whose other end is a descriptor, for a child QEMU (`-netdev socket,fd=` or
/// `-netdev stream,addr.type=fd,addr.str=`).
///
/// @param out      The connection; NULL on failure.
/// @param peer_fd  The other end, which is the caller's to pass on and close; -1 on failure. It is
///                 close-on-exec: clear FD_CLOEXEC in the child.
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
        call(
            || "make a socket pair".into(),
            || {
                let (to, to_fd) = (super::out(out, "out")?, super::out(peer_fd, "peer_fd")?);
                let (conn, fd) = conn::pair_with_fd()?;
                put(to, handle_of(conn));
                put(to_fd, fd.into_raw_fd());
                Ok(OK)
            },
        )
    }
}

/// Makes a connection of a connected socket, or of an open TAP. A stream socket carries QEMU's framing;
/// on a datagram or SEQPACKET socket, as on a TAP, each message is a frame. With SEQPACKET nothing is
/// lost: a sender waits for a peer that does not read, as on a stream.
///
/// @param fd   The descriptor: the library's from success on, still the caller's on failure. Its
///             O_NONBLOCK is left alone; FD_CLOEXEC is set.
/// @param out  The connection; NULL on failure.
/// @return QNET_OK; QNET_ERR_INVALID (not an open descriptor, neither a socket nor a TAP, one that
///         listens or has no peer, a NULL), QNET_ERR_UNSUPPORTED (a TUN, a TAP with IFF_VNET_HDR, a
///         socket of another kind), QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// A TAP has to be one with IFF_NO_PI, which the system does not tell.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_from_fd(fd: c_int, out: *mut *mut qnet_conn) -> c_int {
    // SAFETY: C promises that `out` is NULL or may be written to.
    unsafe {
        put(out, ptr::null_mut());
        call(
            || format!("make a connection of descriptor {fd}"),
            || {
                let to = super::out(out, "out")?;
                let (fd, own) = adopted(fd)?;
                put(to, handle_of(conn::from_fd(fd, own)?));
                Ok(OK)
            },
        )
    }
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
