//! A connection: a layer-2 device that frames go into and come out of.
//!
//! It lives in a slot that is used again, in three parts: the state that decides what happens, what
//! sending needs, and counters. Locks are taken in that order. None is held while a callback runs, a
//! thread waits, or a name is looked up.
//!
//! Open -> found (reading met the end; frames before it may wait) -> ended (reported, or ended by
//! this side) -> closed (the handle is gone) -> free (no thread of its own is left either). One that
//! is dialled again goes down where it would end, and is open again when it comes up.

pub mod background;
pub mod carrier;
pub mod close;
pub mod close_handler;
pub mod dialling;
pub mod down;
pub mod end;
pub mod finish;
#[allow(unsafe_code)]
pub mod handler;
pub mod info;
pub mod life;
pub mod living;
pub mod open;
pub mod plug;
pub mod poll;
pub mod receive;
pub mod redial;
pub mod release;
pub mod send;
pub mod service;
pub mod wait;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use smallvec::SmallVec;

use crate::conn::finish::Finish;
use crate::conn::life::{Call, Life};
use crate::conn::living::Living;
use crate::conn::redial::Redial;
use crate::error::Error;
use crate::net::socket::Socket;
use crate::options::Options;
use crate::runtime::callback::{self, IntHandler};
use crate::runtime::handle::{Object, Ref, Table, Token};
use crate::runtime::lock::Fair;
use crate::runtime::wake::{Departure, Wake};
use crate::rx::Rx;
use crate::rx::counts::RxCounts;
use crate::switch::port::Port;
use crate::sys::fork::PerProcess;
use crate::tx::sender::Sender;

static CONNS: PerProcess<Table<Conn>> = PerProcess::new();

/// This process's connections.
#[inline]
pub fn table() -> &'static Table<Conn> {
    CONNS.get()
}

/// Why an attached or linked connection cannot be received from.
pub const PLUGGED: Error = Error::Busy("the connection is attached or linked");

#[derive(Default)]
pub struct Conn {
    state: Fair<State>,
    pub sender: Sender,
    /// Where it is plugged in, for the loop, which does not wait for the state. Changed under that.
    pub place: Mutex<Option<Arc<Port>>>,
    pub rx_counts: RxCounts,
    /// Tells the delivering thread to look at the state again before its next frame. Acquire and
    /// Release, and what it stands for is read under the state's lock.
    pub interrupt: AtomicBool,
    /// How many bytes of the delivery under way have been handed over. Written by the delivering
    /// thread alone; read by others when that has told, under the state's lock, that it is done.
    pub delivered: AtomicUsize,
}

/// What happens to a connection, and with what.
#[derive(Default)]
pub struct State {
    /// The token of the connection that the slot stands for, until the slot is free.
    pub token: Token,
    pub life: Life,
    /// There while open.
    pub socket: Option<Arc<Socket>>,
    /// The one before it, which may not be closed yet.
    pub replaced: Option<Departure>,
    /// What a connection that was dialled needs to be dialled again.
    pub redial: Option<Box<Redial>>,
    pub options: Options,
    pub hwaddr: [u8; 6],
    pub rx: Rx,
    /// Writing and draining that closing or shutdown left to do. Boxed, since most have none.
    pub finish: Option<Box<Finish>>,
    /// The frame handler, while there is one: receiving is its own then.
    pub handler: Option<callback::Handler>,
    /// Whether the connection has a thread, which calls the handlers.
    pub thread: bool,
    /// Whether that thread is handing over frames, which lie in `rx`; and how often it has begun to.
    pub delivering: bool,
    pub deliveries: u64,
    /// Whether the handler was set after the delivery under way had begun.
    pub is_handler_new: bool,
    pub close_handler: Option<IntHandler>,
    /// Its other end, where that is a connection as well: one of a pair of the library's making.
    pub twin: Option<Ref<Conn>>,
    /// Where it is plugged in, while it is attached or linked: receiving is its loop's then.
    pub port: Option<Arc<Port>>,
    /// Whether the library gives the handle back when all is over: it is a hub's, not a caller's.
    pub is_hubs: bool,
    /// The listener's count of its living connections.
    pub living: Option<Living>,
    /// Who waits for it, perhaps among others.
    pub pollers: SmallVec<[Arc<Wake>; 1]>,
}

impl Object for Conn {
    const KIND: u64 = 1;
    type State = State;

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn is_of(state: &State, token: Token) -> bool {
        state.is_of(token)
    }
}

impl State {
    /// The socket of an open connection.
    pub fn socket(&self) -> &Arc<Socket> {
        self.socket.as_ref().expect("an open connection has a socket")
    }

    /// Gives it another socket. Returns the one before.
    pub fn replace_socket(&mut self, socket: Arc<Socket>) -> Arc<Socket> {
        let before = self.socket.replace(socket).expect("an open connection has a socket");
        self.replaced = Some(before.departure());
        before
    }

    /// Waits for a change of the connection alone, whatever signals come, and without its lock.
    pub fn wait_change(state: MutexGuard<'_, State>) {
        let socket = state.socket().clone();
        // Under the lock, so that no change of what is in there is missed.
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

    /// Whether the close handler waits for a thread that the system refused.
    pub fn lacks_thread(&self) -> bool {
        self.life.call() == Some(Call::Due) && !self.thread
    }
}

impl Conn {
    /// The state, whichever connection the slot stands for: for its own thread, while the slot
    /// cannot be used again.
    pub fn state_of_own(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The state if nobody holds it, whichever connection the slot stands for.
    pub fn try_state(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock()
    }

    /// Tells all who wait on the connection to look again. The state's lock is held.
    pub fn changed(&self, state: &State) {
        if let Some(socket) = &state.socket {
            socket.wake.raise();
        }
        state.pollers.iter().for_each(|wake| wake.raise());
    }

    /// Takes back what was lent to a delivery, which is over.
    pub fn end_delivery(&self, state: &mut State) {
        state.delivering = false;
        state.rx.end_delivery(self.delivered.load(Ordering::Relaxed));
        if let Some(port) = &state.port {
            port.begin_reading(std::mem::take(&mut state.rx));
            port.switch.runner.look(state.token);
        }
    }

    /// Makes the slot free for another connection, once the handle is gone and the thread too.
    pub fn free_if_unused(&self, mut state: MutexGuard<'_, State>) {
        let token = state.token;
        if state.life.is_gone() && !state.thread && !state.is_telling() {
            *state = State::default();
            drop(state);
            table().give_back(token);
        }
    }
}
