//! What a loop has to send while somebody else holds the connection's sending part.
//!
//! A caller's thread may keep that lock for a system call, and a loop waits for no such lock: it leaves
//! its frames here, and marks that it did. Who holds the lock takes them over when letting it go, and
//! gives the port a turn. So nothing is lost, and the loop's frames stay in order.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use crate::frame::{self, Walk};
use crate::runtime::lock::lock;
use crate::tx::Tx;
use crate::tx::frames::Wire;

#[derive(Default)]
pub struct Inbox {
    /// Whether the loop has left something, or wants a turn. It sets this, and then tries the lock once
    /// more; who holds that lets it go, and then looks here: with a fence between the two on either
    /// side, one of them sees what the other has done.
    is_wanted: AtomicBool,
    /// How many bytes wait behind the lock, as who last held it tells. Relaxed: a bound on memory.
    unwritten: AtomicUsize,
    /// Held for copying alone.
    left: Mutex<Left>,
}

#[derive(Default)]
struct Left {
    fit: Fit,
    /// Frames in wire format, and how many.
    bytes: Vec<u8>,
    frames: usize,
    /// Those that there was no room for, or that did not fit.
    dropped: u64,
}

/// What frames a connection sends, and how.
#[derive(Default, Clone, Copy)]
pub struct Fit {
    /// The longest.
    pub max: usize,
    /// Up to what length they are padded.
    pub padded: usize,
}

impl Fit {
    fn wrap(self, frame: &[u8]) -> Option<Wire<'_>> {
        (frame::MIN..=self.max).contains(&frame.len()).then(|| Wire::of(frame, self.padded))
    }
}

impl Inbox {
    /// What frames may be left, from now on.
    pub fn fit(&self, fit: Fit) {
        lock(&self.left).fit = fit;
    }

    /// Tells how many bytes wait behind the lock, which is held.
    pub fn tell_unwritten(&self, bytes: usize) {
        self.unwritten.store(bytes, Ordering::Relaxed);
    }

    /// Leaves frames, until `limit` bytes wait here and behind the lock. `want` must follow. Returns
    /// how many were dropped.
    pub fn leave(&self, bytes: &[u8], limit: usize) -> usize {
        let mut left = lock(&self.left);
        let room = limit.saturating_sub(self.unwritten.load(Ordering::Relaxed));
        let mut dropped = 0;
        for frame in Walk::over(bytes) {
            let end = left.bytes.len();
            match left.fit.wrap(frame).filter(|wire| end + wire.len() <= room) {
                Some(wire) => {
                    left.bytes.resize(end + wire.len(), 0);
                    wire.copy_to(&mut left.bytes[end..]);
                    left.frames += 1;
                }
                None => dropped += 1,
            }
        }
        left.dropped += dropped as u64;
        dropped
    }

    /// Asks for a turn. The loop then tries the lock once more.
    pub fn want(&self) {
        self.is_wanted.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Sends what was left here, ahead of what the loop has next. Returns whether it wanted something.
    pub fn empty_into(&self, tx: &mut Tx) -> bool {
        if !self.is_wanted() {
            return false;
        }
        // Before looking: what comes meanwhile is marked anew.
        self.is_wanted.store(false, Ordering::Relaxed);
        let mut left = lock(&self.left);
        let (bytes, frames) = (std::mem::take(&mut left.bytes), std::mem::take(&mut left.frames));
        tx.add_dropped(std::mem::take(&mut left.dropped));
        drop(left);
        if frames > 0 {
            // They were taken, so that no limit holds for them any more.
            tx.pass(&bytes, frames, usize::MAX);
        }
        true
    }
}
