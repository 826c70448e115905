//! Handlers: the connection's own thread, which reads and calls them.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use crate::conn::PLUGGED;
use crate::conn::end;
use crate::conn::life::Call;
use crate::conn::receive;
use crate::conn::send;
use crate::conn::{Conn, State, background, release};
use crate::error::{Error, Result};
use crate::frame::{self, Front, PREFIX, Run, Walk};
use crate::runtime::callback::{self, Doing, Handler, IntHandler, qnet_frame};
use crate::runtime::cork::{self, Cork};
use crate::runtime::handle::{Ref, Token};
use crate::sys::clock::Deadline;
use crate::sys::fork::Stamp;

/// The most frames that a batch handler is called with.
const BATCH: usize = 256;

/// What a connection's thread does next. Plain data: a callback that ends the thread unwinds past
/// it.
#[derive(Clone, Copy)]
enum Step {
    Deliver { handler: Handler, bytes: *const u8, len: usize },
    Close { handler: Option<IntHandler>, code: i32 },
    Stop,
}

/// Sets what is called with the connection's frames, or nothing. Returns when the handler
/// before is not running and never will again, where this thread may wait for that.
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
    if state.options.wait() && !callback::inside() {
        wait_for_handler(conn, state);
    }
    Ok(())
}

/// Waits until the handler before is not running, and its thread is gone where it was taken
/// away; but not for a close handler, which that thread goes on with where the connection ends.
fn wait_for_handler(conn: Ref<Conn>, mut state: MutexGuard<'_, State>) {
    let deliveries = state.deliveries;
    let is_before = |state: &State| {
        state.delivering && state.deliveries == deliveries
            || state.thread && state.handler.is_none() && !state.life.has_ended()
    };
    while state.is_of(conn.token) && is_before(&state) {
        State::wait_change(state);
        state = conn.slot.state_of_own();
    }
}

/// The thread. Nothing with a destructor lives here across a callback, which may unwind past.
pub fn run(conn: Ref<Conn>, process: Stamp) {
    loop {
        match guarded(conn, || next_step(conn)).unwrap_or(Step::Stop) {
            Step::Deliver { handler, bytes, len } => {
                // SAFETY: while `delivering` is set, which only this thread takes back, nobody
                // moves, writes or frees these bytes of the connection's buffer.
                let bytes = unsafe { std::slice::from_raw_parts(bytes, len) };
                let is_same = callback::run(conn.token, Doing::Frames, died, || {
                    cork::with(|cork| {
                        cork.begin(process, send::uncork);
                        deliver(conn.slot, process, cork, handler, bytes);
                    });
                });
                if !is_same {
                    return;
                }
                guarded(conn, || {
                    cork::close();
                    delivered(conn);
                });
            }
            Step::Close { handler, code } => {
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
            Step::Stop => return,
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

/// A handler has ended the thread that it ran on. One that was set meanwhile gets another, and
/// so does a close handler that is due.
fn replace_thread(conn: Ref<Conn>, state: &mut State) {
    let is_handled = state.handler.is_some();
    let has_frames = is_handled && state.is_handler_new;
    // Without a handler, who closes calls it; but that may have been, without waiting.
    let has_end = match state.life.call() {
        Some(Call::Waiting) => is_handled || !state.is_of(conn.token),
        call => call == Some(Call::Due),
    };
    state.thread = (has_frames || has_end) && background::start_thread(conn).is_ok();
    if !state.thread {
        state.handler = None;
    }
}

/// Runs the library's own part of the thread; a panic in it ends the connection, not the process.
fn guarded<R>(conn: Ref<Conn>, step: impl FnOnce() -> R) -> Option<R> {
    let step = std::panic::AssertUnwindSafe(step);
    match std::panic::catch_unwind(step) {
        Ok(done) => Some(done),
        Err(_) => {
            let mut state = conn.slot.state_of_own();
            end::end(conn, &mut state, Error::Internal("a panic in the handler's thread".into()));
            state.handler = None;
            state.delivering = false;
            leave(conn, state);
            None
        }
    }
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
                // One ahead: whether another call follows decides what this one's sends may do.
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

// The thread's own steps, between callbacks.

/// Waits until there is something to call, or nothing more to do.
fn next_step(conn: Ref<Conn>) -> Step {
    loop {
        let mut state = conn.slot.state_of_own();
        conn.slot.interrupt.store(false, Ordering::Relaxed);
        if let Some(end) = state.life.end_reason()
            && state.life.awaits_call()
        {
            let code = end.code();
            if state.is_telling() {
                // The close handler comes last: who runs the state handler goes on with it.
                state.life.defer();
                leave(conn, state);
                return Step::Stop;
            }
            state.life.take_over(Call::OnOwn);
            return Step::Close { handler: state.close_handler, code };
        }
        let handler = state.handler.filter(|_| !state.life.has_ended());
        let Some(handler) = handler else {
            leave(conn, state);
            return Step::Stop;
        };
        let socket = state.socket().clone();
        let epoch = socket.wake.epoch();
        if state.rx.has_frame(&conn.slot.rx_counts) {
            return begin_delivery(conn, &mut state, handler);
        }
        if let Some(end) = state.rx.end() {
            end::meet_end(conn, &mut state, end);
            continue;
        }
        if !state.rx.fill(&socket, &conn.slot.rx_counts) {
            // What it fails for only makes it look again.
            let _ = receive::wait_readable(conn, state, &socket, epoch, Deadline::Never);
        }
    }
}

fn begin_delivery(conn: Ref<Conn>, state: &mut State, handler: Handler) -> Step {
    state.delivering = true;
    state.is_handler_new = false;
    state.deliveries += 1;
    conn.slot.delivered.store(0, Ordering::Relaxed);
    let bytes = state.rx.unread();
    Step::Deliver { handler, bytes: bytes.as_ptr(), len: bytes.len() }
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

fn leave(conn: Ref<Conn>, mut state: MutexGuard<'_, State>) {
    state.thread = false;
    conn.slot.changed(&state);
    conn.slot.free_if_unused(state);
}
