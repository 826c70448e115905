//! Rings, in which frames would go round inside the process for ever: they are refused.
//!
//! A connection that the library made as one of a pair leads to the other, its twin, and a link leads from
//! one connection to another. So there is one way from each connection, and it ends at a connection that
//! is not plugged in, at a hub, or outside the process.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::conn::{self, Conn};
use crate::error::{Error, Result};
use crate::runtime::handle::Ref;
use crate::runtime::lock::lock;
use crate::switch::Switch;
use crate::sys::fork::PerProcess;

static PLUGGING: PerProcess<Mutex<()>> = PerProcess::new();

/// Held while something is plugged in that could close a ring, and locked before any other lock: where two
/// calls would close a ring together, the second sees what the first has done. Taking something out closes
/// none, and needs no lock.
pub type Plugging = MutexGuard<'static, ()>;

/// Where the way from a connection ends.
enum End {
    Loose(Ref<Conn>),
    Hub(Arc<Switch>),
    Outside,
}

/// Refuses a link that would close a ring, or lead from a hub to itself.
pub fn check_link(a: Ref<Conn>, b: Ref<Conn>) -> Result<Option<Plugging>> {
    if twin(a).is_none() || twin(b).is_none() {
        return Ok(None);
    }
    let plugging = lock(PLUGGING.get());
    match (follow_twin(a), follow_twin(b)) {
        (End::Loose(end), _) if end.token == b.token => {
            Err(Error::invalid("frames would go round: one leads to the other already"))
        }
        (End::Hub(one), End::Hub(other)) if Arc::ptr_eq(&one, &other) => {
            Err(Error::invalid("frames would go round: both lead to the same hub"))
        }
        _ => Ok(Some(plugging)),
    }
}

/// Refuses to attach a connection that leads to the same hub.
pub fn check_attach(hub: &Arc<Switch>, conn: Ref<Conn>) -> Result<Option<Plugging>> {
    if twin(conn).is_none() {
        return Ok(None);
    }
    let plugging = lock(PLUGGING.get());
    match follow_twin(conn) {
        End::Hub(other) if Arc::ptr_eq(hub, &other) => {
            Err(Error::invalid("frames would go round: the connection leads to this hub"))
        }
        _ => Ok(Some(plugging)),
    }
}

fn twin(conn: Ref<Conn>) -> Option<Ref<Conn>> {
    conn.state().ok()?.twin()
}

/// Follows the way that begins at the twin. It ends somewhere, since there is no ring yet.
fn follow_twin(mut conn: Ref<Conn>) -> End {
    loop {
        let Some(twin) = twin(conn) else {
            return End::Outside;
        };
        let Ok(state) = twin.state() else {
            return End::Outside;
        };
        let Some(port) = &state.port else {
            return End::Loose(twin);
        };
        if !port.switch.is_link() {
            return End::Hub(port.switch.clone());
        }
        match port.other_side().and_then(|other| conn::table().get(other).ok()) {
            Some(next) => conn = next,
            // The link is being taken out, or its other side has ended and this one stays.
            None => return End::Loose(twin),
        }
    }
}
