//! Listening sockets: made, or adopted, and accepted from.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketType, sockopt};

use crate::error::{Error, Result};
use crate::net::address::{Address, Family, Target, UnixName};
use crate::net::open::{CLOEXEC, family_of, nonblocking_socket, type_of};
use crate::net::resolve::{EVERY_INTERFACE, NO_ADDRESS, addresses, first};
use crate::net::socket_file::{SocketFile, take_name};
use crate::options::Options;
use crate::runtime::lock::lock;
use crate::sys::clock::Deadline;
use crate::sys::descriptor::{above_standard, blocks, is_ready, set_close_on_exec};

/// Requests that may wait to be accepted; the system's own limit (`somaxconn`) is lower as a rule.
pub const BACKLOG: i32 = 4096;

/// A listening socket.
#[derive(Debug)]
pub struct ListenSocket {
    fd: OwnedFd,
    pub address: Address,
    /// An adopted socket may be one that waits (its O_NONBLOCK is left alone); then only one thread
    /// at a time looks whether a connection is there and takes it.
    waits: Option<Mutex<()>>,
    is_adopted: bool,
}

/// Listens on a target. For a path, the file comes along; a dead socket's file in the way is
/// replaced.
pub fn listen(target: &Target) -> Result<(ListenSocket, Option<SocketFile>)> {
    match target {
        Target::Unix(name) => listen_unix(name, SocketType::STREAM),
        Target::UnixPacket(name) => listen_unix(name, SocketType::SEQPACKET),
        Target::Tcp { family, host, port } => {
            let addresses = addresses(host, *port, *family, EVERY_INTERFACE, Deadline::Never)?;
            let failed = Error::Resolve(NO_ADDRESS.into());
            Ok((first(addresses, failed, |address| listen_tcp(address, *family))?, None))
        }
    }
}

fn listen_tcp(address: SocketAddr, family: Family) -> Result<ListenSocket> {
    let fd = nonblocking_socket(family_of(&address), SocketType::STREAM)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if address.is_ipv6() {
        // The v6 wildcard of network `tcp` takes v4 as well.
        sockopt::set_ipv6_v6only(&fd, family == Family::V6 || !address.ip().is_unspecified())?;
    }
    rustix::net::bind(&fd, &address)?;
    let address = start(&fd)?;
    Ok(ListenSocket::new(fd, address))
}

fn listen_unix(name: &UnixName, kind: SocketType) -> Result<(ListenSocket, Option<SocketFile>)> {
    let fd = nonblocking_socket(AddressFamily::UNIX, kind)?;
    let mode = Options::default().unix_mode();
    let file = take_name(&fd, name, mode, |address| Ok(rustix::net::bind(&fd, address)?))?;
    let address = start(&fd)?;
    Ok((ListenSocket::new(fd, address), file))
}

/// Has a socket with a name listen. Returns the name.
fn start(fd: &OwnedFd) -> Result<Address> {
    rustix::net::listen(fd, BACKLOG)?;
    Ok(rustix::net::getsockname(fd)?.into())
}

impl ListenSocket {
    fn new(fd: OwnedFd, address: Address) -> ListenSocket {
        ListenSocket { fd, address, waits: None, is_adopted: false }
    }

    /// Makes one of somebody's descriptor, which is theirs until `own` is called: that is when
    /// nothing can fail any more.
    pub fn adopt(fd: BorrowedFd<'_>, own: impl FnOnce() -> OwnedFd) -> Result<ListenSocket> {
        check_listening(fd)?;
        let address = rustix::net::getsockname(fd)?.into();
        let waits = blocks(fd)?;
        set_close_on_exec(fd)?;
        if waits {
            // Where another process takes the connection first, ours is back within a tick.
            let tick = Some(Duration::from_micros(1));
            sockopt::set_socket_timeout(fd, sockopt::Timeout::Recv, tick)?;
        }
        let waits = waits.then(Mutex::default);
        Ok(ListenSocket { fd: own(), address, waits, is_adopted: true })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether its peers send messages, each of which is a frame.
    pub fn has_messages(&self) -> bool {
        type_of(self.fd()) == Ok(SocketType::SEQPACKET)
    }

    /// Whether v4 peers reach it though its address is a v6 one.
    pub fn takes_v4(&self) -> bool {
        sockopt::ipv6_v6only(&self.fd) == Ok(false)
    }

    /// Refuses all peers from now on. An adopted socket may be others' too, and is only closed.
    pub fn refuse(&self) {
        if !self.is_adopted {
            let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
        }
    }

    /// A connection, or `None` when none is waiting.
    pub fn accept(&self) -> Result<Option<OwnedFd>> {
        let _turn = self.waits.as_ref().map(lock);
        loop {
            if self.waits.is_some() && !is_ready(self.fd(), PollFlags::IN)? {
                return Ok(None);
            }
            match rustix::net::accept_with(&self.fd, CLOEXEC) {
                Ok(fd) => return above_standard(fd).map(Some),
                Err(Errno::AGAIN) => return Ok(None),
                // A client that has gone, or a network error of its own: accept(2) says go on.
                Err(
                    Errno::CONNABORTED
                    | Errno::INTR
                    | Errno::NETDOWN
                    | Errno::PROTO
                    | Errno::NOPROTOOPT
                    | Errno::HOSTDOWN
                    | Errno::NONET
                    | Errno::HOSTUNREACH
                    | Errno::OPNOTSUPP
                    | Errno::NETUNREACH
                    | Errno::TIMEDOUT,
                ) => {}
                Err(errno) => return Err(Error::Os(errno)),
            }
        }
    }
}

fn check_listening(fd: BorrowedFd<'_>) -> Result<()> {
    match type_of(fd) {
        Ok(SocketType::STREAM | SocketType::SEQPACKET) => {}
        Err(Error::Os(Errno::NOTSOCK)) => {
            return Err(Error::invalid("the descriptor is no socket"));
        }
        kind => {
            kind?;
            return Err(Error::Unsupported("the descriptor is no stream or SEQPACKET socket"));
        }
    }
    if !sockopt::socket_acceptconn(fd)? {
        return Err(Error::invalid("the descriptor is a socket that does not listen"));
    }
    Ok(())
}
