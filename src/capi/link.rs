use std::ffi::c_int;

use crate::capi::boundary::{OK, on_conn};
use crate::capi::handles::{qnet_conn, token_of};
use crate::conn;
use crate::forward::link;

/// Connects two connections like a cable: every frame that one receives is sent on the other, until
/// one of them ends or qnet_unlink() is called. At most 4 library threads do the forwarding for all
/// links and hubs.
///
/// A link drops no frame for lack of room: while one side does not read, the other side is not read
/// either. When one side ends, the other is ended once everything that the first sent has been
/// written, however long that takes, unless it is to outlive that (QNET_OPT_OUTLIVE). While a side is a reconnecting connection that is down, frames
/// for it are dropped (its tx_dropped). Frames shorter than 14 bytes are skipped (rx_runts). Frames
/// longer than the sending side's QNET_OPT_MAX_FRAME, or for a peer that has shut down reading but
/// not writing, are dropped (the sending side's tx_dropped). While linked, a connection cannot be
/// received from in another way (QNET_ERR_BUSY). A send on it goes to its peer, between the frames
/// of the link.
///
/// A link that would make frames circulate inside the process is refused. This concerns the two
/// ends of one qnet_socketpair(), even if they are connected to each other by further links and
/// pairs; and two connections that both lead to the same hub, such as two of its qnet_hub_port().
/// Two hubs may be joined twice, though. Where a socket leads that the library did not pair itself,
/// such as an adopted one or one dialled to this program's own listener, the library does not know.
///
/// A connection that has outlived the other side of its link can be linked anew without
/// qnet_unlink(), as either argument. What the side that has ended had sent still arrives.
///
/// @param a  One connection. It stays the caller's, to be closed with qnet_close(), which ends the
///           link.
/// @param b  The other connection, likewise.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (a equals b, or frames would circulate),
///         QNET_ERR_BUSY (one has a handler, or is attached or linked), QNET_ERR_CLOSED,
///         QNET_ERR_PROTOCOL or QNET_ERR_OS (one has ended; QNET_ERR_OS also if no thread can be
///         started or no descriptor is left for it, EMFILE), QNET_ERR_INTERNAL. On failure neither
///         is linked.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_link(a: *mut qnet_conn, b: *mut qnet_conn) -> c_int {
    on_conn(a, "link", |a| link::link(a, conn::table().get(token_of(b))?).map(|()| OK))
}

/// Removes a link at once, on both sides. Both connections are as they were before qnet_link().
/// Frames that were received from one side and not yet written to the other are still written, but
/// for those in flight (see qnet_impair()), which are discarded and counted.
///
/// @param conn  Either of the two connections.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (the connection is not linked),
///         QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_unlink(conn: *mut qnet_conn) -> c_int {
    on_conn(conn, "unlink", |conn| link::unlink(conn).map(|()| OK))
}
