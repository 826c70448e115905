//! A loop's turn for a connection that is plugged in: it writes what waits there, then reads once and
//! forwards that.
//!
//! The loop does not wait for the connection's state, which callers hold during system calls. The receiving
//! part lies in the switch while the connection is plugged in, and what needs the state, such as ending, is
//! left to the service thread.

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

/// What a loop uses again in each turn.
pub struct Work {
    /// Room for what is read, behind the part of a frame that came before.
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

/// Gives a connection its turn.
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
    inside.settle(id, &mut work.sorter, work.now);
    if inside.is_cut(id) {
        inside.watch(id, READABLE, false);
    } else if inside.watch_to_read(id) {
        read_and_forward(conn, &mut inside, id, work);
        inside.watch_to_read(id);
    }
    let is_over = inside.is_over(id);
    inside.set_alarm(id);
    drop(inside);
    if is_over {
        hand_over(conn, runner);
    }
}

/// Leaves to the service thread what has to wait for locks.
fn hand_over(conn: Ref<Conn>, runner: &Loop) {
    match background::try_watch(conn) {
        Some(true) => {}
        // There is no service thread: it is done here.
        Some(false) if service_now(conn) => {}
        _ => runner.rest(conn.token),
    }
}

/// Does what the service thread would, if nobody holds the state. Returns whether nothing is left.
fn service_now(conn: Ref<Conn>) -> bool {
    let Some(mut state) = conn.slot.try_state() else {
        return false;
    };
    if !state.is_of(conn.token) {
        return true;
    }
    conn::service::end_unless_by_hand(conn, &mut state);
    if state.lacks_thread() {
        close_handler::start_thread(conn, &mut state);
    }
    let is_left = has_work_left(conn, &state);
    drop(state);
    release::give_back_if_over(conn);
    !is_left
}

/// Whether the close handler lacks a thread, or something unwritten may. The sending part is tried only where
/// the connection is not plugged in: a loop relies on whoever holds that to give it a turn.
fn has_work_left(conn: Ref<Conn>, state: &State) -> bool {
    let may_have_backlog = || conn.slot.sender.try_lock().is_none_or(|tx| tx.has_backlog());
    state.lacks_thread() || state.port.is_none() && may_have_backlog()
}

/// The turn of a connection that is not plugged in: something may be left to do, for want of a thread.
pub fn look_after(conn: Ref<Conn>, runner: &Loop) {
    let Some(state) = conn.slot.try_state() else {
        return runner.rest(conn.token);
    };
    let is_left = state.is_of(conn.token) && has_work_left(conn, &state);
    drop(state);
    if is_left {
        hand_over(conn, runner);
    }
}

/// Has a connection end whose turn has panicked.
pub fn forwarding_panicked(conn: Ref<Conn>, runner: &Loop) {
    if fail(conn) {
        hand_over(conn, runner);
    }
}

/// Has nothing more come from a connection whose turn has panicked, and puts its switch right. Returns whether
/// it is plugged in.
pub fn fail(conn: Ref<Conn>) -> bool {
    let port = lock(&conn.slot.place).clone();
    let Some(Port { switch, id, .. }) = port.as_deref() else {
        return false;
    };
    let (mut inside, id) = (switch.lock(), *id);
    inside.forget_pieces();
    let is_plugged = inside.has(id, conn.token);
    if is_plugged {
        let reason = Error::Internal("a panic while forwarding".into());
        inside.outlet(id).rx = Some(Rx::failed(reason));
        inside.watch_to_read(id);
    }
    is_plugged
}

fn read_and_forward(conn: Ref<Conn>, inside: &mut Inside, id: usize, work: &mut Work) {
    read(conn, inside, id, work, |inside, bytes, sorter, now| {
        inside.take_in(id, bytes, &conn.slot.rx_counts, sorter, now)
    });
}

/// Reads once, and has whole frames taken. Returns how many bytes came or were taken.
#[inline]
pub fn read(
    conn: Ref<Conn>,
    inside: &mut Inside,
    id: usize,
    work: &mut Work,
    mut take: impl FnMut(&mut Inside, &[u8], &mut Sorter, Instant) -> usize,
) -> usize {
    let mut came = 0;
    let counts = &conn.slot.rx_counts;
    let Work { buffer, sorter, now } = work;
    let outlet = inside.outlet(id);
    let socket = outlet.socket.clone();
    let Some(mut rx) = outlet.rx.take() else {
        return 0;
    };
    // What was read before it was plugged in. This also finds a length that no frame has.
    while rx.has_frame(counts) {
        counts.probes.record_forwarded(inside.runner, rx.unread());
        let used = take(inside, rx.unread(), sorter, *now);
        rx.use_up(used);
        came += used;
    }
    let room = &mut buffer[..loop_room(&socket)];
    if let Some(bytes) = rx.read_behind(&socket, room, counts) {
        counts.probes.record_forwarded(inside.runner, bytes);
        let used = take(inside, bytes, sorter, *now);
        rx.keep(&bytes[used..], counts);
        came += bytes.len();
    }
    inside.outlet(id).rx = Some(rx);
    came
}
