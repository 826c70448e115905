//! The service thread's turn for a connection: whatever no caller waits for.

use std::time::Duration;

use rustix::event::PollFlags;

use crate::conn::{self, Conn, State, close_handler, end, receive, release};
use crate::runtime::event_loop::REST;
use crate::runtime::handle::{Ref, Token};
use crate::runtime::service::Wait;
use crate::sys::clock::Deadline;

/// How long to wait for a handler that was taken away, before the service thread looks again.
const AGAIN: Duration = Duration::from_millis(20);

/// Takes a connection's turn. Returns what is to be waited for before the next, or `None` where nothing is left to do.
pub fn turn(token: Token) -> Option<Wait> {
    let conn = conn::table().get(token).ok()?;
    let mut state = conn.state().ok()?;
    end_unless_by_hand(conn, &mut state);
    let is_retried = state.lacks_thread() && !close_handler::start_thread(conn, &mut state);
    let retry = if is_retried { Deadline::after(REST) } else { Deadline::Never };
    let (events, until) = match end::finish_turn(conn, &mut state) {
        Some((events, until)) => (events, until.sooner(retry)),
        None if is_retried => (PollFlags::empty(), retry),
        None if !state.life.has_ended() => match look_for_loss(conn, &mut state) {
            Some(again) => (PollFlags::empty(), again),
            None => conn.slot.sender.write_due()?,
        },
        None => {
            drop(state);
            release::give_back_if_over(conn);
            return None;
        }
    };
    // It may be another socket than when the turn began.
    Some(Wait { source: state.socket().clone(), events, until })
}

/// Does what `end_if_over` does, but on a clock of the program's: there an advance does, and calls the close
/// handler.
pub fn end_unless_by_hand(conn: Ref<Conn>, state: &mut State) {
    if state.port.as_ref().is_some_and(|port| !port.switch.runner.is_by_hand()) {
        end_if_over(conn, state);
    }
}

/// Ends a connection that is plugged in, if its loop has found that it is over. The state's lock is held.
pub fn end_if_over(conn: Ref<Conn>, state: &mut State) {
    let Some(port) = &state.port else {
        return;
    };
    let mut inside = port.switch.lock();
    let (is_cut, has_arrived) = (inside.is_cut(port.id), inside.has_arrived(port.id));
    let end = inside.outlet(port.id).end();
    drop(inside);
    if !has_arrived {
        // The loop comes back to it when it has.
        return;
    }
    if is_cut {
        let mut tx = conn.slot.sender.lock();
        tx.empty_inbox();
        let is_written = tx.write_backlog();
        drop(tx);
        if is_written {
            end::end_locally(conn, state);
        } else {
            // A caller has sent something since the loop has looked, which has this done again once that
            // is written.
            port.switch.runner.look(conn.token);
        }
    } else if let Some(end) = end {
        end::meet_end(conn, state, end);
    }
}

/// Looks at a connection of which a write has met the end: where nobody reads, it goes down by this,
/// unless frames wait. Returns when to look again, if that is needed.
fn look_for_loss(conn: Ref<Conn>, state: &mut State) -> Option<Deadline> {
    let is_down = state.redial.as_ref().is_some_and(|redial| redial.down.is_some());
    if !state.redials() || is_down || !conn.slot.sender.lock().has_lost_peer() {
        return None;
    }
    if state.delivering {
        return Some(Deadline::after(AGAIN));
    }
    receive::is_ready(conn, state, true);
    None
}
