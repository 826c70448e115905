//! Frames that were taken and are not written: where they lie, and how far they are written.

use crate::frame::{PREFIX, Walk};
use crate::runtime::pool::{self, BUFFER};
use crate::sys::memory::Memory;
use crate::tx::frames::Wire;

/// Frames in wire format, one behind another.
pub struct Chunk {
    /// A buffer of the pool, of which `len` bytes are used.
    pub buffer: Memory,
    pub len: usize,
    pub frames: usize,
    pub progress: Progress,
}

impl Chunk {
    pub fn new() -> Chunk {
        let buffer = pool::take(BUFFER);
        Chunk { buffer, len: 0, frames: 0, progress: Progress::default() }
    }

    /// Appends a frame for which there is room.
    #[inline]
    pub fn push(&mut self, wire: &Wire<'_>) {
        let end = self.len + wire.len();
        wire.copy_to(&mut self.buffer[self.len..end]);
        self.len = end;
        self.frames += 1;
    }

    pub fn give_back(self) {
        pool::give_back(self.buffer);
    }
}

/// How far frames that lie in wire format are written.
#[derive(Default)]
pub struct Progress {
    pub written: usize,
    /// How many of those bytes are of whole frames, and how many frames these are.
    pub whole: usize,
    pub frames: usize,
}

impl Progress {
    /// Moves past `n` bytes of `bytes`, which hold `frames` frames.
    pub fn advance(&mut self, bytes: &[u8], frames: usize, n: usize) {
        self.written += n;
        if self.written == bytes.len() {
            (self.whole, self.frames) = (bytes.len(), frames);
            return;
        }
        for frame in Walk::over(&bytes[self.whole..self.written]) {
            self.whole += PREFIX + frame.len();
            self.frames += 1;
        }
    }
}
