//! Whom a datagram socket sends to and hears: who was given, or who sends to it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::net::address::Address;
use crate::net::socket_file::identity;
use crate::runtime::lock::lock;
use crate::sys::name::{Name, unix_path};

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
        let (sender, changes) = self.now();
        sender.filter(|_| changes > 0).map(|name| Address::of_datagrams(name.address()))
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
        if self.now.as_ref().is_some_and(|now| is_same(now.bytes(), sender)) {
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

/// Whether two names are one socket's.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let is_same_file = || is_same_file(unix_path(one)?, unix_path(other)?).then_some(());
    one == other || is_same_file().is_some()
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
