//! A loop's turn for a connection that is plugged in: it writes what waits there, then reads once and
//! sends that on.
//!
//! The loop does not wait for the connection's state, which callers hold during system calls. What it
//! reads with is in the switch meanwhile, and what needs the state (ending, above all) is left to the
//! service thread.

use std::mem::MaybeUninit;
use std::time::Instant;

use crate::conn::{self, Conn, State, background, close_handler, release};
use crate::error::Error;
use crate::runtime::event_loop::{Interest, Loop, READABLE};
use crate::runtime::handle::Ref;
use crate::runtime::lock::lock;
use crate::rx::Rx;
use crate::rx::buffer::{LOOP_ROOM, loop_room};
use crate::switch::Inside;
use crate::switch::port::Port;
use crate::switch::sorter::Sorter;

/// What a loop works with, turn after turn.
pub struct Work {
    /// What is read, behind the front of a frame that came before.
    pub buffer: Box<[MaybeUninit<u8>]>,
    pub sorter: Sorter,
    /// The time of this round of turns.
    pub now: Instant,
}

impl Default for Work {
    fn default() -> Work {
        Work {
            buffer: Box::new_uninit_slice(LOOP_ROOM),
            sorter: Sorter::default(),
            now: Instant::now(),
        }
    }
}

/// One turn: writes what waits for it, then reads once and sends that on.
pub fn forward_turn(conn: Ref<Conn>, runner: &Loop, events: Interest, work: &mut Work) {
    let port = lock(&conn.slot.place).clone();
    let Some(Port { switch, id, .. }) = port.as_deref() else {
        return look_after(conn, runner);
    };
    if !std::ptr::eq(switch.runner, runner) {
        return; // an event from before it was plugged in there
    }
    let (mut inside, id) = (switch.lock(), *id);
    if !inside.has(id, conn.token) {
        return;
    }
    if events != READABLE {
        inside.write_and_resume(id);
    }
    let is_over = if inside.is_cut() {
        let is_written = inside.write_queued(id);
        inside.watch(id, READABLE, false);
        is_written
    } else {
        if inside.watch_to_read(id) {
            read_and_forward(conn, &mut inside, id, work);
            inside.watch_to_read(id);
        }
        inside.outlet(id).end().is_some()
    };
    drop(inside);
    if is_over {
        hand_over(conn, runner);
    }
}

/// Leaves what waits for locks to the service thread.
fn hand_over(conn: Ref<Conn>, runner: &Loop) {
    match background::try_watch(conn) {
        Some(true) => {}
        // For want of a thread it is done here.
        Some(false) if service_now(conn) => {}
        _ => runner.rest(conn.token),
    }
}

/// Does what the service thread would, if the state is free. Returns whether nothing is left.
fn service_now(conn: Ref<Conn>) -> bool {
    let Some(mut state) = conn.slot.try_state() else {
        return false;
    };
    if !state.is_of(conn.token) {
        return true;
    }
    conn::service::end_if_over(conn, &mut state);
    if state.lacks_thread() {
        close_handler::start_thread(conn, &mut state);
    }
    let is_left = has_work_left(conn, &state);
    drop(state);
    release::give_back_if_over(conn);
    !is_left
}

/// Whether a thread is lacking for its close handler, or may be for what is unwritten. Only of one
/// that is not plugged in the sending part is tried: its loop counts on who holds that to tell.
fn has_work_left(conn: Ref<Conn>, state: &State) -> bool {
    let may_have_backlog = || conn.slot.sender.try_lock().is_none_or(|tx| tx.has_backlog());
    state.lacks_thread() || state.port.is_none() && may_have_backlog()
}

/// The turn of one that is not plugged in: for want of a thread something may be left to do.
fn look_after(conn: Ref<Conn>, runner: &Loop) {
    let Some(state) = conn.slot.try_state() else {
        return runner.rest(conn.token);
    };
    let is_left = state.is_of(conn.token) && has_work_left(conn, &state);
    drop(state);
    if is_left {
        hand_over(conn, runner);
    }
}

/// A panic in its turn ends the connection, not the process.
pub fn forwarding_panicked(conn: Ref<Conn>, runner: &Loop) {
    let port = lock(&conn.slot.place).clone();
    let Some(Port { switch, id, .. }) = port.as_deref() else {
        return;
    };
    let (mut inside, id) = (switch.lock(), *id);
    inside.forget_pieces();
    if inside.has(id, conn.token) {
        let reason = Error::Internal("a panic while forwarding".into());
        inside.outlet(id).rx = Some(Rx::failed(reason));
        inside.watch_to_read(id);
        drop(inside);
        hand_over(conn, runner);
    }
}

fn read_and_forward(conn: Ref<Conn>, inside: &mut Inside, id: usize, work: &mut Work) {
    let counts = &conn.slot.rx_counts;
    let Work { buffer, sorter, now } = work;
    let outlet = inside.outlet(id);
    let socket = outlet.socket.clone();
    let Some(mut rx) = outlet.rx.take() else {
        return;
    };
    // From before it was plugged in: a length that no frame has is found here, too.
    while rx.has_frame(counts) {
        let used = inside.forward(id, rx.unread(), counts, sorter, *now);
        rx.use_up(used);
    }
    let room = &mut buffer[..loop_room(&socket)];
    if let Some(bytes) = rx.read_behind(&socket, room, counts) {
        let used = inside.forward(id, bytes, counts, sorter, *now);
        rx.keep(&bytes[used..], counts);
    }
    inside.outlet(id).rx = Some(rx);
}
