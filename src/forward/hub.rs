//! Hubs: learning switches, and the connections attached to them.

use std::sync::{Arc, Mutex};

use crate::capture::interface::Probes;
use crate::conn::{self, Conn, open, plug};
use crate::error::{Error, Result};
use crate::forward::clock::Clock;
use crate::forward::joining::Joining;
use crate::forward::ring;
use crate::forward::thread::choose_loop;
use crate::listener::Listener;
use crate::options::{self, Holder, Options};
use crate::runtime::event_loop::{Loop, LoopUser};
use crate::runtime::handle::{self, NONE, Object, Ref, Token};
use crate::runtime::lock::{Guard, Guarded, Lock, lock};
use crate::switch::rules::HubRules;
use crate::switch::ruling::Refused;
use crate::switch::table::Table;
use crate::switch::{Kind, Switch};

/// How many connections that are gone a hub may remember, at least.
const FEW: usize = 16;

/// How many hubs a process may have.
const MOST: usize = 1 << 16;

static HUBS: handle::Table<Hub, MOST> = handle::Table::new();

/// This process's hubs.
pub fn table() -> &'static handle::Table<Hub, MOST> {
    &HUBS
}

#[derive(Default)]
pub struct Hub {
    state: Lock<State>,
    pub joining: Mutex<Joining>,
}

#[derive(Default)]
pub struct State {
    token: Token,
    /// Present while the handle is live.
    pub switch: Option<Arc<Switch>>,
    options: Options,
    /// Present while it is on a clock of the program's, which this keeps from being closed.
    pub on_clock: Option<LoopUser>,
    /// The listeners that it serves, some of which may be closed.
    pub listeners: Vec<Ref<Listener>>,
    /// How many it is about to serve.
    beginning: usize,
    /// The hub's own connections, and some that are about to be, or were and are gone.
    pub own: Vec<Ref<Conn>>,
    /// How many those may be before the ones that are gone are sorted out.
    most: usize,
}

impl Guarded for State {}

impl Object for Hub {
    const KIND: u64 = 3;
    type State = State;

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    fn is_of(state: &State, token: Token) -> bool {
        state.token == token
    }
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
    /// than its QNET_OPT_MAX_FRAME, because its cable was pulled (QNET_OPT_LINK), or because its
    /// connection was down or ending; each of these is also counted in that connection's tx_dropped.
    /// Also frames whose destination is behind the port that they came from. A flooded frame counts
    /// once for each port that drops it, and a copy once for each mirror that does.
    pub dropped: u64,
    /// Frames that came from all ports (behind QNET_IN, see qnet_impair()). While no port drops what is
    /// flooded, mirrored or in flight to it, each is counted once in forwarded, flooded, dropped or one of
    /// the following that begin with refused_: for the first reason, in the order of mirrors
    /// (refused_isolated), refused_vlan, refused_group, refused_secure, refused_move, dropped,
    /// refused_isolated, refused_storm.
    pub received: u64,
    /// Frames that the VLANs of their port do not admit, and those for a single port that may not
    /// have them: it is not in their VLAN, or they would leave with a tag too many; see
    /// qnet_set_vlan().
    pub refused_vlan: u64,
    /// Frames to groups that are not forwarded (QNET_OPT_GROUP_FWD_MASK).
    pub refused_group: u64,
    /// Frames beyond those that may be flooded (QNET_OPT_STORM_FPS).
    pub refused_storm: u64,
    /// Frames from addresses that secure ports keep, or keep out (QNET_OPT_SECURE).
    pub refused_secure: u64,
    /// Frames from addresses that were heard at another port too lately (QNET_OPT_MOVE_MS).
    pub refused_move: u64,
    /// Frames between isolated ports (QNET_OPT_ISOLATED), and those from and for mirrors.
    pub refused_isolated: u64,
    /// Copies of frames that mirrors were sent (QNET_OPT_MIRROR).
    pub mirrored: u64,
    /// How many times a known address was heard at another port, and has moved there.
    pub moves: u64,
}

pub fn new() -> Result<Ref<Hub>> {
    let hub = table().take()?;
    let options = Options::default();
    let runner = choose_loop();
    let switch = Some(new_switch(&options, runner));
    *lock(&hub.slot.joining) = Joining::of(hub.token, runner);
    *hub.slot.state.lock() = State { token: hub.token, switch, options, ..State::default() };
    Ok(hub)
}

fn new_switch(options: &Options, runner: &'static Loop) -> Arc<Switch> {
    let table = Table::new(options.mac_max(), options.mac_age(), runner.now());
    let kind = Kind::Hub { table, queue: options.queue_bytes(), is_closed: false };
    let switch = Switch::new(kind, runner);
    switch.lock().set_hub_rules(HubRules::of(options));
    switch
}

/// Puts a hub on a clock of the program's, or back on the system's.
pub fn set_clock(hub: Ref<Hub>, clock: Option<Ref<Clock>>) -> Result<()> {
    hub.check()?;
    // Held, so that the clock is not closed before the hub is on it.
    let _open = clock.map(|clock| clock.state()).transpose()?;
    let mut state = hub.state()?;
    state.listeners.retain(|listener| listener.check().is_ok());
    let mut before = state.switch().lock();
    let is_serving = state.beginning > 0 || !state.listeners.is_empty();
    if is_serving || before.ports().len() > 0 {
        return Err(Error::Busy("something is attached to the hub, or served"));
    }
    let mut joining = lock(&hub.slot.joining);
    if joining.call.is_some() || joining.has_notices() {
        return Err(Error::Busy("the port handler is told of peers"));
    }
    let runner = clock.map_or_else(choose_loop, |clock| clock.slot.runner());
    let user = clock.map(|_| runner.join(NONE)).transpose()?;
    let switch = new_switch(&state.options, runner);
    let mut inside = switch.lock();
    (inside.counts, inside.probes) = (before.counts, std::mem::take(&mut before.probes));
    drop(inside);
    // Who is about to plug something in there finds the other.
    before.close();
    drop(before);
    joining.runner = Some(runner);
    (state.switch, state.on_clock) = (Some(switch), user);
    Ok(())
}

/// Changes what records the frames that a hub takes in.
pub fn change_probes(hub: Ref<Hub>, change: impl FnOnce(&mut Probes) -> Result<()>) -> Result<()> {
    // Held, so that the hub does not get another switch meanwhile.
    let state = hub.state()?;
    change(&mut state.switch().lock().probes)
}

/// Does something with a hub's switch, and again where it has got another meanwhile.
fn with_switch<R>(hub: Ref<Hub>, mut act: impl FnMut(&Arc<Switch>) -> Result<R>) -> Result<R> {
    loop {
        let before = switch(hub)?;
        match act(&before) {
            Err(Error::Handle) if !Arc::ptr_eq(&before, &switch(hub)?) => {}
            done => return done,
        }
    }
}

pub fn switch(hub: Ref<Hub>) -> Result<Arc<Switch>> {
    Ok(hub.state()?.switch().clone())
}

pub fn attach(hub: Ref<Hub>, conn: Ref<Conn>) -> Result<()> {
    with_switch(hub, |switch| {
        let _plugging = ring::check_attach(switch, conn)?;
        attach_to(switch, conn, &mut *conn.state()?, false)
    })
}

/// Attaches a connection, which the hub is to give back where `is_hubs`.
fn attach_to(
    switch: &Arc<Switch>,
    conn: Ref<Conn>,
    state: &mut conn::State,
    is_hubs: bool,
) -> Result<()> {
    if let Some(refusal) = state.refuses_plug("conn") {
        return Err(refusal);
    }
    plug::plug(conn, state, switch)?;
    state.is_hubs = is_hubs;
    Ok(())
}

pub fn detach(hub: Ref<Hub>, conn: Ref<Conn>) -> Result<()> {
    let switch = switch(hub)?;
    let mut state = conn.state()?;
    plug::unplug_from(conn, &mut state, &switch)?;
    state.is_hubs = false;
    Ok(())
}

/// A connection whose other end is attached, before anybody can reach that.
pub fn port(hub: Ref<Hub>) -> Result<Ref<Conn>> {
    let (_, outer) = with_switch(hub, |switch| {
        open::pair_with(|inner, state| {
            // Here the hub's state comes second: nobody who has that waits for a connection that nobody knows.
            hub.state()?.add_own(inner);
            attach_to(switch, inner, state, true)
        })
    })?;
    Ok(outer)
}

/// Attaches a connection that the hub is to give back. It is remembered before: once it is attached it may end, and
/// who closes the hub has to wait for its handlers.
pub fn attach_own(hub: Ref<Hub>, conn: Ref<Conn>) -> Result<()> {
    hub.state()?.add_own(conn);
    with_switch(hub, |switch| attach_to(switch, conn, &mut *conn.state()?, true))
}

/// What is to accept from a listener. The hub keeps its clock until `end_serving`.
pub fn begin_serving(hub: Ref<Hub>) -> Result<&'static Loop> {
    let mut state = hub.state()?;
    state.beginning += 1;
    Ok(state.switch().runner)
}

/// Remembers a listener, if the hub serves it now.
pub fn end_serving(hub: Ref<Hub>, listener: Option<Ref<Listener>>) -> Result<()> {
    let mut state = hub.state()?;
    state.beginning -= 1;
    state.listeners.retain(|listener| listener.check().is_ok());
    state.listeners.extend(listener);
    Ok(())
}

pub fn ports(hub: Ref<Hub>) -> Result<Vec<Ref<Conn>>> {
    Ok(connections(switch(hub)?.lock().ports()))
}

pub fn stats(hub: Ref<Hub>) -> Result<qnet_hub_stats> {
    let switch = switch(hub)?;
    let mut inside = switch.lock();
    let (counts, ports) = (inside.counts, inside.ports().len());
    let Kind::Hub { table, .. } = &mut inside.kind else {
        return Ok(qnet_hub_stats::default());
    };
    let refused = |why: Refused| counts.refused[why as usize];
    Ok(qnet_hub_stats {
        ports: ports as u64,
        macs: table.len(table.time(switch.runner.now())) as u64,
        forwarded: counts.forwarded,
        flooded: counts.flooded,
        dropped: counts.dropped,
        received: counts.received,
        refused_vlan: refused(Refused::Vlan),
        refused_group: refused(Refused::Group),
        refused_storm: refused(Refused::Storm),
        refused_secure: refused(Refused::Secure),
        refused_move: refused(Refused::Move),
        refused_isolated: refused(Refused::Isolated),
        mirrored: counts.mirrored,
        moves: counts.moves,
    })
}

pub fn set(hub: Ref<Hub>, option: i32, value: i64) -> Result<()> {
    let mut state = hub.state()?;
    state.options.set(option, value, Holder::Hub)?;
    let options = &state.options;
    let mut inside = state.switch().lock();
    if let Kind::Hub { table, queue, .. } = &mut inside.kind {
        table.configure(options.mac_max(), options.mac_age());
        *queue = options.queue_bytes();
    }
    inside.set_hub_rules(HubRules::of(options));
    Ok(())
}

pub fn get(hub: Ref<Hub>, option: i32) -> Result<i64> {
    let state = hub.state()?;
    options::check_known(option, Holder::Hub)?;
    Ok(state.options.get(option))
}

/// The connections of some tokens.
pub fn connections(tokens: impl Iterator<Item = Token>) -> Vec<Ref<Conn>> {
    tokens.filter_map(|token| conn::table().get(token).ok()).collect()
}

impl State {
    fn switch(&self) -> &Arc<Switch> {
        self.switch.as_ref().expect("a live hub has a switch")
    }

    fn add_own(&mut self, conn: Ref<Conn>) {
        if self.own.len() >= self.most {
            // A loop does this, which waits for no lock: a connection whose state is held may live.
            let may_live = |conn: &Ref<Conn>| {
                conn.slot.try_state().is_none_or(|state| state.is_of(conn.token))
            };
            self.own.retain(may_live);
            self.most = 2 * self.own.len() + FEW;
        }
        self.own.push(conn);
    }
}
