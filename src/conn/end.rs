//! Ending a connection: it is marked as ended for every call, and what that leaves to do is begun. The
//! state's lock is held.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use rustix::event::PollFlags;

use crate::conn::finish::{Finish, SENDING};
use crate::conn::{Conn, State, background, down, may_deliver, plug};
use crate::error::Error;
use crate::runtime::handle::Ref;
use crate::sys::clock::Deadline;

/// Marks the connection as ended, for every call from now on.
pub fn end(conn: Ref<Conn>, state: &mut State, reason: Error) {
    state.life.end(reason.clone());
    down::stop_dialling(conn, state);
    // Before the sending part ends, which takes over what the loop has left for it.
    plug::unplug(conn, state);
    conn.slot.sender.lock().end(reason);
    may_deliver(conn.token).store(false, Ordering::Release);
    conn.slot.changed(state);
}

/// Reading has met the end and used up what was before it. Returns how the connection ended, or
/// `None` where it is dialled again: then it is down now, with another socket.
pub fn meet_end(conn: Ref<Conn>, state: &mut State, found: Error) -> Option<Error> {
    let reason = with_reset(conn, found);
    if down::go_down(conn, state, &reason) {
        return None;
    }
    end_as_found(conn, state, reason.clone());
    Some(reason)
}

/// Ends the connection for what its peer did.
pub fn end_as_found(conn: Ref<Conn>, state: &mut State, reason: Error) {
    end(conn, state, reason);
    finish(conn, state, Finish::remote(state.options.linger()));
}

/// The reason, or the reset that a write has met: after one, reading finds an orderly end.
fn with_reset(conn: Ref<Conn>, reason: Error) -> Error {
    let reset = conn.slot.sender.lock().reset();
    if reason == Error::Closed { reset.unwrap_or(reason) } else { reason }
}

/// Ends the connection by this side, unless it has ended.
pub fn end_locally(conn: Ref<Conn>, state: &mut State) {
    if !state.life.has_ended() {
        end(conn, state, with_reset(conn, Error::Closed));
        let left = Finish::local(state.options.linger(), state.socket(), &state.rx);
        finish(conn, state, left);
    }
}

/// Finishes at once if it can, or leaves that to the closing thread or the service thread.
fn finish(conn: Ref<Conn>, state: &mut State, finish: Finish) {
    state.finish = Some(Box::new(finish));
    // A thread that closes the connection takes the turns itself.
    if finish_turn(conn, state).is_none() || state.life.is_closing() || background::watch(conn) {
        return;
    }
    // There is no thread to go on, and the peer is to see the end all the same.
    if let Some(finish) = &mut state.finish {
        finish.deadline = Deadline::Now;
        finish_turn(conn, state);
    }
}

/// One turn of finishing. Returns what to wait for before the next, or `None` where nothing is left.
pub fn finish_turn(conn: Ref<Conn>, state: &mut State) -> Option<(PollFlags, Deadline)> {
    let socket = state.socket().clone();
    let finish = state.finish.as_mut()?;
    let mut tx = conn.slot.sender.lock();
    tx.write_backlog();
    let is_writing = tx.has_backlog();
    let is_draining = finish.drain(&socket, is_writing);
    if !finish.deadline.passed() {
        if is_writing || is_draining {
            return Some(finish.wait(is_writing.then(|| tx.until_room())));
        }
        if finish.is_sending(&socket) {
            let until = finish.deadline.sooner(Deadline::after(SENDING));
            return Some((PollFlags::IN, until));
        }
    }
    tx.drop_backlog();
    drop(tx);
    socket.shutdown();
    state.finish = None;
    conn.slot.changed(state);
    None
}

/// Runs a part of what a thread of the library's own does, without the state's lock. A panic there ends
/// the connection, not the process.
pub fn guarded<R>(conn: Ref<Conn>, does: &str, part: impl FnOnce() -> R) -> Option<R> {
    let done = catch_unwind(AssertUnwindSafe(part));
    if done.is_err() {
        if let Ok(mut state) = conn.state() {
            let error = Error::Internal(format!("a panic in the thread that {does}").into());
            end(conn, &mut state, error);
        }
    }
    done.ok()
}
