use std::ffi::{c_int, c_void};

use super::{OK, on_conn, qnet_conn, slice};
use crate::conn::send;
use crate::frame::{self, Walk};
use crate::runtime::callback::qnet_frame;
use crate::tx::frames::{Bad, Packed, Scattered};

/// Sends one frame, whole or not at all.
///
/// Returns when the frame is in the socket, waiting while the peer does not read; at most
/// QNET_OPT_SEND_TIMEOUT_MS. Or when it is held, for others to join it: see QNET_OPT_CORK and
/// QNET_OPT_TX_USECS. Once the socket has taken a part of the frame, the call succeeds, and
/// the library writes the rest by itself, ahead of everything later (where the system refuses it the
/// thread for that, the next send, flush or close does). Threads may send at once:
/// frames never mix, and those of one thread stay in order. SIGPIPE is never raised.
///
/// @param frame  From the destination address on, without a checksum. Not kept after the call.
/// @param len    Its length in bytes: 14 to QNET_OPT_MAX_FRAME.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (frame is NULL), QNET_ERR_FRAME_SIZE,
///         QNET_ERR_AGAIN (the time-out is 0), QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED,
///         QNET_ERR_CLOSED (also where the peer no longer reads; frames that it sent can still be
///         received), QNET_ERR_PROTOCOL, QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// Blocks: yes, while the peer does not read: at most for QNET_OPT_SEND_TIMEOUT_MS.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_send(
    conn: *mut qnet_conn,
    frame: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: C promises `len` bytes that live for the call.
    let frame = unsafe { bytes(frame.cast(), len) };
    // What neither panics nor makes a system call needs no guard.
    if let Ok(frame) = frame
        && send::join(conn.addr() as u64, frame)
    {
        return OK;
    }
    send_one(conn, frame)
}

/// Not in line, so that the short way does not prepare for it.
#[inline(never)]
fn send_one(conn: *mut qnet_conn, frame: Result<&[u8], Bad>) -> c_int {
    on_conn(conn, "send", |conn| {
        send::send_all(conn, Scattered([frame].iter().copied())).map(|_| OK)
    })
}

/// Sends frames in order, many to a system call.
///
/// @param frames  The frames; none is kept after the call.
/// @param count   How many there are. 0 is nothing to do.
/// @return How many were taken, each waiting as qnet_send() would; the first that cannot be taken
///         stops them. An error, as of qnet_send(), only if that is the first of all.
///
/// Blocks: yes, while the peer does not read: at most for QNET_OPT_SEND_TIMEOUT_MS.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_send_batch(
    conn: *mut qnet_conn,
    frames: *const qnet_frame,
    count: usize,
) -> c_int {
    on_conn(conn, "send a batch", |conn| {
        // SAFETY: C promises `count` frames, of `len` bytes each, that live for the call.
        let frames = unsafe { slice(frames, count.min(c_int::MAX as usize), "frames") }?;
        let frames = frames.iter().map(|frame| unsafe { bytes(frame.data, frame.len) });
        send::send_all(conn, Scattered(frames)).map(|taken| taken as c_int)
    })
}

/// Sends frames that lie in wire format, one after another: each a length of 4 bytes, big-endian,
/// then that many bytes.
///
/// @param buf  The frames; not kept after the call.
/// @param len  Their bytes, lengths included. 0 is nothing to do.
/// @return How many frames were taken, as of qnet_send_batch(). Of a frame that is cut short
///         QNET_ERR_INVALID, of a length out of range QNET_ERR_FRAME_SIZE.
///
/// Blocks: yes, while the peer does not read: at most for QNET_OPT_SEND_TIMEOUT_MS.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_send_packed(
    conn: *mut qnet_conn,
    buf: *const c_void,
    len: usize,
) -> c_int {
    on_conn(conn, "send packed frames", |conn| {
        // SAFETY: C promises `len` bytes that live for the call.
        let bytes = unsafe { slice(buf.cast::<u8>(), len, "buf") }?;
        send::send_all(conn, Packed(Walk::over(bytes))).map(|taken| taken as c_int)
    })
}

/// Waits, as a send would, until nothing that was taken is unwritten. A process that is about to end,
/// by exit() or otherwise, calls it or qnet_close() first: what is unwritten then is lost.
///
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_AGAIN, QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED,
///         QNET_ERR_CLOSED, QNET_ERR_PROTOCOL, QNET_ERR_OS, QNET_ERR_INTERNAL.
///
/// Blocks: yes, while the peer does not read: at most for QNET_OPT_SEND_TIMEOUT_MS.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_flush(conn: *mut qnet_conn) -> c_int {
    on_conn(conn, "flush", |conn| send::flush(conn).map(|()| OK))
}

/// A frame's bytes. One longer than any frame is not looked at.
///
/// # Safety
/// `at` is NULL or points to `len` bytes that live, and do not change, for the call.
#[inline]
unsafe fn bytes<'a>(at: *const u8, len: usize) -> Result<&'a [u8], Bad> {
    if at.is_null() {
        return Err(Bad::Null);
    }
    if len > frame::MAX {
        return Err(Bad::Length(len));
    }
    // SAFETY: not null, no longer than a frame, and the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(at, len) })
}
