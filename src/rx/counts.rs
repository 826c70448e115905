//! Counts of receiving.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::frame::Run;

/// Those of a connection. One writer at a time: who holds the state's lock, or that of the switch that it
/// is plugged into, or the delivering thread.
#[derive(Default)]
pub struct RxCounts {
    pub frames: Counter,
    pub bytes: Counter,
    pub runts: Counter,
    pub reads: Counter,
    pub foreign: Counter,
}

#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.get() + n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl RxCounts {
    pub fn clear(&self) {
        for counter in [&self.frames, &self.bytes, &self.runts, &self.reads, &self.foreign] {
            counter.clear();
        }
    }

    /// Many at once.
    pub fn run(&self, run: &Run) {
        self.frames.add(run.frames as u64);
        self.bytes.add(run.bytes as u64);
        self.runts.add(run.runts as u64);
    }

    #[inline]
    pub fn frame(&self, len: usize) {
        self.frames.add(1);
        self.bytes.add(len as u64);
    }
}
