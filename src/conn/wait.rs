//! Waiting for a connection's end.

use rustix::event::PollFlags;

use crate::conn::life::Call;
use crate::conn::{Conn, State, receive};
use crate::error::{Error, Result};
use crate::net::socket::Socket;
use crate::runtime::callback;
use crate::runtime::handle::Ref;
use crate::runtime::wait::{self, Tried};
use crate::sys::clock::Deadline;

/// Waits until the connection has ended and, where it has a handler, its close handler has
/// returned.
pub fn wait(conn: Ref<Conn>, timeout_ms: i32) -> Result<()> {
    let deadline = Deadline::from_timeout(timeout_ms)?;
    let look = || {
        let mut state = conn.state()?;
        let socket = state.socket().clone();
        let epoch = socket.wake.epoch();
        let events = events_until_over(conn, &mut state, &socket)?;
        Ok(events.map_or(Tried::Done(()), |events| Tried::Pending((socket, epoch, events))))
    };
    let waited = wait::until(
        look,
        |_| deadline,
        |(socket, epoch, events), until| socket.wake.wait_fd(epoch, socket.fd(), events, until),
    );
    match waited {
        // The handle was closed while this call was waiting, so the connection has ended.
        Err(Error::Closed) => Ok(()),
        waited => waited,
    }
}

/// The events of the socket that may mean that the connection is over, beside a change that is told; `None`
/// where it is over.
fn events_until_over(
    conn: Ref<Conn>,
    state: &mut State,
    socket: &Socket,
) -> Result<Option<PollFlags>> {
    if callback::inside_of(conn.token) {
        return Err(Error::Busy("the call would wait for its own handler"));
    }
    let is_handled = state.handler.is_some() || state.port.is_some();
    match state.life.call() {
        Some(Call::Done) => return Ok(None),
        Some(Call::Waiting | Call::OnCallers) if !is_handled => return Ok(None),
        _ => {}
    }
    if is_handled || state.life.has_ended() {
        return Ok(Some(PollFlags::empty()));
    }
    if !state.delivering {
        // This finds a length that no frame has, where the fast path of receiving has not looked.
        state.rx.has_frame(&conn.slot.rx_counts);
    }
    if state.rx.has_found_end() || socket.peer_has_left() {
        if !state.redials() {
            receive::look_for_end(conn, state);
            return Ok(None);
        }
        // This takes it down, unless frames wait: then receiving them does.
        receive::is_ready(conn, state, true);
        return Ok(Some(PollFlags::empty()));
    }
    Ok(Some(if socket.ends() { PollFlags::RDHUP } else { PollFlags::empty() }))
}
