use std::ffi::{c_int, c_void};

use crate::capi::boundary::{OK, on_conn};
use crate::capi::handles::qnet_conn;
use crate::conn::carrier;
use crate::runtime::callback::IntHandler;

/// Called when a reconnecting connection has gone down, and when it is up again. The calls are made
/// in order, one at a time, each on a library thread of its own. The connection is not dialled
/// before the handler has returned; other connections do not wait for it. The handler may call any
/// function of the library, also for its own connection. It must not throw an exception or longjmp
/// out. It may end its thread (pthread_exit); the connection then has no state handler, and still
/// reconnects.
///
/// @param user  The pointer that was given to qnet_set_state_handler().
/// @param up    1 if the connection is up again, 0 if it has gone down.
pub type qnet_state_handler = Option<unsafe extern "C-unwind" fn(user: *mut c_void, up: c_int)>;

/// Sets the handler that is called with 0 when a reconnecting connection has gone down, and with 1
/// when it is up again. It is not called with the state at the time of this call. If the connection
/// began without its peer, the first call is with 1.
///
/// A connection of qnet_dial() or qnet_dial_with() reconnects while QNET_OPT_RECONNECT_MS is above
/// 0. When its peer leaves, resets it or breaks the framing, the connection does not end but goes
/// down, once every whole frame that was received before has been consumed. So a program that pulls
/// frames has to keep pulling. A connection that nobody receives from notices the loss when a send
/// fails, or in qnet_wait() or qnet_poll(). The library dials the peer again QNET_OPT_RECONNECT_MS
/// after the loss and after each failed attempt, until an attempt succeeds, which
/// qnet_stats.reconnects counts. An attempt to reach a Unix socket also fails while the backlog of
/// its listener is full. One thread dials for all connections that are down, and none of them waits
/// for another. The handle, the handlers, the place in a hub or link, the options and the counters
/// stay.
///
/// While the connection is down, qnet_close_reason() is QNET_OK. Sends succeed, but their frames
/// are dropped and counted in tx_dropped, as are frames that were taken before and not yet written.
/// Receives return QNET_ERR_AGAIN or QNET_ERR_TIMEOUT or keep waiting, as does qnet_wait().
///
/// A reconnecting connection ends when qnet_shutdown() or qnet_close() is called, which also
/// abandons an attempt in progress; when it is linked and the other end of the link ends; when the
/// thread cannot be started; or when QNET_OPT_RECONNECT_MS is set to 0 while it is down, then with
/// the reason for which it went down. Only then is the close handler called.
///
/// Outside a handler of any kind, the call returns only when the state handler that this one
/// replaces is not running and never will again, so that its `user` can be freed. Hold no lock that
/// the old handler takes. Inside a handler, or with QNET_OPT_WAIT 0, the call does not wait. After
/// qnet_shutdown() or qnet_close() no call of the handler begins; qnet_close() waits for one that
/// is running as this function does.
///
/// @param handler  The handler, or NULL for none.
/// @param user     A pointer that is passed to the handler.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_UNSUPPORTED (the connection was not dialled),
///         QNET_ERR_INTERNAL.
///
/// Blocks: yes, until the previous handler has returned; not inside a handler of any kind, or with
/// QNET_OPT_WAIT 0.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_set_state_handler(
    conn: *mut qnet_conn,
    handler: qnet_state_handler,
    user: *mut c_void,
) -> c_int {
    on_conn(conn, "set a state handler", |conn| {
        // SAFETY: C promises that the handler may be called with `user` until another takes its place.
        let handler = handler.map(|call| unsafe { IntHandler::new(call, user) });
        carrier::set_state_handler(conn, handler).map(|()| OK)
    })
}
