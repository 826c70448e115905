//! Closing a connection: by its owner, or by the library where the handle is its own.

use crate::conn::close_handler::{self, CloseCall};
use crate::conn::life::Call;
use crate::conn::{Conn, State, end, release};
use crate::error::{Error, Result};
use crate::runtime::callback::Doing;
use crate::runtime::handle::Ref;
use crate::runtime::service::Source;
use crate::runtime::wake::Departure;

/// Ends the connection without waiting.
pub fn shutdown(conn: Ref<Conn>) -> Result<()> {
    end::end_locally(conn, &mut *conn.state()?);
    release::give_back_if_over(conn);
    Ok(())
}

/// A connection whose handle is the library's to give back, at any time once it has ended, unless it is
/// detached.
pub struct Own {
    pub conn: Ref<Conn>,
    /// Tells when its descriptor is closed.
    departure: Departure,
}

impl Own {
    /// `None` where the handle has been given back.
    pub fn of(conn: Ref<Conn>) -> Option<Own> {
        let departure = conn.state().ok()?.socket().departure();
        Some(Own { conn, departure })
    }

    /// Closes it, which has ended: waits, as [`close`] does, for what still runs of it, and until its
    /// descriptor is closed.
    pub fn close(self) {
        if wait_until_given_back(self.conn) {
            self.departure.wait();
        }
    }
}

/// Waits until its handle has been given back. Returns whether it has: not where that is left to others.
fn wait_until_given_back(conn: Ref<Conn>) -> bool {
    loop {
        release::give_back_if_over(conn);
        let Ok(mut state) = conn.state() else {
            return true;
        };
        if state.is_hubs && release::is_over(&state) && state.life.is_closing() {
            // Another thread is about to give it back.
            State::wait_change(state);
            continue;
        }
        let waits = state.waits_for_handlers();
        let is_called =
            !state.life.call().is_none_or(|call| matches!(call, Call::Waiting | Call::Done));
        if !state.is_hubs || state.finish.is_none() && !is_called && state.leaving.is_none() {
            // It has been detached, and is a caller's to close; or nobody has begun to call its close
            // handler, which a caller that closes it does.
            return false;
        }
        if state.finish.is_none() && !waits {
            // The thread that calls the close handler goes on without the handle.
            let is_ours = !state.lacks_thread() && state.life.begin_closing();
            drop(state);
            if is_ours {
                release::discard(conn);
            }
            return is_ours;
        }
        State::wait_change(state);
    }
}

/// The first half of closing: ends the connection, writes and drains, and waits for handlers that still
/// run. The caller runs what is returned, and then calls [`release::release`].
pub fn close(conn: Ref<Conn>) -> Result<Option<CloseCall>> {
    let mut state = conn.state()?;
    if !state.life.begin_closing() {
        return Err(Error::Handle);
    }
    end::end_locally(conn, &mut state);
    while let Some((events, until)) = end::finish_turn(conn, &mut state) {
        let socket = state.socket().clone();
        let epoch = socket.wake.epoch();
        drop(state);
        // A signal does not end a close.
        let _ = socket.wake.wait_fd(epoch, socket.fd_for(events), events, until);
        state = conn.state()?;
    }
    let waits = state.waits_for_handlers();
    loop {
        let call = close_handler::due(conn, &mut state, Doing::ClosersClose);
        if call.is_some()
            || !waits
            || (state.life.call() == Some(Call::Done) && !state.delivering && !state.is_telling())
        {
            return Ok(call);
        }
        State::wait_change(state);
        state = conn.state()?;
    }
}
