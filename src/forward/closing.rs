//! Closing a hub.

use std::sync::Arc;

use crate::conn::close::Own;
use crate::conn::close_handler;
use crate::conn::{Conn, end, plug};
use crate::error::Result;
use crate::forward::hub::{self, Hub};
use crate::forward::joining::Notice;
use crate::forward::served::{self, Call};
use crate::listener;
use crate::runtime::callback::Doing;
use crate::runtime::handle::Ref;
use crate::runtime::lock::lock;
use crate::switch::Switch;

/// What is left of a hub that is closed: its own connections, which have ended, and what its port handler is
/// to be told.
#[derive(Default)]
pub struct Closing {
    hub: Option<Ref<Hub>>,
    own: Vec<Own>,
    /// Whether the caller calls the handlers.
    is_callers: bool,
}

impl Closing {
    /// The call of a handler that the caller is to make next.
    pub fn next_call(&self) -> Option<Call> {
        let hub = self.hub.filter(|_| self.is_callers)?;
        // Another thread may be making one, or ending a connection.
        served::wait_while(hub, |joining| {
            joining.call.is_some() || joining.present > 0 && !joining.has_notices()
        });
        if let Some(call) = served::next_call(hub) {
            return Some(Call::Port(call));
        }
        self.own.iter().find_map(|own| {
            let mut state = own.conn.state().ok().filter(|state| state.is_hubs)?;
            close_handler::due(own.conn, &mut state, Doing::CallersClose).map(Call::Close)
        })
    }

    /// Closes the connections, and waits until all has been told.
    pub fn finish(self) {
        let Some(hub) = self.hub else {
            return;
        };
        // Then the peer has ended of which it was told.
        served::wait_while(hub, |joining| joining.call.is_some_and(|notice| notice.has_come()));
        // Those that left before may still be in their close handlers.
        self.own.into_iter().for_each(Own::close);
        served::wait_while(hub, |_| true);
    }
}

/// Detaches all connections, and ends the hub's own, all at the same time.
pub fn close(hub: Ref<Hub>) -> Result<Closing> {
    let hub::State { switch, listeners, mut own, on_clock, .. } =
        std::mem::take(&mut *hub.state()?);
    let switch = switch.expect("a live hub has a switch");
    for listener in listeners {
        // It may be closed already.
        let _ = listener::close(listener);
    }
    let mut joining = lock(&hub.slot.joining);
    let waiting = joining.close();
    // One of which the handler is being told ends when that has returned.
    own.extend(joining.call.map(Notice::conn));
    drop(joining);
    let ports = hub::connections(switch.lock().close().into_iter());
    // Noted before they end: then others may give them back before this thread looks at them again.
    let of_hub = |conn: &&Ref<Conn>| conn.state().is_ok_and(|state| state.is_hubs);
    let all = own.iter().chain(&waiting).chain(ports.iter().filter(of_hub));
    let own = all.filter_map(|conn| Own::of(*conn)).collect();
    waiting.iter().for_each(|conn| served::hang_up(*conn));
    ports.iter().for_each(|conn| leave_closed_hub(*conn, &switch));
    served::free_if_over(hub, lock(&hub.slot.joining));
    Ok(Closing { hub: Some(hub), own, is_callers: on_clock.is_some() })
}

/// Ends the hub's own connection, and detaches a caller's.
fn leave_closed_hub(conn: Ref<Conn>, switch: &Arc<Switch>) {
    if let Ok(mut state) = conn.state() {
        if state.is_hubs {
            end::end_locally(conn, &mut state);
        } else {
            // It may have been detached meanwhile.
            let _ = plug::unplug_from(conn, &mut state, switch);
        }
    }
}
