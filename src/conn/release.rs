//! Letting a connection go: its handle, what it was made of, and its slot.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::capture::interface::Probes;
use crate::conn::life::Call;
use crate::conn::{self, Conn, State, background};
use crate::runtime::callback::Doing;
use crate::runtime::handle::{Ref, Token};
use crate::runtime::service;
use crate::runtime::wake::Departure;
use crate::tx::Tx;

/// What a connection was made of, which is closed once all threads that wait on it have left.
#[derive(Default)]
pub struct Released(SmallVec<[Departure; 3]>);

impl Released {
    /// Waits for that.
    pub fn wait(&self) {
        self.0.iter().for_each(Departure::wait);
    }
}

/// Gives the handle back if that is the library's to do and nothing of the connection goes on.
pub fn give_back_if_over(conn: Ref<Conn>) {
    let Ok(mut state) = conn.state() else {
        return;
    };
    if state.is_hubs && is_over(&state) && state.life.begin_closing() {
        drop(state);
        discard(conn);
    }
}

/// Whether nothing of the connection goes on. A port handler that is told of its leaving may still use the
/// handle.
pub fn is_over(state: &State) -> bool {
    let is_ended = state.finish.is_none() && state.life.call() == Some(Call::Done);
    is_ended && !state.delivering && state.leaving.is_none()
}

/// Lets go of all that the handle stands for. What is left is the connection's thread's, if it has one.
pub fn discard(conn: Ref<Conn>) {
    release(conn);
}

/// The same. Returns what a caller can wait for until everything is closed.
pub fn release(conn: Ref<Conn>) -> Released {
    let Ok(mut state) = conn.state() else {
        return Released::default();
    };
    let mut tx = conn.slot.sender.lock();
    state.life.give_up();
    conn.slot.changed(&state);
    *tx = Tx::default();
    drop(tx);
    conn.slot.rx_counts.probes.change(|probes| *probes = Probes::default());
    state.living = None;
    let released = let_go(&mut state);
    conn.slot.free_if_unused(state);
    released
}

/// Lets go of the sockets of a connection that is closed, of which its sending part has none any more, and
/// of the descriptor that followed them.
fn let_go(state: &mut State) -> Released {
    let absent = state.redial.as_mut().and_then(|redial| redial.close());
    let sockets = [state.socket.take(), absent];
    let shared = sockets.iter().flatten().filter(|socket| Arc::strong_count(socket) > 1);
    let replaced = state.replaced.take().filter(|replaced| !replaced.is_over());
    let left = shared.map(|socket| socket.departure()).chain(replaced);
    let released = Released(left.collect());
    if !released.0.is_empty() {
        // The service thread may be waiting on one of them; all other threads have been woken.
        service::look();
    }
    released
}

/// Puts right what a callback has left undone that has ended its thread, and gives back what that thread
/// would have. The slot may be another connection's by now.
pub fn put_right(token: Token, doing: Doing, mend: impl FnOnce(Ref<Conn>, &mut State)) {
    let Ok(conn) = conn::table().get(token) else {
        return;
    };
    let mut state = conn.slot.state_of_own();
    if state.token != token {
        return;
    }
    mend(conn, &mut state);
    if state.lacks_thread() {
        // The service thread tries again.
        background::watch(conn);
    }
    conn.slot.changed(&state);
    conn.slot.free_if_unused(state);
    match doing {
        Doing::ClosersClose => discard(conn),
        _ => give_back_if_over(conn),
    }
}
