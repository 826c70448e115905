//! The sending part of a connection, as it is shared: a lock for callers, and an inbox for a loop, which
//! does not wait for that.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::options::Options;
use crate::runtime::event_loop::Loop;
use crate::runtime::handle::Token;
use crate::runtime::lock::{lock, try_lock};
use crate::tx::Tx;
use crate::tx::inbox::Inbox;

#[derive(Default)]
pub struct Sender {
    tx: Mutex<Tx>,
    /// What a loop has for the sending part while somebody else holds that.
    pub inbox: Inbox,
    /// Whether sends are held back for others to join them: a hint, Relaxed.
    coalesces: AtomicBool,
}

impl Sender {
    /// The sending part, for who holds the state of the same connection.
    pub fn lock(&self) -> TxGuard<'_> {
        let after = After { inbox: &self.inbox, port: None, is_due: false };
        TxGuard { tx: lock(&self.tx), after }
    }

    /// The sending part, if it is that connection's.
    pub fn lock_of(&self, token: Token) -> Result<TxGuard<'_>> {
        let tx = self.lock();
        if tx.token == token { Ok(tx) } else { Err(Error::Handle) }
    }

    /// The sending part for a loop, if nobody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, Tx>> {
        try_lock(&self.tx)
    }

    /// Sends by other options from now on.
    pub fn configure(&self, options: &Options) {
        let mut tx = self.lock();
        tx.configure(options);
        self.inbox.fit(tx.fit());
        drop(tx);
        self.hint(options);
    }

    /// Keeps the hint in step with the options that sending was given.
    pub fn hint(&self, options: &Options) {
        self.coalesces.store(!options.tx_time().is_zero(), Ordering::Relaxed);
    }

    /// Whether sends may be held back for others to join them.
    pub fn coalesces(&self) -> bool {
        self.coalesces.load(Ordering::Relaxed)
    }
}

/// The sending part, locked by anybody but a loop.
pub struct TxGuard<'a> {
    tx: MutexGuard<'a, Tx>,
    /// Dropped next, when the lock is free.
    after: After<'a>,
}

impl TxGuard<'_> {
    /// Takes over what the loop has left.
    pub fn empty_inbox(&mut self) {
        self.after.is_due |= self.after.inbox.empty_into(&mut self.tx);
    }

    /// From now on a loop sends, too.
    pub fn plug(&mut self, runner: &'static Loop) {
        self.tx.runner = Some(runner);
        self.after.inbox.fit(self.tx.fit());
        self.after.inbox.tell_unwritten(self.tx.queued());
    }

    /// The loop does not send any more, and what it has left is taken over.
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

/// What follows when the lock is free again.
struct After<'a> {
    inbox: &'a Inbox,
    /// The loop, and whose turn it is, where the connection is plugged in.
    port: Option<(&'static Loop, Token)>,
    /// Whether the loop has wanted something that was done under the lock.
    is_due: bool,
}

impl Drop for After<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some((runner, token)) = self.port {
            fence(Ordering::SeqCst);
            // What came since the inbox was emptied is the loop's: emptying it here again and again
            // might keep a caller for ever.
            if self.is_due || self.inbox.is_wanted() {
                runner.look(token);
            }
        }
    }
}
