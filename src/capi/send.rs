use std::ffi::{c_int, c_void};
use std::slice;

use crate::capi::args;
use crate::capi::boundary::{OK, guard, on_conn};
use crate::capi::handles::{qnet_conn, token_of};
use crate::conn::send;
use crate::error::Result;
use crate::frame::{self, PREFIX, Walk};
use crate::runtime::callback::qnet_frame;
use crate::runtime::cork;
use crate::runtime::lock::Guard;
use crate::tx::Tx;
use crate::tx::frames::{Bad, Packed, Scattered, once};

/// Sends one frame, as a whole or not at all.
///
/// Returns when the frame is in the socket, waiting while the peer does not read, for at most
/// QNET_OPT_SEND_TIMEOUT_MS; or when the frame is held back for later frames to join it (see
/// QNET_OPT_CORK and QNET_OPT_TX_USECS). If the socket accepts only a part of the frame, the call
/// succeeds, and the library writes the rest by itself, before any later frame. (If the system
/// refuses the library a thread for that, the next send, flush or close writes the rest.) Several
/// threads may send at the same time: frames are never mixed, and the frames of one thread stay in
/// order.
///
/// @param frame  The frame, starting with the destination address, without a checksum. It is not
///               used after the call, unless it is what a handler was given.
/// @param len    The length of the frame in bytes: 14 to QNET_OPT_MAX_FRAME.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (frame is NULL), QNET_ERR_FRAME_SIZE,
///         QNET_ERR_AGAIN (the time-out is 0), QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED,
///         QNET_ERR_CLOSED (also if the peer has only stopped reading for good; frames that it sent
///         can still be received), QNET_ERR_PROTOCOL, QNET_ERR_OS, QNET_ERR_INTERNAL. The frame was
///         not taken unless the call returns QNET_OK.
///
/// Blocks: yes, while the peer does not read, for at most QNET_OPT_SEND_TIMEOUT_MS.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_send(
    conn: *mut qnet_conn,
    frame: *const c_void,
    len: usize,
) -> c_int {
    // What neither panics nor makes a system call needs no guard.
    // SAFETY: C's promise.
    unsafe {
        if cork::is_anywhere() {
            send_on(conn, frame.cast(), len)
        } else {
            send_with(conn, frame.cast(), len, Tx::joins_coalesced)
        }
    }
}

/// The same while a thread runs a handler, which may be this one, and perhaps sends on the frame behind the
/// one before.
///
/// # Safety
/// As for [`qnet_send`].
#[inline(always)]
unsafe fn send_on(conn: *mut qnet_conn, frame: *const u8, len: usize) -> c_int {
    let token = token_of(conn);
    if let Some(permit) = send::sender(token).map(|sender| &sender.onward) {
        if let Some(run) = permit.run() {
            if run.extend(token, frame, len) {
                return if permit.is_of(run) { OK } else { catch_up(conn) };
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { send_corked(conn, frame, len) }
}

/// The same for a frame that cannot be sent on. Not in line, so that one that is costs less.
///
/// # Safety
/// As for [`qnet_send`].
#[inline(never)]
unsafe fn send_corked(conn: *mut qnet_conn, frame: *const u8, len: usize) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { send_with(conn, frame, len, Tx::joins_corked) }
}

/// The same for a frame that `joins` what is held back, or does not.
///
/// # Safety
/// As for [`qnet_send`].
#[inline(always)]
unsafe fn send_with(
    conn: *mut qnet_conn,
    frame: *const u8,
    len: usize,
    joins: impl FnOnce(&Tx, usize) -> bool,
) -> c_int {
    let token = token_of(conn);
    if !frame.is_null() {
        if let Some(mut tx) = send::sender(token).and_then(|sender| sender.open(token)) {
            // SAFETY: not null, and C promises bytes that live for the call; no longer than a frame.
            if joins(&tx, len) && tx.join_short(unsafe { slice::from_raw_parts(frame, len) }) {
                return Guard::close(tx, token, OK);
            }
            // SAFETY: C's promise.
            return unsafe { send_alone(conn, frame, len, tx) };
        }
    }
    // SAFETY: C's promise.
    unsafe { send_one(conn, frame, len) }
}

/// The frame was sent on, and somebody has locked the sending part meanwhile, who may not have seen it.
#[cold]
#[inline(never)]
fn catch_up(conn: *mut qnet_conn) -> c_int {
    on_conn(conn, "send", |conn| {
        send::uncork(conn.token);
        Ok(OK)
    })
}

/// Fast path for a frame that is written at once. Not in line, so that one that joins others costs no call.
///
/// # Safety
/// As for [`qnet_send`].
#[cold]
#[inline(never)]
unsafe fn send_alone(
    conn: *mut qnet_conn,
    at: *const u8,
    len: usize,
    mut tx: Guard<'_, Tx>,
) -> c_int {
    // SAFETY: the caller's promise.
    let frame = unsafe { bytes(at, len) };
    let put = guard(|error| Some(Err(error)), || tx.put_alone(frame.ok()?));
    match put {
        Some(Ok(written)) if written == PREFIX + len => {
            // The key is the one that the lock was opened with, unless the write has found the peer gone.
            if tx.has_lost_peer() { OK } else { Guard::close(tx, token_of(conn), OK) }
        }
        put => send_rest(conn, frame, tx, put),
    }
}

/// What [`send_alone`] leaves to be done. Not in line, so that the fast path keeps `put` in registers.
#[cold]
#[inline(never)]
fn send_rest(
    conn: *mut qnet_conn,
    frame: Result<&[u8], Bad>,
    tx: Guard<'_, Tx>,
    put: Option<Result<usize>>,
) -> c_int {
    on_conn(conn, "send", |conn| send::go_on(conn, frame, tx, put).map(|()| OK))
}

/// Every other send of one frame. Not in line, as above.
///
/// # Safety
/// As for [`qnet_send`].
#[cold]
#[inline(never)]
unsafe fn send_one(conn: *mut qnet_conn, frame: *const u8, len: usize) -> c_int {
    // SAFETY: the caller's promise.
    let frame = unsafe { bytes(frame, len) };
    on_conn(conn, "send", |conn| send::send_all(conn, once(frame)).map(|_| OK))
}

/// Sends frames in order, many in one system call.
///
/// @param frames  The frames. Neither the array nor the bytes are used after the call.
/// @param count   The number of frames. With 0 the call does nothing and returns 0.
/// @return How many frames were taken, in order. Each waits as in qnet_send(), and the first that
///         cannot be taken stops the call. If not even the first frame was taken, a code of
///         qnet_send().
///
/// Blocks: yes, while the peer does not read, for at most QNET_OPT_SEND_TIMEOUT_MS for each frame.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_send_batch(
    conn: *mut qnet_conn,
    frames: *const qnet_frame,
    count: usize,
) -> c_int {
    on_conn(conn, "send a batch", |conn| {
        // SAFETY: C promises `count` frames, of `len` bytes each, that live for the call.
        let frames = unsafe { args::slice(frames, count.min(c_int::MAX as usize), "frames") }?;
        let frames = frames.iter().map(|frame| unsafe { bytes(frame.data, frame.len) });
        send::send_all(conn, Scattered(frames)).map(|taken| taken as c_int)
    })
}

/// Sends frames that lie one after another in wire format: each is a length of 4 bytes, big-endian,
/// followed by that many bytes of frame.
///
/// @param buf  The packed frames. They are not used after the call.
/// @param len  The number of bytes, lengths included. With 0 the call does nothing and returns 0.
/// @return How many frames were taken, in order. Each waits as in qnet_send(), and the first that
///         cannot be taken stops the call. If not even the first frame was taken, a code of
///         qnet_send(): QNET_ERR_INVALID also for a frame that is cut short, QNET_ERR_FRAME_SIZE
///         for a length out of range.
///
/// Blocks: yes, while the peer does not read, for at most QNET_OPT_SEND_TIMEOUT_MS for each frame.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_send_packed(
    conn: *mut qnet_conn,
    buf: *const c_void,
    len: usize,
) -> c_int {
    on_conn(conn, "send packed frames", |conn| {
        // SAFETY: C promises `len` bytes that live for the call.
        let bytes = unsafe { args::slice(buf.cast::<u8>(), len, "buf") }?;
        send::send_all(conn, Packed(Walk::over(bytes))).map(|taken| taken as c_int)
    })
}

/// Waits, as a send would, until every frame that was taken has been written to the socket. A
/// program that is about to end, by exit() or otherwise, calls this or qnet_close() first, because
/// unwritten frames are lost with the process.
///
/// @return QNET_OK, also if there was nothing to write; QNET_ERR_HANDLE, QNET_ERR_AGAIN,
///         QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED, QNET_ERR_CLOSED, QNET_ERR_PROTOCOL, QNET_ERR_OS,
///         QNET_ERR_INTERNAL.
///
/// Blocks: yes, while the peer does not read, for at most QNET_OPT_SEND_TIMEOUT_MS.
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
    Ok(unsafe { slice::from_raw_parts(at, len) })
}
