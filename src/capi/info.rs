use std::ffi::{c_char, c_int};

use super::{LAST_ERROR, OK, give_struct, give_text, guard, on_conn, out, put, qnet_conn};
use crate::conn::{self, qnet_stats};
use crate::error;

/// Tells the connection's hardware address: its own, for a program that answers as a device. The
/// library only keeps it. Random, locally administered and unicast until set.
///
/// @param mac  Where to: 6 bytes.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (mac is NULL), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_hwaddr(conn: *mut qnet_conn, mac: *mut u8) -> c_int {
    on_conn(conn, "tell the hardware address", |conn| {
        let mac = out(mac, "mac")?;
        // SAFETY: C promises room for 6 bytes.
        unsafe { put(mac.cast(), conn::hwaddr(conn)?) };
        Ok(OK)
    })
}

/// Sets the connection's hardware address.
///
/// @param mac  The address: 6 bytes.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (mac is NULL), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_set_hwaddr(conn: *mut qnet_conn, mac: *const u8) -> c_int {
    on_conn(conn, "set the hardware address", |conn| {
        let mac = out(mac.cast_mut(), "mac")?;
        // SAFETY: C promises 6 bytes.
        conn::set_hwaddr(conn, unsafe { mac.cast::<[u8; 6]>().read() }).map(|()| OK)
    })
}

/// Tells the address of this end: empty for a socket without a name, and while a connection that is
/// dialled again is down.
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
pub unsafe extern "C-unwind" fn qnet_local_addr(
    conn: *mut qnet_conn,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    on_conn(conn, "tell the local address", |conn| {
        // SAFETY: C promises room for `cap` bytes.
        unsafe { give_text(&conn::local_addr(conn)?, buf, cap) }
    })
}

/// Tells the address of the peer's end, as it was when the connection was made; while one that is
/// dialled again is down, the address that is dialled, or nothing where that is a name. Of a
/// qnet_dgram() without a remote, who sent first (QNET_OPT_RELEARN 1: last), or nothing.
///
/// @param buf  As for qnet_local_addr().
/// @param cap  As for qnet_local_addr().
/// @return As qnet_local_addr().
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
        unsafe { give_text(&conn::peer_addr(conn)?, buf, cap) }
    })
}

/// Tells the connection's counts.
///
/// @param out   Filled as far as it reaches; what the library does not know is zeroed.
/// @param size  Its size in bytes: sizeof(qnet_stats) of the caller's header.
/// @return The bytes that the library knows; QNET_ERR_HANDLE, QNET_ERR_INVALID (out is NULL),
///         QNET_ERR_INTERNAL.
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
        unsafe { give_struct(|| conn::stats(conn), out, size) }
    })
}

/// Sets an option of a connection.
///
/// @param option  One of enum qnet_option.
/// @param value   Its value.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or a value out of range),
///         QNET_ERR_UNSUPPORTED (not an option of this connection), QNET_ERR_BUSY
///         (QNET_OPT_RECONNECT_MS above 0, after qnet_fd() gave out the socket itself), QNET_ERR_OS,
///         QNET_ERR_INTERNAL. On failure nothing has changed.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_set(conn: *mut qnet_conn, option: c_int, value: i64) -> c_int {
    on_conn(conn, "set an option", |conn| conn::set(conn, option, value).map(|()| OK))
}

/// Tells an option's value.
///
/// @param option  One of enum qnet_option.
/// @param value   Where to.
/// @return As qnet_set(); QNET_ERR_INVALID where value is NULL.
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
        unsafe { put(to, conn::get(conn, option)?) };
        Ok(OK)
    })
}

/// The library's version: "0.1.0". QNET_VERSION and its kin tell the header's.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_version() -> *const c_char {
    guard(|_| c"".as_ptr(), || concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast())
}

/// The number in the shared library's name, which changes when programs must be compiled again: 0.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_abi_version() -> u32 {
    guard(|_| 0, || 0)
}

/// A code in English.
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

/// This thread's last failure in full: what was attempted, on what, and why it failed.
/// QNET_ERR_AGAIN, QNET_ERR_TIMEOUT and QNET_ERR_INTERRUPTED are not recorded.
///
/// @return A string, never NULL, empty before the first failure; valid until this thread's next
///         failing call.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_last_error() -> *const c_char {
    guard(|_| c"".as_ptr(), || LAST_ERROR.with_borrow(|last| last.text.as_ptr().cast()))
}

/// The errno of this thread's last failure, or 0 where it had none.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_last_errno() -> c_int {
    guard(|_| 0, || LAST_ERROR.with_borrow(|last| last.errno))
}
