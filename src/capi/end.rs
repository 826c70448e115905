use std::ffi::c_int;

use super::{OK, on_conn, qnet_conn, run_close_call, run_due_close_call};
use crate::conn;
use crate::conn::end;
use crate::conn::receive;

/// Waits until the connection has ended, by either side, and, where it has a handler or is attached
/// or linked, its close handler has returned. It works however the connection is received from: one that is pulled, or
/// not received from at all, has ended once its peer has left, though frames may still wait. (Over
/// TCP, a peer that leaves while much is unread is not seen to leave until some of that is received.)
/// One that is dialled again has not ended by its peer's leaving.
///
/// @param timeout_ms  How long to wait: -1 without an end, 0 not at all.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (a timeout below -1), QNET_ERR_AGAIN (0 was
///         given), QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED, QNET_ERR_BUSY (inside the connection's
///         own handler), QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// Blocks: yes, at most for timeout_ms.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_wait(conn: *mut qnet_conn, timeout_ms: c_int) -> c_int {
    on_conn(conn, "wait for the end", |conn| end::wait(conn, timeout_ms).map(|()| OK))
}

/// Tells how the connection ended.
///
/// @return QNET_OK while it is open, also while one that is dialled again is down, and, where frames
///         are pulled, until what the peer sent has been received; QNET_ERR_CLOSED (in order, by
///         either side), QNET_ERR_PROTOCOL, QNET_ERR_OS (a reset, for example); QNET_ERR_HANDLE,
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

/// Ends the connection without waiting. No further handler call begins; sends and receives, those
/// that wait included, give QNET_ERR_CLOSED, or the reason of an end that was there before. The
/// library writes what was taken and drains what the peer is still writing (for how long: see
/// qnet_close()), then the peer sees the end. The handle stays, to be closed with qnet_close().
///
/// @return QNET_OK, also where it had ended before; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: yes, the close handler, where the connection has no handler and is neither attached
/// nor linked, and it was not called before.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_shutdown(conn: *mut qnet_conn) -> c_int {
    let code = on_conn(conn, "shut down", |conn| end::shutdown(conn).map(|()| OK));
    run_due_close_call(conn);
    code
}

/// Ends the connection and gives its handle back. Calls that wait on it are woken, with
/// QNET_ERR_CLOSED (qnet_wait() with QNET_OK).
///
/// Writes what was taken and is not yet written (of TCP also until the system has sent it, for which
/// a peer that does not read leaves no room), and drains what a QEMU peer is still writing, so that
/// its netdev works for the next connection; all within QNET_OPT_LINGER_MS. Returns when no
/// handler of the connection is running and its close handler has returned; inside a handler of any
/// kind, or with QNET_OPT_WAIT 0, without waiting for them. In every case its descriptor is closed
/// then, whoever was waiting on it, and its socket file gone: the address can be used again at once.
/// (A thread that the host has stopped in a call on the connection, or that has jumped out of one, is
/// waited for for 10 s at most.)
///
/// Draining takes no time once the peer has left; on datagrams, SEQPACKET and a TAP; and on a stream
/// where nothing is unread and no read of the last 20 ms gave more than 4 KiB. On any other stream it
/// takes until the peer has been silent for 20 ms. A peer that is never silent is drained for 50 ms
/// and to the end of a frame; over a Unix socket its writes fail from then on, and it has to be silent
/// for 20 ms all the same. A peer in the middle of a frame is waited for until that is whole: where
/// five bytes of one came and no more, closing takes all of QNET_OPT_LINGER_MS.
///
/// What QNET_OPT_LINGER_MS cuts off is not told: QNET_OK all the same. Who has to know calls
/// qnet_flush() before, after which all of it is in the socket. Or qnet_shutdown(): within
/// QNET_OPT_LINGER_MS, each frame that was taken is among qnet_get_stats()' tx_frames or tx_dropped,
/// of which qnet_wait() does not wait for the last.
///
/// @return QNET_OK; QNET_ERR_HANDLE (of two closes at once the second gets it immediately),
///         QNET_ERR_INTERNAL.
///
/// Blocks: yes, while it writes and drains: at most for QNET_OPT_LINGER_MS; and until the
/// connection's handlers have returned; for those not inside a handler of any kind, or with
/// QNET_OPT_WAIT 0.
/// Calls back: yes, the close handler, where the connection has no handler and is neither attached
/// nor linked, and it was not called before.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_close(conn: *mut qnet_conn) -> c_int {
    let mut due = None;
    let code = on_conn(conn, "close", |conn| {
        due = end::close(conn)?;
        Ok(OK)
    });
    if let Some(call) = due {
        run_close_call(call);
    }
    if code != OK {
        return code;
    }
    on_conn(conn, "close", |conn| {
        conn::release(conn).wait();
        Ok(OK)
    })
}
