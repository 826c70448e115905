//! The remote that a datagram socket exchanges frames with: the one that was given, or who sends to it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::net::address::Address;
use crate::net::socket_file::identity;
use crate::runtime::lock::lock;
use crate::sys::name::{Name, path_in};

/// The remote of a socket that is not connected.
pub struct Remote {
    given: Option<Name>,
    /// Whether each later sender takes the place of the one before. Relaxed: no other memory depends
    /// on it.
    relearns: AtomicBool,
    /// How often a sender has become the remote. Acquire and Release: from the first on, `sender` is
    /// set.
    changes: AtomicU32,
    sender: Mutex<Option<Name>>,
}

impl Remote {
    pub fn new(given: Option<Name>) -> Remote {
        let (relearns, changes) = (AtomicBool::new(false), AtomicU32::new(0));
        Remote { given, relearns, changes, sender: Mutex::default() }
    }

    /// Whether the remote is whoever sends, and was not given.
    pub fn is_sender(&self) -> bool {
        self.given.is_none()
    }

    pub fn set_relearning(&self, whether: bool) {
        self.relearns.store(whether, Ordering::Relaxed);
    }

    /// The remote's name now, if there is a remote, and how often it has changed.
    pub fn now(&self) -> (Option<Name>, u32) {
        if self.changes.load(Ordering::Acquire) == 0 {
            return (self.given, 0);
        }
        let sender = lock(&self.sender);
        (*sender, self.changes.load(Ordering::Relaxed))
    }

    /// The address of a remote that was learned.
    pub fn learned(&self) -> Option<Address> {
        let (sender, changes) = self.now();
        sender.filter(|_| changes > 0).map(|name| Address::of_datagrams(name.address()))
    }

    /// Judges the senders of one read's messages. One thread reads at a time.
    pub fn hearing(&self) -> Hearing<'_> {
        Hearing { remote: self, now: self.now().0 }
    }
}

/// What one read knows of the remote, kept here so that not each message takes the lock.
pub struct Hearing<'a> {
    remote: &'a Remote,
    now: Option<Name>,
}

impl Hearing<'_> {
    /// Whether a message is from the remote. Its sender may become the remote.
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

/// Whether two names are of one socket: they are equal, or their paths lead to one file.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let is_same_path = |(one, other): (&[u8], &[u8])| {
        one == other || identity(other).is_ok_and(|file| identity(one) == Ok(file))
    };
    one == other || path_in(one).zip(path_in(other)).is_some_and(is_same_path)
}
