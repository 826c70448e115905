//! Dialling a target: by a caller who waits for it, or by turns, none of which waits.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketType};

use crate::error::{Error, Result};
use crate::net::address::{Family, Host, Target, UnixName};
use crate::net::resolve::{self, Lookup, resolve};
use crate::net::socket::{Buffers, CLOEXEC, family_of, nonblocking_socket, open_socket};
use crate::runtime::handle::Token;
use crate::runtime::wake::{self, Wake};
use crate::sys::clock::Deadline;
use crate::sys::descriptor::Poller;

/// The longest that one `connect` of a Unix socket waits for room in the backlog. Finite, since a
/// wait without an end is resumed after a signal handler with SA_RESTART.
const CONNECT_SLICE: Duration = Duration::from_secs(3600);

/// A socket that is connected to a target.
pub fn dial(target: &Target, buffers: Buffers, deadline: Deadline) -> Result<OwnedFd> {
    match target {
        Target::Unix(name) => dial_unix(name, SocketType::STREAM, buffers, deadline),
        Target::UnixPacket(name) => dial_unix(name, SocketType::SEQPACKET, buffers, deadline),
        Target::Tcp { family, host, port } => {
            let addresses = match host {
                Host::Name(name) => resolve(name, *port, *family, deadline)?,
                host => here(host, *family, *port),
            };
            TcpDial::of(addresses, buffers).wait(deadline)
        }
    }
}

/// The addresses of a host that needs no look-up.
fn here(host: &Host, family: Family, port: u16) -> Vec<SocketAddr> {
    host.digits(family, port, Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST)
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
    let fd = open_socket(AddressFamily::UNIX, kind, CLOEXEC)?;
    wake::prepare_to_wait();
    buffers.apply(&fd)?;
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
    buffers.apply(&fd)?;
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

/// How far a socket is.
enum Connect {
    UnderWay(OwnedFd),
    Done(OwnedFd),
}

impl TcpDial {
    fn of(addresses: Vec<SocketAddr>, buffers: Buffers) -> TcpDial {
        let addresses = addresses.into_iter();
        let failed = Error::Resolve("the name has no address of this network".into());
        TcpDial { addresses, buffers, under_way: None, failed }
    }

    /// What is to become writable, or to fail.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.under_way.as_ref().map(AsFd::as_fd)
    }

    /// Goes as far as it can without waiting. Returns the socket, or `None` while one is under way.
    fn turn(&mut self) -> Result<Option<OwnedFd>> {
        loop {
            let connect = match self.under_way.take() {
                Some(fd) => look(fd),
                None => match self.addresses.next() {
                    Some(address) => begin(&address, self.buffers),
                    None => return Err(self.failed.clone()),
                },
            };
            match connect {
                Ok(Connect::Done(fd)) => return Ok(Some(fd)),
                Ok(Connect::UnderWay(fd)) => {
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

fn begin(address: &SocketAddr, buffers: Buffers) -> Result<Connect> {
    let fd = nonblocking_socket(family_of(address), SocketType::STREAM)?;
    buffers.apply(&fd)?;
    match rustix::net::connect(&fd, address) {
        Ok(()) => connected(fd),
        Err(Errno::INPROGRESS) => Ok(Connect::UnderWay(fd)),
        Err(errno) => Err(dial_error(errno)),
    }
}

fn look(fd: OwnedFd) -> Result<Connect> {
    if rustix::net::getpeername(&fd).is_ok() {
        return connected(fd);
    }
    sockopt::socket_error(&fd)?.map_err(dial_error)?;
    Ok(Connect::UnderWay(fd))
}

/// Where nobody listens on a port that the system gives to who connects, it may be this socket's
/// own: TCP then connects it to itself, and nobody could listen there any more.
fn connected(fd: OwnedFd) -> Result<Connect> {
    match (rustix::net::getsockname(&fd), rustix::net::getpeername(&fd)) {
        (Ok(here), Ok(Some(there))) if here == there => {
            // A reset frees the port at once.
            sockopt::set_socket_linger(&fd, Some(Duration::ZERO))?;
            Err(dial_error(Errno::CONNREFUSED))
        }
        _ => Ok(Connect::Done(fd)),
    }
}

/// What to dial, how, and until when.
pub struct Order {
    pub target: Arc<Target>,
    pub buffers: Buffers,
    pub deadline: Deadline,
}

/// One attempt by turns: it wants one when its socket, which is in the set under its connection's
/// token, tells of something; when the name is known; and at its deadline.
pub struct Attempt {
    order: Order,
    conn: Token,
    poller: Arc<Poller>,
    stage: Stage,
}

enum Stage {
    Begun,
    Name(Arc<Lookup>),
    Tcp(TcpDial),
}

impl Attempt {
    pub fn new(order: Order, conn: Token, poller: Arc<Poller>) -> Attempt {
        Attempt { order, conn, poller, stage: Stage::Begun }
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
                Target::Tcp { family, host, port } => {
                    Stage::Tcp(TcpDial::of(here(host, *family, *port), buffers))
                }
            };
        }
        if let (Stage::Name(lookup), Target::Tcp { family, port, .. }) =
            (&self.stage, &*self.order.target)
        {
            let Some(answer) = lookup.answer_or_look(self.conn) else {
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
            let data = EventData::new_u64(self.conn);
            epoll::add(&self.poller.epoll, fd, data, EventFlags::OUT)?;
        }
        Ok(dialled)
    }

    /// Takes the socket out of the set: being closed does not, where a forked child has it too.
    fn leave_set(&self) {
        if let Stage::Tcp(dial) = &self.stage
            && let Some(fd) = dial.fd()
        {
            // It fails only where the socket is not in the set.
            let _ = epoll::delete(&self.poller.epoll, fd);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.leave_set();
    }
}
