//! Dialling a target: by a caller who waits for it, or by turns, none of which waits.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::{Error, Result};
use crate::net::address::{Address, Host, Target, UnixName};
use crate::net::open::{family_of, nonblocking_socket, open, set_buffers};
use crate::net::resolve::{self, Lookup, NO_ADDRESS, THIS_HOST, addresses};
use crate::options::Buffers;
use crate::runtime::event_loop::{Loop, NOTHING, WRITABLE};
use crate::runtime::handle::Token;
use crate::runtime::wake::{self, Wake};
use crate::sys::clock::Deadline;

/// The longest that one `connect` of a Unix socket waits for room in the backlog. Finite, since a
/// wait without an end is resumed after a signal handler with SA_RESTART.
const CONNECT_SLICE: Duration = Duration::from_secs(3600);

/// A socket that is connected to a target.
pub fn dial(target: &Target, buffers: Buffers, deadline: Deadline) -> Result<OwnedFd> {
    match target {
        Target::Unix(name) => dial_unix(name, SocketType::STREAM, buffers, deadline),
        Target::UnixPacket(name) => dial_unix(name, SocketType::SEQPACKET, buffers, deadline),
        Target::Tcp { family, host, port } => {
            let addresses = addresses(host, *port, *family, THIS_HOST, deadline)?;
            TcpDial::of(addresses, buffers).wait(deadline)
        }
    }
}

/// Why a dial of one address failed.
fn dial_error(errno: Errno) -> Error {
    match errno {
        // A socket file that is not there is nobody's yet.
        Errno::CONNREFUSED | Errno::NOENT => Error::Refused(errno),
        Errno::INTR => Error::Interrupted,
        errno => Error::Os(errno),
    }
}

/// A `connect` that finds the backlog full cannot be polled for, so this one waits in the kernel.
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

/// The same without waiting: a full backlog is nobody who answers.
fn try_unix(name: &UnixName, kind: SocketType, buffers: Buffers) -> Result<OwnedFd> {
    let address = name.to_socket_address()?;
    let fd = nonblocking_socket(AddressFamily::UNIX, kind)?;
    set_buffers(&fd, buffers)?;
    rustix::net::connect(&fd, &address).map_err(dial_error)?;
    Ok(fd)
}

/// A dial of one address after the other, until one answers; the last one's failure is told.
struct TcpDial {
    /// Those to be tried yet.
    addresses: std::vec::IntoIter<SocketAddr>,
    buffers: Buffers,
    /// What is being connected.
    under_way: Option<OwnedFd>,
    failed: Error,
}

impl TcpDial {
    fn of(addresses: Vec<SocketAddr>, buffers: Buffers) -> TcpDial {
        let addresses = addresses.into_iter();
        let failed = Error::Resolve(NO_ADDRESS.into());
        TcpDial { addresses, buffers, under_way: None, failed }
    }

    /// What is to become writable, or to fail.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.under_way.as_ref().map(AsFd::as_fd)
    }

    /// Goes as far as it can without waiting. Returns the socket, or `None` while one is under way.
    fn turn(&mut self) -> Result<Option<OwnedFd>> {
        loop {
            let connecting = match self.under_way.take() {
                Some(fd) => Ok(fd),
                None => match self.addresses.next() {
                    Some(address) => begin(&address, self.buffers),
                    None => return Err(self.failed.clone()),
                },
            };
            match connecting.and_then(|fd| Ok((is_connected(&fd)?, fd))) {
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
        // Nobody else knows the socket, so nothing but it, a signal or the time can end this.
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

fn begin(address: &SocketAddr, buffers: Buffers) -> Result<OwnedFd> {
    let fd = nonblocking_socket(family_of(address), SocketType::STREAM)?;
    set_buffers(&fd, buffers)?;
    match rustix::net::connect(&fd, address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(errno) => Err(dial_error(errno)),
    }
}

/// Whether it is, by now; an error, if it never will be.
fn is_connected(fd: &OwnedFd) -> Result<bool> {
    let Ok(there) = rustix::net::getpeername(fd) else {
        sockopt::socket_error(fd)?.map_err(dial_error)?;
        return Ok(false);
    };
    // Where nobody listens on a port that the system gives to who connects, it may be this socket's
    // own: TCP then connects it to itself, and nobody could listen there any more.
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

/// One attempt by turns of a loop: it wants one when its socket, which the loop watches under that
/// token, tells of something; when the name is known; and at its deadline.
pub struct Attempt {
    order: Order,
    token: Token,
    runner: &'static Loop,
    stage: Stage,
}

enum Stage {
    Begun,
    Name(Arc<Lookup>),
    Tcp(TcpDial),
}

impl Attempt {
    pub fn new(order: Order, token: Token, runner: &'static Loop) -> Attempt {
        Attempt { order, token, runner, stage: Stage::Begun }
    }

    pub fn deadline(&self) -> Deadline {
        self.order.deadline
    }

    /// Goes as far as it can. Returns what came of it, or `None` while it is under way.
    pub fn turn(&mut self) -> Option<Result<OwnedFd>> {
        let deadline = self.order.deadline;
        match self.advance() {
            Ok(None) if deadline.passed() => Some(Err(deadline.error())),
            advanced => advanced.transpose(),
        }
    }

    fn advance(&mut self) -> Result<Option<OwnedFd>> {
        let buffers = self.order.buffers;
        if let Stage::Begun = &self.stage {
            self.stage = match &*self.order.target {
                Target::Unix(name) => return try_unix(name, SocketType::STREAM, buffers).map(Some),
                Target::UnixPacket(name) => {
                    return try_unix(name, SocketType::SEQPACKET, buffers).map(Some);
                }
                Target::Tcp { host: Host::Name(name), .. } => {
                    Stage::Name(resolve::lookups().join(name)?)
                }
                Target::Tcp { family, host, port } => Stage::Tcp(TcpDial::of(
                    host.digits(*family, *port, THIS_HOST.0, THIS_HOST.1),
                    buffers,
                )),
            };
        }
        if let (Stage::Name(lookup), Target::Tcp { family, port, .. }) =
            (&self.stage, &*self.order.target)
        {
            let Some(answer) = lookup.answer_or_look(self.token, self.runner) else {
                return Ok(None);
            };
            let addresses = resolve::admitted(answer?, *port, *family)?;
            self.stage = Stage::Tcp(TcpDial::of(addresses, buffers));
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

    /// Takes the socket out of the set: being closed does not, where a forked child has it too.
    fn leave_set(&self) {
        if let Stage::Tcp(dial) = &self.stage
            && let Some(fd) = dial.fd()
        {
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

/// Where a target is, as far as that is known without asking.
pub fn address_of(target: &Target) -> Address {
    match target {
        Target::Unix(name) | Target::UnixPacket(name) => Address::Unix(name.clone()),
        Target::Tcp { family, host, port } => host
            .digits(*family, *port, Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST)
            .first()
            .map_or(Address::Unnamed, |address| Address::Tcp(*address)),
    }
}

/// What an end may have been, of a dial in vain.
pub fn as_end(reason: Error) -> Error {
    match reason {
        Error::Refused(errno) => Error::Os(errno),
        Error::Resolve(_) => Error::Os(Errno::HOSTUNREACH),
        Error::Timeout | Error::Again => Error::Os(Errno::TIMEDOUT),
        reason => reason,
    }
}

/// Whether a dial failed since the peer is not there (yet).
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
