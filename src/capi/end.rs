use std::ffi::c_int;

use crate::capi::boundary::{OK, on_conn, run_close_call, run_due_close_call};
use crate::capi::handles::qnet_conn;
use crate::conn::{close, receive, release, wait};

/// Waits until the connection has ended, by either side, and, if it has a handler or is attached or
/// linked, until its close handler has returned. The call works however the connection is received
/// from. A connection that is pulled from, or not received from at all, has ended once its peer has
/// left, even if frames are still waiting. (Over TCP the library does not see a peer leave while
/// much is unread, until some of that has been received.) A reconnecting connection does not end
/// when its peer leaves.
///
/// @param timeout_ms  How long to wait, in milliseconds: -1 waits without limit, 0 does not wait.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (timeout_ms is below -1), QNET_ERR_AGAIN
///         (timeout_ms is 0 and the connection has not ended), QNET_ERR_TIMEOUT,
///         QNET_ERR_INTERRUPTED, QNET_ERR_BUSY (called inside the connection's own handler),
///         QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// Blocks: yes, at most for timeout_ms.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_wait(conn: *mut qnet_conn, timeout_ms: c_int) -> c_int {
    on_conn(conn, "wait for the end", |conn| wait::wait(conn, timeout_ms).map(|()| OK))
}

/// Gets the reason for which the connection ended.
///
/// @return QNET_OK while the connection is open, which includes the time during which a
///         reconnecting connection is down, and, where frames are pulled, the time until all that
///         the peer sent has been received; QNET_ERR_CLOSED (an orderly end by either side),
///         QNET_ERR_PROTOCOL, QNET_ERR_OS (for example a reset); QNET_ERR_HANDLE,
///         QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_close_reason(conn: *mut qnet_conn) -> c_int {
    on_conn(conn, "tell how it ended", |conn| {
        Ok(receive::close_reason(conn)?.map_or(OK, |reason| reason.code()))
    })
}

/// Ends the connection without waiting; the handle stays valid and is to be closed with
/// qnet_close(). No further handler call begins. Sends and receives, including those that are
/// waiting, return QNET_ERR_CLOSED, or the reason of an earlier end. In the background the library
/// writes the frames that were taken and drains what the peer is still writing, for as long as
/// qnet_close() would; then the peer sees the end.
///
/// @return QNET_OK, also if the connection had already ended; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: yes, the close handler, if it has not been called yet and the connection has no
/// handler and is neither attached nor linked.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_shutdown(conn: *mut qnet_conn) -> c_int {
    let code = on_conn(conn, "shut down", |conn| close::shutdown(conn).map(|()| OK));
    run_due_close_call(conn);
    code
}

/// Ends the connection and invalidates its handle. Calls that are waiting on the connection return
/// QNET_ERR_CLOSED (qnet_wait() returns QNET_OK).
///
/// The call first writes the frames that were taken, and over TCP waits until the system has sent
/// them, which a peer that does not read can delay. It also drains what a QEMU peer is still
/// writing, because otherwise that peer's netdev would not work for its next connection. All of
/// this takes at most QNET_OPT_LINGER_MS.
///
/// The call returns when no handler of the connection is running and its close handler has
/// returned; inside a handler of any kind, or with QNET_OPT_WAIT 0, it does not wait for handlers.
/// In every case the descriptor is closed and the socket file removed when the call returns, so
/// that the address can be used again at once. (If a thread is stopped inside a call on the
/// connection, or has jumped out of one, the call waits for it for at most 10 s.)
///
/// Draining takes no time if the peer has left; on datagram and SEQPACKET connections and TAPs; and
/// on a stream where nothing is unread and no read of the last 20 ms returned more than 4 KiB. On
/// any other stream it lasts until the peer has been silent for 20 ms. If the peer is not silent
/// within 50 ms, draining goes on only until everything that it has written is read and ends with a
/// frame; over a Unix socket the peer's writes then fail, and it still has to be silent for 20 ms.
/// A peer that writes large frames without a pause may not let that happen, and a peer that stops
/// in the middle of a frame does not; then draining takes all of QNET_OPT_LINGER_MS.
///
/// The call returns QNET_OK even if QNET_OPT_LINGER_MS was too short for something. To be certain
/// that every frame has been written to the socket, call qnet_flush() before. Alternatively, call
/// qnet_shutdown() first: within QNET_OPT_LINGER_MS each frame that was taken is then counted by
/// qnet_get_stats() in either tx_frames or tx_dropped. (qnet_wait() does not wait for that.)
///
/// @return QNET_OK; QNET_ERR_HANDLE (if two threads close a connection at the same time, the second
///         gets this immediately), QNET_ERR_INTERNAL.
///
/// Blocks: yes, while it writes and drains, for at most QNET_OPT_LINGER_MS; and until the
/// connection's handlers have returned, but not inside a handler of any kind or with QNET_OPT_WAIT
/// 0.
/// Calls back: yes, the close handler, if it has not been called yet and the connection has no
/// handler and is neither attached nor linked.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_close(conn: *mut qnet_conn) -> c_int {
    let mut due = None;
    let code = on_conn(conn, "close", |conn| {
        due = close::close(conn)?;
        Ok(OK)
    });
    if let Some(call) = due {
        run_close_call(call);
    }
    if code != OK {
        return code;
    }
    on_conn(conn, "close", |conn| {
        release::release(conn).wait();
        Ok(OK)
    })
}
