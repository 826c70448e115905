//! Holding frames back for a time, for others to join them: corking, while a handler has more frames to
//! come, and coalescing (`QNET_OPT_TX_USECS`).

use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::runtime::cork::{self, Cork};
use crate::sys::clock::Deadline;
use crate::tx::{Tx, UNIX_GATHERS};

/// The most bytes that are held back.
const MOST: usize = UNIX_GATHERS;

/// How long a handler's sends are held back at most: a little less than the millisecond promised,
/// because the service thread has to wake up.
const CORK_TIME: Duration = Duration::from_micros(900);

impl Tx {
    /// Adds a frame to those that are held back, if that takes no more than a copy. Returns whether it
    /// did.
    #[inline]
    pub fn join(&mut self, frame: &[u8], is_corked: bool) -> bool {
        let time = if is_corked { CORK_TIME } else { self.hold.time };
        let may_join = self.hold.is_joined(time) && (self.may_cork || !is_corked);
        if !may_join || self.end.is_some() {
            return false;
        }
        let Some(wire) = self.fit.wire(frame).filter(|wire| self.has_room_to_hold(wire.len()))
        else {
            return false;
        };
        // There is a chunk, since something is held back.
        self.queue.back_mut().map(|chunk| chunk.push(&wire)).is_some()
    }

    /// How long a frame of that length on the wire may be held back, if it may.
    pub fn hold_time(&mut self, wire_len: usize) -> Option<Duration> {
        if wire_len > MOST {
            None
        } else if self.is_corked() {
            Some(CORK_TIME)
        } else {
            self.follows_another().then_some(self.hold.time)
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
        if self.hold.time.is_zero() {
            return false;
        }
        if self.hold.due.is_some() {
            return true;
        }
        let now = Instant::now();
        let before = self.hold.last.replace(now);
        before.is_some_and(|last| now - last < self.hold.time)
    }

    /// Whether that many bytes may join what is held back, which is all that the queue has.
    #[inline]
    pub fn has_room_to_hold(&self, wire_len: usize) -> bool {
        self.queue.back().is_none_or(|chunk| chunk.len + wire_len <= MOST)
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

    /// The service thread's turn: writes what is due. Returns what the thread is to wait for, if it is
    /// to look again.
    pub fn write_due(&mut self) -> Option<(PollFlags, Deadline)> {
        let now = Instant::now();
        let is_early = self.hold.due.is_some_and(|due| due > now);
        if !is_early && !self.write_backlog() {
            self.hold.look = None;
            return Some(self.until_room_or_loss());
        }
        self.hold.next_look(now).map(|look| (PollFlags::empty(), Deadline::At(look)))
    }
}
