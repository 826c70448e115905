//! The sending part of a connection as threads share it: a lock for callers, and an inbox for a loop,
//! which does not wait for the lock.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use rustix::event::PollFlags;

use crate::error::{Error, Result};
use crate::options::Options;
use crate::runtime::event_loop::Loop;
use crate::runtime::handle::Token;
use crate::runtime::lock::{Guard, Lock};
use crate::runtime::onward::Permit;
use crate::sys::clock::Deadline;
use crate::tx::Tx;
use crate::tx::inbox::Inbox;

#[derive(Default)]
pub struct Sender {
    tx: Lock<Tx>,
    /// Frames that a loop has left while somebody else held the lock.
    pub inbox: Inbox,
    /// The run of frames sent on, while the thread that sends them need not lock.
    pub onward: Permit,
}

impl Sender {
    /// Locks the sending part, whichever connection it belongs to: for callers that hold the state of
    /// the connection, so that it cannot change.
    pub fn lock(&self) -> TxGuard<'_> {
        self.lock_with(false)
    }

    /// The same, and `writes` what was sent on from where it lies.
    fn lock_with(&self, writes: bool) -> TxGuard<'_> {
        let mut tx = self.tx.lock();
        if tx.onward.is_some() {
            self.onward.revoke();
            // Who adds a frame that is not taken here finds the permit revoked, and locks. That is so where it sees
            // this first; if not, the service thread takes the frame when it looks again.
            fence(Ordering::SeqCst);
            tx.take_onward(writes);
        }
        TxGuard { tx, after: After { sender: self, port: None, is_due: false } }
    }

    /// Writes what is held back, and what this thread has sent on. Returns whether nothing is left.
    pub fn uncork(&self, token: Token) -> bool {
        let mut tx = self.lock_with(true);
        tx.token != token || tx.write_backlog()
    }

    /// The service thread's turn, as [`Tx::write_due`]. A run of frames sent on that is not due yet goes on. Where its
    /// permit was revoked, something may have been overlooked, and is due before what others hold back.
    pub fn write_due(&self) -> Option<(PollFlags, Deadline)> {
        let (now, mut tx) = (Instant::now(), self.tx.lock());
        if self.onward.run().is_some() && tx.is_early(now) {
            return tx.write_due(now);
        }
        drop(tx);
        self.lock_with(true).write_due(now)
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
        if tx.runner.is_some() {
            self.inbox.set_fit(tx.fit);
        }
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
        self.after.is_due |= self.after.sender.inbox.empty_into(&mut self.tx);
    }

    /// Lets a loop send too, from now on.
    pub fn plug(&mut self, runner: &'static Loop) {
        self.tx.runner = Some(runner);
        self.after.sender.inbox.set_fit(self.tx.fit);
        self.after.sender.inbox.tell_unwritten(self.tx.queued());
    }

    /// Sends what the loop has left. It sends no more.
    pub fn unplug(&mut self) {
        self.after.sender.inbox.empty_into(&mut self.tx);
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
        if let Some(run) = self.tx.own_run() {
            self.after.sender.onward.give(run);
        }
        if let Some(runner) = self.tx.runner {
            self.empty_inbox();
            self.after.sender.inbox.tell_unwritten(self.tx.queued());
            self.after.port = Some((runner, self.tx.token));
        }
    }
}

/// What is done when the lock is free again.
struct After<'a> {
    sender: &'a Sender,
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
            if self.is_due || self.sender.inbox.is_wanted() {
                runner.look(token);
            }
        }
    }
}
