//! Handlers: the connection's own thread, which reads and calls them.

use std::sync::atomic::Ordering;

use crate::conn::life::Call;
use crate::conn::{Conn, PLUGGED, State, background, end, receive, release, send};
use crate::error::Result;
use crate::frame::{self, Front, PREFIX, Run, Walk};
use crate::runtime::callback::{self, Doing, Handler, IntHandler, qnet_frame};
use crate::runtime::cork::{self, Cork};
use crate::runtime::handle::{Ref, Token};
use crate::runtime::lock::Guard;
use crate::sys::clock::Deadline;
use crate::sys::fork::Stamp;

/// The most frames that a batch handler is called with.
const BATCH: usize = 256;

/// What a connection's thread does next. Plain data, since a callback that ends the thread unwinds
/// past it.
#[derive(Clone, Copy)]
enum Action {
    Deliver { handler: Handler, bytes: *const u8, len: usize },
    Close { handler: Option<IntHandler>, code: i32 },
}

/// Sets the handler of the connection's frames, or none. Where this thread may wait for handlers, it
/// returns when the handler before is not running and never will again.
pub fn set_handler(conn: Ref<Conn>, handler: Option<Handler>) -> Result<()> {
    let mut state = conn.state()?;
    if let Some(end) = state.life.end_reason() {
        return Err(end.clone());
    }
    if state.port.is_some() {
        return Err(PLUGGED);
    }
    if handler.is_some() && !state.thread {
        background::start_thread(conn)?;
        state.thread = true;
    }
    state.handler = handler;
    state.is_handler_new = true;
    state.rx.end_loans();
    conn.slot.interrupt.store(true, Ordering::Release);
    conn.slot.changed(&state);
    // Until its thread is gone, too, where the handler was taken away; but not for a close handler,
    // which that thread goes on with where the connection ends.
    let deliveries = state.deliveries;
    conn.slot.wait_for_handlers(state, |state| {
        state.delivering && state.deliveries == deliveries
            || state.thread && state.handler.is_none() && !state.life.has_ended()
    });
    Ok(())
}

/// The thread. Nothing with a destructor lives here across a callback, which may unwind past.
pub fn run(conn: Ref<Conn>) {
    while let Some(action) = guarded(conn, || next_action(conn)).flatten() {
        match action {
            Action::Deliver { handler, bytes, len } => {
                // SAFETY: while `delivering` is set, which only this thread takes back, nobody
                // moves, writes or frees these bytes of the connection's buffer.
                let bytes = unsafe { std::slice::from_raw_parts(bytes, len) };
                let process = Stamp::now();
                let is_same = callback::run(conn.token, Doing::Frames, died, || {
                    cork::with(|cork| {
                        cork.begin(process, send::uncork);
                        deliver(conn.slot, process, cork, handler, bytes);
                    });
                });
                let finish = || {
                    cork::close();
                    delivered(conn);
                };
                if !is_same || guarded(conn, finish).is_none() {
                    return;
                }
            }
            Action::Close { handler, code } => {
                let is_same = callback::run(conn.token, Doing::OwnClose, died, || {
                    if let Some(handler) = handler {
                        handler.call(code);
                    }
                });
                if is_same {
                    guarded(conn, || closed(conn));
                }
                return;
            }
        }
    }
}

/// A callback has ended the thread.
fn died(token: Token, doing: Doing) {
    release::put_right(token, doing, |conn, state| {
        if doing == Doing::Frames {
            conn.slot.end_delivery(state);
            replace_thread(conn, state);
        } else {
            state.life.done();
            state.thread = false;
        }
    });
}

/// A frame handler has ended the thread that it ran on. A handler that was set meanwhile gets another
/// thread, and so does a close handler that is due.
fn replace_thread(conn: Ref<Conn>, state: &mut State) {
    let is_handled = state.handler.is_some();
    let has_frames = is_handled && state.is_handler_new;
    // Without a frame handler, the closing thread calls the close handler; unless it has closed
    // already, without waiting.
    let has_end = match state.life.call() {
        Some(Call::Waiting) => is_handled || !state.is_of(conn.token),
        call => call == Some(Call::Due),
    };
    state.thread = (has_frames || has_end) && background::start_thread(conn).is_ok();
    if !state.thread {
        state.handler = None;
    }
}

/// Runs the library's own part of the thread, which a panic there ends together with the connection.
fn guarded<R>(conn: Ref<Conn>, part: impl FnOnce() -> R) -> Option<R> {
    let done = end::guarded(conn, "calls the handlers", part);
    if done.is_none() {
        let mut state = conn.slot.state_of_own();
        state.handler = None;
        state.delivering = false;
        leave(conn, state);
    }
    done
}

/// Hands over the frames of `bytes`, until one is not whole or somebody interrupts.
fn deliver(conn: &Conn, process: Stamp, cork: &Cork, handler: Handler, bytes: &[u8]) {
    let goes_on = || !conn.interrupt.load(Ordering::Acquire) && process.is_current();
    let mut at = 0;
    match handler {
        Handler::One(handler) => {
            let mut walk = Walk::over(bytes);
            let mut next = walk.next();
            while let Some(frame) = next
                && goes_on()
            {
                at += PREFIX + frame.len();
                // Walked one ahead: whether another call follows decides what this call's sends may do.
                next = walk.next();
                conn.delivered.store(at, Ordering::Relaxed);
                if frame.len() < frame::MIN {
                    conn.rx_counts.runts.add(1);
                    continue;
                }
                conn.rx_counts.frame(frame.len());
                cork.open(next.is_some());
                handler.call(frame);
            }
        }
        Handler::Batch(handler) => {
            let mut frames = [qnet_frame { data: std::ptr::null(), len: 0 }; BATCH];
            while goes_on() {
                let run = Run::over(&bytes[at..], BATCH, |n, frame| {
                    frames[n] = qnet_frame { data: frame.as_ptr(), len: frame.len() };
                });
                at += run.end;
                conn.delivered.store(at, Ordering::Relaxed);
                conn.rx_counts.run(&run);
                if run.frames == 0 {
                    break;
                }
                cork.open(matches!(frame::front(&bytes[at..]), Front::Whole(_)));
                handler.call(&frames[..run.frames]);
            }
        }
    }
}

// What the thread does between callbacks.

/// Waits until there is something to call. Returns `None` where there is nothing more to do: the thread
/// has left the connection then.
fn next_action(conn: Ref<Conn>) -> Option<Action> {
    loop {
        let mut state = conn.slot.state_of_own();
        conn.slot.interrupt.store(false, Ordering::Relaxed);
        if let Some(end) = state.life.end_reason()
            && state.life.awaits_call()
        {
            let code = end.code();
            if state.is_telling() {
                // The close handler is the last: the thread that runs the state handler calls it after.
                state.life.defer();
                leave(conn, state);
                return None;
            }
            state.life.take_over(Call::OnOwn);
            return Some(Action::Close { handler: state.close_handler, code });
        }
        let handler = state.handler.filter(|_| !state.life.has_ended());
        let Some(handler) = handler else {
            leave(conn, state);
            return None;
        };
        let socket = state.socket().clone();
        let epoch = socket.wake.epoch();
        if state.rx.has_frame(&conn.slot.rx_counts) {
            return Some(begin_delivery(conn, &mut state, handler));
        }
        if let Some(end) = state.rx.end() {
            end::meet_end(conn, &mut state, end);
            continue;
        }
        if !state.rx.fill(&socket, &conn.slot.rx_counts) {
            // An error only makes the thread look again.
            let _ = receive::wait_readable(conn, state, &socket, epoch, Deadline::Never);
        }
    }
}

fn begin_delivery(conn: Ref<Conn>, state: &mut State, handler: Handler) -> Action {
    state.delivering = true;
    state.is_handler_new = false;
    state.deliveries += 1;
    conn.slot.delivered.store(0, Ordering::Relaxed);
    let bytes = state.rx.unread();
    Action::Deliver { handler, bytes: bytes.as_ptr(), len: bytes.len() }
}

fn delivered(conn: Ref<Conn>) {
    let mut state = conn.slot.state_of_own();
    conn.slot.end_delivery(&mut state);
    if conn.slot.interrupt.load(Ordering::Relaxed) {
        conn.slot.changed(&state);
    }
}

/// The close handler has returned, and the thread goes.
fn closed(conn: Ref<Conn>) {
    let mut state = conn.slot.state_of_own();
    state.life.done();
    leave(conn, state);
    release::give_back_if_over(conn);
}

fn leave(conn: Ref<Conn>, mut state: Guard<'_, State>) {
    state.thread = false;
    conn.slot.changed(&state);
    conn.slot.free_if_unused(state);
}
