//! Dialling again: a connection that outlives its peers.
//!
//! Where the stream of such a connection ends, the connection goes down: it gets a socket that
//! nothing ever comes from, and what is sent is lost, so that nothing else has to know. A thread of
//! its own tells the state handler, waits, dials, gives it the new socket, and tells again.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::address::{Address, Target};
use crate::callback::{self, Doing, StateHandler};
use crate::conn::{self, ClosePhase, Conn, State};
use crate::descriptor::above_standard;
use crate::error::{Error, Result};
use crate::handle::{NONE, Ref};
use crate::handler;
use crate::options::{self, Options};
use crate::process::{Process, process};
use crate::send::Tx;
use crate::socket::Socket;
use crate::thread;
use crate::wake::{Deadline, PollFds};

/// How long one attempt may take, unless the caller has said so.
const ATTEMPT: Duration = Duration::from_secs(10);

/// How long to wait for a handler that was taken away, before the service thread looks again.
const AGAIN: Duration = Duration::from_millis(20);

/// What a connection that was dialled needs to be dialled again.
pub struct Redial {
    target: Arc<Target>,
    /// Its socket while it is down; there since it was first to be dialled again.
    absent: Option<Arc<Socket>>,
    given: Given,
    handler: Option<StateHandler>,
    /// Whether the handler was set after the last call had begun; whether that call still runs; and
    /// how often one has begun.
    is_handler_new: bool,
    is_telling: bool,
    calls: u64,
    /// There while it is down.
    down: Option<Down>,
    /// Whether there is the thread, and what it does next.
    thread: bool,
    next: Next,
    /// How often it came up.
    reconnects: u64,
}

struct Down {
    reason: Error,
    /// When it went down, or was last dialled in vain.
    since: Instant,
}

/// Which descriptor the caller knows.
enum Given {
    None,
    Socket,
    /// An epoll descriptor, in which the socket is.
    Follow(OwnedFd),
}

/// The thread's next step.
enum Next {
    TellDown,
    Dial,
    TellUp,
    /// It ends, unless the connection has gone down since.
    Look,
}

/// What the thread does outside locks. Plain data, as a handler's.
#[derive(Clone, Copy)]
enum Step {
    Tell { handler: StateHandler, up: bool },
    Stop,
}

impl Redial {
    fn of(target: Target) -> Redial {
        Redial {
            target: Arc::new(target),
            absent: None,
            given: Given::None,
            handler: None,
            is_handler_new: false,
            is_telling: false,
            calls: 0,
            down: None,
            thread: false,
            next: Next::Look,
            reconnects: 0,
        }
    }

    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// The handle is gone.
    pub fn close(&mut self) {
        self.absent = None;
        self.given = Given::None;
    }
}

/// Makes a connection of what dialling a target gave.
pub fn open(target: Target, dialled: Result<OwnedFd>, options: Options) -> Result<Ref<Conn>> {
    let redials = options.reconnects().is_some();
    let peer = address_of(&target);
    let mut redial = Box::new(Redial::of(target));
    match dialled {
        Ok(fd) => {
            if redials {
                redial.absent = Some(Arc::new(Socket::absent(peer)?));
            }
            let conn = conn::open(Socket::tuned(fd, options.buffers())?, options, None)?;
            conn.slot.state_of_own().redial = Some(redial);
            Ok(conn)
        }
        Err(reason) if redials && is_absence(&reason) => {
            let conn = conn::open(Socket::absent(peer)?, options, None)?;
            conn.begin_down(redial, reason).inspect_err(|_| conn.discard())?;
            Ok(conn)
        }
        Err(error) => Err(error),
    }
}

/// Where a target is, as far as that is known without asking.
fn address_of(target: &Target) -> Address {
    match target {
        Target::Unix(name) => Address::Unix(name.clone()),
        Target::Tcp { family, host, port } => host
            .digits(*family, *port, Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST)
            .first()
            .map_or(Address::Unnamed, |address| Address::Tcp(*address)),
    }
}

/// What an end may have been, of a dial in vain.
fn as_end(reason: Error) -> Error {
    match reason {
        Error::Refused(errno) => Error::Os(errno),
        Error::Resolve(_) => Error::Os(Errno::HOSTUNREACH),
        Error::Timeout | Error::Again => Error::Os(Errno::TIMEDOUT),
        reason => reason,
    }
}

/// Whether a dial failed since the peer is not there (yet).
fn is_absence(error: &Error) -> bool {
    match error {
        Error::Refused(_) | Error::Resolve(_) | Error::Timeout | Error::Again => true,
        Error::Os(errno) => matches!(
            *errno,
            Errno::TIMEDOUT
                | Errno::NETUNREACH
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::HOSTDOWN
                | Errno::CONNRESET
        ),
        _ => false,
    }
}

impl State {
    /// Whether the connection goes down where it would end.
    pub fn redials(&self) -> bool {
        self.redial.is_some() && self.options.reconnects().is_some() && self.ended.is_none()
    }

    /// Whether the state handler is running.
    pub fn is_telling(&self) -> bool {
        self.redial.as_ref().is_some_and(|redial| redial.is_telling)
    }

    /// The descriptor that follows the socket; `None` where the caller is to have the socket itself.
    pub fn follow(&mut self) -> Result<Option<RawFd>> {
        let socket = self.socket().clone();
        let Some(redial) = &mut self.redial else {
            return Ok(None);
        };
        if let Given::Follow(follow) = &redial.given {
            return Ok(Some(follow.as_raw_fd()));
        }
        let Some(absent) = redial.absent.as_ref().filter(|_| self.options.reconnects().is_some())
        else {
            redial.given = Given::Socket;
            return Ok(None);
        };
        let follow = above_standard(epoll::create(CreateFlags::CLOEXEC)?)?;
        // It stays in the set: being shut down it tells of the end.
        add(&follow, absent)?;
        if !Arc::ptr_eq(absent, &socket) {
            add(&follow, &socket)?;
        }
        let fd = follow.as_raw_fd();
        redial.given = Given::Follow(follow);
        Ok(Some(fd))
    }
}

fn add(follow: &OwnedFd, socket: &Socket) -> Result<()> {
    Ok(epoll::add(follow, socket.fd(), EventData::new_u64(NONE), EventFlags::IN)?)
}

/// Going down and coming up. The state's lock is held.
impl Ref<Conn> {
    /// Begins without a peer: what waits is to be dialled.
    fn begin_down(self, mut redial: Box<Redial>, reason: Error) -> Result<()> {
        let mut state = self.slot.state_of_own();
        let absent = state.socket().clone();
        self.slot.tx_of_own().go_down(absent.clone());
        redial.absent = Some(absent);
        redial.down = Some(Down { reason: as_end(reason), since: Instant::now() });
        redial.next = Next::Dial;
        redial.thread = true;
        state.redial = Some(redial);
        start(self)
    }

    /// Goes down instead of ending, if the connection is dialled again. Returns whether it is.
    pub fn go_down(self, state: &mut State, reason: &Error) -> bool {
        if !state.redials() {
            return false;
        }
        let socket = state.socket().clone();
        let Some(redial) = &mut state.redial else {
            return false;
        };
        let Some(absent) = redial.absent.clone() else {
            return false;
        };
        if !redial.thread {
            if start(self).is_err() {
                return false;
            }
            redial.thread = true;
            redial.next = Next::TellDown;
        }
        redial.down = Some(Down { reason: reason.clone(), since: Instant::now() });
        if let Given::Follow(follow) = &redial.given {
            // Taking a descriptor out of the set cannot fail.
            let _ = epoll::delete(follow, socket.fd());
        }
        // Failing, what it has stays: these are buffers that nothing goes into.
        let _ = absent.set_buffers(state.options.buffers());
        state.rx.start_over();
        self.exchange_socket(state, absent, Tx::go_down);
        socket.shutdown();
        true
    }

    fn come_up(self, state: &mut State, fd: OwnedFd) -> Result<()> {
        let socket = Arc::new(Socket::tuned(fd, state.options.buffers())?);
        let Some(redial) = &mut state.redial else {
            return Ok(());
        };
        if let Given::Follow(follow) = &redial.given {
            add(follow, &socket)?;
        }
        redial.down = None;
        redial.next = Next::TellUp;
        redial.reconnects += 1;
        self.exchange_socket(state, socket, Tx::come_up);
        Ok(())
    }

    /// Gives the connection another socket, and its sending part by `exchange`. All who wait on the
    /// one before look again.
    fn exchange_socket(
        self,
        state: &mut State,
        socket: Arc<Socket>,
        exchange: fn(&mut Tx, Arc<Socket>),
    ) {
        let in_tx = || exchange(&mut self.slot.tx_of_own(), socket.clone());
        match &state.port {
            Some(port) => port.exchange_socket(self, &socket, in_tx),
            None => in_tx(),
        }
        state.replace_socket(socket).wake.raise();
        process().pollers.raise();
    }

    /// The service thread's look at a connection of which a write has met the end: where nobody
    /// reads it goes down by this, unless frames wait. Returns when to look again, if so.
    pub fn look_for_loss(self, state: &mut State) -> Option<Deadline> {
        let is_down = state.redial.as_ref().is_some_and(|redial| redial.down.is_some());
        if !state.redials() || is_down || !self.slot.tx_of_own().is_lost() {
            return None;
        }
        if state.delivering {
            return Some(Deadline::after(AGAIN));
        }
        self.is_ready(state);
        None
    }

    /// Readies the connection for options that say whether it is dialled again. Where it is down,
    /// and is not any more, it ends.
    pub fn set_redialling(self, state: &mut State, options: &Options) -> Result<()> {
        let peer = state.socket().peer.clone();
        let is_open = state.ended.is_none();
        let Some(redial) = &mut state.redial else {
            return Ok(());
        };
        if options.reconnects().is_none() {
            if let Some(down) = redial.down.as_ref().filter(|_| is_open) {
                let reason = down.reason.clone();
                self.end_as_found(state, reason);
            }
            return Ok(());
        }
        if matches!(redial.given, Given::Socket) {
            return Err(Error::Busy("qnet_fd() has given out the socket itself"));
        }
        if redial.absent.is_none() {
            redial.absent = Some(Arc::new(Socket::absent(peer)?));
        }
        // The thread may be waiting for another time.
        self.slot.changed(state);
        Ok(())
    }
}

/// The state handler.
impl Ref<Conn> {
    /// Sets what is called when the connection has gone down or come up, or nothing. Returns when
    /// the handler before is not running and never will again, where this thread may wait for that.
    pub fn set_state_handler(self, handler: Option<StateHandler>) -> Result<()> {
        let mut state = self.state()?;
        let redial = state.redial.as_mut();
        let redial = redial.ok_or(Error::Unsupported("the connection was not dialled"))?;
        redial.handler = handler;
        redial.is_handler_new = true;
        let calls = redial.calls;
        if !state.options.wait() || callback::inside() {
            return Ok(());
        }
        let is_before = |redial: &Redial| redial.is_telling && redial.calls == calls;
        while state.is_of(self.token) && state.redial.as_deref().is_some_and(is_before) {
            let socket = state.socket().clone();
            let epoch = socket.wake.epoch();
            drop(state);
            socket.wake.wait_change(epoch);
            state = self.slot.state_of_own();
        }
        Ok(())
    }

    /// The state handler has returned. Returns whether its thread is to go on as the connection's
    /// own.
    fn told(self) -> bool {
        let mut state = self.slot.state_of_own();
        if let Some(redial) = &mut state.redial {
            redial.is_telling = false;
        }
        let goes_on = self.leaves_close_handler(&state);
        state.thread |= goes_on;
        self.slot.changed(&state);
        self.slot.free_if_unused(state);
        goes_on
    }

    /// The state handler has ended its thread. It is none any more, unless another was set meanwhile.
    pub fn state_handler_died(self, state: &mut State) {
        let leaves_close_handler = self.leaves_close_handler(state);
        let is_ended = state.ended.is_some();
        let Some(redial) = &mut state.redial else {
            return;
        };
        redial.is_telling = false;
        if !redial.is_handler_new {
            redial.handler = None;
        }
        redial.thread = !is_ended && start(self).is_ok();
        let is_stranded = !is_ended && !redial.thread;
        if let Some(down) = redial.down.as_ref().filter(|_| is_stranded) {
            let reason = down.reason.clone();
            self.end_as_found(state, reason);
        }
        if leaves_close_handler {
            state.thread = handler::start_thread(self).is_ok();
        }
    }

    /// Whether the close handler waits for the state handler, with nobody else to call it.
    fn leaves_close_handler(self, state: &State) -> bool {
        let waits = match state.close_phase {
            ClosePhase::Pending => !state.is_of(self.token),
            phase => phase == ClosePhase::Due,
        };
        waits && !state.thread
    }
}

fn start(conn: Ref<Conn>) -> Result<()> {
    let process = process();
    thread::spawn(c"qnet-redial", move || run(conn, process))
}

/// The thread. Nothing with a destructor lives here across a callback, which may unwind past.
fn run(conn: Ref<Conn>, process: &'static Process) {
    while let Some(Step::Tell { handler, up }) = guarded(conn, || conn.next_redial_step()) {
        callback::enter(conn, Doing::State);
        // SAFETY: the promise made with the handler.
        unsafe { (handler.call)(handler.user.0, up.into()) };
        if !process.is_current() {
            return; // forked inside the handler: all this is the parent's
        }
        callback::leave();
        if guarded(conn, || conn.told()) == Some(true) {
            handler::run(conn, process);
            return;
        }
    }
}

/// Runs the library's own part of the thread; a panic in it ends the connection, not the process.
fn guarded<R>(conn: Ref<Conn>, step: impl FnOnce() -> R) -> Option<R> {
    let done = catch_unwind(AssertUnwindSafe(step));
    if done.is_err()
        && let Ok(mut state) = conn.state()
    {
        conn.end(&mut state, Error::Internal("a panic in the thread that dials again".into()));
    }
    done.ok()
}

impl Ref<Conn> {
    /// Goes on until there is something to tell, or nothing more to do.
    fn next_redial_step(self) -> Step {
        loop {
            let Ok(mut guard) = self.state() else {
                return Step::Stop;
            };
            let state = &mut *guard;
            let Some(redial) = &mut state.redial else {
                return Step::Stop;
            };
            let up = match redial.next {
                _ if state.ended.is_some() => {
                    redial.thread = false;
                    return Step::Stop;
                }
                Next::TellDown => {
                    redial.next = Next::Dial;
                    false
                }
                Next::TellUp => {
                    redial.next = Next::Look;
                    true
                }
                Next::Look if redial.down.is_some() => {
                    redial.next = Next::TellDown;
                    continue;
                }
                Next::Look => {
                    redial.thread = false;
                    return Step::Stop;
                }
                Next::Dial => {
                    drop(guard);
                    self.wait_and_dial();
                    continue;
                }
            };
            if let Some(handler) = redial.handler {
                redial.is_handler_new = false;
                redial.is_telling = true;
                redial.calls += 1;
                return Step::Tell { handler, up };
            }
        }
    }

    /// Waits until it is time to dial, or something changes; and dials.
    fn wait_and_dial(self) {
        let Some((target, buffers, deadline)) = self.due_dial() else {
            return;
        };
        let dialled = conn::connect(&target, buffers, deadline);
        // It may have ended meanwhile, and then what was dialled goes with this call.
        let Ok(mut state) = self.state() else {
            return;
        };
        if state.ended.is_none()
            && dialled.and_then(|fd| self.come_up(&mut state, fd)).is_err()
            && let Some(down) = state.redial.as_mut().and_then(|redial| redial.down.as_mut())
        {
            down.since = Instant::now();
        }
    }

    /// What to dial now; or waits.
    fn due_dial(self) -> Option<(Arc<Target>, crate::socket::Buffers, Deadline)> {
        let state = self.state().ok()?;
        let redial = state.redial.as_ref()?;
        let due = Deadline::At(redial.down.as_ref()?.since + state.options.reconnects()?);
        if state.ended.is_none() && due.passed() {
            let deadline = match state.options.get(options::DIAL_TIMEOUT_MS) {
                -1 => Deadline::after(ATTEMPT),
                _ => state.options.dial_deadline(),
            };
            return Some((redial.target.clone(), state.options.buffers(), deadline));
        }
        let socket = state.socket().clone();
        let epoch = socket.wake.epoch();
        drop(state);
        // Failing is being short of memory: look again.
        let _ = socket.wake.wait_fds(epoch, PollFds::new(), due);
        None
    }
}
