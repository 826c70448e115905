//! Sending on what was received from another connection. Nothing here waits.

use std::io::IoSlice;

use rustix::io::Errno;

use crate::capture::interface::{Occasion, Way};
use crate::error::Error;
use crate::frame::Walk;
use crate::runtime::event_loop::Loop;
use crate::tx::Tx;
use crate::tx::frames::Wire;
use crate::tx::queue::Progress;

impl Tx {
    /// Whether frames up to that length go out as they came in.
    pub fn passes_as_is(&self, longest: usize) -> bool {
        self.fit.padded == 0 && longest <= self.fit.max as usize
    }

    /// Sends on frames in wire format that may be too long for this connection, or have to be padded:
    /// they are first copied to `room`, in which any frame has room. Returns how many were dropped.
    pub fn pass_fitted(&mut self, bytes: &[u8], room: &mut [u8], limit: usize) -> usize {
        let (mut len, mut frames, mut dropped) = (0, 0, 0);
        for frame in Walk::over(bytes) {
            let Some(wire) = self.fit.wire(frame) else {
                self.add_dropped(1);
                dropped += 1;
                continue;
            };
            if len + wire.len() > room.len() {
                dropped += self.pass(&room[..len], frames, limit);
                (len, frames) = (0, 0);
            }
            wire.copy_to(&mut room[len..len + wire.len()]);
            len += wire.len();
            frames += 1;
        }
        dropped + self.pass(&room[..len], frames, limit)
    }

    /// Sends on frames in wire format that go out as they are. What the socket does not take is queued,
    /// as long as no more than `limit` bytes are. Returns how many frames were dropped.
    pub fn pass(&mut self, bytes: &[u8], frames: usize, limit: usize) -> usize {
        self.pass_seen(bytes, frames, limit, Occasion::of_forwarding)
    }

    /// Sends on what a loop has left, for which no limit applies any more. Whoever sends does this, and waits
    /// for nothing.
    pub fn pass_left(&mut self, bytes: &[u8], frames: usize) {
        self.pass_seen(bytes, frames, usize::MAX, Occasion::of_sending);
    }

    #[inline]
    fn pass_seen(
        &mut self,
        bytes: &[u8],
        frames: usize,
        limit: usize,
        occasion: fn(Option<&Loop>) -> Occasion,
    ) -> usize {
        if self.probes.is_empty() {
            return self.pass_unseen(bytes, frames, limit);
        }
        let occasion = occasion(self.runner);
        let dropped = self.pass_unseen(bytes, frames, limit);
        self.probes.record_wire(occasion, Way::Out, bytes, frames - dropped);
        dropped
    }

    /// The same, unrecorded.
    pub fn pass_unseen(&mut self, bytes: &[u8], frames: usize, limit: usize) -> usize {
        // Even where the socket was full: it has room long before it says so.
        self.write_backlog();
        let written = self.pass_now(bytes);
        if self.has_lost_peer() {
            self.add_dropped(frames as u64);
            return frames;
        }
        if written == bytes.len() {
            self.count(frames, bytes.len());
            return 0;
        }
        let taken = self.take_part(bytes, frames, written, limit);
        self.add_dropped((frames - taken) as u64);
        frames - taken
    }

    /// Takes what the socket has written of frames in wire format, `written` bytes, and queues the rest of one
    /// that was cut, and what follows as long as no more than `limit` bytes are queued. Returns how many
    /// frames were taken.
    pub fn take_part(
        &mut self,
        bytes: &[u8],
        frames: usize,
        written: usize,
        limit: usize,
    ) -> usize {
        let mut sent = Progress::default();
        sent.advance(bytes, frames, written);
        self.count(sent.frames, sent.whole);
        let cut = written - sent.whole;
        let queued = self.enqueue(&bytes[sent.whole..], cut, limit);
        if cut > 0 && queued == 0 {
            // A program has changed its packed frames meanwhile, and where the one ends that was begun is not
            // to be known any more. The error is told by the next call.
            let _ = self.fail(Error::Os(Errno::BADMSG));
        }
        sent.frames + queued
    }

    /// Counts frames that were dropped.
    pub fn add_dropped(&mut self, frames: u64) {
        self.counts.dropped += frames;
    }

    /// Writes what the socket takes, in one piece: smaller pieces wake the reader more often.
    /// Returns how many bytes were taken.
    fn pass_now(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() || self.is_stuck() || self.end.is_some() {
            return 0;
        }
        let written = self.write(&[IoSlice::new(bytes)]);
        // Short of memory is like being full; any other failure has set `end` or `peer_loss`.
        self.wrote(written, bytes.len()).unwrap_or(0)
    }

    /// Queues frames for which the socket has no room, as long as no more than `limit` bytes are queued.
    /// Of the first one the socket has taken `cut` bytes. Returns how many were queued.
    pub fn enqueue(&mut self, bytes: &[u8], cut: usize, limit: usize) -> usize {
        if self.end.is_some() {
            return 0;
        }
        let mut queued = self.queued();
        let mut count = 0;
        for frame in Walk::over(bytes) {
            let wire = Wire { frame, padded_len: frame.len() };
            // The rest of a frame that was begun must follow.
            let is_begun = cut > 0 && count == 0;
            let fits = if is_begun { cut < wire.len() } else { queued + wire.len() <= limit };
            if !fits {
                break;
            }
            if is_begun {
                self.queue.push_cut(&wire, cut);
            } else {
                self.queue.push(&wire);
            }
            queued += wire.len();
            count += 1;
        }
        count
    }
}
