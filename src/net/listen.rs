//! Listening sockets: made or adopted, and accepted from.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketType, sockopt};

use crate::error::{Error, Result};
use crate::net::address::{Address, EVERY_INTERFACE, Family, Target};
use crate::net::open::{CLOEXEC, family_of, nonblocking_socket, type_of};
use crate::net::resolve::{NO_ADDRESS, addresses, first};
use crate::net::socket_file::{SocketFile, take_name};
use crate::options::Options;
use crate::runtime::lock::lock;
use crate::sys::clock::Deadline;
use crate::sys::descriptor::{above_standard, blocks, is_ready, set_close_on_exec};

/// How many peers may wait to be accepted. The system's own limit (`somaxconn`) is usually lower.
pub const BACKLOG: i32 = 4096;

/// A listening socket.
#[derive(Debug)]
pub struct ListenSocket {
    fd: OwnedFd,
    pub address: Address,
    /// An adopted socket may be a blocking one, since its O_NONBLOCK is left alone. Then only one thread
    /// at a time looks whether a peer is there, and accepts it.
    blocking: Option<Mutex<()>>,
    is_adopted: bool,
}

/// Listens on a target. For a path the file is returned too; the file of a dead socket in the way is
/// replaced.
pub fn listen(target: &Target) -> Result<(ListenSocket, Option<SocketFile>)> {
    match target {
        Target::Unix(kind, name) => {
            let fd = nonblocking_socket(AddressFamily::UNIX, *kind)?;
            let mode = Options::default().unix_mode();
            let file = take_name(&fd, name, mode, |address| Ok(rustix::net::bind(&fd, address)?))?;
            ListenSocket::start(fd, file)
        }
        Target::Tcp { family, host, port } => {
            let addresses = addresses(host, *port, *family, EVERY_INTERFACE, Deadline::Never)?;
            let failed = Error::Resolve(NO_ADDRESS.into());
            first(addresses, failed, |address| listen_tcp(address, *family))
        }
    }
}

fn listen_tcp(address: SocketAddr, family: Family) -> Result<(ListenSocket, Option<SocketFile>)> {
    let fd = nonblocking_socket(family_of(&address), SocketType::STREAM)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if address.is_ipv6() {
        // The v6 wildcard of network `tcp` takes v4 peers as well.
        sockopt::set_ipv6_v6only(&fd, family == Family::V6 || !address.ip().is_unspecified())?;
    }
    rustix::net::bind(&fd, &address)?;
    ListenSocket::start(fd, None)
}

impl ListenSocket {
    /// Makes a bound socket listen. On failure its file is dropped first, which is declared last.
    fn start(fd: OwnedFd, file: Option<SocketFile>) -> Result<(ListenSocket, Option<SocketFile>)> {
        rustix::net::listen(&fd, BACKLOG)?;
        let address = rustix::net::getsockname(&fd)?.into();
        Ok((ListenSocket { fd, address, blocking: None, is_adopted: false }, file))
    }

    /// Adopts the caller's descriptor. It stays the caller's until `own` is called, after which nothing
    /// can fail.
    pub fn adopt(fd: BorrowedFd<'_>, own: impl FnOnce() -> OwnedFd) -> Result<ListenSocket> {
        check_listening(fd)?;
        let address = rustix::net::getsockname(fd)?.into();
        let is_blocking = blocks(fd)?;
        set_close_on_exec(fd)?;
        if is_blocking {
            // If another process accepts the peer first, our own accept returns within a clock tick.
            let tick = Some(Duration::from_micros(1));
            sockopt::set_socket_timeout(fd, sockopt::Timeout::Recv, tick)?;
        }
        let blocking = is_blocking.then(Mutex::default);
        Ok(ListenSocket { fd: own(), address, blocking, is_adopted: true })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether peers send messages, each of which is a frame.
    pub fn has_messages(&self) -> bool {
        type_of(self.fd()) == Ok(SocketType::SEQPACKET)
    }

    /// Whether v4 peers can connect although the address is a v6 one.
    pub fn takes_v4(&self) -> bool {
        sockopt::ipv6_v6only(&self.fd) == Ok(false)
    }

    /// Refuses all peers from now on. An adopted socket may be in use elsewhere too, and is left alone.
    pub fn refuse(&self) {
        if !self.is_adopted {
            let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
        }
    }

    /// Accepts a peer, or returns `None` if none waits.
    pub fn accept(&self) -> Result<Option<OwnedFd>> {
        let _turn = self.blocking.as_ref().map(lock);
        loop {
            if self.blocking.is_some() && !is_ready(self.fd(), PollFlags::IN)? {
                return Ok(None);
            }
            match rustix::net::accept_with(&self.fd, CLOEXEC) {
                Ok(fd) => return Ok(Some(above_standard(fd)?)),
                Err(Errno::AGAIN) => return Ok(None),
                // The peer has gone, or its network failed: accept(2) says to try again.
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
        Ok(SocketType::STREAM | SocketType::SEQPACKET) if sockopt::socket_acceptconn(fd)? => Ok(()),
        Ok(SocketType::STREAM | SocketType::SEQPACKET) => {
            Err(Error::invalid("the descriptor is a socket that does not listen"))
        }
        Ok(_) => {
            Err(Error::Unsupported("the descriptor is neither a stream nor a SEQPACKET socket"))
        }
        Err(Error::Os(Errno::NOTSOCK)) => Err(Error::invalid("the descriptor is no socket")),
        Err(error) => Err(error),
    }
}
