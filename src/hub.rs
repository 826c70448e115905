//! Hubs: learning switches, what is attached to them, and listeners that they serve.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use crate::conn::{self, Conn};
use crate::error::{Error, Result};
use crate::handle::{Object, Ref, Token};
use crate::listener::Listener;
use crate::options::{self, Holder, Options};
use crate::process::{lock, process};
use crate::ring;
use crate::switch::{Kind, Switch};
use crate::table::Table;

/// How many connections that are gone a hub may remember at any time.
const FEW: usize = 16;

#[derive(Default)]
pub struct Hub {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Token,
    /// There while the handle is live.
    switch: Option<Arc<Switch>>,
    options: Options,
    /// Those that it serves; some may be closed.
    listeners: Vec<Ref<Listener>>,
    /// Connections that are the hub's own, with others among them that were and are gone.
    own: Vec<Ref<Conn>>,
    /// How many those may become before the ones that are gone are sorted out.
    most: usize,
}

impl Object for Hub {
    const KIND: u64 = 3;
}

/// The counters of a hub since it was created; see qnet_hub_get_stats().
///
/// Later releases only add members at the end of the struct.
#[allow(non_camel_case_types)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct qnet_hub_stats {
    /// How many connections are attached now. Those accepted by qnet_hub_serve() and the hub's own
    /// ends of qnet_hub_port() are included.
    pub ports: u64,
    /// How many addresses are known now.
    pub macs: u64,
    /// Frames sent to the single port behind which their destination is.
    pub forwarded: u64,
    /// Frames sent to every other port, because they are broadcast or multicast or their
    /// destination is unknown. Each frame counts once, however many ports it goes to.
    pub flooded: u64,
    /// Frames that were not sent to a port because its queue was full, because the frame was longer
    /// than its QNET_OPT_MAX_FRAME, or because its connection was down or ending; each of these is
    /// also counted in that connection's tx_dropped. Also frames whose destination is behind the
    /// port that they came from. A flooded frame counts once for each port that drops it.
    pub dropped: u64,
}

pub fn new() -> Result<Ref<Hub>> {
    let hub = process().hubs.take()?;
    let options = Options::default();
    let table = Table::new(options.mac_max(), options.mac_age());
    let kind = Kind::Hub { table, queue: options.queue_bytes(), is_closed: false };
    let mut state = lock(&hub.slot.state);
    *state =
        State { token: hub.token, switch: Some(Switch::new(kind)), options, ..State::default() };
    Ok(hub)
}

impl Ref<Hub> {
    fn state(self) -> Result<MutexGuard<'static, State>> {
        let state = lock(&self.slot.state);
        if state.token == self.token { Ok(state) } else { Err(Error::Handle) }
    }

    fn switch(self) -> Result<Arc<Switch>> {
        Ok(self.state()?.switch().clone())
    }

    /// Whether the handle is live.
    pub fn check(self) -> Result<()> {
        self.state().map(|_| ())
    }

    pub fn attach(self, conn: Ref<Conn>) -> Result<()> {
        self.attach_as(conn, false)
    }

    /// The same for a connection that is the hub's own to give back.
    fn attach_as(self, conn: Ref<Conn>, is_hubs: bool) -> Result<()> {
        let switch = self.switch()?;
        let _plugging = ring::check_attach(&switch, conn)?;
        let mut state = conn.state()?;
        if let Some(refusal) = state.refuses_plug("conn") {
            return Err(refusal);
        }
        conn.plug(&mut state, &switch)?;
        state.is_hubs = is_hubs;
        Ok(())
    }

    pub fn detach(self, conn: Ref<Conn>) -> Result<()> {
        let switch = self.switch()?;
        let mut state = conn.state()?;
        conn.unplug_from(&mut state, &switch)?;
        state.is_hubs = false;
        Ok(())
    }

    /// A connection whose other end is attached.
    pub fn port(self) -> Result<Ref<Conn>> {
        self.check()?;
        let (inner, outer) = conn::pair()?;
        self.adopt(inner).inspect_err(|_| outer.discard())?;
        Ok(outer)
    }

    /// Attaches a connection that nobody else knows.
    pub fn adopt(self, conn: Ref<Conn>) -> Result<()> {
        self.attach_as(conn, true).inspect_err(|_| conn.discard())?;
        // If there is none, the hub was closed since.
        if let Ok(mut state) = self.state() {
            state.add_own(conn);
        }
        Ok(())
    }

    /// Accepts from a listener, and attaches, from now on.
    pub fn serve(self, listener: Ref<Listener>) -> Result<()> {
        listener.serve(self, self.switch()?.runner)?;
        match self.state() {
            Ok(mut state) => {
                state.listeners.retain(|listener| listener.check().is_ok());
                state.listeners.push(listener);
            }
            // The hub was closed since, and closes what it serves. It may be closed already.
            Err(_) => _ = listener.close(),
        }
        Ok(())
    }

    pub fn ports(self) -> Result<Vec<Ref<Conn>>> {
        Ok(self.switch()?.lock().ports().collect())
    }

    pub fn stats(self) -> Result<qnet_hub_stats> {
        let switch = self.switch()?;
        let mut inside = switch.lock();
        let (counts, ports) = (inside.counts, inside.ports().len());
        let Kind::Hub { table, .. } = &mut inside.kind else {
            return Ok(qnet_hub_stats::default());
        };
        Ok(qnet_hub_stats {
            ports: ports as u64,
            macs: table.len(Instant::now()) as u64,
            forwarded: counts.forwarded,
            flooded: counts.flooded,
            dropped: counts.dropped,
        })
    }

    pub fn set(self, option: i32, value: i64) -> Result<()> {
        let mut state = self.state()?;
        state.options.set(option, value, Holder::Hub)?;
        let options = &state.options;
        if let Kind::Hub { table, queue, .. } = &mut state.switch().lock().kind {
            table.configure(options.mac_max(), options.mac_age());
            *queue = options.queue_bytes();
        }
        Ok(())
    }

    pub fn get(self, option: i32) -> Result<i64> {
        let state = self.state()?;
        options::check_known(option, Holder::Hub)?;
        Ok(state.options.get(option))
    }

    /// Detaches all, and closes what is the hub's own, all at a time.
    pub fn close(self) -> Result<()> {
        let State { switch, listeners, own, .. } = std::mem::take(&mut *self.state()?);
        let switch = switch.expect("a live hub has a switch");
        process().hubs.give_back(self.token);
        for listener in listeners {
            // It may be closed already.
            let _ = listener.close();
        }
        let ports = switch.lock().close();
        ports.iter().for_each(|conn| conn.leave_closed_hub(&switch));
        // Those that left before may still be in their close handlers.
        own.iter().chain(&ports).for_each(|conn| conn.close_own());
        Ok(())
    }
}

impl Ref<Conn> {
    /// Ends the hub's own connection, and detaches a caller's.
    fn leave_closed_hub(self, switch: &Arc<Switch>) {
        if let Ok(mut state) = self.state() {
            if state.is_hubs {
                self.end_locally(&mut state);
            } else {
                // It may have been detached meanwhile.
                let _ = self.unplug_from(&mut state, switch);
            }
        }
    }
}

impl State {
    fn switch(&self) -> &Arc<Switch> {
        self.switch.as_ref().expect("a live hub has a switch")
    }

    fn add_own(&mut self, conn: Ref<Conn>) {
        if self.own.len() >= self.most {
            // A loop does this, which waits for nobody: one whose state is held is asked next time.
            let may_live = |conn: &Ref<Conn>| {
                conn.slot.try_state().is_none_or(|state| state.is_of(conn.token))
            };
            self.own.retain(may_live);
            self.most = 2 * self.own.len() + FEW;
        }
        self.own.push(conn);
    }
}
