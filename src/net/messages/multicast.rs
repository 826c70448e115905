//! A member of a multicast group.

use std::os::fd::OwnedFd;

use rustix::net::SocketAddrAny;

use crate::net::open::tune;
use crate::sys::name::Name;

/// A member sends through a second socket. The source of its frames then differs from that of others on
/// this host, who send from the group's port, so that it recognizes its own when they come back.
pub struct Multicast {
    pub out: OwnedFd,
    source: Option<Name>,
}

impl Multicast {
    pub fn new(out: OwnedFd, source: &SocketAddrAny) -> Multicast {
        tune(&out);
        Multicast { out, source: Name::of_address(source) }
    }

    /// Whether a message from `sender` is the member's own.
    pub fn is_own(&self, sender: &[u8]) -> bool {
        self.source.is_some_and(|source| source.bytes() == sender)
    }
}
