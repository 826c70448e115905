//! Frames that a handler sends on as it was given them: see `runtime::onward`.

use crate::runtime::cork;
use crate::runtime::lock::Guarded;
use crate::runtime::onward::{Onward, Piece};
use crate::tx::Tx;
use crate::tx::frames::Wire;
use crate::tx::join::{CORK_TIME, MOST};

impl Tx {
    /// Begins to send on frames of this thread's delivery with one that is corked, if it is one of them and
    /// nothing is held back. Returns whether it did.
    pub fn begin_onward(&mut self, first: &Wire<'_>) -> bool {
        // With the key, nothing special is the case.
        if self.key() != self.token || !self.queue.is_empty() {
            return false;
        }
        let longest = self.fit.max as usize;
        self.onward = cork::with(|cork| cork.send_on(self.token, first.frame, MOST, longest));
        self.onward.is_some()
    }

    /// The run of this thread, if it goes here.
    pub fn own_run(&self) -> Option<&'static Onward> {
        self.onward.as_ref().and_then(Piece::own_run)
    }

    /// Takes what was sent on. It is written from where it lies if `writes` is set, or else if it is this
    /// thread's and long; otherwise it goes to the queue. This thread's run ends.
    pub fn take_onward(&mut self, writes: bool) {
        let Some(mut piece) = self.onward.take() else {
            return;
        };
        let (is_own, bytes) = (piece.own_run().is_some(), piece.bytes());
        let (len, frames) = (bytes.len(), piece.count(bytes));
        if len > 0 && (writes || is_own && len > MOST / 2) {
            self.pass_unseen(bytes, frames, usize::MAX);
        } else if len > 0 {
            let taken = self.enqueue(bytes, 0, usize::MAX);
            self.add_dropped((frames - taken) as u64);
        }
        if is_own {
            cork::with(|cork| cork.has_sent_on());
        } else {
            piece.advance(len, frames);
            self.onward = Some(piece);
            if len > 0 {
                // For a frame that was being added, and overlooked.
                self.hold.look_again(CORK_TIME);
            }
        }
    }
}
