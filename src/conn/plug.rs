//! Plugging a connection into a switch, and taking it out. The state's lock is held.

use std::sync::Arc;

use crate::conn::{Conn, State, background, close_handler};
use crate::error::{Error, Result};
use crate::runtime::event_loop::{ADDED, Loop, NOTHING};
use crate::runtime::handle::Ref;
use crate::runtime::lock::lock;
use crate::switch::outlet::Outlet;
use crate::switch::port::Port;
use crate::switch::rules::Rules;
use crate::switch::{Removed, Switch};

pub fn plug(conn: Ref<Conn>, state: &mut State, switch: &Arc<Switch>) -> Result<()> {
    let runner = switch.runner;
    let user = runner.join(conn.token)?;
    conn.slot.sender.lock().plug(runner);
    let id = add_to(conn, switch, state).inspect_err(|_| conn.slot.sender.lock().unplug())?;
    let port = Arc::new(Port { switch: switch.clone(), id, _user: user });
    state.rx.end_loans();
    if !state.delivering {
        port.begin_reading(std::mem::take(&mut state.rx));
    }
    // Otherwise a handler that was taken away has frames in hand, which come first.
    *lock(&conn.slot.place) = Some(port.clone());
    runner.look(conn.token);
    if let Some(other) = port.other_side() {
        // It was not read while it was alone.
        runner.look(other);
    }
    state.port = Some(port);
    conn.slot.changed(state);
    Ok(())
}

fn add_to(conn: Ref<Conn>, switch: &Arc<Switch>, state: &mut State) -> Result<usize> {
    let (runner, socket) = (switch.runner, state.socket().clone());
    runner.watch(socket.fd(), conn.token, NOTHING, ADDED)?;
    let rules = Rules::of(&state.options, state.vlan.as_ref());
    let outlet = || {
        let mut cable = state.cable.take();
        cable.iter_mut().for_each(|cable| cable.plug_in(runner.time()));
        let (sender, counts) = (&conn.slot.sender, &conn.slot.rx_counts);
        Outlet::new(conn.token, (sender, counts), socket.clone(), cable, rules)
    };
    let mut inside = switch.lock();
    let added = inside.add(outlet).inspect(|id| inside.look_at_plug(*id));
    drop(inside);
    added.inspect_err(|_| {
        // Taking a descriptor out of the set cannot fail.
        let _ = runner.watch(socket.fd(), conn.token, ADDED, NOTHING);
    })
}

/// Takes the connection out of `switch`.
pub fn unplug_from(conn: Ref<Conn>, state: &mut State, switch: &Arc<Switch>) -> Result<()> {
    if !state.port.as_ref().is_some_and(|port| Arc::ptr_eq(&port.switch, switch)) {
        return Err(Error::invalid("the connection is not in there"));
    }
    unplug(conn, state);
    Ok(())
}

/// Takes the connection out of where it is plugged in, if it is. What its loop has taken for it is still
/// written. Where the connection has ended, its close handler is called.
///
/// What is in flight in its own directions is discarded.
pub fn unplug(conn: Ref<Conn>, state: &mut State) {
    take_out(conn, state, true);
}

/// The same, for a connection that is linked to nothing and is to be linked at once: what the other side
/// had sent still arrives.
pub fn move_out(conn: Ref<Conn>, state: &mut State) {
    take_out(conn, state, false);
}

fn take_out(conn: Ref<Conn>, state: &mut State, is_left: bool) {
    let Some(port) = state.port.take() else {
        return;
    };
    let runner = port.switch.runner;
    let Removed { rx, cable, other } = port.take_out();
    if let Some(mut cable) = cable {
        cable.inn.discard();
        if is_left {
            cable.out.discard();
        }
        if std::mem::take(&mut cable.is_dark) {
            state.socket().set_carrier(true);
        }
        state.cable = Some(cable);
    }
    *lock(&conn.slot.place) = None;
    // While a handler has frames in hand, they lie in `state.rx`, which stays. (The port then has a
    // receiving part after a panic alone.)
    if let Some(rx) = rx.filter(|_| !state.delivering) {
        state.rx = rx;
    }
    if let Some(other) = other {
        runner.look(other);
    }
    conn.slot.sender.lock().unplug();
    leave_sending(conn, runner);
    report_leaving(conn, state);
    if state.life.has_ended() {
        close_handler::call_on_own_thread(conn, state, runner);
    }
    conn.slot.changed(state);
    // Dropped last, so that the loop has a thread for what is to be tried again.
    drop(port);
}

/// Has a port handler told that the connection has left its hub, if one is to be and has not been.
pub fn report_leaving(conn: Ref<Conn>, state: &mut State) {
    if state.leaving.as_mut().is_some_and(|leaving| !leaving.tell(conn.token)) {
        state.leaving = None;
    }
}

/// Leaves to the service thread what is unwritten, and an end that a write has met and the loop has not
/// read. Where the system refuses the thread, `runner` tries again.
fn leave_sending(conn: Ref<Conn>, runner: &Loop) {
    let tx = conn.slot.sender.lock();
    let is_left = tx.has_backlog() || tx.has_lost_peer();
    drop(tx);
    if is_left && !background::watch(conn) {
        runner.rest(conn.token);
    }
}
