//! The state handler of a connection that is dialled again: told what the connection does, in order and
//! one call at a time. Each call has a thread of its own, so that it may take as long as it likes.

use crate::conn::background::dialler;
use crate::conn::dialled::{Carrier, Redial, Teller};
use crate::conn::life::Call;
use crate::conn::{Conn, State, background, end, handler, release};
use crate::error::{Error, Result};
use crate::runtime::callback::{self, Doing, IntHandler};
use crate::runtime::handle::{Ref, Token};
use crate::sys::thread;

/// Sets what is called when the connection has gone down or come up, or nothing. Where this thread may
/// wait for handlers, it returns when the handler before is not running and never will again.
pub fn set_state_handler(conn: Ref<Conn>, handler: Option<IntHandler>) -> Result<()> {
    let mut state = conn.state()?;
    let redial = state.redial.as_mut();
    let redial = redial.ok_or(Error::Unsupported("the connection was not dialled"))?;
    let carrier = &mut redial.carrier;
    carrier.handler = handler;
    carrier.is_handler_new = true;
    let calls = carrier.calls;
    let is_before = |redial: &Redial| redial.carrier.is_telling() && redial.carrier.calls == calls;
    conn.slot.wait_for_handlers(state, |state| state.redial.as_deref().is_some_and(is_before));
    Ok(())
}

/// Has the handler called, if there is one. Returns `false` where the system refuses the thread.
pub fn tell(carrier: &mut Carrier, conn: Ref<Conn>, up: bool) -> bool {
    if carrier.handler.is_none() {
        return true;
    }
    let is_started = thread::spawn(c"qnet-state", move || run(conn, up)).is_ok();
    if is_started {
        carrier.teller = Teller::Starting;
    }
    is_started
}

/// Begins a call, on the thread that was started for it. Returns the handler, if there still is one.
fn begin_telling(conn: Ref<Conn>) -> Option<IntHandler> {
    let mut state = conn.state().ok()?;
    let is_ended = state.life.has_ended();
    let carrier = &mut state.redial.as_mut()?.carrier;
    carrier.teller = Teller::None;
    let Some(handler) = carrier.handler.filter(|_| !is_ended) else {
        dialler().look(conn.token);
        return None;
    };
    carrier.teller = Teller::Calling;
    carrier.is_handler_new = false;
    carrier.calls += 1;
    Some(handler)
}

/// Ends a call, whose handler has returned. Returns whether the thread is to go on as the connection's own.
fn told(conn: Ref<Conn>) -> bool {
    let mut state = conn.slot.state_of_own();
    stop_telling(conn, &mut state);
    let goes_on = leaves_close_handler(conn, &state);
    state.thread |= goes_on;
    conn.slot.changed(&state);
    conn.slot.free_if_unused(state);
    goes_on
}

/// Puts right that the state handler has ended its thread. The connection has none any more, unless another
/// was set meanwhile.
fn died(token: Token, doing: Doing) {
    release::put_right(token, doing, |conn, state| {
        stop_telling(conn, state);
        let redial = state.redial.as_mut();
        if let Some(redial) = redial.filter(|redial| !redial.carrier.is_handler_new) {
            redial.carrier.handler = None;
        }
        if leaves_close_handler(conn, state) {
            state.thread = background::start_thread(conn).is_ok();
        }
    });
}

fn stop_telling(conn: Ref<Conn>, state: &mut State) {
    if let Some(redial) = &mut state.redial {
        redial.carrier.teller = Teller::None;
    }
    dialler().look(conn.token);
}

/// Whether the close handler waits for the state handler, with nobody else to call it.
fn leaves_close_handler(conn: Ref<Conn>, state: &State) -> bool {
    let waits = match state.life.call() {
        Some(Call::Waiting) => !state.is_of(conn.token),
        call => call == Some(Call::Due),
    };
    waits && !state.thread
}

/// The thread. Nothing with a destructor lives here across the callback, which may unwind past.
fn run(conn: Ref<Conn>, up: bool) {
    let Some(Some(handler)) = end::guarded(conn, "calls the state handler", || begin_telling(conn))
    else {
        return;
    };
    let is_same = callback::run(conn.token, Doing::State, died, || {
        handler.call(up.into());
    });
    if !is_same {
        return;
    }
    if end::guarded(conn, "calls the state handler", || told(conn)) == Some(true) {
        handler::run(conn);
    }
}
