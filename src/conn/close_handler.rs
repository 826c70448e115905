//! The close handler, where a thread of the caller's calls it, or the connection was plugged in and gets a
//! thread for it. (A connection with a frame handler has one: see `handler`.)

use std::ffi::c_int;

use crate::conn::life::Call;
use crate::conn::{Conn, State, background, release};
use crate::error::{Error, Result};
use crate::runtime::callback::{self, Doing, IntHandler};
use crate::runtime::event_loop::Loop;
use crate::runtime::handle::{Ref, Token};

/// A close handler that is due. Whoever holds this must run it, once.
#[derive(Clone, Copy)]
#[must_use]
pub struct CloseCall {
    conn: Ref<Conn>,
    handler: IntHandler,
    code: c_int,
    /// What the thread that runs it is doing.
    doing: Doing,
}

impl CloseCall {
    /// Calls it on this thread of the caller's. Returns as [`callback::run`] does; where that is true,
    /// `returned` must follow.
    #[must_use]
    pub fn run(self) -> bool {
        callback::run(self.conn.token, self.doing, died, || self.handler.call(self.code))
    }

    /// Notes that it has returned. It may have closed the connection, and the slot may be another's.
    pub fn returned(self) {
        if self.doing == Doing::LateClose {
            return;
        }
        let mut state = self.conn.slot.state_of_own();
        if state.token == self.conn.token {
            state.life.done();
            self.conn.slot.changed(&state);
            drop(state);
            release::give_back_if_over(self.conn);
        }
    }
}

/// Notes that it has ended its thread, inside a call of the caller's.
fn died(token: Token, doing: Doing) {
    if doing != Doing::LateClose {
        release::put_right(token, doing, |_, state| state.life.done());
    }
}

/// Sets what is called when the connection has ended. Where it already has, the handler is returned, to be
/// run by the caller.
pub fn set(conn: Ref<Conn>, handler: Option<IntHandler>) -> Result<Option<CloseCall>> {
    let mut state = conn.state()?;
    if !state.life.has_ended() || state.life.awaits_call() {
        state.close_handler = handler;
        return Ok(due(conn, &mut state, Doing::CallersClose));
    }
    let code = state.life.end_reason().map_or(0, Error::code);
    let doing = Doing::LateClose;
    Ok(handler.map(|handler| CloseCall { conn, handler, code, doing }))
}

/// The close handler, if this thread is to run it: the connection has ended, has no frame handler whose
/// thread will run it, and no handler of any kind that is running on another thread. `doing` tells a close
/// from all other calls.
pub fn due(conn: Ref<Conn>, state: &mut State, doing: Doing) -> Option<CloseCall> {
    let code = state.life.end_reason()?.code();
    let is_threads = state.handler.is_some()
        || state.delivering && !callback::delivers(conn.token)
        || state.is_telling() && !callback::tells(conn.token);
    let is_free = state.life.call() == Some(Call::Waiting) || state.lacks_thread();
    if is_threads || !is_free {
        return None;
    }
    let call = state.close_handler.map(|handler| CloseCall { conn, handler, code, doing });
    match call {
        Some(_) => state.life.take_over(Call::OnCallers),
        None => state.life.done(),
    }
    call
}

/// Has the close handler called on a thread of the connection's own, unless the program gives the turns. Where the system refuses the thread,
/// `runner` tries again.
pub fn call_on_own_thread(conn: Ref<Conn>, state: &mut State, runner: &Loop) {
    if state.life.call() != Some(Call::Waiting) && !state.lacks_thread() {
        return;
    }
    if state.close_handler.is_none() {
        state.life.done();
        return;
    }
    if runner.is_by_hand() {
        // The thread that meets or makes the end calls it.
        return;
    }
    state.life.defer();
    if !start_thread(conn, state) {
        runner.rest(conn.token);
    }
}

/// Starts the thread that a close handler waits for. Returns whether there is one.
pub fn start_thread(conn: Ref<Conn>, state: &mut State) -> bool {
    state.thread = state.thread || background::start_thread(conn).is_ok();
    state.thread
}
