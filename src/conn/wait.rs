//! Waiting for a connection's end, and looking for it.

use rustix::event::PollFlags;

use crate::conn::life::Call;
use crate::conn::{Conn, receive};
use crate::error::{Error, Result};
use crate::runtime::callback;
use crate::runtime::handle::Ref;
use crate::runtime::wake::PollFds;
use crate::sys::clock::Deadline;

/// Waits until the connection has ended and, where it has a handler, its close handler has
/// returned.
pub fn wait(conn: Ref<Conn>, timeout_ms: i32) -> Result<()> {
    let mut deadline = None;
    loop {
        let mut state = match conn.state() {
            // It went while this call was waiting, so it has ended.
            Err(_) if deadline.is_some() => return Ok(()),
            state => state?,
        };
        let deadline = match deadline {
            Some(deadline) => deadline,
            None => *deadline.insert(Deadline::from_timeout(timeout_ms)?),
        };
        if callback::inside_of(conn.token) {
            return Err(Error::Busy("the call would wait for its own handler"));
        }
        let socket = state.socket().clone();
        let epoch = socket.wake.epoch();
        let is_handled = state.handler.is_some() || state.port.is_some();
        match state.life.call() {
            Some(Call::Done) => return Ok(()),
            Some(Call::Waiting | Call::OnCallers) if !is_handled => return Ok(()),
            _ => {}
        }
        let is_ended = state.life.has_ended();
        let mut is_left = false;
        if !is_handled && !is_ended && (state.rx.has_found_end() || socket.peer_has_left()) {
            if !state.redials() {
                receive::look_for_end(conn, &mut state);
                return Ok(());
            }
            // It is down with this, or will be when the frames that wait have been received.
            receive::is_ready(conn, &mut state);
            is_left = true;
        }
        drop(state);
        if deadline.passed() {
            return Err(deadline.error());
        }
        if is_handled || is_ended || is_left || !socket.ends() {
            socket.wake.wait_fds(epoch, PollFds::new(), deadline)?;
        } else {
            socket.wake.wait_fd(epoch, socket.fd(), PollFlags::RDHUP, deadline)?;
        }
    }
}
