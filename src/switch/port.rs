//! A connection that is plugged into a switch: plugging in and out, and its loop's turn.
//!
//! The loop does not wait for the connection's state, which callers hold during system calls. What it
//! reads with is in the switch meanwhile, and what needs the state (ending, above all) is left to the
//! service thread.

use std::sync::Arc;

use rustix::event::epoll::EventFlags;

use crate::conn::close_handler;
use crate::conn::end;
use crate::conn::{self, receive::Rx};
use crate::conn::{Conn, State};
use crate::error::{Error, Result};
use crate::net::socket::Socket;
use crate::runtime::event_loop::{ADDED, Loop, NOTHING, READABLE, Work};
use crate::runtime::handle::Ref;
use crate::runtime::lock::lock;
use crate::runtime::service;
use crate::rx::buffer::loop_room;
use crate::switch::{Inside, Outlet, Switch};

/// Why an attached or linked connection cannot be received from.
pub const PLUGGED: Error = Error::Busy("the connection is attached or linked");

/// Where a connection is plugged in.
#[derive(Clone)]
pub struct Port {
    pub switch: Arc<Switch>,
    id: usize,
}

impl Port {
    /// The connection at the other side of a link.
    pub fn other_side(&self) -> Option<Ref<Conn>> {
        self.switch.lock().conn_opposite(self.id)
    }

    /// Has the loop read, with what was read before.
    pub fn begin_reading(&self, rx: Rx) {
        self.switch.lock().outlet(self.id).rx = Some(rx);
    }

    /// Its connection gets another socket, which its sending part does by `exchange`, and begins with
    /// another stream.
    pub fn exchange_socket(&self, conn: Ref<Conn>, socket: &Arc<Socket>, exchange: impl FnOnce()) {
        self.change(exchange, |inside| {
            let outlet = inside.outlet(self.id);
            if let Some(rx) = &mut outlet.rx {
                rx.start_over();
            }
            outlet.begin_with(socket.clone());
        });
        // In its turn it waits for what it has to of the new one.
        self.switch.runner.look(conn.token);
    }

    /// Changes a port whose socket is not to be waited for any more. Taking that out of the loop's set
    /// is a system call, and not made under the switch's lock. It comes first, so that the loop is not
    /// told again and again of what it has no port for; and once more behind the change, since until
    /// that the loop may have put the socket in again, whether or not it had taken it out itself.
    fn change<R>(&self, meanwhile: impl FnOnce(), change: impl FnOnce(&mut Inside) -> R) -> R {
        let runner = self.switch.runner;
        let before = self.switch.lock().outlet(self.id).watched();
        before.end(runner);
        meanwhile();
        let mut inside = self.switch.lock();
        let after = inside.outlet(self.id).watched();
        let result = change(&mut inside);
        drop(inside);
        after.end(runner);
        result
    }
}

// Plugging in and out. The state's lock is held.

pub fn plug(conn: Ref<Conn>, state: &mut State, switch: &Arc<Switch>) -> Result<()> {
    let runner = switch.runner;
    runner.join()?;
    conn.slot.tx_of_own().plug(runner);
    let port = add_to(conn, switch, state.socket()).inspect_err(|_| {
        conn.slot.tx_of_own().unplug();
        runner.leave();
    })?;
    state.rx.end_loans();
    if !state.delivering {
        port.begin_reading(std::mem::take(&mut state.rx));
    }
    // Otherwise a handler that was taken away has frames in hand: they come first.
    *lock(&conn.slot.place) = Some(port.clone());
    runner.look(conn.token);
    if let Some(other) = port.other_side() {
        // It was alone until now.
        runner.look(other.token);
    }
    state.port = Some(port);
    conn.slot.changed(state);
    Ok(())
}

fn add_to(conn: Ref<Conn>, switch: &Arc<Switch>, socket: &Arc<Socket>) -> Result<Port> {
    let runner = switch.runner;
    runner.watch(socket.fd(), conn.token, NOTHING, ADDED)?;
    let outlet = Outlet::new(conn, socket.clone());
    let added = switch.lock().add(outlet);
    let id = added.inspect_err(|_| {
        // Taking a descriptor out of the set cannot fail.
        let _ = runner.watch(socket.fd(), conn.token, ADDED, NOTHING);
    })?;
    Ok(Port { switch: switch.clone(), id })
}

/// Takes it out of `switch`.
pub fn unplug_from(conn: Ref<Conn>, state: &mut State, switch: &Arc<Switch>) -> Result<()> {
    if !state.port.as_ref().is_some_and(|port| Arc::ptr_eq(&port.switch, switch)) {
        return Err(Error::invalid("the connection is not in there"));
    }
    unplug(conn, state);
    Ok(())
}

/// Takes it out of where it is plugged in. What its loop has taken for it is still written; where
/// the connection has ended, its close handler is called.
pub fn unplug(conn: Ref<Conn>, state: &mut State) {
    let Some(port) = state.port.take() else {
        return;
    };
    let runner = port.switch.runner;
    let (rx, other) = port.change(|| (), |inside| inside.remove(port.id));
    *lock(&conn.slot.place) = None;
    // While a handler has frames in hand, which lie in `state.rx`, it has one only for a panic.
    if let Some(rx) = rx.filter(|_| !state.delivering) {
        state.rx = rx;
    }
    if let Some(other) = other {
        runner.look(other.token);
    }
    conn.slot.tx_of_own().unplug();
    leave_sending(conn, runner);
    if state.ended.is_some() {
        close_handler::have_run(conn, state, runner);
    }
    // Last, so that there is a thread for what rests.
    runner.leave();
    conn.slot.changed(state);
}

/// Leaves what is unwritten to the service thread, and an end that a write has met and the loop has
/// not read. Where there can be none now, `runner` tries again.
fn leave_sending(conn: Ref<Conn>, runner: &Loop) {
    let tx = conn.slot.tx_of_own();
    let is_left = tx.has_backlog() || tx.is_lost();
    drop(tx);
    if is_left && !service::service().watch(conn) {
        runner.rest(conn.token);
    }
}

// The loop's own part.

/// One turn: writes what waits for it, then reads once and sends that on.
pub fn forward_turn(conn: Ref<Conn>, runner: &Loop, events: EventFlags, work: &mut Work) {
    let port = lock(&conn.slot.place).clone();
    let Some(Port { switch, id }) = port else {
        return look_after(conn, runner);
    };
    if !std::ptr::eq(switch.runner, runner) {
        return; // an event from before it was plugged in there
    }
    let mut inside = switch.lock();
    if !inside.has(id, conn) {
        return;
    }
    if events != READABLE {
        inside.write_waiting(id);
    }
    let is_over = if inside.is_cut() {
        let is_written = inside.wait_to_write(id);
        inside.wait_for(id, READABLE, false);
        is_written
    } else {
        if inside.may_read(id) {
            read_and_forward(conn, &mut inside, id, work);
            inside.may_read(id);
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
    match service::service().try_watch(conn) {
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
    end_if_over(conn, &mut state);
    if state.lacks_thread() {
        close_handler::start_thread(conn, &mut state);
    }
    let is_left = has_work_left(conn, &state);
    drop(state);
    conn::give_back_if_over(conn);
    !is_left
}

/// Whether a thread is lacking for its close handler, or may be for what is unwritten. Only of one
/// that is not plugged in the sending part is tried: its loop counts on who holds that to tell.
fn has_work_left(conn: Ref<Conn>, state: &State) -> bool {
    let may_have_backlog = || conn.slot.try_tx().is_none_or(|tx| tx.has_backlog());
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
    let Some(Port { switch, id }) = port else {
        return;
    };
    let mut inside = switch.lock();
    inside.forget_pieces();
    if inside.has(id, conn) {
        let reason = Error::Internal("a panic while forwarding".into());
        inside.outlet(id).rx = Some(Rx::failed(reason));
        inside.may_read(id);
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

/// The service thread's turn: ends a connection of which the loop has found that it is over. The
/// state's lock is held.
pub fn end_if_over(conn: Ref<Conn>, state: &mut State) {
    let Some(port) = &state.port else {
        return;
    };
    let mut inside = port.switch.lock();
    let is_cut = inside.is_cut();
    let end = inside.outlet(port.id).end();
    drop(inside);
    if is_cut {
        let mut tx = conn.slot.tx_of_own();
        tx.empty_inbox();
        let is_written = tx.write_backlog();
        drop(tx);
        if is_written {
            end::end_locally(conn, state);
        } else {
            // A caller's, since the loop has looked: it has this done again once that is written.
            port.switch.runner.look(conn.token);
        }
    } else if let Some(end) = end {
        end::meet_end(conn, state, end);
    }
}
