//! Dialling again: a connection that outlives its peers.
//!
//! Where the stream of such a connection ends, the connection goes down: it gets a socket that
//! nothing ever comes from, and what is sent is lost, so that nothing else has to know. The thread
//! that dials has the state handler told (see `carrier`), waits, dials, gives it the
//! new socket, and has that told.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::conn::carrier::Carrier;
use crate::conn::end;
use crate::conn::receive;
use crate::conn::{self, Conn, State, open, release};
use crate::error::{Error, Result};
use crate::net::address::{Address, Target};
use crate::net::dial::{Attempt, Order};
use crate::net::socket::Socket;
use crate::options::{self, Options};
use crate::runtime::event_loop::{Loop, LoopUser, REST, Turns};
use crate::runtime::handle::{NONE, Ref};
use crate::runtime::poller::Poller;
use crate::sys::clock::Deadline;
use crate::sys::descriptor::above_standard;
use crate::sys::fork::PerProcess;
use crate::tx::Tx;

/// How long one attempt may take, unless the caller has said so.
const ATTEMPT: Duration = Duration::from_secs(10);

/// How long to wait for a handler that was taken away, before the service thread looks again.
const AGAIN: Duration = Duration::from_millis(20);

static DIALLER: PerProcess<Dialler> = PerProcess::new();

struct Dialler(Loop);

impl Default for Dialler {
    fn default() -> Dialler {
        Dialler(Loop::new(c"qnet-redial", turns))
    }
}

/// This process's thread that dials: one for all connections that are down. It waits for every attempt
/// under way and for the time of the next one at once, and does nothing that could block.
pub fn dialler() -> &'static Loop {
    &DIALLER.get().0
}

/// What a connection that was dialled needs to be dialled again.
pub struct Redial {
    target: Arc<Target>,
    /// There since it was first to be dialled again, until the handle is gone.
    reserve: Option<Reserve>,
    given: Given,
    pub carrier: Carrier,
    /// There while it is down.
    down: Option<Down>,
    next: Next,
    /// There while the thread that dials has something to do for it.
    user: Option<LoopUser>,
    /// How often it came up.
    reconnects: u64,
}

/// What going down takes, had beforehand: there may be no descriptor then.
struct Reserve {
    /// Its socket while it is down.
    absent: Arc<Socket>,
    /// What the thread that dials waits on.
    _poller: Arc<Poller>,
}

impl Reserve {
    fn new(peer: Address) -> Result<Reserve> {
        let absent = Arc::new(Socket::absent(peer)?);
        Ok(Reserve { absent, _poller: dialler().reserve()? })
    }
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

/// What is done next for the connection.
enum Next {
    TellDown,
    Dial,
    TellUp,
    /// Nothing, unless the connection has gone down since.
    Look,
}

/// What the thread that dials is to do for it now.
enum Plan {
    Wait(Deadline),
    Begin(Order),
    /// The attempt that is under way.
    GoOn,
}

impl Redial {
    fn of(target: Target) -> Redial {
        Redial {
            target: Arc::new(target),
            reserve: None,
            given: Given::None,
            carrier: Carrier::default(),
            down: None,
            next: Next::Look,
            user: None,
            reconnects: 0,
        }
    }

    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// The handle is gone. Returns the socket that stood for none.
    pub fn close(&mut self) -> Option<Arc<Socket>> {
        self.given = Given::None;
        self.reserve.take().map(|reserve| reserve.absent)
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
                redial.reserve = Some(Reserve::new(peer)?);
            }
            let conn = open::open(Socket::tuned(fd, options.buffers())?, options, None)?;
            conn.slot.state_of_own().redial = Some(redial);
            Ok(conn)
        }
        Err(reason) if redials && is_absence(&reason) => {
            let conn = open::open(Socket::absent(peer)?, options, None)?;
            begin_down(conn, redial, reason).inspect_err(|_| release::discard(conn))?;
            Ok(conn)
        }
        Err(error) => Err(error),
    }
}

/// Where a target is, as far as that is known without asking.
fn address_of(target: &Target) -> Address {
    match target {
        Target::Unix(name) | Target::UnixPacket(name) => Address::Unix(name.clone()),
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
        self.redial.is_some() && self.options.reconnects().is_some() && !self.life.has_ended()
    }

    /// Whether the state handler is running.
    pub fn is_telling(&self) -> bool {
        self.redial.as_ref().is_some_and(|redial| redial.carrier.is_telling())
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
        let reserve = redial.reserve.as_ref().filter(|_| self.options.reconnects().is_some());
        let Some(Reserve { absent, .. }) = reserve else {
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

// Going down and coming up. The state's lock is held.

/// Begins without a peer: what waits is to be dialled.
fn begin_down(conn: Ref<Conn>, mut redial: Box<Redial>, reason: Error) -> Result<()> {
    let mut state = conn.slot.state_of_own();
    let poller = dialler().reserve()?;
    redial.user = Some(dialler().join()?);
    let absent = state.socket().clone();
    conn.slot.sender.lock().go_down(absent.clone());
    redial.reserve = Some(Reserve { absent, _poller: poller });
    redial.down = Some(Down { reason: as_end(reason), since: Instant::now() });
    redial.next = Next::Dial;
    state.redial = Some(redial);
    dialler().look(conn.token);
    Ok(())
}

/// Goes down instead of ending, if the connection is dialled again. Returns whether it is.
pub fn go_down(conn: Ref<Conn>, state: &mut State, reason: &Error) -> bool {
    if !state.redials() {
        return false;
    }
    let socket = state.socket().clone();
    let Some(redial) = &mut state.redial else {
        return false;
    };
    let Some(Reserve { absent, .. }) = &redial.reserve else {
        return false;
    };
    let Ok(user) = dialler().join() else {
        return false;
    };
    let absent = absent.clone();
    redial.user = Some(user);
    dialler().look(conn.token);
    redial.down = Some(Down { reason: reason.clone(), since: Instant::now() });
    if let Given::Follow(follow) = &redial.given {
        // Taking a descriptor out of the set cannot fail.
        let _ = epoll::delete(follow, socket.fd());
    }
    // Failing, what it has stays: these are buffers that nothing goes into.
    let _ = absent.set_buffers(state.options.buffers());
    state.rx.start_over();
    exchange_socket(conn, state, absent, Tx::go_down);
    socket.shutdown();
    true
}

fn come_up(conn: Ref<Conn>, state: &mut State, fd: OwnedFd) -> Result<()> {
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
    exchange_socket(conn, state, socket, Tx::come_up);
    Ok(())
}

/// Gives the connection another socket, and its sending part by `exchange`. All who wait on the
/// one before look again.
fn exchange_socket(
    conn: Ref<Conn>,
    state: &mut State,
    socket: Arc<Socket>,
    exchange: fn(&mut Tx, Arc<Socket>),
) {
    let in_tx = || exchange(&mut conn.slot.sender.lock(), socket.clone());
    match &state.port {
        Some(port) => port.exchange_socket(conn.token, &socket, in_tx),
        None => in_tx(),
    }
    state.replace_socket(socket).wake.raise();
    conn.slot.changed(state);
}

/// The service thread's look at a connection of which a write has met the end: where nobody
/// reads it goes down by this, unless frames wait. Returns when to look again, if so.
pub fn look_for_loss(conn: Ref<Conn>, state: &mut State) -> Option<Deadline> {
    let is_down = state.redial.as_ref().is_some_and(|redial| redial.down.is_some());
    if !state.redials() || is_down || !conn.slot.sender.lock().is_lost() {
        return None;
    }
    if state.delivering {
        return Some(Deadline::after(AGAIN));
    }
    receive::is_ready(conn, state);
    None
}

/// Readies the connection for options that say whether it is dialled again. Where it is down,
/// and is not any more, it ends.
pub fn set_redialling(conn: Ref<Conn>, state: &mut State, options: &Options) -> Result<()> {
    let peer = state.socket().peer();
    let is_open = !state.life.has_ended();
    let Some(redial) = &mut state.redial else {
        return Ok(());
    };
    if options.reconnects().is_none() {
        if let Some(down) = redial.down.as_ref().filter(|_| is_open) {
            let reason = down.reason.clone();
            end::end_as_found(conn, state, reason);
        }
        return Ok(());
    }
    if matches!(redial.given, Given::Socket) {
        return Err(Error::Busy("qnet_fd() has given out the socket itself"));
    }
    if redial.reserve.is_none() {
        redial.reserve = Some(Reserve::new(peer)?);
    }
    // The thread may be waiting for another time.
    dialler().look(conn.token);
    Ok(())
}

/// The connection has ended, and so does what the thread that dials does for it.
pub fn stop_dialling(conn: Ref<Conn>, state: &mut State) {
    if let Some(redial) = &mut state.redial {
        // Its attempt goes with its next turn, for which there still is the thread.
        dialler().look(conn.token);
        redial.user = None;
    }
}

/// Runs the library's own part of a thread; a panic in it ends the connection, not the process.
pub fn guarded<R>(conn: Ref<Conn>, step: impl FnOnce() -> R) -> Option<R> {
    let done = catch_unwind(AssertUnwindSafe(step));
    if done.is_err()
        && let Ok(mut state) = conn.state()
    {
        end::end(
            conn,
            &mut state,
            Error::Internal("a panic in the thread that dials again".into()),
        );
    }
    done.ok()
}

// The thread that dials.

/// What the thread does: turns of connections, each with the attempt under way for it.
fn turns() -> Turns {
    let mut attempts = BTreeMap::new();
    Box::new(move |runner, token, _, _| {
        let mut attempt = attempts.remove(&token);
        let conn = conn::table().get(token).ok();
        let until = conn.and_then(|conn| turn(conn, &mut attempt, runner));
        runner.set_time(token, until.unwrap_or(Deadline::Never));
        attempts.extend(attempt.filter(|_| until.is_some()).map(|attempt| (token, attempt)));
    })
}

/// Its turn for the connection, with the attempt under way, if there is one. Returns until when it
/// waits, unless there is something new; or `None` where there is nothing more to do.
fn turn(conn: Ref<Conn>, attempt: &mut Option<Attempt>, runner: &'static Loop) -> Option<Deadline> {
    guarded(conn, || {
        loop {
            match plan(conn, attempt.is_some())? {
                Plan::Wait(until) => return Some(until),
                Plan::Begin(order) => {
                    *attempt = Some(Attempt::new(order, conn.token, runner));
                }
                Plan::GoOn => {}
            }
            let dialling = attempt.as_mut()?;
            let Some(result) = dialling.turn() else {
                return Some(dialling.deadline());
            };
            *attempt = None;
            dialled(conn, result);
        }
    })
    .flatten()
}

fn plan(conn: Ref<Conn>, is_dialling: bool) -> Option<Plan> {
    let mut guard = conn.state().ok()?;
    let state = &mut *guard;
    if state.life.has_ended() {
        return None;
    }
    let redial = state.redial.as_mut()?;
    loop {
        match redial.next {
            _ if redial.carrier.is_busy() => return Some(Plan::Wait(Deadline::Never)),
            Next::TellDown if redial.carrier.tell(conn, false) => redial.next = Next::Dial,
            Next::TellUp if redial.carrier.tell(conn, true) => redial.next = Next::Look,
            Next::TellDown | Next::TellUp => {
                return Some(Plan::Wait(Deadline::after(REST)));
            }
            Next::Look if redial.down.is_none() => {
                redial.user = None;
                return None;
            }
            Next::Look => redial.next = Next::TellDown,
            Next::Dial if is_dialling => return Some(Plan::GoOn),
            Next::Dial => return redial.plan_dial(&state.options),
        }
    }
}

fn dialled(conn: Ref<Conn>, dialled: Result<OwnedFd>) {
    // It may have ended meanwhile, and then what was dialled goes with this call.
    let Ok(mut state) = conn.state() else {
        return;
    };
    if !state.life.has_ended()
        && dialled.and_then(|fd| come_up(conn, &mut state, fd)).is_err()
        && let Some(down) = state.redial.as_mut().and_then(|redial| redial.down.as_mut())
    {
        down.since = Instant::now();
    }
}

impl Redial {
    /// To dial now, or when.
    fn plan_dial(&self, options: &Options) -> Option<Plan> {
        let due = Deadline::At(self.down.as_ref()?.since + options.reconnects()?);
        if !due.passed() {
            return Some(Plan::Wait(due));
        }
        let deadline = match options.get(options::DIAL_TIMEOUT_MS) {
            -1 => Deadline::after(ATTEMPT),
            _ => options.dial_deadline(),
        };
        let (target, buffers) = (self.target.clone(), options.buffers());
        Some(Plan::Begin(Order { target, buffers, deadline }))
    }
}
