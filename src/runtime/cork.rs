//! Corking: sends made in a handler, while the library holds further frames for it, are held back
//! and written together.
//!
//! What is held lies with the connection, in the order in which it was taken (`send`). A thread only
//! remembers for which connections it holds something, to have that written when its handler has no
//! more frames, or before it waits. The service thread writes what is held for long meanwhile.

use std::cell::Cell;

use crate::runtime::handle::{NONE, Token};
use crate::runtime::wake;
use crate::sys::fork::Stamp;

/// For how many connections a thread holds something at a time.
const MOST: usize = 32;

/// Writes what is held for a connection, and waits for nothing.
type Uncork = fn(Token);

/// A thread's. Without a destructor, so that it is there to the thread's last moment.
pub struct Cork {
    /// Whether sends may be held back now.
    is_open: Cell<bool>,
    /// In which process, since a child forked in a handler has nothing to do with its parent's; and what
    /// writes.
    begun: Cell<Option<(Stamp, Uncork)>>,
    /// Connections that this thread has held something for, and how many they are. Others may have
    /// written it.
    conns: [Cell<Token>; MOST],
    count: Cell<usize>,
}

thread_local! {
    static CORK: Cork = const {
        Cork {
            is_open: Cell::new(false),
            begun: Cell::new(None),
            conns: [const { Cell::new(NONE) }; MOST],
            count: Cell::new(0),
        }
    };
}

/// Does something with this thread's cork.
#[inline]
pub fn with<R>(f: impl FnOnce(&Cork) -> R) -> R {
    CORK.with(f)
}

impl Cork {
    /// A handler is about to be called, more than once perhaps.
    pub fn begin(&self, process: Stamp, uncork: Uncork) {
        self.begun.set(Some((process, uncork)));
    }

    /// Opens or shuts it: before each call of a handler, by whether another call is to follow.
    #[inline]
    pub fn open(&self, more: bool) {
        self.is_open.set(more);
    }

    /// Whether sends of this thread may be held back now.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.is_open.get() && self.uncork().is_some()
    }

    /// Whether this thread holds something back for a connection, as far as it knows.
    #[inline]
    pub fn lists(&self, conn: Token) -> bool {
        let mut listed = self.conns.iter().take(self.count.get());
        listed.any(|other| other.get() == conn) && self.uncork().is_some()
    }

    /// Remembers that it does. Returns whether there is room to.
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

    /// What writes what is held, unless that is another process's.
    #[inline]
    fn uncork(&self) -> Option<Uncork> {
        let (process, uncork) = self.begun.get()?;
        process.is_current().then_some(uncork)
    }
}

/// Has everything written that this thread holds. In a forked child nothing is: that is the parent's.
pub fn release() {
    with(|cork| {
        let count = cork.count.replace(0);
        if count == 0 {
            return;
        }
        wake::before_waiting(None);
        if let Some(uncork) = cork.uncork() {
            // Nobody comes back to the list meanwhile, since nothing waits.
            cork.conns[..count].iter().map(Cell::get).for_each(uncork);
        }
    });
}

/// The handler is called no more for now, or its thread goes on as something else.
pub fn close() {
    with(|cork| cork.open(false));
    release();
}
