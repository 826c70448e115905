use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::slice;

use crate::capi::args::{self, out};
use crate::capi::boundary::{OK, call, guard, on_conn, on_conn_to_its_end, run_close_call};
use crate::capi::handles::{qnet_conn, token_of};
use crate::conn::receive::{self, Pulled};
use crate::conn::{self, close_handler, handler, info, poll};
use crate::error::{Error, Result};
use crate::frame::{self, Alike};
use crate::runtime::callback::{Callback, Handler, IntHandler, qnet_frame};
use crate::sys::clock::Deadline;

/// Called with one frame. The handler may call any function of the library, also for its own
/// connection. It must not throw an exception or longjmp out. It may end its thread (pthread_exit);
/// the connection then has no handler.
///
/// @param user   The pointer that was given to qnet_set_handler().
/// @param frame  The frame. Its bytes are valid until the handler returns. They must not be changed: what
///               the handler sends on as it is may be written from there, and not copied.
/// @param len    The length of the frame in bytes: 14 to QNET_FRAME_MAX.
pub type qnet_handler =
    Option<unsafe extern "C-unwind" fn(user: *mut c_void, frame: *const u8, len: usize)>;

/// Called with one or more frames. The rules of qnet_handler apply.
///
/// @param user    The pointer that was given to qnet_set_batch_handler().
/// @param frames  The frames. The array and the bytes are valid until the handler returns.
/// @param count   The number of frames, at least 1.
pub type qnet_batch_handler =
    Option<unsafe extern "C-unwind" fn(user: *mut c_void, frames: *const qnet_frame, count: usize)>;

/// Called once when the connection has ended, as the last of its handlers. This is the place to
/// free what `user` points to. The handler may close the connection.
///
/// @param user    The pointer that was given to qnet_set_close_handler().
/// @param reason  QNET_ERR_CLOSED (an orderly end by either side), QNET_ERR_PROTOCOL or
///                QNET_ERR_OS.
pub type qnet_close_handler = Option<unsafe extern "C-unwind" fn(user: *mut c_void, reason: c_int)>;

/// Sets the handler that is called with every frame received. The calls are made on a thread that
/// the library runs for this connection, one at a time, in the order of the frames. Frames that
/// arrived earlier have waited in the socket and are delivered too. If the peer has left, they are
/// followed by the end; but if the end has already been reported, also by qnet_wait() or
/// qnet_close_reason(), the call returns the reason instead, and a close handler runs in
/// qnet_close().
///
/// Outside a handler of any kind, the call returns only when the handler that this one replaces is
/// not running and never will again, so that its `user` can be freed. Hold no lock that the old
/// handler takes. Inside a handler, or with QNET_OPT_WAIT 0, the call does not wait.
///
/// @param handler  The handler, or NULL to stop receiving. It also replaces a batch handler.
/// @param user     A pointer that is passed to the handler.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_BUSY (the connection is attached or linked),
///         QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS (the connection has ended; QNET_ERR_OS
///         also if no thread can be started), QNET_ERR_INTERNAL.
///
/// Blocks: yes, until the previous handler has returned; not inside a handler of any kind, or with
/// QNET_OPT_WAIT 0.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_set_handler(
    conn: *mut qnet_conn,
    handler: qnet_handler,
    user: *mut c_void,
) -> c_int {
    // SAFETY: C promises that the handler may be called with `user` until another takes its place.
    let handler = handler.map(|function| Handler::One(unsafe { Callback::new(function, user) }));
    set(conn, handler)
}

/// Sets a handler that is called with many frames at a time, as many as have arrived. Everything
/// else is as for qnet_set_handler().
///
/// @param handler  The handler, or NULL to stop receiving. It also replaces a single-frame handler.
/// @param user     A pointer that is passed to the handler.
/// @return The codes of qnet_set_handler().
///
/// Blocks: yes, until the previous handler has returned; not inside a handler of any kind, or with
/// QNET_OPT_WAIT 0.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_set_batch_handler(
    conn: *mut qnet_conn,
    handler: qnet_batch_handler,
    user: *mut c_void,
) -> c_int {
    // SAFETY: C promises that the handler may be called with `user` until another takes its place.
    let handler = handler.map(|function| Handler::Batch(unsafe { Callback::new(function, user) }));
    set(conn, handler)
}

fn set(conn: *mut qnet_conn, handler: Option<Handler>) -> c_int {
    on_conn(conn, "set a handler", |conn| handler::set_handler(conn, handler).map(|()| OK))
}

/// Sets the handler that is called once when the connection has ended, as the last of its handlers.
///
/// If the connection has a frame handler, the close handler runs on the same thread. If it is
/// attached to a hub or linked, the close handler runs on a thread of the library. Otherwise it
/// runs on the calling thread, in the receive that reports the end, in qnet_shutdown() or in
/// qnet_close(), but never in qnet_wait() or qnet_poll(). If the connection has ended by the time
/// of this call, the handler runs before the call returns. A handler that is replaced in time is
/// never called.
///
/// @param handler  The handler, or NULL for none.
/// @param user     A pointer that is passed to the handler.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: yes, the handler being set, if the connection has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_set_close_handler(
    conn: *mut qnet_conn,
    handler: qnet_close_handler,
    user: *mut c_void,
) -> c_int {
    let mut due = None;
    let code = on_conn(conn, "set a close handler", |conn| {
        // SAFETY: as for a frame handler.
        let handler = handler.map(|call| unsafe { IntHandler::new(call, user) });
        due = close_handler::set(conn, handler)?;
        Ok(OK)
    });
    if let Some(call) = due {
        run_close_call(call);
    }
    code
}

/// Receives one frame. Several threads may receive at the same time; each frame goes to one of
/// them.
///
/// @param buf         Receives the frame. QNET_FRAME_MAX bytes are always enough.
/// @param cap         The size of buf in bytes. With 0, where buf may be NULL, the call returns the
///                    length of the next frame without consuming it.
/// @param timeout_ms  How long to wait, in milliseconds: -1 waits without limit, 0 does not wait.
/// @return The length of the frame in bytes; QNET_ERR_HANDLE, QNET_ERR_INVALID (buf is NULL, or
///         timeout_ms is below -1), QNET_ERR_FRAME_SIZE (buf is too small; the frame is not
///         consumed), QNET_ERR_AGAIN (timeout_ms is 0 and no frame is there), QNET_ERR_TIMEOUT,
///         QNET_ERR_INTERRUPTED, QNET_ERR_BUSY (the connection has a handler, or is attached or
///         linked), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS (how the connection ended,
///         after all frames that came before the end), QNET_ERR_INTERNAL.
///
/// Blocks: yes, at most for timeout_ms.
/// Calls back: yes, the close handler, if the call reports the end.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_recv(
    conn: *mut qnet_conn,
    buf: *mut c_void,
    cap: usize,
    timeout_ms: c_int,
) -> c_int {
    if timeout_ms >= -1 && !buf.is_null() {
        if let Some(pulled) = Pulled::find(token_of(conn)) {
            // SAFETY: not null, and C promises room for `cap` bytes.
            let room_of =
                |len| (len <= cap).then(|| unsafe { slice::from_raw_parts_mut(buf.cast(), len) });
            // SAFETY: C's promise.
            return pulled.recv_short(token_of(conn), room_of, |pulled| unsafe {
                recv_long(conn, buf, cap, timeout_ms, pulled)
            });
        }
    }
    // SAFETY: C's promise.
    unsafe { recv_one(conn, buf, cap, timeout_ms) }
}

/// The same where no short frame has been read already. Not in line, so that such a frame costs no call.
///
/// # Safety
/// As for [`qnet_recv`], and `buf` is not NULL.
#[cold]
#[inline(never)]
unsafe fn recv_long(
    conn: *mut qnet_conn,
    buf: *mut c_void,
    cap: usize,
    timeout_ms: c_int,
    mut pulled: Pulled,
) -> c_int {
    // SAFETY: the caller's promise, for all uses.
    unsafe {
        let room = slice::from_raw_parts_mut(buf.cast(), cap.min(frame::MAX));
        if let Some(len) = pulled.recv_long(room) {
            return len as c_int;
        }
        if timeout_ms == 0 || !pulled.is_drained() {
            drop(pulled);
            return recv_one(conn, buf, cap, timeout_ms);
        }
        let deadline = Deadline::after_ms(timeout_ms.into());
        match guard(Err, || pulled.await_next(token_of(conn), room, deadline)) {
            Ok(Some(len)) => len as c_int,
            waited => recv_until(conn, buf, cap, waited.map(|_| deadline), true),
        }
    }
}

/// Every other receive of one frame. Not in line, so that the fast path does not prepare for it.
///
/// # Safety
/// As for [`qnet_recv`].
#[cold]
#[inline(never)]
unsafe fn recv_one(conn: *mut qnet_conn, buf: *mut c_void, cap: usize, timeout_ms: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { recv_until(conn, buf, cap, Deadline::from_timeout(timeout_ms), false) }
}

/// The same for a caller that may have waited already. If there is no deadline, because it was invalid or the wait
/// failed, that is this call's failure.
///
/// # Safety
/// As for [`qnet_recv`].
unsafe fn recv_until(
    conn: *mut qnet_conn,
    buf: *mut c_void,
    cap: usize,
    deadline: Result<Deadline>,
    has_waited: bool,
) -> c_int {
    on_conn_to_its_end(conn, "receive", |conn| {
        // SAFETY: C promises room for `cap` bytes.
        let buf = unsafe { room(buf, cap.min(frame::MAX)) }?;
        receive::recv(conn, buf, deadline?, has_waited).map(|len| len as c_int)
    })
}

/// Receives frames without copying them: the library lends their bytes to the caller. They stay
/// valid until the next receive on the connection by any thread, until it is received from in
/// another way, or until it is closed. They outlive the end of the connection and calls of
/// qnet_poll().
///
/// A loan keeps the memory occupied that the frames were read into: up to 16 KiB if timeout_ms is
/// 0, fewer than count frames were there and they fit; otherwise 128 KiB, or for datagrams up to 68
/// KiB each. A connection that lends nothing and has nothing to read keeps 16 KiB at most.
///
/// @param frames      Receives the frames, that is, pointers to them and their lengths.
/// @param count       How many frames the array has room for, at least 1.
/// @param timeout_ms  How long to wait for the first frame, in milliseconds: -1 waits without
///                    limit, 0 does not wait.
/// @return How many frames were received, at least 1; otherwise the codes of qnet_recv().
///
/// Blocks: yes, at most for timeout_ms.
/// Calls back: yes, the close handler, if the call reports the end.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_recv_batch(
    conn: *mut qnet_conn,
    frames: *mut qnet_frame,
    count: usize,
    timeout_ms: c_int,
) -> c_int {
    on_conn_to_its_end(conn, "receive a batch", |conn| {
        let frames = out(frames, "frames")?;
        if count == 0 {
            return Err(Error::invalid("a count of 0"));
        }
        let lend = |first, alike: &Alike<'_>| {
            for (lent, i) in qnet_frame::all(alike).zip(first..) {
                // SAFETY: C promises room for `count` frames, and i is less.
                unsafe { frames.add(i).write(lent) };
            }
        };
        receive::recv_batch(conn, count.min(c_int::MAX as usize), timeout_ms, lend)
            .map(|n| n as c_int)
    })
}

/// Receives frames in wire format, one after another: each is a length of 4 bytes, big-endian,
/// followed by that many bytes of frame.
///
/// @param buf         Receives the frames. QNET_FRAME_MAX + 4 bytes are always enough for one.
/// @param cap         The size of buf in bytes.
/// @param timeout_ms  How long to wait for the first frame, in milliseconds: -1 waits without
///                    limit, 0 does not wait.
/// @return How many bytes were written to buf, lengths included. They are whole frames, as many as
///         were there and fit. Otherwise the codes of qnet_recv().
///
/// Blocks: yes, at most for timeout_ms.
/// Calls back: yes, the close handler, if the call reports the end.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_recv_packed(
    conn: *mut qnet_conn,
    buf: *mut c_void,
    cap: usize,
    timeout_ms: c_int,
) -> c_int {
    on_conn_to_its_end(conn, "receive packed frames", |conn| {
        let buf = out(buf, "buf")?;
        // SAFETY: C promises room for `cap` bytes.
        let buf = unsafe { room(buf, cap.min(c_int::MAX as usize)) }?;
        receive::recv_packed(conn, buf, timeout_ms).map(|len| len as c_int)
    })
}

/// Waits until at least one of several connections has a frame or an end to report.
///
/// @param conns       The connections.
/// @param ready       Receives 1 for each connection on which a receive would return anything but
///                    QNET_ERR_AGAIN, which includes errors and stale handles; and 0 for each of
///                    the others.
/// @param count       The number of connections, at least 1.
/// @param timeout_ms  How long to wait, in milliseconds: -1 waits without limit, 0 does not wait.
/// @return How many connections are ready, 0 if the time has passed; QNET_ERR_INVALID (a NULL, a
///         count of 0, or timeout_ms is below -1), QNET_ERR_INTERRUPTED, QNET_ERR_OS,
///         QNET_ERR_INTERNAL.
///
/// Blocks: yes, at most for timeout_ms.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_poll(
    conns: *const *mut qnet_conn,
    ready: *mut u8,
    count: usize,
    timeout_ms: c_int,
) -> c_int {
    call(&|| format!("poll {count} connections"), || {
        let ready = out(ready, "ready")?;
        if !(1..=c_int::MAX as usize).contains(&count) {
            return Err(Error::invalid(format!("a count of {count}")));
        }
        // SAFETY: C promises `count` handles, and room for as many bytes.
        let (conns, ready) = unsafe {
            ready.write_bytes(0, count);
            (args::slice(conns, count, "conns")?, slice::from_raw_parts_mut(ready, count))
        };
        let table = &conn::table();
        let conns: Vec<_> = conns.iter().map(|conn| table.get(token_of(*conn))).collect();
        poll::poll(&conns, ready, timeout_ms).map(|n| n as c_int)
    })
}

/// Gets a descriptor for poll, epoll or a GUI's event loop. It stays the same number until
/// qnet_close() returns. It is the socket itself; with QNET_OPT_RECONNECT_MS above 0 it is another
/// descriptor, which follows the socket as it is replaced and only signals reading.
///
/// Poll it for reading only after a receive returned QNET_ERR_AGAIN, or a batch fewer frames than
/// there was room for, because the library may hold frames that the descriptor does not know about
/// (qnet_poll() knows). With edge-triggered epoll (EPOLLET), receive until QNET_ERR_AGAIN, because
/// the end may follow a short batch. When the descriptor is writable, a send that returned
/// QNET_ERR_AGAIN may be tried again. Do not read from it, write to it or close it, and remove it
/// from an epoll set before qnet_close().
///
/// @return The descriptor; QNET_ERR_HANDLE, QNET_ERR_OS (the descriptor that follows the socket
///         cannot be created), QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_fd(conn: *mut qnet_conn) -> c_int {
    on_conn(conn, "tell the descriptor", info::fd)
}

/// A caller's buffer.
///
/// # Safety
/// `at` is NULL or has room for `cap` bytes, which nobody else uses during the call.
unsafe fn room<'a>(at: *mut c_void, cap: usize) -> Result<&'a mut [MaybeUninit<u8>]> {
    if cap == 0 {
        return Ok(&mut []);
    }
    // SAFETY: not null, and the caller's promise.
    Ok(unsafe { slice::from_raw_parts_mut(out(at, "buf")?.cast(), cap) })
}
