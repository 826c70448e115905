use std::ffi::c_int;

use super::{OK, on_conn, qnet_conn};
use crate::conn;
use crate::forward::link;

/// Cables two connections together: what one receives the other sends, until one ends or
/// qnet_unlink() is called.
///
/// Nothing is lost: while one does not read, the other is not read. When one side ends, the other is
/// ended after what the first sent is written, however long that takes; while one that is dialled
/// again is down, what is for it is dropped (its tx_dropped). Frames shorter than 14 bytes
/// are skipped (rx_runts); those longer than the sending side's QNET_OPT_MAX_FRAME, or for a peer that
/// has shut down its reading alone, are dropped (that side's tx_dropped). Threads of the library's do the work, at most 4, which all links and hubs share.
/// Other ways to receive give QNET_ERR_BUSY; sends go to the connection's own peer, between the
/// frames of the link.
///
/// What would lead frames round inside the process, with nobody outside to take them, is refused: the
/// two ends of one qnet_socketpair(), also where they lead to one another by further links and pairs;
/// and two connections that both lead to the same hub, as two of its qnet_hub_port() do. Two hubs may
/// be joined twice, though. Of sockets that the library did not pair itself (adopted ones, a dial of
/// the program's own listener) it does not know where they lead.
///
/// @param a  One connection, and
/// @param b  the other. Both stay the caller's, to be closed with qnet_close(), which ends the link.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (both are the same, or frames would go round),
///         QNET_ERR_BUSY (one has a handler, or is attached or linked), QNET_ERR_CLOSED,
///         QNET_ERR_PROTOCOL or QNET_ERR_OS (one has ended, or there is no thread to be had, or no
///         descriptor for one: EMFILE), QNET_ERR_INTERNAL. On failure neither is linked.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_link(a: *mut qnet_conn, b: *mut qnet_conn) -> c_int {
    on_conn(a, "link", |a| link::link(a, conn::table().get(b.addr() as u64)?).map(|()| OK))
}

/// Takes the cable out at both sides, at once: both connections are as before qnet_link(). What was
/// received and not yet written is still written.
///
/// @param conn  Either of the two.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (it is not linked), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_unlink(conn: *mut qnet_conn) -> c_int {
    on_conn(conn, "unlink", |conn| link::unlink(conn).map(|()| OK))
}
