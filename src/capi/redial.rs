use std::ffi::{c_int, c_void};

use super::{OK, on_conn, qnet_conn};
use crate::conn::carrier;
use crate::runtime::callback::StateHandler;

/// Called when a connection that is dialled again has gone down, and when it is up again: in order,
/// one call at a time, each on a thread of the library's that is there for it alone. It may take as
/// long as it likes: its connection is dialled when it has returned, and no other waits for it. It may
/// call anything in the library, on its own connection too; it must not throw or longjmp out. It may
/// end its thread (pthread_exit): the connection then has no state handler, and is dialled again all
/// the same.
///
/// @param user  What qnet_set_state_handler() was given.
/// @param up    1 when it is up again, 0 when it has gone down.
pub type qnet_state_handler = Option<unsafe extern "C-unwind" fn(user: *mut c_void, up: c_int)>;

/// Has a handler called with a reconnecting connection's carrier: with 0 when it has gone down, with
/// 1 when it is up again. Not called at setting; for a connection that began without its peer, first
/// with 1.
///
/// A connection of qnet_dial() or qnet_dial_with() reconnects while QNET_OPT_RECONNECT_MS is above 0.
/// When its peer leaves, resets it or breaks the framing, it does not end but goes down, once every
/// whole frame received before has been taken from it: so who pulls frames must pull them; and one that
/// nobody receives from notices it when a send fails, or in qnet_wait() or qnet_poll(). So many
/// milliseconds later, and after each attempt that failed, it is dialled again, until that succeeds
/// (qnet_stats.reconnects). One thread dials for all connections that are down, and none of them waits
/// for another. An attempt fails, too, where a Unix peer has no room for another who connects (its
/// backlog). The connection's handle, handlers, hub port or link, options and counts stay.
///
/// It ends by qnet_shutdown() or qnet_close(), with which an attempt under way ends at once; at the
/// other end of a link's end; where the thread cannot be had; or, while it is down, when the option is
/// set to 0: then with the reason for which it went down.
///
/// While it is down, qnet_close_reason() is QNET_OK, sends succeed and are dropped (tx_dropped), as
/// is what was taken before and not written; receives give QNET_ERR_AGAIN or QNET_ERR_TIMEOUT, or
/// wait on, and so does qnet_wait(). The close handler is called at the final end.
///
/// Outside a handler of any kind, returns when the state handler that this one replaces is not
/// running and never will again, so that its `user` may be freed (hold no lock that it takes). With
/// QNET_OPT_WAIT 0, or inside a handler, it does not wait. No call begins after qnet_shutdown() or
/// qnet_close(), and qnet_close() waits for one that is running under the same rule.
///
/// @param handler  The handler; NULL for none.
/// @param user     What to call it with.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_UNSUPPORTED (the connection was not dialled),
///         QNET_ERR_INTERNAL.
///
/// Blocks: yes, until the handler before has returned; not inside a handler of any kind, or with
/// QNET_OPT_WAIT 0.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_set_state_handler(
    conn: *mut qnet_conn,
    handler: qnet_state_handler,
    user: *mut c_void,
) -> c_int {
    on_conn(conn, "set a state handler", |conn| {
        let handler = handler.map(|call| StateHandler { call, user: super::user(user) });
        carrier::set_state_handler(conn, handler).map(|()| OK)
    })
}
