//! A listener: peers connect to it, and each becomes a connection.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::conn::impair::{self, Text, Texts};
use crate::conn::living::Living;
use crate::conn::{Conn, open, rules};
use crate::error::{Error, Result};
use crate::net::address::Target;
use crate::net::listen::{self, BACKLOG, ListenSocket};
use crate::net::netdev;
use crate::net::socket::Socket;
use crate::net::socket_file::SocketFile;
use crate::options::{self, Holder, Options};
use crate::runtime::event_loop::{ADDED, Interest, Loop, LoopUser, NOTHING, READABLE};
use crate::runtime::handle::{NONE, Object, Ref, Table, Token};
use crate::runtime::lock::{Guard, Guarded, Lock, lock};
use crate::runtime::wait::{self, Tried};
use crate::runtime::wake::{Last, Wake};
use crate::switch::vlan::Vlan;
use crate::sys::clock::Deadline;

/// How many listeners a process may have.
const MOST: usize = 1 << 16;

static LISTENERS: Table<Listener, MOST> = Table::new();

/// This process's listeners.
pub fn table() -> &'static Table<Listener, MOST> {
    &LISTENERS
}

#[derive(Default)]
pub struct Listener {
    state: Lock<State>,
}

#[derive(Default)]
pub struct State {
    token: Token,
    /// Present while the handle is live.
    open: Option<Arc<Open>>,
    /// Its own, and those that its connections start with.
    options: Options,
    texts: Texts,
    /// The hub that accepts in the background, if one does.
    server: Option<Server>,
}

/// A hub that a listener's connections are attached to.
struct Server {
    hub: Token,
    /// Attaches a connection to that hub.
    adopt: fn(Token, Ref<Conn>),
    runner: LoopUser,
    /// What the loop waits for: nothing while it rests.
    interest: Interest,
}

/// What the threads that accept share. It is closed when the last of them lets go of it.
struct Open {
    socket: ListenSocket,
    wake: Wake,
    file: Mutex<Option<SocketFile>>,
    living: Arc<AtomicUsize>,
    last: Last,
}

/// What became of a peer that wanted to connect.
enum Visitor {
    Admitted(Ref<Conn>),
    TurnedAway,
    Nobody,
}

impl Guarded for State {}

impl Object for Listener {
    const KIND: u64 = 2;
    type State = State;

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    fn is_of(state: &State, token: Token) -> bool {
        state.token == token
    }
}

/// Listens on an address.
pub fn listen(network: &[u8], address: &[u8]) -> Result<Ref<Listener>> {
    let (socket, file) = listen::listen(&Target::parse(network, address)?)?;
    Ok(open_in(table().take()?, socket, file))
}

/// Makes a listener of a caller's descriptor, which is the caller's until `own` is called.
pub fn from_fd(fd: BorrowedFd<'_>, own: impl FnOnce() -> OwnedFd) -> Result<Ref<Listener>> {
    table().make(|listener| Ok(open_in(listener, ListenSocket::adopt(fd, own)?, None)))
}

fn open_in(
    listener: Ref<Listener>,
    socket: ListenSocket,
    file: Option<SocketFile>,
) -> Ref<Listener> {
    let file = Mutex::new(file);
    let (wake, last) = (Wake::default(), Last::default());
    let open = Open { socket, wake, file, living: Arc::default(), last };
    let open = Some(Arc::new(open));
    *listener.slot.state.lock() = State { token: listener.token, open, ..State::default() };
    listener
}

fn open(listener: Ref<Listener>) -> Result<Arc<Open>> {
    Ok(listener.state()?.open().clone())
}

/// Waits for a peer. Returns its connection.
pub fn accept(listener: Ref<Listener>, timeout_ms: i32) -> Result<Ref<Conn>> {
    let deadline = Deadline::from_timeout(timeout_ms)?;
    let look = || {
        let open = open(listener)?;
        let epoch = open.wake.epoch();
        // After so many, every peer that waited when the call was made has been dealt with.
        for _ in 0..=BACKLOG {
            match next_visitor(listener)? {
                Visitor::Admitted(conn) => return Ok(Tried::Done(conn)),
                Visitor::TurnedAway => {}
                Visitor::Nobody => break,
            }
        }
        Ok(Tried::Pending((open, epoch)))
    };
    wait::until(
        look,
        |_| deadline,
        |(open, epoch), until| open.wake.wait_fd(epoch, open.socket.fd(), PollFlags::IN, until),
    )
}

/// Deals with one peer that waits, if any does.
fn next_visitor(listener: Ref<Listener>) -> Result<Visitor> {
    let state = listener.state().map_err(|_| Error::Closed)?;
    let (open, options) = (state.open().clone(), state.options.clone());
    let texts = state.texts.clone();
    drop(state);
    let accepted = open.socket.accept();
    if listener.state().is_err() {
        return Err(Error::Closed);
    }
    accepted?.map_or(Ok(Visitor::Nobody), |fd| open.admit(fd, options, &texts))
}

pub fn close(listener: Ref<Listener>) -> Result<()> {
    let mut state = listener.state()?;
    let open = state.open().clone();
    let server = state.server.take();
    *state = State { token: NONE, ..State::default() };
    drop(state);
    if let Some(mut server) = server {
        // Taking a descriptor out of the set cannot fail.
        let _ = server.watch(listener.token, &open, NOTHING);
    }
    drop(lock(&open.file).take());
    open.socket.refuse();
    open.wake.raise();
    table().give_back(listener.token);
    let departure = open.last.departure();
    drop(open);
    departure.wait();
    Ok(())
}

pub fn addr(listener: Ref<Listener>) -> Result<Vec<u8>> {
    Ok(open(listener)?.socket.address.to_bytes())
}

pub fn describe(listener: Ref<Listener>) -> String {
    open(listener).map_or_else(|_| "a listener".into(), |open| open.socket.address.to_string())
}

pub fn fd(listener: Ref<Listener>) -> Result<RawFd> {
    Ok(open(listener)?.socket.fd().as_raw_fd())
}

/// The `-netdev` argument with which a QEMU of that version joins.
pub fn netdev(listener: Ref<Listener>, id: &[u8], version: i32) -> Result<Vec<u8>> {
    let open = open(listener)?;
    let socket = &open.socket;
    let at = lock(&open.file).as_ref().map_or(socket.address.clone(), SocketFile::address);
    let argument = netdev::connecting(&at, socket.takes_v4(), id, version)?;
    if socket.has_messages() {
        return Err(Error::Unsupported("a QEMU connects to no SEQPACKET socket"));
    }
    Ok(argument)
}

pub fn set(listener: Ref<Listener>, option: i32, value: i64) -> Result<()> {
    let open = open(listener)?;
    // Locked before the state, which a loop takes and nobody holds during a system call.
    let file = (option == options::UNIX_MODE).then(|| lock(&open.file));
    listener.state()?.options.clone().set(option, value, Holder::Listener)?;
    if let Some(file) = &file {
        file.as_ref().ok_or(NO_FILE)?.set_mode(value as u32)?;
    }
    listener.state()?.options.set(option, value, Holder::Listener)
}

pub fn get(listener: Ref<Listener>, option: i32) -> Result<i64> {
    let open = open(listener)?;
    options::check_known(option, Holder::Listener)?;
    if option == options::UNIX_MODE && lock(&open.file).is_none() {
        return Err(NO_FILE);
    }
    Ok(listener.state()?.options.get(option))
}

/// Sets the text that further connections start with.
pub fn impair(listener: Ref<Listener>, direction: i32, text: &[u8]) -> Result<()> {
    let sides = impair::sides(direction)?;
    let text = Text::read(text)?;
    let texts = &mut listener.state()?.texts;
    sides.iter().for_each(|side| *texts.of(*side) = text.clone());
    Ok(())
}

pub fn impairment(listener: Ref<Listener>, direction: i32) -> Result<Vec<u8>> {
    let side = impair::side(direction)?;
    Ok(listener.state()?.texts.of(side).print())
}

/// Sets the VLANs of further connections.
pub fn set_vlan(listener: Ref<Listener>, text: &[u8]) -> Result<()> {
    let vlan = Vlan::parse(text)?.map(Arc::new);
    listener.state()?.texts.vlan = vlan;
    Ok(())
}

pub fn vlan(listener: Ref<Listener>) -> Result<String> {
    Ok(rules::shown(listener.state()?.texts.vlan.as_ref()))
}

/// How many peers one turn deals with.
const ACCEPTED: usize = 16;

/// Has a hub's loop accept from now on, and `adopt` attach what it has accepted.
pub fn serve(
    listener: Ref<Listener>,
    hub: Token,
    adopt: fn(Token, Ref<Conn>),
    runner: &'static Loop,
) -> Result<()> {
    let open = open(listener)?;
    if listener.state()?.server.is_some() {
        return Err(SERVED);
    }
    let mut server = Server { hub, adopt, runner: runner.join(listener.token)?, interest: NOTHING };
    server.watch(listener.token, &open, ADDED).map_err(|error| match error {
        Error::Os(Errno::EXIST) => SERVED,
        error => error,
    })?;
    let refusal = match listener.state() {
        Ok(mut state) if state.server.is_none() => {
            state.server = Some(server);
            // In the turn that this gives, the loop begins to wait for peers.
            runner.look(listener.token);
            return Ok(());
        }
        Ok(_) => SERVED,
        Err(error) => error,
    };
    // Taking a descriptor out of the set cannot fail.
    let _ = server.watch(listener.token, &open, NOTHING);
    Err(refusal)
}

/// The loop's turn: accepts what waits. Where the system refuses, it rests for a while. Returns whether more
/// may wait.
pub fn serve_turn(listener: Ref<Listener>, runner: &Loop) -> bool {
    let Ok(mut state) = listener.state() else {
        return false;
    };
    let Some(Server { hub, adopt, .. }) = &state.server else {
        return false;
    };
    let (hub, adopt) = (*hub, *adopt);
    // The listener may be new to the loop, or have rested.
    let is_watched = state.watch(listener.token, READABLE);
    drop(state);
    if !is_watched {
        runner.rest(listener.token);
    }
    for _ in 0..ACCEPTED {
        match next_visitor(listener) {
            Ok(Visitor::Admitted(conn)) => adopt(hub, conn),
            Ok(Visitor::TurnedAway) => {}
            Err(Error::Os(_)) => {
                rest(listener, runner);
                return false;
            }
            Ok(Visitor::Nobody) | Err(_) => return false,
        }
    }
    true
}

fn rest(listener: Ref<Listener>, runner: &Loop) {
    if let Ok(mut state) = listener.state() {
        state.watch(listener.token, NOTHING);
        runner.rest(listener.token);
    }
}

impl Server {
    fn watch(&mut self, token: Token, open: &Open, interest: Interest) -> Result<()> {
        if self.interest != interest {
            self.runner.watch(open.socket.fd(), token, self.interest, interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}

const SERVED: Error = Error::Busy("a hub serves the listener already");

const NO_FILE: Error = Error::Unsupported("the listener made no socket file");

impl State {
    fn open(&self) -> &Arc<Open> {
        self.open.as_ref().expect("a live listener is open")
    }

    /// Has the loop wait for peers, or not. Returns `false` where the system lacks the memory for that.
    fn watch(&mut self, token: Token, interest: Interest) -> bool {
        let open = self.open().clone();
        self.server.as_mut().is_none_or(|server| server.watch(token, &open, interest).is_ok())
    }
}

impl Open {
    /// Makes a connection of an accepted socket, or hangs up on a peer above the limit.
    fn admit(&self, fd: OwnedFd, options: Options, texts: &Texts) -> Result<Visitor> {
        let most = options.get(options::MAX_CONNS) as usize;
        let Some(living) = Living::begin(&self.living, most) else {
            return Ok(Visitor::TurnedAway);
        };
        let socket = Socket::tuned(fd, options.buffers())?;
        open::open_accepted(socket, options, texts, living).map(Visitor::Admitted)
    }
}
