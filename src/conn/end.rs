//! Ending a connection: it is marked as ended for every call, and what that leaves to do is begun.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use rustix::event::PollFlags;

use crate::conn::finish::{Finish, SENDING, Turn};
use crate::conn::{Conn, State, background, down, plug};
use crate::error::Error;
use crate::runtime::handle::Ref;
use crate::sys::clock::Deadline;

/// Marks the connection as ended, for every call from now on. The state's lock is held.
pub fn end(conn: Ref<Conn>, state: &mut State, reason: Error) {
    state.life.end(reason.clone());
    down::stop_dialling(conn, state);
    // What its loop has for it comes first.
    plug::unplug(conn, state);
    conn.slot.sender.lock().end(reason);
    conn.slot.interrupt.store(true, Ordering::Release);
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

/// A reset that a write met left nothing for reading but an end.
fn with_reset(conn: Ref<Conn>, reason: Error) -> Error {
    let reset = conn.slot.sender.lock().reset();
    if reason == Error::Closed { reset.unwrap_or(reason) } else { reason }
}

pub fn end_locally(conn: Ref<Conn>, state: &mut State) {
    if !state.life.has_ended() {
        end(conn, state, with_reset(conn, Error::Closed));
        let left = Finish::local(state.options.linger(), state.socket(), &state.rx);
        finish(conn, state, left);
    }
}

/// Finishes at once if it can, or leaves it to who takes the next turn.
fn finish(conn: Ref<Conn>, state: &mut State, finish: Finish) {
    state.finish = Some(Box::new(finish));
    if let Some(Turn::Wait(..)) = finish_turn(conn, state)
        // Who closes takes the turns himself.
        && !state.life.is_closing()
        && !background::watch(conn)
        && let Some(finish) = &mut state.finish
    {
        // Without a thread nobody would: the peer is to see the end all the same.
        finish.deadline = Deadline::Now;
        finish_turn(conn, state);
    }
}

/// One turn of finishing, or `None` if there is nothing to finish.
pub fn finish_turn(conn: Ref<Conn>, state: &mut State) -> Option<Turn> {
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
            return Some(Turn::Wait(PollFlags::IN, until));
        }
    }
    tx.drop_backlog();
    drop(tx);
    socket.shutdown();
    state.finish = None;
    conn.slot.changed(state);
    Some(Turn::Done)
}

/// Runs a step of a thread of the library's own, which `does` something; a panic in it ends the connection,
/// not the process.
pub fn guarded<R>(conn: Ref<Conn>, does: &str, step: impl FnOnce() -> R) -> Option<R> {
    let done = catch_unwind(AssertUnwindSafe(step));
    if done.is_err()
        && let Ok(mut state) = conn.state()
    {
        end(conn, &mut state, Error::Internal(format!("a panic in the thread that {does}")));
    }
    done.ok()
}
