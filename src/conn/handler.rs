//! Handlers: the connection's own thread, which reads and calls them.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::conn::life::Call;
use crate::conn::{
    Conn, PLUGGED, State, background, end, may_deliver, receive, release, send, wipe_on_fork,
};
use crate::error::Result;
use crate::frame::{self, Alike, Front, PREFIX, Run, Walk};
use crate::runtime::callback::{
    self, BatchFn, Callback, Doing, FrameFn, Handler, IntHandler, qnet_frame,
};
use crate::runtime::cork::{self, Cork};
use crate::runtime::handle::{Ref, Token};
use crate::runtime::lock::Guard;
use crate::runtime::onward::Delivery;
use crate::sys::clock::Deadline;
use crate::sys::fork::Stamp;

/// The most frames that a batch handler is called with.
const BATCH: usize = 256;

/// How many frames of one length are looked at ahead of the handler: as many as stay in the cache.
const ALIKE: usize = 128;

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
    may_deliver(conn.token).store(false, Ordering::Release);
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
    wipe_on_fork();
    while let Some(action) = guarded(conn, || next_action(conn)).flatten() {
        match action {
            Action::Deliver { handler, bytes, len } => {
                // SAFETY: while `delivering` is set, which only this thread takes back, nobody
                // moves, writes or frees these bytes of the connection's buffer.
                let bytes = unsafe { std::slice::from_raw_parts(bytes, len) };
                // SAFETY: so it is until `delivered` or `died`. Both come after `cork::close`, which has all pieces
                // given up.
                let delivery =
                    unsafe { Delivery::of(bytes, conn.slot.onward.get_or_init(Box::default)) };
                let process = Stamp::now();
                let is_same = callback::run(conn.token, Doing::Frames, died, || {
                    cork::with(|cork| {
                        cork.begin(process, send::uncork, delivery);
                        match handler {
                            Handler::One(one) if conn.slot.rx_counts.probes.is_any() => {
                                deliver_each::<true>(conn, cork, one, bytes);
                            }
                            Handler::One(one) => deliver_each::<false>(conn, cork, one, bytes),
                            Handler::Batch(many) => deliver_batches(conn, cork, many, bytes),
                        }
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

/// Hands over the frames of `bytes`, one a call, until one is not whole or the thread may not go on.
fn deliver_each<const IS_CAPTURED: bool>(
    conn: Ref<Conn>,
    cork: &Cork,
    handler: Callback<FrameFn>,
    bytes: &[u8],
) {
    let (conn, goes_on) = (conn.slot, may_deliver(conn.token));
    let mut walk = Walk::over(bytes);
    while let Some(alike) = walk.next_alike(ALIKE) {
        if alike.len < frame::MIN {
            conn.delivered.add(alike.bytes.len() as u64);
            conn.rx_counts.runts.add(alike.count as u64);
            continue;
        }
        // Whether another call follows decides what a call's sends may do.
        let (others, last) = alike.split_last();
        cork.open(true);
        hand_over::<IS_CAPTURED>(conn, goes_on, handler, others);
        cork.open(matches!(frame::front(walk.rest()), Front::Whole(_)));
        hand_over::<IS_CAPTURED>(conn, goes_on, handler, last);
        if !goes_on.load(Ordering::Acquire) {
            return;
        }
    }
}

/// Hands over frames of one length, as long as the thread may go on. Not in line, so that all that the loop
/// needs is in registers.
#[inline(never)]
fn hand_over<const IS_CAPTURED: bool>(
    conn: &Conn,
    goes_on: &AtomicBool,
    handler: Callback<FrameFn>,
    alike: Alike<'_>,
) {
    let mut bytes = alike.frames();
    for frame in qnet_frame::all(&alike) {
        if !goes_on.load(Ordering::Acquire) {
            return;
        }
        if IS_CAPTURED {
            if let Some(frame) = bytes.next() {
                conn.rx_counts.probes.record_one(frame);
            }
        }
        conn.delivered.add((PREFIX + alike.len) as u64);
        conn.rx_counts.frame(alike.len);
        // SAFETY: it is one of `alike`, which lives longer.
        unsafe { handler.call(frame) };
    }
}

/// Hands over the frames of `bytes` in the same way, many a call.
#[inline(never)]
fn deliver_batches(conn: Ref<Conn>, cork: &Cork, handler: Callback<BatchFn>, bytes: &[u8]) {
    let mut batch = [qnet_frame { data: std::ptr::null(), len: 0 }; BATCH];
    let (conn, goes_on) = (conn.slot, may_deliver(conn.token));
    let mut at = 0;
    while goes_on.load(Ordering::Acquire) {
        let run = Run::over(&bytes[at..], BATCH, |n, alike| {
            batch[n..].iter_mut().zip(qnet_frame::all(alike)).for_each(|(to, frame)| *to = frame);
        });
        at += run.end;
        conn.delivered.add(run.end as u64);
        conn.rx_counts.run(&run);
        if run.frames == 0 {
            break;
        }
        conn.rx_counts.probes.record_run(&bytes[at - run.end..at]);
        cork.open(matches!(frame::front(&bytes[at..]), Front::Whole(_)));
        handler.call(&batch[..run.frames]);
    }
}

// What the thread does between callbacks.

/// Waits until there is something to call. Returns `None` where there is nothing more to do: the thread
/// has left the connection then.
fn next_action(conn: Ref<Conn>) -> Option<Action> {
    let mut has_asked = false;
    loop {
        let mut state = conn.slot.state_of_own();
        may_deliver(conn.token).store(true, Ordering::Relaxed);
        if let Some(end) = state.life.end_reason().filter(|_| state.life.awaits_call()) {
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
        let counts = &conn.slot.rx_counts;
        if !state.rx.has_frame(counts) && state.rx.end().is_none() {
            let is_in_vain = !has_asked && state.rx.is_drained();
            has_asked = is_in_vain || !state.rx.fill(&socket, counts);
            if has_asked {
                // An error only makes the thread look again.
                let _ = receive::wait_readable(conn, state, &socket, epoch, Deadline::Never);
                continue;
            }
        }
        // There was one before, or has been read.
        if state.rx.has_frame(counts) {
            return Some(begin_delivery(conn, &mut state, handler));
        }
        if let Some(end) = state.rx.end() {
            end::meet_end(conn, &mut state, end);
        }
    }
}

fn begin_delivery(conn: Ref<Conn>, state: &mut State, handler: Handler) -> Action {
    state.delivering = true;
    state.is_handler_new = false;
    state.deliveries += 1;
    conn.slot.delivered.clear();
    let bytes = state.rx.unread();
    Action::Deliver { handler, bytes: bytes.as_ptr(), len: bytes.len() }
}

fn delivered(conn: Ref<Conn>) {
    let mut state = conn.slot.state_of_own();
    conn.slot.end_delivery(&mut state);
    if !may_deliver(conn.token).load(Ordering::Relaxed) {
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
