use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use super::{OK, call, on_conn, on_conn_to_its_end, out, qnet_conn, run_close_call, slice, user};
use crate::conn::close_handler;
use crate::conn::handler;
use crate::conn::receive;
use crate::conn::{self, poll};
use crate::error::{Error, Result};
use crate::frame;
use crate::runtime::callback::{CloseHandler, Handler, HandlerFn, qnet_frame};

/// Called with one frame. It may call anything in the library, on its own connection too; it must
/// not throw or longjmp out. It may end its thread (pthread_exit): the connection then has no
/// handler.
///
/// @param user   What qnet_set_handler() was given.
/// @param frame  The frame, whose bytes live for the call.
/// @param len    Its length in bytes: 14 to QNET_FRAME_MAX.
pub type qnet_handler =
    Option<unsafe extern "C-unwind" fn(user: *mut c_void, frame: *const u8, len: usize)>;

/// Called with one frame or more, under the rules of qnet_handler.
///
/// @param user    What qnet_set_batch_handler() was given.
/// @param frames  The frames, which live for the call.
/// @param count   How many there are, at least 1.
pub type qnet_batch_handler =
    Option<unsafe extern "C-unwind" fn(user: *mut c_void, frames: *const qnet_frame, count: usize)>;

/// Called when a connection has ended: exactly once, and last. The place to free `user`; it may
/// close the connection.
///
/// @param user    What qnet_set_close_handler() was given.
/// @param reason  QNET_ERR_CLOSED (in order, by either side), QNET_ERR_PROTOCOL or QNET_ERR_OS.
pub type qnet_close_handler = Option<unsafe extern "C-unwind" fn(user: *mut c_void, reason: c_int)>;

/// Has a handler called with every frame received, on a thread of the connection's own, one call at
/// a time, in order. Frames that came before wait, and are not lost; where the peer has left, they
/// are followed by the end. An end that was told already, by qnet_wait() or qnet_close_reason() too,
/// is this call's answer, and a close handler waits for qnet_close().
///
/// Outside a handler of any kind, returns when the handler that this one replaces is not running and
/// never will again, so that its `user` may be freed (hold no lock that the handler takes). With
/// QNET_OPT_WAIT 0, or inside a handler, it does not wait.
///
/// @param handler  The handler; NULL stops receiving. It takes the place of a batch handler too.
/// @param user     What to call it with.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_BUSY (the connection is attached or linked),
///         QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS (it has ended; QNET_ERR_OS also where no
///         thread can be had), QNET_ERR_INTERNAL.
///
/// Blocks: yes, until the handler before has returned; not inside a handler of any kind, or with
/// QNET_OPT_WAIT 0.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_set_handler(
    conn: *mut qnet_conn,
    handler: qnet_handler,
    user: *mut c_void,
) -> c_int {
    set_handler(conn, handler.map(HandlerFn::One), user)
}

/// The same with many frames to a call, as many as are there.
///
/// @param handler  The handler; NULL stops receiving. It takes the place of a frame handler too.
/// @param user     What to call it with.
/// @return As qnet_set_handler().
///
/// Blocks: yes, until the handler before has returned; not inside a handler of any kind, or with
/// QNET_OPT_WAIT 0.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_set_batch_handler(
    conn: *mut qnet_conn,
    handler: qnet_batch_handler,
    user: *mut c_void,
) -> c_int {
    set_handler(conn, handler.map(HandlerFn::Batch), user)
}

fn set_handler(conn: *mut qnet_conn, call: Option<HandlerFn>, word: *mut c_void) -> c_int {
    on_conn(conn, "set a handler", |conn| {
        handler::set_handler(conn, call.map(|call| Handler { call, user: user(word) })).map(|()| OK)
    })
}

/// Has a handler called when the connection has ended, exactly once and last.
///
/// It runs on the connection's own thread where it has a frame handler, or is attached to a hub or
/// linked; else in the receive that reports the end, in qnet_shutdown() or in qnet_close(), never in
/// qnet_wait() or qnet_poll(). Set after that, it runs before this call returns. One that is replaced
/// before is never called.
///
/// @param handler  The handler; NULL for none.
/// @param user     What to call it with.
/// @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: yes, the handler that is set, where the connection has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_set_close_handler(
    conn: *mut qnet_conn,
    handler: qnet_close_handler,
    user: *mut c_void,
) -> c_int {
    let mut due = None;
    let code = on_conn(conn, "set a close handler", |conn| {
        let handler = handler.map(|call| CloseHandler { call, user: super::user(user) });
        due = close_handler::set(conn, handler)?;
        Ok(OK)
    });
    if let Some(call) = due {
        run_close_call(call);
    }
    code
}

/// Receives one frame.
///
/// @param buf         Where to. QNET_FRAME_MAX bytes always suffice.
/// @param cap         Its size in bytes. With 0, where buf may be NULL, the next frame's length is
///                    returned and the frame is kept.
/// @param timeout_ms  How long to wait: -1 without an end, 0 not at all.
/// @return The frame's length in bytes; QNET_ERR_HANDLE, QNET_ERR_INVALID (buf is NULL, a timeout
///         below -1), QNET_ERR_FRAME_SIZE (buf is too small; the frame is kept), QNET_ERR_AGAIN (0
///         was given), QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED, QNET_ERR_BUSY (the connection has a
///         handler, or is attached or linked), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS (how
///         the connection ended, after every frame before that), QNET_ERR_INTERNAL.
///
/// Threads may receive at once: each frame is given to one of them.
///
/// Blocks: yes, at most for timeout_ms.
/// Calls back: yes, the close handler, where the call reports the end.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_recv(
    conn: *mut qnet_conn,
    buf: *mut c_void,
    cap: usize,
    timeout_ms: c_int,
) -> c_int {
    on_conn_to_its_end(conn, "receive", |conn| {
        // SAFETY: C promises room for `cap` bytes.
        let buf = unsafe { room(buf, cap.min(frame::MAX)) }?;
        receive::recv(conn, buf, timeout_ms).map(|len| len as c_int)
    })
}

/// Receives frames without copying them.
///
/// @param frames      Filled with frames whose bytes the library lends, until the next receive on
///                    the connection by any thread, a change of how it is received from, or its
///                    close; not until its end or qnet_poll(). Until then they keep the memory
///                    that they were read into: up to 16 KiB of frames as much, with a time-out of 0
///                    and when fewer than count were there; else 128 KiB, of messages 68 KiB each at
///                    most. What is not lent costs an idle connection 16 KiB at most.
/// @param count       How many there is room for, at least 1.
/// @param timeout_ms  How long to wait for the first: -1 without an end, 0 not at all.
/// @return How many were received; else as qnet_recv().
///
/// Blocks: yes, at most for timeout_ms.
/// Calls back: yes, the close handler, where the call reports the end.
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
        let lend = |i, frame: &[u8]| {
            let lent = qnet_frame { data: frame.as_ptr(), len: frame.len() };
            // SAFETY: C promises room for `count` frames, and i is less.
            unsafe { frames.add(i).write(lent) };
        };
        receive::recv_batch(conn, count.min(c_int::MAX as usize), timeout_ms, lend)
            .map(|n| n as c_int)
    })
}

/// Receives frames in wire format, one after another: each a length of 4 bytes, big-endian, then
/// that many bytes.
///
/// @param buf         Where to. QNET_FRAME_MAX + 4 bytes always suffice for one.
/// @param cap         Its size in bytes.
/// @param timeout_ms  How long to wait for the first: -1 without an end, 0 not at all.
/// @return The bytes of whole frames, lengths included, as many as fit; else as qnet_recv().
///
/// Blocks: yes, at most for timeout_ms.
/// Calls back: yes, the close handler, where the call reports the end.
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

/// Waits until one of many connections has a frame or an end to give.
///
/// @param conns       The connections.
/// @param ready       Set to 1 for each on which a receive would give anything but QNET_ERR_AGAIN,
///                    errors and stale handles included, and to 0 for the others.
/// @param count       How many there are, at least 1.
/// @param timeout_ms  How long to wait: -1 without an end, 0 not at all.
/// @return How many are ready: 0 when the time has passed; QNET_ERR_INVALID (a NULL, a count of 0,
///         a timeout below -1), QNET_ERR_INTERRUPTED, QNET_ERR_OS, QNET_ERR_INTERNAL.
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
    call(
        || format!("poll {count} connections"),
        || {
            let ready = out(ready, "ready")?;
            if !(1..=c_int::MAX as usize).contains(&count) {
                return Err(Error::invalid(format!("a count of {count}")));
            }
            // SAFETY: C promises `count` handles, and room for as many bytes.
            let (conns, ready) = unsafe {
                ready.write_bytes(0, count);
                (slice(conns, count, "conns")?, std::slice::from_raw_parts_mut(ready, count))
            };
            let table = &conn::table();
            let conns: Vec<_> = conns.iter().map(|conn| table.get(conn.addr() as u64)).collect();
            poll::poll(&conns, ready, timeout_ms).map(|n| n as c_int)
        },
    )
}

/// The connection's descriptor, for poll, epoll or a GUI's loop: the socket itself, the same number
/// until qnet_close() returns. With QNET_OPT_RECONNECT_MS above 0, a descriptor that follows the
/// socket and signals reading alone.
///
/// Poll it for reading only after a receive gave QNET_ERR_AGAIN, or a batch fewer than its count:
/// the library may hold frames that the descriptor knows nothing of (qnet_poll() does). When it can
/// be written to, a send that gave QNET_ERR_AGAIN may be tried again. Do not read, write or close
/// it; remove it from an epoll set before qnet_close(). Who waits for edges (EPOLLET) receives until
/// QNET_ERR_AGAIN: a batch fewer than its count may have the end behind it.
///
/// @return The descriptor; QNET_ERR_HANDLE, QNET_ERR_OS (there is none to follow the socket with),
///         QNET_ERR_INTERNAL.
///
/// Blocks: no.
/// Calls back: no.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qnet_fd(conn: *mut qnet_conn) -> c_int {
    on_conn(conn, "tell the descriptor", |conn| conn::fd(conn))
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
    Ok(unsafe { std::slice::from_raw_parts_mut(out(at, "buf")?.cast(), cap) })
}
