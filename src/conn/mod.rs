//! A connection: a layer-2 device that frames go into and come out of.
//!
//! A connection lives in a slot that is used again, in three parts: the state that decides what happens,
//! what sending needs, and counters. The state is locked before the sending part. No lock is held while a
//! callback runs, a thread waits, or a name is looked up.
//!
//! `life` has the table of states. A connection that is dialled again goes down where it would end, and
//! stays open.

pub mod background;
pub mod capture;
pub mod carrier;
pub mod close;
pub mod close_handler;
pub mod dialled;
pub mod down;
pub mod end;
pub mod finish;
#[allow(unsafe_code)]
pub mod handler;
pub mod impair;
pub mod info;
pub mod leaving;
pub mod life;
pub mod living;
pub mod open;
pub mod plug;
pub mod poll;
pub mod receive;
pub mod redial;
pub mod release;
pub mod rules;
pub mod send;
pub mod service;
pub mod wait;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use smallvec::SmallVec;

use crate::conn::dialled::Redial;
use crate::conn::finish::Finish;
use crate::conn::leaving::Leaving;
use crate::conn::life::{Call, Life};
use crate::conn::living::Living;
use crate::error::Error;
use crate::net::socket::Socket;
use crate::options::Options;
use crate::runtime::callback::{self, IntHandler};
use crate::runtime::handle::{Object, Ref, SLOTS, Table, Token, index_of};
use crate::runtime::lock::{Guard, Guarded, Lock, NO_KEY};
use crate::runtime::onward::Onward;
use crate::runtime::wake::{Departure, Wake};
use crate::rx::Rx;
use crate::rx::counts::{Counter, RxCounts};
use crate::switch::cable::Cable;
use crate::switch::port::Port;
use crate::switch::vlan::Vlan;
use crate::sys::fork::Wiped;
use crate::tx::sender::Sender;

static CONNS: Table<Conn> = Table::new();

/// This process's connections.
#[inline]
pub fn table() -> &'static Table<Conn> {
    &CONNS
}

/// Whether the delivering thread of a connection may go on to its next frame. Whoever changes what that
/// thread has to look at takes this back; it is read under the state's lock then. A child that is forked
/// inside the handler finds it taken back, and hands over no more frames.
static MAY_DELIVER: Wiped<[AtomicBool; SLOTS]> = Wiped::flags();

/// Prepares that, for a delivering thread.
pub fn wipe_on_fork() {
    MAY_DELIVER.wipe_on_fork();
}

#[inline]
pub fn may_deliver(token: Token) -> &'static AtomicBool {
    MAY_DELIVER.flag(index_of(token))
}

/// Why an attached or linked connection cannot be received from.
pub const PLUGGED: Error = Error::Busy("the connection is attached or linked");

#[derive(Default)]
pub struct Conn {
    state: Lock<State>,
    pub sender: Sender,
    /// The port that the connection is plugged in at, for the loop, which does not wait for the state.
    /// It changes under the state's lock.
    pub place: Mutex<Option<Arc<Port>>>,
    pub rx_counts: RxCounts,
    /// How many bytes of the delivery under way have been handed over. The delivering thread alone
    /// writes it; other threads read it once that thread has told, under the state's lock, that it is
    /// done.
    pub delivered: Counter,
    /// Those of its frames that are sent on. Boxed, since most connections have no handler.
    pub onward: OnceLock<Box<Onward>>,
}

/// What decides what happens to a connection.
#[derive(Default)]
pub struct State {
    /// The token of the connection that the slot stands for, until the slot is free.
    pub token: Token,
    pub life: Life,
    /// Present until the handle is gone.
    pub socket: Option<Arc<Socket>>,
    /// The socket before that, which may not be closed yet.
    pub replaced: Option<Departure>,
    /// What dialling again takes, where the connection was dialled.
    pub redial: Option<Box<Redial>>,
    pub options: Options,
    pub hwaddr: [u8; 6],
    pub rx: Rx,
    /// The writing and draining that ending has left to do. Boxed, since most connections have none.
    pub finish: Option<Box<Finish>>,
    /// The frame handler. While there is one, nobody else receives.
    pub handler: Option<callback::Handler>,
    /// Whether the connection has a thread, which calls the handlers.
    pub thread: bool,
    /// Whether that thread is handing over frames, which lie in `rx`, and how often it has begun to.
    pub delivering: bool,
    pub deliveries: u64,
    /// Whether the handler was set after the delivery under way had begun.
    pub is_handler_new: bool,
    pub close_handler: Option<IntHandler>,
    /// The other end, where that is a connection as well: one of a pair that the library has made. Else NONE.
    pub twin: Token,
    /// The port that it is plugged in at, while it is attached or linked: its loop receives then.
    pub port: Option<Arc<Port>>,
    /// What is set on its cable, if anything ever was, while it is not plugged in.
    pub cable: Option<Box<Cable>>,
    /// Its VLANs as the port of a hub.
    pub vlan: Option<Arc<Vlan>>,
    /// Whether the connection is a hub's, not a caller's: the library then closes it when it is over.
    pub is_hubs: bool,
    /// Present while a hub's port handler is to be told that it leaves. Boxed, since most have none.
    pub leaving: Option<Box<Leaving>>,
    /// The listener's count of its living connections.
    pub living: Option<Living>,
    /// Whether a capture has the connection: then receiving takes no fast path.
    pub is_captured: bool,
    /// What wakes the calls of `poll` that wait for it.
    pub pollers: SmallVec<[Arc<Wake>; 1]>,
}

impl Object for Conn {
    const KIND: u64 = 1;
    type State = State;

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    fn is_of(state: &State, token: Token) -> bool {
        state.is_of(token)
    }
}

impl Guarded for State {
    fn key(&self) -> u64 {
        let is_pulled = self.handler.is_none() && self.port.is_none() && !self.delivering;
        let is_open = self.life.has_handle() && !self.life.has_ended() && !self.is_captured;
        if is_open && is_pulled && !self.rx.lends() { self.token } else { NO_KEY }
    }
}

impl State {
    /// The socket of a connection whose handle is live.
    pub fn socket(&self) -> &Arc<Socket> {
        self.socket.as_ref().expect("a live connection has a socket")
    }

    /// Goes on with another socket. Returns the one before.
    pub fn replace_socket(&mut self, socket: Arc<Socket>) -> Arc<Socket> {
        let before = self.socket.replace(socket).expect("a live connection has a socket");
        self.replaced = Some(before.departure());
        before
    }

    pub fn twin(&self) -> Option<Ref<Conn>> {
        table().get(self.twin).ok()
    }

    /// Whether a call on this thread may wait for handlers of the connection.
    pub fn waits_for_handlers(&self) -> bool {
        self.options.wait() && !callback::inside()
    }

    /// Waits, without the lock, for a change of the connection, whatever signals come.
    pub fn wait_change(state: Guard<'_, State>) {
        let socket = state.socket().clone();
        // Read under the lock, so that no change is missed.
        let epoch = socket.wake.epoch();
        drop(state);
        socket.wake.wait_change(epoch);
    }

    /// Whether the connection goes down where it would end.
    pub fn redials(&self) -> bool {
        self.redial.is_some() && self.options.reconnects().is_some() && !self.life.has_ended()
    }

    /// Whether the state handler is running.
    pub fn is_telling(&self) -> bool {
        self.redial.as_ref().is_some_and(|redial| redial.carrier.is_telling())
    }

    /// Whether the slot still stands for the connection of that token.
    pub fn is_of(&self, token: Token) -> bool {
        self.token == token && self.life.has_handle()
    }

    /// Whether the close handler waits for a thread that the system has refused.
    pub fn lacks_thread(&self) -> bool {
        self.life.call() == Some(Call::Due) && !self.thread
    }
}

impl Conn {
    /// The state, whichever connection the slot stands for: for the connection's own thread, while the
    /// slot cannot be used again, and for whoever compares the token.
    pub fn state_of_own(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    /// The state of the connection with that token, if nobody holds it and nothing special is the case:
    /// the connection lives, its frames are pulled, and its handler, port and loans are none.
    #[inline]
    pub fn pulled(&self, token: Token) -> Option<Guard<'_, State>> {
        self.state.open(token)
    }

    /// The state if nobody holds it, whichever connection the slot stands for.
    pub fn try_state(&self) -> Option<Guard<'_, State>> {
        self.state.try_lock()
    }

    /// Waits while the handle is live and `is_so`, if this thread may wait for handlers.
    pub fn wait_for_handlers(
        &'static self,
        mut state: Guard<'static, State>,
        is_so: impl Fn(&State) -> bool,
    ) {
        let token = state.token;
        if state.waits_for_handlers() {
            while state.is_of(token) && is_so(&state) {
                State::wait_change(state);
                state = self.state_of_own();
            }
        }
    }

    /// Wakes all who wait on the connection, to look again. The state's lock is held.
    pub fn changed(&self, state: &State) {
        if let Some(socket) = &state.socket {
            socket.wake.raise();
        }
        state.pollers.iter().for_each(|wake| wake.raise());
    }

    /// Takes back what was lent to a delivery, which is over.
    pub fn end_delivery(&self, state: &mut State) {
        state.delivering = false;
        state.rx.end_delivery(self.delivered.get() as usize);
        if let Some(port) = &state.port {
            port.begin_reading(std::mem::take(&mut state.rx));
            port.switch.runner.look(state.token);
        }
    }

    /// Makes the slot free for another connection, once the handle is gone and the thread too.
    pub fn free_if_unused(&self, mut state: Guard<'_, State>) {
        let token = state.token;
        if state.life.is_gone() && !state.thread && !state.is_telling() {
            *state = State::default();
            drop(state);
            table().give_back(token);
        }
    }
}
