//! Sending on what was received elsewhere.

use std::io::IoSlice;

use crate::frame::Walk;
use crate::tx::Tx;
use crate::tx::chunk::Progress;
use crate::tx::frames::Wire;
use crate::tx::inbox::Fit;

/// Sending on what was received elsewhere: never waits.
impl Tx {
    /// Whether the socket is full: what is passed on is queued.
    pub fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// What frames are sent, and how.
    pub fn fit(&self) -> Fit {
        Fit { max: self.max_frame, padded: self.padded }
    }

    /// Counts frames that were lost before they came here.
    pub fn add_dropped(&mut self, frames: u64) {
        self.dropped += frames;
    }

    /// Whether frames up to that length go out as they come in.
    pub fn passes_as_is(&self, longest: usize) -> bool {
        self.padded == 0 && longest <= self.max_frame
    }

    /// Sends on frames that lie in wire format and go out as they are. What the socket does not take
    /// is queued, until `limit` bytes are. Returns how many frames were dropped.
    pub fn pass(&mut self, bytes: &[u8], frames: usize, limit: usize) -> usize {
        // Even where the socket was full: it has room long before it says so.
        self.write_backlog();
        let written = self.pass_now(bytes);
        if self.is_lost() {
            self.dropped += frames as u64;
            return frames;
        }
        if written == bytes.len() {
            self.count(frames, bytes.len());
            return 0;
        }
        let mut sent = Progress::default();
        sent.advance(bytes, frames, written);
        self.count(sent.frames, sent.whole);
        let taken = sent.frames + self.enqueue(&bytes[sent.whole..], written - sent.whole, limit);
        self.dropped += (frames - taken) as u64;
        frames - taken
    }

    /// Writes what the socket takes, in one piece: smaller ones, as for gathered frames, wake the
    /// reader more often. Returns how many bytes it took.
    fn pass_now(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() || self.is_stuck || self.end.is_some() {
            return 0;
        }
        let written = self.write(&[IoSlice::new(bytes)]);
        // Short of memory is like being full; another failure has set `end` or `lost`.
        self.wrote(written, bytes.len()).unwrap_or(0)
    }

    /// Queues what the socket has taken `cut` bytes of, since it is full. Returns how many frames.
    fn enqueue(&mut self, bytes: &[u8], cut: usize, limit: usize) -> usize {
        if self.end.is_some() {
            return 0;
        }
        let count = self.push_all(bytes, cut, limit);
        self.is_stuck = self.has_backlog();
        count
    }

    /// Appends frames in wire format, until `limit` bytes are unwritten; `cut` bytes of the first
    /// are written. Returns how many.
    fn push_all(&mut self, bytes: &[u8], cut: usize, limit: usize) -> usize {
        let mut queued = self.queued();
        let mut count = 0;
        for frame in Walk::over(bytes) {
            let wire = Wire { frame, padded_len: frame.len() };
            // The rest of a frame that has begun must follow.
            if queued + wire.len() > limit && (cut == 0 || count > 0) {
                break;
            }
            queued += wire.len();
            count += 1;
            self.push(&wire);
        }
        if cut > 0 {
            self.queue[0].progress.written = cut;
        }
        count
    }

    /// Bytes that are not written.
    pub fn queued(&self) -> usize {
        self.queue.iter().map(|chunk| chunk.len - chunk.progress.written).sum()
    }

    /// The same as `pass` for frames that may be too long for this connection, or have to be padded:
    /// they are copied to `room` first, which has room for any.
    pub fn pass_fitted(&mut self, bytes: &[u8], room: &mut [u8], limit: usize) -> usize {
        let (mut len, mut frames, mut dropped) = (0, 0, 0);
        for frame in Walk::over(bytes) {
            if !self.fits(frame) {
                self.dropped += 1;
                dropped += 1;
                continue;
            }
            let wire = self.wrap(frame);
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
}
