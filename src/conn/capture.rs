//! Capturing a connection.

use std::sync::atomic::Ordering;

use crate::capture::interface::Interface;
use crate::capture::{Capture, Numbered, check_name};
use crate::conn::{Conn, State, may_deliver};
use crate::error::Result;
use crate::runtime::handle::Ref;

/// Has a capture record what comes in and goes out, from now on.
pub fn add(capture: Ref<Capture>, conn: Ref<Conn>, name: Option<&[u8]>) -> Result<()> {
    let mut captured = capture.state()?;
    let mut state = conn.state()?;
    check_name(name)?;
    if let Some(end) = state.life.end_reason() {
        return Err(end.clone());
    }
    let peer = state.socket().peer().to_bytes();
    let interface = captured.add(conn.token, name, peer, Numbered::Conn)?;
    conn.slot.rx_counts.probes.change(|probes| probes.add(&interface));
    conn.slot.sender.lock().probes.add(&interface);
    look_again(conn, &mut state);
    Ok(())
}

pub fn remove(capture: Ref<Capture>, conn: Ref<Conn>) -> Result<()> {
    let mut captured = capture.state()?;
    conn.check()?;
    let interface = captured.remove(conn.token)?;
    take_out(conn, &interface);
    Ok(())
}

/// Has a connection recorded no more by that, if it is not gone.
pub fn take_out(conn: Ref<Conn>, interface: &Interface) {
    let Ok(mut state) = conn.state() else {
        return;
    };
    conn.slot.rx_counts.probes.change(|probes| probes.remove(interface));
    conn.slot.sender.lock().probes.remove(interface);
    look_again(conn, &mut state);
}

/// Has those who receive take another path where they are to.
fn look_again(conn: Ref<Conn>, state: &mut State) {
    state.is_captured = conn.slot.rx_counts.probes.is_any();
    may_deliver(conn.token).store(false, Ordering::Release);
}
