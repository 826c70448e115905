//! Sockets on which a message is a frame: datagrams, SEQPACKET, and the kernel's TAP interfaces.
//!
//! To the rest of the library they look like streams: frames are read into wire format, and written from
//! it.

pub mod multicast;
pub mod read;
pub mod remote;
pub mod tap;
pub mod udp;
pub mod unix;
pub mod write;

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::error::{Error, Result};
use crate::frame;
use crate::net::io::Lost;
use crate::net::messages::multicast::Multicast;
use crate::net::messages::remote::Remote;
use crate::net::messages::tap::Tap;
use crate::net::messages::udp::{Peer, Udp};
use crate::net::messages::unix::UnixDgram;
use crate::net::open::type_of;
use crate::net::socket_file::SocketFile;

/// A read or a write may report the error of an earlier message. After so many it gives up.
const TRIES: u32 = 4;

/// What kind of socket the messages go through.
pub enum Messages {
    /// A connected Unix datagram socket: one end of a pair.
    Paired,
    /// A SEQPACKET socket: the only kind that shows when the peer leaves.
    Sequenced,
    Udp(Udp),
    Unix(UnixDgram),
    Multicast(Multicast),
    Tap(Tap),
}

impl Messages {
    /// The kind of the caller's descriptor, which is a connected socket or a TAP; `None` for a stream.
    pub fn of(fd: BorrowedFd<'_>) -> Result<Option<Messages>> {
        let kind = match type_of(fd) {
            Err(Error::Os(Errno::NOTSOCK)) => return Tap::adopted(fd).map(Messages::Tap).map(Some),
            kind => kind?,
        };
        check_connected(fd)?;
        let udp = |is_v4| Messages::Udp(Udp::over(fd, is_v4, Peer::Adopted));
        Ok(match (kind, sockopt::socket_domain(fd)?) {
            (SocketType::STREAM, _) => None,
            (SocketType::DGRAM, AddressFamily::UNIX) => Some(Messages::Paired),
            (SocketType::SEQPACKET, AddressFamily::UNIX) => Some(Messages::Sequenced),
            (SocketType::DGRAM, AddressFamily::INET) => Some(udp(true)),
            (SocketType::DGRAM, AddressFamily::INET6) => Some(udp(false)),
            _ => return Err(OTHER_KIND),
        })
    }

    /// The longest frame that fits a message.
    pub fn max_frame(&self) -> usize {
        match self {
            Messages::Udp(udp) => udp.max_frame,
            Messages::Multicast(_) => udp::V4_MAX,
            _ => frame::MAX,
        }
    }

    /// The file that was made with the socket.
    pub fn file(&self) -> Option<&SocketFile> {
        match self {
            Messages::Unix(unix) => unix.file.as_ref(),
            _ => None,
        }
    }

    /// Whether it shows when the peer leaves. Then writers wait for a peer that does not read, as on a
    /// stream.
    pub fn ends(&self) -> bool {
        matches!(self, Messages::Sequenced)
    }

    /// Whether it is a TAP, which has a carrier to show.
    pub fn is_tap(&self) -> bool {
        matches!(self, Messages::Tap(_))
    }

    /// The remote of a socket that is not connected to it.
    pub fn remote(&self) -> Option<&Remote> {
        match self {
            Messages::Udp(Udp { peer: Peer::Sender(remote), .. }) => Some(remote),
            Messages::Unix(unix) => Some(&unix.remote),
            _ => None,
        }
    }

    /// How many messages from others than the remote the kernel has kept away.
    pub fn kept_away(&self) -> u64 {
        match self {
            Messages::Udp(Udp { peer: Peer::Given(strangers), .. }) => strangers.count(),
            _ => 0,
        }
    }

    /// The frames that were refused after they had been sent.
    pub fn refused(&self, fd: BorrowedFd<'_>) -> Lost {
        match self {
            Messages::Udp(udp) => udp.refused(fd),
            _ => Lost::default(),
        }
    }

    /// The descriptor to wait on for room to write, where it is not `fd`.
    pub fn room(&self, fd: BorrowedFd<'_>) -> Option<BorrowedFd<'_>> {
        match self {
            Messages::Unix(unix) if !unix.waits_for_remote(fd) => None,
            _ => self.second_fd(),
        }
    }

    /// The second socket, which some kinds write to.
    pub fn second_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Messages::Multicast(group) => Some(group.out.as_fd()),
            Messages::Unix(unix) => Some(unix.out.as_fd()),
            _ => None,
        }
    }
}

const OTHER_KIND: Error =
    Error::Unsupported("the descriptor is a socket of a kind that carries no frames");

fn check_connected(fd: BorrowedFd<'_>) -> Result<()> {
    if sockopt::socket_acceptconn(fd)? {
        return Err(Error::invalid("the descriptor is a listening socket"));
    }
    match rustix::net::getpeername(fd) {
        Err(Errno::NOTCONN) => {
            Err(Error::invalid("the descriptor is a socket that is not connected"))
        }
        Err(Errno::OPNOTSUPP) => Err(OTHER_KIND),
        named => Ok(named.map(|_| ())?),
    }
}
