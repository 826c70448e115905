//! The queue of frames that were taken and are not written: how it grows, and how it is written.

use std::io::IoSlice;

use crate::error::Result;
use crate::tx::Tx;

impl Tx {
    pub fn has_backlog(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether there is a backlog because the socket is full.
    #[inline]
    pub fn is_stuck(&self) -> bool {
        self.has_backlog() && self.hold.due.is_none()
    }

    /// How many bytes the queue has.
    pub fn queued(&self) -> usize {
        self.queue.unwritten()
    }

    /// How many times the whole queue was written.
    pub fn emptied(&self) -> u64 {
        self.emptied
    }

    /// Writes the queue. Returns whether all of it is written, or the error that has ended sending.
    pub fn make_way(&mut self) -> Result<bool> {
        let is_all = self.write_backlog();
        match &self.end {
            Some(end) => Err((**end).clone()),
            None => Ok(is_all),
        }
    }

    /// Writes as much of the queue as the socket takes. Returns whether nothing is left in it. After an
    /// error, which ends sending, nothing is: it is dropped.
    pub fn write_backlog(&mut self) -> bool {
        match self.try_backlog() {
            Ok(is_all) => is_all,
            Err(_) => {
                self.drop_backlog();
                true
            }
        }
    }

    fn try_backlog(&mut self) -> Result<bool> {
        // What the socket does not take is not held back any more.
        self.hold.end();
        while !self.queue.is_empty() {
            let front = self.queue.front();
            let (len, written) = (front.len(), self.write(&[IoSlice::new(front)]));
            let n = match self.wrote(written, len) {
                // It is tried again, as where the socket is full.
                Err(_) if self.is_short => 0,
                written => written?,
            };
            let (frames, bytes) = self.queue.advance(n);
            self.count(frames, bytes);
            if n < len {
                return Ok(false);
            }
        }
        self.emptied += 1;
        Ok(true)
    }

    /// Gives up what is not written, and counts it as dropped.
    pub fn drop_backlog(&mut self) {
        self.counts.dropped += self.queue.clear() as u64;
        self.hold.end();
    }
}
