//! UDP: what the kernel is left to do, and what becomes of what was sent.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::net::sockopt;

use crate::error::Result;
use crate::frame;
use crate::net::io::Lost;
use crate::net::messages::remote::Remote;
use crate::net::open::{datagram_socket, family_of};
use crate::runtime::lock::lock;
use crate::sys::mmsg::{MESSAGES, Outbox, Size, next_error};
use crate::sys::name::Name;
use crate::sys::sockopt::{not_taken, set_option, take_nothing};

/// The most bytes of a datagram, less the headers.
pub const V4_MAX: usize = 65_535 - 20 - 8;
const V6_MAX: usize = 65_535 - 8;

/// How many messages are remembered before it is asked what became of them: more than one call
/// sends.
const RECENT: usize = 2 * MESSAGES;

/// A UDP socket.
pub struct Udp {
    is_v4: bool,
    pub peer: Peer,
    /// Up to what length frames are left to the kernel to make datagrams of. Relaxed: one thread
    /// sends at a time.
    segment_max: AtomicUsize,
    sent: Mutex<Sent>,
}

/// Whom a UDP socket sends to and hears.
pub enum Peer {
    /// To whom somebody else has connected it: the kernel keeps strangers' datagrams from it.
    Adopted,
    /// To whom it is connected, which is less work than a name with each message. What comes from
    /// others goes to a socket of theirs.
    Given(Strangers),
    /// Whoever sends; the socket is not connected.
    Sender(Box<Remote>),
}

/// What became of messages after they were sent.
#[derive(Default)]
struct Sent {
    /// The last of those that nothing was heard of.
    recent: Vec<Size>,
    /// Those that the peer's host has refused.
    refused: Lost,
}

impl Udp {
    pub fn over(fd: BorrowedFd<'_>, is_v4: bool, peer: Peer) -> Udp {
        // Without the ones refusals are not counted (a v6 socket may have a v4 peer), without the
        // other each datagram is a message.
        let _ = set_option(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1);
        let _ = set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1);
        let _ = set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1);
        // A kernel before 4.18 would send what it is to cut as it is.
        let is_cut = set_option(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        let segment_max = AtomicUsize::new(if is_cut { frame::MAX } else { 0 });
        Udp { is_v4, peer, segment_max, sent: Mutex::default() }
    }

    pub fn max_frame(&self) -> usize {
        if self.is_v4 { V4_MAX } else { V6_MAX }
    }

    pub fn segment_max(&self) -> usize {
        self.segment_max.load(Ordering::Relaxed)
    }

    /// Has frames of `len` bytes not left to the kernel any more.
    pub fn segment_below(&self, len: usize) {
        self.segment_max.store(len - 1, Ordering::Relaxed);
    }

    /// Sends messages from the front. Returns how many were.
    pub fn send(&self, fd: BorrowedFd<'_>, outbox: &Outbox<'_>) -> rustix::io::Result<usize> {
        let to = match &self.peer {
            Peer::Sender(remote) => Some(remote.now().0.ok_or(Errno::DESTADDRREQ)?),
            _ => None,
        };
        // Meanwhile nobody else counts: what is refused at once is not yet among the recent ones.
        let mut sent = lock(&self.sent);
        let count = outbox.send(fd, to.as_ref().map_or(&[], Name::bytes));
        sent.recent.extend(outbox.sizes().take(count.unwrap_or(0)));
        if count != Ok(outbox.len()) || sent.recent.len() > RECENT {
            // It stopped at an error that it may not have told.
            sent.look_for_refusals(fd);
            sent.forget();
        }
        count
    }

    /// What was refused after it had been sent.
    pub fn refused(&self, fd: BorrowedFd<'_>) -> Lost {
        let mut sent = lock(&self.sent);
        sent.look_for_refusals(fd);
        sent.refused
    }
}

impl Sent {
    /// Counts what the peer's host has refused. The kernel tells of it once a message, whatever
    /// datagrams it made of it, and soon: so it is one of the last.
    fn look_for_refusals(&mut self, fd: BorrowedFd<'_>) {
        while let Some(is_refusal) = next_error(fd) {
            if let Some(size) = self.recent.pop_if(|_| is_refusal) {
                self.refused.add(size.into());
            }
        }
    }

    fn forget(&mut self) {
        self.recent.drain(..self.recent.len().saturating_sub(MESSAGES));
    }
}

/// A socket beside one that is connected, at the same address. The kernel gives it what comes from
/// others than the remote; it takes nothing of that, and the kernel counts what is not taken.
pub struct Strangers(OwnedFd);

impl Strangers {
    /// Binds a socket to `local` and connects it to `remote`.
    pub fn connect(fd: &OwnedFd, local: SocketAddr, remote: SocketAddr) -> Result<Strangers> {
        // What comes before it is connected may be a stranger's.
        take_nothing(fd.as_fd(), true)?;
        rustix::net::bind(fd, &local)?;
        let strangers = Strangers::beside(fd)?;
        rustix::net::connect(fd, &remote)?;
        take_nothing(fd.as_fd(), false)?;
        Ok(strangers)
    }

    fn beside(fd: &OwnedFd) -> Result<Strangers> {
        let address = SocketAddr::try_from(rustix::net::getsockname(fd)?)?;
        let strangers = datagram_socket(family_of(&address))?;
        take_nothing(strangers.as_fd(), true)?;
        // Only now: nobody else was at the address, and nobody else is to come.
        sockopt::set_socket_reuseaddr(fd, true)?;
        sockopt::set_socket_reuseaddr(&strangers, true)?;
        rustix::net::bind(&strangers, &address)?;
        sockopt::set_socket_reuseaddr(fd, false)?;
        sockopt::set_socket_reuseaddr(&strangers, false)?;
        Ok(Strangers(strangers))
    }

    /// How many messages there were. A kernel before 4.12 does not tell.
    pub fn count(&self) -> u64 {
        not_taken(self.0.as_fd()).unwrap_or(0).into()
    }
}
