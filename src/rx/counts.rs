//! What a connection counts of receiving.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::capture::interface::ProbesIn;
use crate::frame::Run;

/// A connection's counters. They have one writer at a time: the delivering thread, or whoever holds the
/// lock of the connection's state, or that of the switch that it is plugged into.
#[derive(Default)]
pub struct RxCounts {
    pub frames: Counter,
    pub bytes: Counter,
    pub runts: Counter,
    pub reads: Counter,
    pub foreign: Counter,
    /// Of `frames`, those that went nowhere on purpose.
    pub refused: Counter,
    /// What records the frames that come in.
    pub probes: ProbesIn,
}

/// A counter with one writer at a time, and any number of readers.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.get() + n, Ordering::Relaxed);
    }

    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl RxCounts {
    /// Sets all counters to 0, for another connection.
    pub fn clear(&self) {
        let RxCounts { frames, bytes, runts, reads, foreign, refused, probes: _ } = self;
        for counter in [frames, bytes, runts, reads, foreign, refused] {
            counter.clear();
        }
    }

    /// Counts a run of frames.
    pub fn run(&self, run: &Run) {
        self.frames.add(run.frames as u64);
        self.bytes.add(run.bytes as u64);
        self.runts.add(run.runts as u64);
    }

    /// Counts one frame of `len` bytes.
    #[inline]
    pub fn frame(&self, len: usize) {
        self.frames.add(1);
        self.bytes.add(len as u64);
    }
}
