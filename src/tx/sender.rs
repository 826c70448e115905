//! The sending part of a connection as threads share it: a lock for callers, and an inbox for a loop,
//! which does not wait for the lock.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{Ordering, fence};

use crate::error::{Error, Result};
use crate::options::Options;
use crate::runtime::event_loop::Loop;
use crate::runtime::handle::Token;
use crate::runtime::lock::{Guard, Lock};
use crate::tx::Tx;
use crate::tx::inbox::Inbox;

#[derive(Default)]
pub struct Sender {
    tx: Lock<Tx>,
    /// Frames that a loop has left while somebody else held the lock.
    pub inbox: Inbox,
}

impl Sender {
    /// Locks the sending part, whichever connection it belongs to: for callers that hold the state of
    /// the connection, so that it cannot change.
    pub fn lock(&self) -> TxGuard<'_> {
        let after = After { inbox: &self.inbox, port: None, is_due: false };
        TxGuard { tx: self.tx.lock(), after }
    }

    /// Locks the sending part, if it belongs to that connection.
    pub fn lock_of(&self, token: Token) -> Result<TxGuard<'_>> {
        let tx = self.lock();
        if tx.token == token { Ok(tx) } else { Err(Error::Handle) }
    }

    /// Locks the sending part for a loop, if nobody holds the lock.
    pub fn try_lock(&self) -> Option<Guard<'_, Tx>> {
        self.tx.try_lock()
    }

    /// Locks the sending part for a fast path, if nobody holds the lock, it belongs to that connection, and
    /// nothing special is the case: sending has not ended, no loop sends, and frames are not padded.
    #[inline(always)]
    pub fn open(&self, token: Token) -> Option<Guard<'_, Tx>> {
        self.tx.open(token)
    }

    /// Applies options to the sends that follow.
    pub fn configure(&self, options: &Options) {
        let mut tx = self.lock();
        tx.configure(options);
        self.inbox.set_fit(tx.fit);
    }
}

/// The sending part, locked by anybody but a loop. When it is let go, a loop that wanted something
/// meanwhile gets it.
pub struct TxGuard<'a> {
    tx: Guard<'a, Tx>,
    /// This is dropped after `tx`, when the lock is free.
    after: After<'a>,
}

impl TxGuard<'_> {
    /// Sends what the loop has left.
    pub fn empty_inbox(&mut self) {
        self.after.is_due |= self.after.inbox.empty_into(&mut self.tx);
    }

    /// Lets a loop send too, from now on.
    pub fn plug(&mut self, runner: &'static Loop) {
        self.tx.runner = Some(runner);
        self.after.inbox.set_fit(self.tx.fit);
        self.after.inbox.tell_unwritten(self.tx.queued());
    }

    /// Sends what the loop has left. It sends no more.
    pub fn unplug(&mut self) {
        self.after.inbox.empty_into(&mut self.tx);
        self.tx.runner = None;
    }
}

impl Deref for TxGuard<'_> {
    type Target = Tx;

    #[inline]
    fn deref(&self) -> &Tx {
        &self.tx
    }
}

impl DerefMut for TxGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Tx {
        &mut self.tx
    }
}

impl Drop for TxGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(runner) = self.tx.runner {
            self.empty_inbox();
            self.after.inbox.tell_unwritten(self.tx.queued());
            self.after.port = Some((runner, self.tx.token));
        }
    }
}

/// What is done when the lock is free again.
struct After<'a> {
    inbox: &'a Inbox,
    /// Where the connection is plugged in: the loop, and the connection's token.
    port: Option<(&'static Loop, Token)>,
    /// Whether the loop wanted something that was done under the lock.
    is_due: bool,
}

impl Drop for After<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some((runner, token)) = self.port {
            fence(Ordering::SeqCst);
            // The loop itself sends what it has left since the inbox was emptied: a caller that emptied
            // it again and again might never return.
            if self.is_due || self.inbox.is_wanted() {
                runner.look(token);
            }
        }
    }
}
