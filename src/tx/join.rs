//! Holding frames back for a time, for others to join them: corking, while a handler has more frames to
//! come, and coalescing (`QNET_OPT_TX_USECS`).

use std::time::Instant;

use rustix::event::PollFlags;

use crate::runtime::cork::{self, Cork};
use crate::sys::clock::Deadline;
use crate::sys::thread;
use crate::tx::Tx;

/// The most bytes that are held back: the kernel allocates one buffer of 32 KiB and the rest of a page for
/// them. A relay by handler was no faster with more.
pub const MOST: usize = 36_400;

/// How long a handler's sends are held back at most: a little less than the millisecond promised,
/// because the service thread has to wake up. In nanoseconds.
pub const CORK_TIME: u64 = 900_000;

impl Tx {
    /// Whether a frame of that length may join what is held back by [`Tx::join_short`], where no thread runs
    /// a handler.
    #[inline(always)]
    pub fn joins_coalesced(&self, len: usize) -> bool {
        self.hold.is_joined(self.hold.time) && self.fit.takes(len)
    }

    /// The same for a frame of a thread that may run a handler.
    ///
    /// The thread's list of what it has corked is not looked at: if the thread was the last to cork this
    /// connection, that is on the list. What a thread has corked is due soon enough for all that it corks.
    #[inline(always)]
    pub fn joins_corked(&self, len: usize) -> bool {
        self.hold.corker == thread::current() && self.fit.takes(len)
    }

    /// Fast path of `put`, for a short frame that joins what is held back: it is copied, and nothing else is
    /// to be done. Returns whether it was. It cannot panic.
    #[inline(always)]
    pub fn join_short(&mut self, frame: &[u8]) -> bool {
        self.queue.push_short(frame, MOST)
    }

    /// How long a frame of that length on the wire may be held back, if it may; and the thread that corks
    /// it, or 0.
    pub fn hold_time(&mut self, wire_len: usize) -> Option<(u64, usize)> {
        if wire_len > MOST {
            None
        } else if self.is_corked() {
            Some((CORK_TIME, thread::current()))
        } else {
            self.follows_another().then_some((self.hold.time, 0))
        }
    }

    /// Whether this thread's sends are corked: then the connection is on the thread's list. The last
    /// send of a handler, which opens no cork any more, may still join those before it.
    fn is_corked(&self) -> bool {
        let is_holding = self.hold.due.is_some();
        let corks = |cork: &Cork| {
            cork.is_open() && cork.list(self.token) || is_holding && cork.lists(self.token)
        };
        self.may_cork && cork::with(corks)
    }

    /// Whether sends are coalesced, and this one is one of many: others are held back, or one came less
    /// than the time ago.
    fn follows_another(&mut self) -> bool {
        if self.hold.time == 0 {
            return false;
        }
        if self.hold.due.is_some() {
            return true;
        }
        let now = Instant::now();
        let before = self.hold.last.replace(now);
        before.is_some_and(|last| (now - last).as_nanos() < self.hold.time.into())
    }

    /// Whether that many bytes may join what is held back, which is all that the queue has.
    #[inline]
    pub fn has_room_to_hold(&self, wire_len: usize) -> bool {
        self.queue.has_room(wire_len, MOST)
    }

    /// Whether the service thread must be told to look at this connection, because something was held
    /// back that is due before it looks by itself.
    #[inline]
    pub fn wants_look(&mut self) -> bool {
        let Some(due) = self.hold.due else {
            return false;
        };
        let is_new = self.hold.look.is_none_or(|look| look > due);
        if is_new {
            self.hold.look = Some(due);
        }
        is_new
    }

    /// Writes what is held back, because there is no service thread to do it later.
    pub fn stop_holding(&mut self) {
        self.hold.look = None;
        self.write_backlog();
    }

    /// Whether something is held back that is not due yet.
    pub fn is_early(&self, now: Instant) -> bool {
        self.hold.due.is_some_and(|due| due > now)
    }

    /// The service thread's turn: writes what is due. Returns what the thread is to wait for, if it is
    /// to look again.
    pub fn write_due(&mut self, now: Instant) -> Option<(PollFlags, Deadline)> {
        if !self.is_early(now) && !self.write_backlog() {
            self.hold.look = None;
            return Some(self.until_room_or_loss());
        }
        self.hold.next_look(now).map(|look| (PollFlags::empty(), Deadline::At(look)))
    }
}
