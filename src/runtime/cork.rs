//! Corking: sends made in a handler, while the library holds further frames for it, are held back
//! and written together.
//!
//! What is held lies with the connection, in the order in which it was taken (`send`). A thread only
//! remembers for which connections it holds something, to have that written when its handler has no
//! more frames, or before it waits. The service thread writes what is held for long meanwhile.

use std::cell::Cell;

use crate::conn::send;
use crate::runtime::handle::{NONE, Token};
use crate::runtime::wake;
use crate::sys::fork::Stamp;

/// For how many connections a thread holds something at a time.
const MOST: usize = 32;

/// A thread's. Without a destructor, so that it is there to the thread's last moment.
pub struct Cork {
    /// Whether sends may be held back now.
    is_open: Cell<bool>,
    /// In which process: a child forked in a handler has nothing to do with its parent's.
    process: Cell<Option<Stamp>>,
    /// Connections that this thread has held something for, and how many they are. Others may have
    /// written it.
    conns: [Cell<Token>; MOST],
    count: Cell<usize>,
}

thread_local! {
    static CORK: Cork = const {
        Cork {
            is_open: Cell::new(false),
            process: Cell::new(None),
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
    pub fn begin(&self, process: Stamp) {
        self.process.set(Some(process));
    }

    /// Opens or shuts it: before each call of a handler, by whether another call is to follow.
    #[inline]
    pub fn open(&self, more: bool) {
        self.is_open.set(more);
    }

    /// Whether sends of this thread may be held back now.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.is_open.get() && self.is_of_this_process()
    }

    /// Whether this thread holds something back for that connection, as far as it knows.
    #[inline]
    pub fn find(&self, token: Token) -> bool {
        let mut listed = self.conns.iter().take(self.count.get());
        listed.any(|conn| conn.get() == token) && self.is_of_this_process()
    }

    /// Remembers that it does. Returns whether there is room to.
    pub fn list(&self, conn: Token) -> bool {
        if self.find(conn) {
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

    #[inline]
    fn is_of_this_process(&self) -> bool {
        self.process.get().is_some_and(Stamp::is_current)
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
        if cork.is_of_this_process() {
            // What is written here waits for nothing, so that nobody comes back to the list meanwhile.
            for conn in &cork.conns[..count] {
                if let Ok(conn) = crate::conn::table().get(conn.get()) {
                    send::uncork(conn);
                }
            }
        }
    });
}

/// The handler is called no more for now, or its thread goes on as something else.
pub fn close() {
    with(|cork| cork.open(false));
    release();
}
