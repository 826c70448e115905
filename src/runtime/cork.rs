//! Corking: sends that a frame handler makes while the library has further frames for it are held
//! back, and written together.
//!
//! Held frames are queued with their connection, in the order in which they were sent (see `tx`). A
//! thread only remembers for which connections it has held frames back, and has them written when
//! its handler has no more frames, or before it waits. The service thread writes what has been held
//! for too long.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::runtime::handle::{NONE, Token};
use crate::runtime::onward::{Delivery, Piece};
use crate::runtime::wake;
use crate::sys::fork::Stamp;

/// For how many connections a thread holds frames back at a time.
const MOST: usize = 32;

/// Writes what is held for a connection, without waiting.
type Uncork = fn(Token);

/// The state of one thread. It has no destructor, so that it exists until the thread's very end.
pub struct Cork {
    /// Whether sends may be held back now.
    is_open: Cell<bool>,
    /// The process whose handler this thread runs, and the function that writes what is held. In a
    /// child that was forked inside the handler nothing is held or written.
    begun: Cell<Option<(Stamp, Uncork)>>,
    /// What the handler is given its frames from, while they are handed over.
    delivery: Cell<Option<Delivery>>,
    /// The connection that may have a piece of the delivery's run, or [`NONE`].
    onward: Cell<Token>,
    /// The first `count` are the connections for which this thread has held frames back, which
    /// another thread may have written since.
    conns: [Cell<Token>; MOST],
    count: Cell<usize>,
    /// Whether the thread is among [`HANDLING`].
    is_counted: Cell<bool>,
}

/// How many threads run handlers. Relaxed: a thread asks whether it is one of them itself, and in a forked
/// child the number may be too large.
static HANDLING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static CORK: Cork = const {
        Cork {
            is_open: Cell::new(false),
            begun: Cell::new(None),
            delivery: Cell::new(None),
            onward: Cell::new(NONE),
            conns: [const { Cell::new(NONE) }; MOST],
            count: Cell::new(0),
            is_counted: Cell::new(false),
        }
    };
}

/// Whether any thread runs a handler, which is cheaper to find out than whether this one does.
#[inline(always)]
pub fn is_anywhere() -> bool {
    HANDLING.load(Ordering::Relaxed) > 0
}

/// Whether this thread runs a handler that has more frames to come.
#[inline]
pub fn may_be_open() -> bool {
    is_anywhere() && with(|cork| cork.is_open.get())
}

/// Calls `f` with this thread's cork.
#[inline]
pub fn with<R>(f: impl FnOnce(&Cork) -> R) -> R {
    CORK.with(f)
}

impl Cork {
    /// Prepares for calls of a frame handler. `uncork` must have the connection give up the piece of a run
    /// that it has.
    pub fn begin(&self, process: Stamp, uncork: Uncork, delivery: Delivery) {
        self.begun.set(Some((process, uncork)));
        self.delivery.set(Some(delivery));
        if !self.is_counted.replace(true) {
            HANDLING.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Allows sends to be held back, or not, depending on whether the handler has `more` frames to
    /// come. Called before each call of the handler.
    #[inline]
    pub fn open(&self, more: bool) {
        self.is_open.set(more);
    }

    /// Whether sends of this thread may be held back.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.is_open.get() && self.uncork().is_some()
    }

    /// Whether this thread has held frames back for a connection, and has not had them written.
    #[inline]
    pub fn lists(&self, conn: Token) -> bool {
        let mut listed = self.conns.iter().take(self.count.get());
        listed.any(|other| other.get() == conn) && self.uncork().is_some()
    }

    /// Remembers a connection for which frames are held back. Returns whether there was room for
    /// it.
    pub fn list(&self, conn: Token) -> bool {
        if self.lists(conn) {
            return true;
        }
        let count = self.count.get();
        let Some(place) = self.conns.get(count) else {
            return false;
        };
        place.set(conn);
        self.count.set(count + 1);
        wake::before_waiting(Some(release));
        true
    }

    /// Begins a run that goes to a connection for which this thread holds frames back, with a frame of what is
    /// delivered, unless there is another run.
    pub fn send_on(&self, to: Token, frame: &[u8], most: usize, longest: usize) -> Option<Piece> {
        let delivery = self.delivery.get().filter(|_| self.onward.get() == NONE)?;
        let piece = delivery.send_on(to, frame, most, longest)?;
        self.onward.set(to);
        Some(piece)
    }

    /// The connection has given up the piece of this thread's run.
    pub fn has_sent_on(&self) {
        self.onward.set(NONE);
    }

    /// The function that writes what is held, unless this is a child forked inside the handler.
    #[inline]
    fn uncork(&self) -> Option<Uncork> {
        let (process, uncork) = self.begun.get()?;
        process.is_current().then_some(uncork)
    }
}

/// Writes everything that this thread holds back. In a forked child that is the parent's, and
/// nothing is written.
pub fn release() {
    with(|cork| {
        let count = cork.count.replace(0);
        if count == 0 {
            return;
        }
        wake::before_waiting(None);
        let onward = cork.onward.replace(NONE);
        if let Some(uncork) = cork.uncork() {
            // First, since no piece may be left where this panics.
            if onward != NONE {
                uncork(onward);
            }
            // The list does not change meanwhile: writing does not wait, so it does not call this
            // again.
            cork.conns[..count].iter().map(Cell::get).for_each(uncork);
        }
    });
}

/// Ends holding back, and writes what is held: the handler has no more frames, or the thread ends.
pub fn close() {
    with(|cork| {
        cork.open(false);
        if cork.is_counted.replace(false) {
            HANDLING.fetch_sub(1, Ordering::Relaxed);
        }
    });
    release();
    with(|cork| cork.delivery.take().into_iter().for_each(Delivery::end));
}
