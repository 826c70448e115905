//! A connection: a layer-2 device that frames go into and come out of.
//!
//! It lives in a slot that is used again, in three parts: the state that decides what happens, what
//! sending needs, and counters. Locks are taken in that order. None is held while a callback runs, a
//! thread waits, or a name is looked up.
//!
//! Open -> found (reading met the end; frames before it may wait) -> ended (reported, or ended by
//! this side) -> closed (the handle is gone) -> free (no thread of its own is left either). One that
//! is dialled again goes down where it would end, and is open again when it comes up.

pub mod carrier;
pub mod close_handler;
pub mod end;
pub mod handler;
pub mod life;
pub mod plug;
pub mod poll;
pub mod receive;
pub mod redial;
pub mod send;
pub mod service;

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use smallvec::SmallVec;

use crate::conn::end::Finish;
use crate::conn::life::{Call, Life};
use crate::conn::redial::Redial;
use crate::error::{Error, Result};
use crate::net::address::Target;
use crate::net::dgram;
use crate::net::dial;
use crate::net::messages::Messages;
use crate::net::netdev;
use crate::net::open;
use crate::net::socket::Socket;
use crate::net::socket_file::SocketFile;
use crate::options::{self, Holder, Options};
use crate::runtime::callback::{self, CloseHandler, Doing};
use crate::runtime::handle::{Object, Ref, Table, Token};
use crate::runtime::lock::Fair;
use crate::runtime::wake::{Departure, Wake};
use crate::rx::Rx;
use crate::rx::counts::RxCounts;
use crate::switch::port::Port;
use crate::sys::descriptor::{random, set_close_on_exec};
use crate::sys::fork::PerProcess;
use crate::tx::Tx;
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
    pub place: Mutex<Option<Port>>,
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
    token: Token,
    pub life: Life,
    /// There while open.
    socket: Option<Arc<Socket>>,
    /// The one before it, which may not be closed yet.
    replaced: Option<Departure>,
    /// What a connection that was dialled needs to be dialled again.
    pub redial: Option<Box<Redial>>,
    pub options: Options,
    hwaddr: [u8; 6],
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
    pub close_handler: Option<CloseHandler>,
    /// Its other end, where that is a connection as well: one of a pair of the library's making.
    pub twin: Option<Ref<Conn>>,
    /// Where it is plugged in, while it is attached or linked: receiving is its loop's then.
    pub port: Option<Port>,
    /// Whether the library gives the handle back when all is over: it is a hub's, not a caller's.
    pub is_hubs: bool,
    /// The listener's count of its living connections.
    living: Option<Living>,
    /// Who waits for it, perhaps among others.
    pub pollers: SmallVec<[Arc<Wake>; 1]>,
}

/// What a connection was made of: closed, once all who wait on it have left.
pub struct Released(SmallVec<[Departure; 3]>);

impl Released {
    /// Waits for that.
    pub fn wait(&self) {
        self.0.iter().for_each(Departure::wait);
    }
}

/// One of a listener's connections, as long as it lives.
pub struct Living(Arc<AtomicUsize>);

impl Living {
    /// One more, unless there are `max`. Relaxed: the number alone matters.
    pub fn one_of(count: &Arc<AtomicUsize>, max: usize) -> Option<Living> {
        let one_more = |living| (living < max).then_some(living + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Living(count.clone()))
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counters of a connection since it was created; see qnet_get_stats().
///
/// Bytes are bytes of frames, without length prefixes. Reads and writes are system calls. Later
/// releases only add members at the end of the struct.
#[allow(non_camel_case_types)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct qnet_stats {
    /// Frames received and given to the program, a hub or a link.
    pub rx_frames: u64,
    /// Bytes of the frames in rx_frames.
    pub rx_bytes: u64,
    /// Frames received that were shorter than 14 bytes and were skipped. On datagram connections
    /// also datagrams longer than any frame.
    pub rx_runts: u64,
    /// Reads that returned data.
    pub rx_reads: u64,
    /// Frames sent, that is, written to the socket as a whole. Every frame taken is counted either
    /// here or in tx_dropped.
    pub tx_frames: u64,
    /// Bytes of the frames in tx_frames, including padding.
    pub tx_bytes: u64,
    /// Frames that were lost instead of sent: the connection had ended or was down, nobody received
    /// a datagram, a hub's queue for the connection was full, or a hub or link had a frame for it
    /// that was longer than its QNET_OPT_MAX_FRAME.
    pub tx_dropped: u64,
    /// Writes of which the socket accepted at least a part.
    pub tx_writes: u64,
    /// How many times the connection has come up by reconnecting.
    pub reconnects: u64,
    /// Datagrams that were skipped because they did not come from the remote of a qnet_dgram().
    /// (For an adopted socket the kernel filters them out, and they are not counted.)
    pub rx_foreign: u64,
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

    /// Lets go of the sockets of a connection that is closed, whose sending part has none any more,
    /// and of what its descriptor was known by.
    fn let_go(&mut self) -> Released {
        let absent = self.redial.as_mut().and_then(|redial| redial.close());
        let sockets = [self.socket.take(), absent];
        let shared = sockets.iter().flatten().filter(|socket| Arc::strong_count(socket) > 1);
        let replaced = self.replaced.take().filter(|replaced| !replaced.is_over());
        let left = shared.map(|socket| socket.departure()).chain(replaced);
        let released = Released(left.collect());
        if !released.0.is_empty() {
            // All others who wait have been woken.
            crate::runtime::service::service().look();
        }
        released
    }

    /// As what it has options.
    fn holder(&self) -> Holder {
        match &self.socket {
            _ if self.redial.is_some() => Holder::Dialled,
            Some(socket) if socket.sender().is_some() => Holder::ToSender,
            _ => Holder::Conn,
        }
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

/// Puts right what a callback left undone that has ended its thread. The slot may be another's by now.
pub fn put_right(token: Token, doing: Doing, mend: impl FnOnce(Ref<Conn>, &mut State)) {
    let Ok(conn) = table().get(token) else {
        return;
    };
    let mut state = conn.slot.state_of_own();
    if state.token != token {
        return;
    }
    mend(conn, &mut state);
    if state.lacks_thread() {
        // The service thread tries again.
        crate::runtime::service::service().watch(conn);
    }
    conn.slot.changed(&state);
    conn.slot.free_if_unused(state);
    match doing {
        Doing::ClosersClose => discard(conn),
        _ => give_back_if_over(conn),
    }
}

/// What it is connected to, for messages.
pub fn describe(conn: Ref<Conn>) -> String {
    conn.state().map_or_else(|_| "a connection".into(), |state| state.socket().peer().to_string())
}

/// Gives the handle back if that is the library's to do and nothing of the connection goes on.
pub fn give_back_if_over(conn: Ref<Conn>) {
    let Ok(mut state) = conn.state() else {
        return;
    };
    let is_over =
        state.finish.is_none() && state.life.call() == Some(Call::Done) && !state.delivering;
    if state.is_hubs && is_over && state.life.begin_closing() {
        drop(state);
        discard(conn);
    }
}

/// Takes the handle's part of the connection away; what is left is its thread's, if it has one.
pub fn discard(conn: Ref<Conn>) {
    release(conn);
}

/// The same, for who waits until all of it is closed.
pub fn release(conn: Ref<Conn>) -> Released {
    let mut state = conn.slot.state.lock();
    let mut tx = conn.slot.sender.lock();
    state.life.give_up();
    conn.slot.changed(&state);
    *tx = Tx::default();
    drop(tx);
    state.living = None;
    let released = state.let_go();
    conn.slot.free_if_unused(state);
    released
}

/// Makes a connection of a socket.
pub fn open(socket: Socket, options: Options, living: Option<Living>) -> Result<Ref<Conn>> {
    Ok(open_in(table().take()?, socket, options, living))
}

fn open_in(conn: Ref<Conn>, socket: Socket, options: Options, living: Option<Living>) -> Ref<Conn> {
    let socket = Arc::new(socket);
    let mut state = conn.slot.state.lock();
    let mut tx = conn.slot.sender.lock();
    conn.slot.rx_counts.clear();
    *tx = Tx::new(conn.token, socket.clone(), &options, look_after_loss);
    conn.slot.sender.hint(&options);
    state.token = conn.token;
    state.life.begin();
    state.socket = Some(socket);
    state.options = options;
    state.living = living;
    state.hwaddr = random_hwaddr();
    conn
}

/// A write has met the end of a connection that nobody may be reading: the service thread looks.
fn look_after_loss(token: Token) {
    if let Ok(conn) = table().get(token) {
        crate::runtime::service::service().watch(conn);
    }
}

/// Locally administered and unicast: the second lowest bit of the first byte set, the lowest not.
fn random_hwaddr() -> [u8; 6] {
    let mut mac: [u8; 6] = random();
    mac[0] = mac[0] & 0xfc | 0x02;
    mac
}

/// Dials, with options that hold before the connection is made.
pub fn dial(network: &[u8], address: &[u8], options: Options) -> Result<Ref<Conn>> {
    let target = Target::parse(network, address)?;
    let dialled = dial::dial(&target, options.buffers(), options.dial_deadline());
    redial::open(target, dialled, options)
}

/// Two connections that are each other's peer.
pub fn pair() -> Result<(Ref<Conn>, Ref<Conn>)> {
    let (a, b) = open::pair()?;
    let a = adopt(a)?;
    let b = adopt(b).inspect_err(|_| discard(a))?;
    a.state()?.twin = Some(b);
    b.state()?.twin = Some(a);
    Ok((a, b))
}

/// A connection, and the descriptor at its other end.
pub fn pair_with_fd() -> Result<(Ref<Conn>, OwnedFd)> {
    let (a, b) = open::pair()?;
    open::tune(&b);
    Ok((adopt(a)?, b))
}

fn adopt(fd: OwnedFd) -> Result<Ref<Conn>> {
    open(Socket::adopted(fd), Options::default(), None)
}

/// Makes a connection of somebody's descriptor, which is theirs until `own` is called: that is when
/// nothing can fail any more.
pub fn from_fd(fd: BorrowedFd<'_>, own: impl FnOnce() -> OwnedFd) -> Result<Ref<Conn>> {
    let messages = Messages::of(fd)?;
    let conn = table().take()?;
    if let Err(error) = set_close_on_exec(fd) {
        table().give_back(conn.token);
        return Err(error);
    }
    Ok(open_in(conn, Socket::of(own(), messages), Options::default(), None))
}

// Knowing about it, and setting it.

pub fn hwaddr(conn: Ref<Conn>) -> Result<[u8; 6]> {
    Ok(conn.state()?.hwaddr)
}

pub fn set_hwaddr(conn: Ref<Conn>, mac: [u8; 6]) -> Result<()> {
    conn.state()?.hwaddr = mac;
    Ok(())
}

pub fn local_addr(conn: Ref<Conn>) -> Result<Vec<u8>> {
    Ok(conn.state()?.socket().local.to_bytes())
}

pub fn peer_addr(conn: Ref<Conn>) -> Result<Vec<u8>> {
    Ok(conn.state()?.socket().peer().to_bytes())
}

/// The `-netdev` argument with which a QEMU of that version is the other end.
pub fn netdev(conn: Ref<Conn>, id: &[u8], version: i32) -> Result<Vec<u8>> {
    let socket = conn.state()?.socket().clone();
    let local = socket.file().map_or_else(|| dgram::local_towards(&socket), SocketFile::address);
    netdev::datagrams(&local, &socket.peer(), id, version)
}

pub fn fd(conn: Ref<Conn>) -> Result<RawFd> {
    let mut state = conn.state()?;
    match state.follow()? {
        Some(follow) => Ok(follow),
        None => Ok(state.socket().fd().as_raw_fd()),
    }
}

pub fn stats(conn: Ref<Conn>) -> Result<qnet_stats> {
    let state = conn.state()?;
    let rx = &conn.slot.rx_counts;
    // A system call, before the lock that a loop waits for.
    let kept_away = state.socket().kept_away();
    // While its loop has a turn, it is about to count.
    let turn = state.port.as_ref().map(|port| port.switch.lock());
    let mut stats = qnet_stats {
        rx_frames: rx.frames.get(),
        rx_bytes: rx.bytes.get(),
        rx_runts: rx.runts.get(),
        rx_reads: rx.reads.get(),
        rx_foreign: rx.foreign.get() + kept_away,
        reconnects: state.redial.as_ref().map_or(0, |redial| redial.reconnects()),
        ..qnet_stats::default()
    };
    drop(turn);
    let tx = conn.slot.sender.lock().counts();
    stats.tx_frames = tx.frames;
    stats.tx_bytes = tx.bytes;
    stats.tx_dropped = tx.dropped;
    stats.tx_writes = tx.writes;
    Ok(stats)
}

pub fn set(conn: Ref<Conn>, option: i32, value: i64) -> Result<()> {
    let mut state = conn.state()?;
    let mut changed = state.options.clone();
    changed.set(option, value, state.holder())?;
    if option == options::RECONNECT_MS {
        redial::set_redialling(conn, &mut state, &changed)?;
    }
    match option {
        options::SNDBUF => state.socket().set_send_buffer(value as usize)?,
        options::RCVBUF => state.socket().set_receive_buffer(value as usize)?,
        options::RELEARN => {
            let remote = state.socket().sender();
            remote.expect("it has the option").set_relearning(value != 0);
        }
        _ => {
            conn.slot.sender.configure(&changed);
        }
    }
    state.options = changed;
    Ok(())
}

pub fn get(conn: Ref<Conn>, option: i32) -> Result<i64> {
    let state = conn.state()?;
    options::check_known(option, state.holder())?;
    let (socket, value) = (state.socket().clone(), state.options.get(option));
    // A system call under the lock would let who asks in a loop keep others from it.
    drop(state);
    match option {
        options::SNDBUF => Ok(socket.send_buffer()? as i64),
        options::RCVBUF => Ok(socket.receive_buffer()? as i64),
        _ => Ok(value),
    }
}
