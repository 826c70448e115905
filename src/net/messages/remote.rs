//! Whom a datagram socket sends to and hears: who was given, or who sends to it.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SocketAddrAny, sockopt};

use crate::error::Result;
use crate::net::address::Address;
use crate::net::socket::{datagram_socket, family_of};
use crate::net::socket_file::identity;
use crate::runtime::lock::lock;
use crate::sys::mmsg;

/// The longest name of a socket here, a Unix one's.
const LONGEST: usize = size_of::<libc::sockaddr_un>();

/// Where in a Unix name the path begins.
const BEHIND_FAMILY: usize = size_of::<libc::sa_family_t>();

/// The name of a socket: the bytes of its `struct sockaddr`.
#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Name {
    /// One that the kernel has written. None is too short or too long.
    fn of(bytes: &[u8]) -> Option<Name> {
        let mut name = Name { bytes: [0; LONGEST], len: bytes.len() };
        name.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        // Without a name a socket has at most a family.
        (bytes.len() > BEHIND_FAMILY).then_some(name)
    }

    pub fn of_address(address: &impl SocketAddrArg) -> Option<Name> {
        // SAFETY: that many bytes are there, for the call.
        unsafe {
            address.with_sockaddr(|at, len| {
                Name::of(std::slice::from_raw_parts(at.cast(), len as usize))
            })
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn address(&self) -> Address {
        // SAFETY: these are the bytes of an address, and their number.
        Address::of_datagrams(unsafe {
            SocketAddrAny::read(self.bytes.as_ptr().cast(), self.len as SocketAddrLen)
        })
    }

    /// Whether that is it, too.
    fn is(&self, other: &[u8]) -> bool {
        let name = self.bytes();
        if name == other {
            return true;
        }
        let is_unix = |name: &[u8]| {
            name.first_chunk().map(|family| u16::from_ne_bytes(*family))
                == Some(AddressFamily::UNIX.as_raw())
        };
        is_unix(name)
            && is_unix(other)
            && is_same_file(&name[BEHIND_FAMILY..], &other[BEHIND_FAMILY..])
    }
}

// SAFETY: the bytes are those of a `struct sockaddr`, for as long as the call takes.
unsafe impl SocketAddrArg for Name {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f(self.bytes.as_ptr().cast(), self.len as SocketAddrLen)
    }
}

/// Whether two names in `sun_path`, of which abstract ones begin with a NUL, are the same path or lead
/// to the same file.
fn is_same_file(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (path_in(one), path_in(other));
    let is_path = !one.is_empty() && !other.is_empty();
    is_path && (one == other || identity(other).is_ok_and(|file| identity(one) == Ok(file)))
}

fn path_in(name: &[u8]) -> &[u8] {
    name.split(|&b| b == 0).next().unwrap_or_default()
}

/// A UDP socket beside one that is connected, at the same address. The kernel gives it what comes from
/// others than the remote; it takes nothing of that, and the kernel counts what is not taken.
pub struct Strangers(OwnedFd);

impl Strangers {
    /// Beside a socket that is bound, and takes nothing until it is connected.
    pub fn beside(fd: &OwnedFd) -> Result<Strangers> {
        let address = SocketAddr::try_from(rustix::net::getsockname(fd)?)?;
        let strangers = datagram_socket(family_of(&address))?;
        mmsg::take_nothing(strangers.as_fd(), true)?;
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
        mmsg::not_taken(self.0.as_fd()).unwrap_or(0).into()
    }
}

/// The remote of a socket.
pub struct Remote {
    given: Option<Name>,
    /// Whether whoever sends takes the place of the one before. Relaxed: it stands alone.
    relearns: AtomicBool,
    /// How often a sender has taken it. Acquire and Release: `sender` is there from the first on.
    changes: AtomicU32,
    sender: Mutex<Option<Name>>,
}

impl Remote {
    pub fn new(given: Option<Name>) -> Remote {
        let (relearns, changes) = (AtomicBool::new(false), AtomicU32::new(0));
        Remote { given, relearns, changes, sender: Mutex::default() }
    }

    /// Whether it is whoever sends.
    pub fn is_sender(&self) -> bool {
        self.given.is_none()
    }

    pub fn set_relearning(&self, whether: bool) {
        self.relearns.store(whether, Ordering::Relaxed);
    }

    /// Who it is now, if anybody, and how often that has changed.
    pub fn now(&self) -> (Option<Name>, u32) {
        if self.changes.load(Ordering::Acquire) == 0 {
            return (self.given, 0);
        }
        let sender = lock(&self.sender);
        (*sender, self.changes.load(Ordering::Relaxed))
    }

    /// The one that was learned.
    pub fn learned(&self) -> Option<Address> {
        self.now().0.filter(|_| self.changes.load(Ordering::Relaxed) > 0).map(|name| name.address())
    }

    /// For the messages of one read. One thread reads at a time.
    pub fn hearing(&self) -> Hearing<'_> {
        Hearing { remote: self, now: self.now().0 }
    }
}

/// What a reader knows of the remote.
pub struct Hearing<'a> {
    remote: &'a Remote,
    now: Option<Name>,
}

impl Hearing<'_> {
    /// Whether a message comes from the remote, which its sender may be from now on.
    pub fn admits(&mut self, sender: &[u8]) -> bool {
        if self.now.as_ref().is_some_and(|now| now.is(sender)) {
            return true;
        }
        let learns = self.now.is_none() || self.remote.relearns.load(Ordering::Relaxed);
        let Some(name) = Name::of(sender).filter(|_| learns) else {
            return false;
        };
        let mut sender = lock(&self.remote.sender);
        *sender = Some(name);
        self.remote.changes.fetch_add(1, Ordering::Release);
        drop(sender);
        self.now = Some(name);
        true
    }
}
