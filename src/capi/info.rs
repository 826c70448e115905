use std::ffi::{c_char, c_int};

use crate::capi::args::{give_struct, give_text, out, put};
use crate::capi::boundary::{OK, guard, on_conn};
use crate::capi::handles::qnet_conn;
use crate::capi::last_error;
use crate::conn::info::{self, qnet_cred, qnet_stats};
use crate::error;

/// Gets the connection's own hardware (MAC) address, for programs that act as a device on it. The
/// library only stores the address and does not use it. Until it is set it is random, locally
/// administered and unicast.
///
/// @param mac  Receives the address, 6 bytes.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (mac is NULL), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hwaddr(conn: *mut qnet_conn, mac: *mut u8) -> c_int {
    on_conn(conn, "tell the hardware address", |conn| {
        let mac = out(mac, "mac")?;
        // SAFETY: C promises room for 6 bytes.
        unsafe { put(mac.cast(), info::hwaddr(conn)?) };
        Ok(OK)
    })
}

/// Sets the connection's own hardware (MAC) address; see qnet_hwaddr().
///
/// @param mac  The new address, 6 bytes.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (mac is NULL), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_set_hwaddr(conn: *mut qnet_conn, mac: *const u8) -> c_int {
    on_conn(conn, "set the hardware address", |conn| {
        let mac = out(mac.cast_mut(), "mac")?;
        // SAFETY: C promises 6 bytes.
        info::set_hwaddr(conn, unsafe { mac.cast::<[u8; 6]>().read() }).map(|()| OK)
    })
}

/// Gets the address of this end of the connection. It is empty for a socket without a name, and
/// while a reconnecting connection is down.
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
pub unsafe extern "C-unwind" fn qnet_local_addr(
    conn: *mut qnet_conn,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    on_conn(conn, "tell the local address", |conn| {
        // SAFETY: C promises room for `cap` bytes.
        unsafe { give_text(&info::local_addr(conn)?, buf, cap) }
    })
}

/// Gets the address of the peer, as it was when the connection was made. While a reconnecting
/// connection is down, it is the address being dialled, or empty if that is a host name. For a
/// qnet_dgram() without a remote it is the first sender, or the latest with QNET_OPT_RELEARN 1, and
/// empty until somebody has sent.
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
pub unsafe extern "C-unwind" fn qnet_peer_addr(
    conn: *mut qnet_conn,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    on_conn(conn, "tell the peer's address", |conn| {
        // SAFETY: C promises room for `cap` bytes.
        unsafe { give_text(&info::peer_addr(conn)?, buf, cap) }
    })
}

/// Tells who the peer of a connection over a Unix socket is, as the system has noted when the two
/// were connected. It does not change, even if the peer gives its end to another process. If the
/// peer was dialled, it is whoever listened there; of a qnet_socketpair() or qnet_socketpair_fd() it
/// is this process. The answer stays when the connection has ended. While a reconnecting connection
/// is down there is none, and then it is that of the new peer.
///
/// @param out   Receives user, group and process. Members that this release of the library does not
///              know are set to zero.
/// @param size  The size of the struct in bytes: sizeof(qnet_cred) as the caller was compiled.
/// @return The size in bytes of the struct that the library knows; QNET_ERR_HANDLE,
///         QNET_ERR_INVALID (out is NULL), QNET_ERR_UNSUPPORTED (the system does not know: TCP, UDP,
///         Unix datagrams that are sent to an address, TAPs), QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_peer_cred(
    conn: *mut qnet_conn,
    out: *mut qnet_cred,
    size: usize,
) -> c_int {
    on_conn(conn, "tell who the peer is", |conn| {
        // SAFETY: C promises room for `size` bytes; the struct is plain integers.
        unsafe { give_struct(|| info::peer_cred(conn), out, size) }
    })
}

/// Gets the connection's counters.
///
/// @param out   Receives the counters. Members that this release of the library does not know are
///              set to zero.
/// @param size  The size of the struct in bytes: sizeof(qnet_stats) as the caller was compiled.
/// @return The size in bytes of the struct that the library knows; QNET_ERR_HANDLE,
///         QNET_ERR_INVALID (out is NULL), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_get_stats(
    conn: *mut qnet_conn,
    out: *mut qnet_stats,
    size: usize,
) -> c_int {
    on_conn(conn, "tell the counts", |conn| {
        // SAFETY: C promises room for `size` bytes; the struct is plain integers.
        unsafe { give_struct(|| info::stats(conn), out, size) }
    })
}

/// Sets an option of a connection.
///
/// @param option  One of enum qnet_option.
/// @param value   The new value.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or the value is out of
///         range), QNET_ERR_UNSUPPORTED (not an option of this connection), QNET_ERR_BUSY
///         (QNET_OPT_RECONNECT_MS was to be set above 0 after qnet_fd() had returned the socket
///         itself), QNET_ERR_OS, QNET_ERR_INTERNAL. On failure nothing has changed.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_set(conn: *mut qnet_conn, option: c_int, value: i64) -> c_int {
    on_conn(conn, "set an option", |conn| info::set(conn, option, value).map(|()| OK))
}

/// Gets the value of an option of a connection.
///
/// @param option  One of the options that qnet_set() takes for this connection.
/// @param value   Receives the value.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or value is NULL),
///         QNET_ERR_UNSUPPORTED (not an option of this connection), QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_get(
    conn: *mut qnet_conn,
    option: c_int,
    value: *mut i64,
) -> c_int {
    on_conn(conn, "get an option", |conn| {
        let to = out(value, "value")?;
        // SAFETY: C promises that it may be written to.
        unsafe { put(to, info::get(conn, option)?) };
        Ok(OK)
    })
}

/// Gets the version of the library, such as "0.1.0". QNET_VERSION is the version of the header with
/// which the program was compiled.
///
/// @return A static string, never NULL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_version() -> *const c_char {
    guard(|_| c"".as_ptr(), || concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast())
}

/// Gets the ABI version, which is the number in the shared library's name (libqnet.so.0). Programs
/// have to be compiled again when it changes.
///
/// @return The ABI version.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_abi_version() -> u32 {
    guard(|_| 0, || 0)
}

/// Describes a code in English.
///
/// @param code  One of enum qnet_error, or any other integer.
/// @return A static string, never NULL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_strerror(code: c_int) -> *const c_char {
    guard(|_| c"".as_ptr(), || error::describe(code).as_ptr())
}

/// Describes the last failure of the calling thread in full: what was attempted, on what, and why
/// it failed. QNET_ERR_AGAIN, QNET_ERR_TIMEOUT and QNET_ERR_INTERRUPTED are not recorded.
///
/// @return A string, never NULL; it is empty before the first failure. It is valid until this
///         thread's next call that fails.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_last_error() -> *const c_char {
    guard(|_| c"".as_ptr(), last_error::text)
}

/// Gets the errno value of the calling thread's last failure.
///
/// @return The errno value, or 0 if the failure had none.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_last_errno() -> c_int {
    guard(|_| 0, last_error::errno)
}
