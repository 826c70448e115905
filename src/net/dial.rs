//! Dials a target: `dial` waits for the outcome; an `Attempt` goes on in turns of a loop, and never waits.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::{Error, Result};
use crate::net::address::{Address, Host, THIS_HOST, Target, UnixName};
use crate::net::open::{family_of, nonblocking_socket, open, set_buffers};
use crate::net::resolve::{Lookup, NO_ADDRESS, addresses, admitted};
use crate::options::Buffers;
use crate::runtime::event_loop::{Loop, NOTHING, WRITABLE};
use crate::runtime::handle::Token;
use crate::runtime::wake::{self, Wake};
use crate::sys::clock::Deadline;

/// The longest that one `connect` of a Unix socket waits for room in the backlog. It is finite because
/// the kernel resumes a wait without a limit after a signal handler with SA_RESTART.
const CONNECT_SLICE: Duration = Duration::from_secs(3600);

/// Makes a socket that is connected to a target.
pub fn dial(target: &Target, buffers: Buffers, deadline: Deadline) -> Result<OwnedFd> {
    match target {
        Target::Unix(kind, name) => dial_unix(name, *kind, buffers, deadline),
        Target::Tcp { family, host, port } => {
            let addresses = addresses(host, *port, *family, THIS_HOST, deadline)?;
            TcpDial::of(addresses, buffers).wait(deadline)
        }
    }
}

/// Why a dial of one address failed.
fn dial_error(errno: Errno) -> Error {
    match errno {
        // Without a socket file nobody listens there yet.
        Errno::CONNREFUSED | Errno::NOENT => Error::Refused(errno),
        Errno::INTR => Error::Interrupted,
        errno => Error::Os(errno),
    }
}

/// Waits in `connect` itself: no poll tells when a full backlog has room again.
fn dial_unix(
    name: &UnixName,
    kind: SocketType,
    buffers: Buffers,
    deadline: Deadline,
) -> Result<OwnedFd> {
    let address = name.to_socket_address()?;
    let fd = open(AddressFamily::UNIX, kind, SocketFlags::empty())?;
    wake::prepare_to_wait();
    set_buffers(&fd, buffers)?;
    loop {
        let slice = deadline.left().unwrap_or(CONNECT_SLICE).min(CONNECT_SLICE);
        // Zero would be no limit.
        let slice = slice.max(Duration::from_micros(1));
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, Some(slice))?;
        match rustix::net::connect(&fd, &address) {
            Ok(()) => break,
            Err(Errno::AGAIN) if deadline.passed() => return Err(deadline.error()),
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(dial_error(errno)),
        }
    }
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, None)?;
    Ok(fd)
}

/// Dials a Unix socket without waiting: a full backlog is an error.
fn try_unix(name: &UnixName, kind: SocketType, buffers: Buffers) -> Result<OwnedFd> {
    let address = name.to_socket_address()?;
    let fd = nonblocking_socket(AddressFamily::UNIX, kind)?;
    set_buffers(&fd, buffers)?;
    rustix::net::connect(&fd, &address).map_err(dial_error)?;
    Ok(fd)
}

/// Dials one address after the other until one answers; if none does, the last failure is the result.
struct TcpDial {
    /// The addresses that have not been tried yet.
    addresses: std::vec::IntoIter<SocketAddr>,
    buffers: Buffers,
    /// The socket that is being connected.
    under_way: Option<OwnedFd>,
    /// Why the last address failed.
    failed: Error,
}

impl TcpDial {
    fn of(addresses: Vec<SocketAddr>, buffers: Buffers) -> TcpDial {
        let addresses = addresses.into_iter();
        let failed = Error::Resolve(NO_ADDRESS.into());
        TcpDial { addresses, buffers, under_way: None, failed }
    }

    /// The socket to wait for until it is writable, or has failed.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.under_way.as_ref().map(AsFd::as_fd)
    }

    /// Goes as far as it can without waiting. Returns the socket, or `None` while one is under way.
    fn turn(&mut self) -> Result<Option<OwnedFd>> {
        loop {
            let begun = match self.under_way.take() {
                Some(fd) => is_connected(&fd).map(|is_connected| (is_connected, fd)),
                None => match self.addresses.next() {
                    Some(address) => begin(&address, self.buffers),
                    None => return Err(self.failed.clone()),
                },
            };
            match begun {
                Ok((true, fd)) => return Ok(Some(fd)),
                Ok((false, fd)) => {
                    self.under_way = Some(fd);
                    return Ok(None);
                }
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => self.failed = error,
            }
        }
    }

    fn wait(mut self, deadline: Deadline) -> Result<OwnedFd> {
        // Nobody else has the socket, so only its readiness, a signal or the deadline ends a wait.
        let wake = Wake::default();
        loop {
            if let Some(fd) = self.turn()? {
                return Ok(fd);
            }
            if deadline.passed() {
                return Err(deadline.error());
            }
            if let Some(fd) = self.fd() {
                wake.wait_fd(wake.epoch(), fd, PollFlags::OUT, deadline)?;
            }
        }
    }
}

/// Begins to connect a socket to an address. Returns it, and whether it is connected already.
fn begin(address: &SocketAddr, buffers: Buffers) -> Result<(bool, OwnedFd)> {
    let fd = nonblocking_socket(family_of(address), SocketType::STREAM)?;
    set_buffers(&fd, buffers)?;
    match rustix::net::connect(&fd, address) {
        Ok(()) => Ok((is_connected(&fd)?, fd)),
        Err(Errno::INPROGRESS) => Ok((false, fd)),
        Err(errno) => Err(dial_error(errno)),
    }
}

/// Whether a socket is connected by now. It is an error if it never will be.
fn is_connected(fd: &OwnedFd) -> Result<bool> {
    let Ok(there) = rustix::net::getpeername(fd) else {
        sockopt::socket_error(fd)?.map_err(dial_error)?;
        return Ok(false);
    };
    // If nobody listens on the port, the system may have given it to this very socket: TCP then
    // connects the socket to itself, and nobody can listen there any more.
    if there.is_some() && rustix::net::getsockname(fd).ok() == there {
        // A reset frees the port at once.
        sockopt::set_socket_linger(fd, Some(Duration::ZERO))?;
        return Err(dial_error(Errno::CONNREFUSED));
    }
    Ok(true)
}

/// What to dial, how, and until when.
pub struct Order {
    pub target: Arc<Target>,
    pub buffers: Buffers,
    pub deadline: Deadline,
}

/// One attempt to dial, which advances in turns of a loop. A turn is due when its socket, which the
/// loop watches under the attempt's token, is ready; when its name is resolved; and at its deadline.
pub struct Attempt {
    order: Order,
    token: Token,
    runner: &'static Loop,
    stage: Stage,
}

enum Stage {
    New,
    Name(Arc<Lookup>),
    Tcp(TcpDial),
}

impl Attempt {
    pub fn new(order: Order, token: Token, runner: &'static Loop) -> Attempt {
        Attempt { order, token, runner, stage: Stage::New }
    }

    pub fn deadline(&self) -> Deadline {
        self.order.deadline
    }

    /// Goes as far as it can. Returns the outcome, or `None` while the attempt is under way.
    pub fn turn(&mut self) -> Option<Result<OwnedFd>> {
        let deadline = self.order.deadline;
        match self.advance() {
            Ok(None) if deadline.passed() => Some(Err(deadline.error())),
            advanced => advanced.transpose(),
        }
    }

    fn advance(&mut self) -> Result<Option<OwnedFd>> {
        let buffers = self.order.buffers;
        if let Stage::New = &self.stage {
            self.stage = match &*self.order.target {
                Target::Unix(kind, name) => return try_unix(name, *kind, buffers).map(Some),
                Target::Tcp { host: Host::Name(name), .. } => Stage::Name(Lookup::join(name)?),
                Target::Tcp { family, host, port } => {
                    Stage::Tcp(TcpDial::of(host.digits(*family, *port, THIS_HOST), buffers))
                }
            };
        }
        if let (Stage::Name(lookup), Target::Tcp { family, port, .. }) =
            (&self.stage, &*self.order.target)
        {
            let Some(answer) = lookup.answer_or_look(self.token, self.runner) else {
                return Ok(None);
            };
            self.stage = Stage::Tcp(TcpDial::of(admitted(answer?, *port, *family)?, buffers));
        }
        self.leave_set();
        let Stage::Tcp(dial) = &mut self.stage else {
            return Ok(None);
        };
        let dialled = dial.turn()?;
        if let Some(fd) = dial.fd() {
            self.runner.watch(fd, self.token, NOTHING, WRITABLE)?;
        }
        Ok(dialled)
    }

    /// Takes the socket out of the loop's set. To close it is not enough if a forked child has it too.
    fn leave_set(&self) {
        let Stage::Tcp(dial) = &self.stage else {
            return;
        };
        if let Some(fd) = dial.fd() {
            // It fails only where the socket is not in the set.
            let _ = self.runner.watch(fd, self.token, WRITABLE, NOTHING);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.leave_set();
    }
}

/// The address of a target, as far as it is known without resolving a name.
pub fn address_of(target: &Target) -> Address {
    match target {
        Target::Unix(_, name) => Address::Unix(name.clone()),
        Target::Tcp { family, host, port } => {
            let first = host.digits(*family, *port, THIS_HOST).first().copied();
            first.map_or(Address::Unnamed, Address::Tcp)
        }
    }
}

/// The failure of a dial, as the reason that a connection reports for its end: reasons of that kind
/// are errors of the system.
pub fn as_end(reason: Error) -> Error {
    match reason {
        Error::Refused(errno) => Error::Os(errno),
        Error::Resolve(_) => Error::Os(Errno::HOSTUNREACH),
        Error::Timeout | Error::Again => Error::Os(Errno::TIMEDOUT),
        reason => reason,
    }
}

/// Whether a dial failed because the peer is not there (yet).
pub fn is_absence(error: &Error) -> bool {
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
