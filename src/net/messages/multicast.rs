//! A member of a multicast group.

use std::os::fd::OwnedFd;

use rustix::net::SocketAddrAny;

use crate::net::open::tune;
use crate::sys::name::Name;

/// It sends through a socket of its own, so that its echo can be told from what others on this host
/// send, whose source is the group's port as well.
pub struct Multicast {
    pub out: OwnedFd,
    source: Option<Name>,
}

impl Multicast {
    pub fn new(out: OwnedFd, source: &SocketAddrAny) -> Multicast {
        tune(&out);
        Multicast { out, source: Name::of_address(source) }
    }

    /// Whether it has sent itself what comes from there.
    pub fn is_own(&self, sender: &[u8]) -> bool {
        self.source.is_some_and(|source| source.bytes() == sender)
    }
}
