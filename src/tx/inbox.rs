//! Frames that a loop has for a connection while somebody else holds the lock of its sending part.
//!
//! A caller's thread may hold that lock during a system call, and a loop waits for no such lock: it
//! leaves its frames here, and marks that it did. Whoever holds the lock sends them before letting it go,
//! and then gives the port a turn. So nothing is lost, and the loop's frames stay in order.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard, OnceLock};

use crate::frame::Walk;
use crate::runtime::lock::lock;
use crate::tx::Tx;
use crate::tx::frames::Fit;

#[derive(Default)]
pub struct Inbox {
    /// Whether the loop has left something, or wants a turn. The loop sets this, and then tries the lock
    /// once more; whoever holds the lock lets it go, and then looks here. With a fence between the two
    /// steps on either side, one of them sees what the other has done.
    is_wanted: AtomicBool,
    /// How many bytes were in the sending part's queue when its lock was last let go. Relaxed: it only
    /// bounds memory.
    unwritten: AtomicUsize,
    /// This lock is only held while frames are copied. Boxed, since most connections are not plugged in.
    left: OnceLock<Box<Mutex<Left>>>,
}

#[derive(Default)]
struct Left {
    fit: Fit,
    /// Frames in wire format, and how many they are.
    bytes: Vec<u8>,
    frames: usize,
    /// How many frames did not fit, or found no room.
    dropped: u64,
}

impl Inbox {
    fn left(&self) -> MutexGuard<'_, Left> {
        lock(self.left.get_or_init(Box::default))
    }

    /// Sets which frames may be left from now on.
    pub fn set_fit(&self, fit: Fit) {
        self.left().fit = fit;
    }

    /// Tells how many bytes are in the sending part's queue. The caller holds its lock.
    pub fn tell_unwritten(&self, bytes: usize) {
        self.unwritten.store(bytes, Ordering::Relaxed);
    }

    /// Leaves frames, as long as no more than `limit` bytes wait here and in the sending part's queue.
    /// `want` must follow. Returns how many were dropped.
    pub fn leave(&self, bytes: &[u8], limit: usize) -> usize {
        let mut left = self.left();
        let room = limit.saturating_sub(self.unwritten.load(Ordering::Relaxed));
        let mut dropped = 0;
        for frame in Walk::over(bytes) {
            let end = left.bytes.len();
            match left.fit.wire(frame).filter(|wire| end + wire.len() <= room) {
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

    /// Leaves nothing of some frames but their count as dropped. `want` must follow.
    pub fn drop_all(&self, frames: u64) {
        self.left().dropped += frames;
    }

    /// Asks for a turn. The loop must then try the lock once more.
    pub fn want(&self) {
        self.is_wanted.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Sends what was left here, ahead of what the loop has next. Returns whether the loop wanted
    /// something.
    pub fn empty_into(&self, tx: &mut Tx) -> bool {
        if !self.is_wanted() {
            return false;
        }
        // This comes before looking: what is left meanwhile is marked anew.
        self.is_wanted.store(false, Ordering::Relaxed);
        let mut left = self.left();
        let (bytes, frames) = (std::mem::take(&mut left.bytes), std::mem::take(&mut left.frames));
        tx.add_dropped(std::mem::take(&mut left.dropped));
        drop(left);
        if frames > 0 {
            tx.pass_left(&bytes, frames);
        }
        true
    }
}
