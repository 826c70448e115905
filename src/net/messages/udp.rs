//! UDP: what is left to the kernel, and what becomes of the frames that were sent.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

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

/// The longest payload of a datagram.
pub const V4_MAX: usize = 65_535 - 20 - 8;
const V6_MAX: usize = 65_535 - 8;

/// How many messages are remembered before the kernel is asked what became of them: more than one
/// call sends.
const RECENT: usize = 2 * MESSAGES;

/// A UDP socket.
pub struct Udp {
    pub max_frame: usize,
    pub peer: Peer,
    /// Up to this length, frames share a message that the kernel cuts into datagrams. Relaxed: one
    /// thread sends at a time.
    pub segment_max: AtomicUsize,
    sent: Mutex<Sent>,
}

/// Whom a UDP socket sends to and hears.
pub enum Peer {
    /// The peer to which the caller has connected the socket. The kernel keeps others' datagrams away.
    Adopted,
    /// The given remote. The socket is connected to it, which saves an address with each message;
    /// datagrams from others go to a second socket.
    Given(Strangers),
    /// Whoever sends. The socket is not connected.
    Sender(Box<Remote>),
}

/// What became of messages after they were sent.
#[derive(Default)]
struct Sent {
    /// The last messages that were sent and not reported as refused.
    recent: Vec<Size>,
    /// The frames that the peer's host has refused.
    refused: Lost,
}

impl Udp {
    /// Prepares a socket, which works without any of these options too: without RECVERR refusals are
    /// not counted (a v6 socket may have a v4 peer), without GRO each datagram is a message.
    pub fn over(fd: BorrowedFd<'_>, is_v4: bool, peer: Peer) -> Udp {
        let _ = set_option(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1);
        let _ = set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1);
        let _ = set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1);
        // A kernel before 4.18 would send a message uncut.
        let is_cut = set_option(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        let segment_max = AtomicUsize::new(if is_cut { frame::MAX } else { 0 });
        let max_frame = if is_v4 { V4_MAX } else { V6_MAX };
        Udp { max_frame, peer, segment_max, sent: Mutex::default() }
    }

    /// Sends messages from the front of the outbox. Returns how many.
    pub fn send(&self, fd: BorrowedFd<'_>, outbox: &Outbox<'_>) -> rustix::io::Result<usize> {
        let to = match &self.peer {
            Peer::Sender(remote) => Some(remote.now().0.ok_or(Errno::DESTADDRREQ)?),
            _ => None,
        };
        // The lock keeps others from counting refusals before the messages are among the recent ones.
        let mut sent = lock(&self.sent);
        let count = outbox.send(fd, to.as_ref().map_or(&[], Name::bytes));
        sent.recent.extend(outbox.sizes().take(count.unwrap_or(0)));
        if count != Ok(outbox.len()) || sent.recent.len() > RECENT {
            // It stopped at an error, which it reports only if it has sent nothing.
            sent.look_for_refusals(fd);
            let old = sent.recent.len().saturating_sub(MESSAGES);
            sent.recent.drain(..old);
        }
        count
    }

    /// The frames that were refused after they had been sent.
    pub fn refused(&self, fd: BorrowedFd<'_>) -> Lost {
        let mut sent = lock(&self.sent);
        sent.look_for_refusals(fd);
        sent.refused
    }
}

impl Sent {
    /// Counts what the peer's host has refused. The kernel reports it soon, and once a message, however
    /// many datagrams it cut that into: so the message is one of the last.
    fn look_for_refusals(&mut self, fd: BorrowedFd<'_>) {
        while let Some(is_refusal) = next_error(fd) {
            if is_refusal {
                if let Some(size) = self.recent.pop() {
                    self.refused.add(size.into());
                }
            }
        }
    }
}

/// A second socket at the address of one that is connected. It gets the datagrams from others than the
/// remote, and takes none of them; the kernel counts those.
pub struct Strangers(OwnedFd);

impl Strangers {
    /// Binds a socket to `local` and connects it to `remote`, with a second socket for the others.
    pub fn connect(fd: &OwnedFd, local: SocketAddr, remote: SocketAddr) -> Result<Strangers> {
        // A datagram that comes before the socket is connected may be from anybody.
        take_nothing(fd.as_fd(), true)?;
        rustix::net::bind(fd, &local)?;
        let address = SocketAddr::try_from(rustix::net::getsockname(fd)?)?;
        let strangers = datagram_socket(family_of(&address))?;
        take_nothing(strangers.as_fd(), true)?;
        // Between the two binds alone, so that nobody else shares the address.
        let share = |whether| {
            sockopt::set_socket_reuseaddr(fd, whether)?;
            sockopt::set_socket_reuseaddr(&strangers, whether)
        };
        share(true)?;
        rustix::net::bind(&strangers, &address)?;
        share(false)?;
        rustix::net::connect(fd, &remote)?;
        take_nothing(fd.as_fd(), false)?;
        Ok(Strangers(strangers))
    }

    /// How many datagrams came from others. It is 0 on a kernel before 4.12, which does not tell.
    pub fn count(&self) -> u64 {
        not_taken(self.0.as_fd()).unwrap_or(0).into()
    }
}
