//! Frames that were taken and are not written: where they lie, and how far they are written.

use std::collections::VecDeque;

use crate::frame::{self, PREFIX, Walk};
use crate::runtime::pool::{self, BUFFER};
use crate::sys::memory::{self, Memory};
use crate::tx::frames::Wire;

/// All of them, in order.
#[derive(Default)]
pub struct Queue {
    /// The chunks that are full.
    full: VecDeque<Chunk>,
    /// The chunk to which further frames are appended. It is empty only if the whole queue is.
    last: Chunk,
}

impl Queue {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.last.len == 0
    }

    /// Whether the last chunk has room for `len` bytes that end at most at `most`.
    #[inline]
    pub fn has_room(&self, len: usize, most: usize) -> bool {
        self.last.len as usize + len <= most
    }

    /// Appends a short frame to the last chunk, if it ends at most at `most` there. Returns whether it did. It
    /// cannot panic.
    #[inline(always)]
    pub fn push_short(&mut self, frame: &[u8], most: usize) -> bool {
        let Chunk { buffer, len, frames, .. } = &mut self.last;
        let end = *len as usize + PREFIX + frame.len();
        if end > most {
            return false;
        }
        let Some(room) = buffer.get_mut(*len as usize..end) else {
            return false;
        };
        let Some((prefix, room)) = room.split_first_chunk_mut() else {
            return false;
        };
        if !memory::copy_short(memory::as_room(room), frame) {
            return false;
        }
        *prefix = frame::prefix(frame.len());
        *len = end as u32;
        *frames += 1;
        true
    }

    /// Appends a frame.
    #[inline]
    pub fn push(&mut self, wire: &Wire<'_>) {
        if self.last.len as usize + wire.len() > self.last.buffer.len() {
            let before = std::mem::replace(&mut self.last, Chunk::new());
            if before.len > 0 {
                self.full.push_back(before);
            }
        }
        self.last.push(wire);
    }

    /// Appends the first frame, of which `written` bytes are written already.
    pub fn push_cut(&mut self, wire: &Wire<'_>, written: usize) {
        self.push(wire);
        self.last.progress.written = written;
    }

    /// What is to be written next: the unwritten part of the first chunk.
    pub fn front(&self) -> &[u8] {
        let first = self.full.front().unwrap_or(&self.last);
        &first.buffer[first.progress.written..first.len as usize]
    }

    /// Notes that `n` bytes of that were written. Returns how many frames ended in them, and how many bytes
    /// these have.
    pub fn advance(&mut self, n: usize) -> (usize, usize) {
        let Chunk { buffer, len, frames, progress } =
            self.full.front_mut().unwrap_or(&mut self.last);
        let (whole, before) = (progress.whole, progress.frames);
        progress.advance(&buffer[..*len as usize], *frames, n);
        let ended = (progress.frames - before, progress.whole - whole);
        if progress.written == *len as usize {
            self.pop();
        }
        ended
    }

    fn pop(&mut self) {
        let first = self.full.pop_front();
        pool::give_back(first.unwrap_or_else(|| std::mem::take(&mut self.last)).buffer);
    }

    /// Gives up what is not written. Returns how many frames that are.
    pub fn clear(&mut self) -> usize {
        let mut frames = 0;
        while !self.is_empty() {
            let first = self.full.front().unwrap_or(&self.last);
            frames += first.frames - first.progress.frames;
            self.pop();
        }
        frames
    }

    /// How many bytes are not written.
    pub fn unwritten(&self) -> usize {
        let chunks = self.full.iter().chain([&self.last]);
        chunks.map(|chunk| chunk.len as usize - chunk.progress.written).sum()
    }
}

/// Frames in wire format, one behind another.
#[derive(Default)]
struct Chunk {
    /// A buffer of the pool, of which `len` bytes are used; nothing while `len` is 0. A small number, so that
    /// the compiler knows that no sum of lengths overflows.
    buffer: Memory,
    len: u32,
    frames: usize,
    progress: Progress,
}

impl Chunk {
    fn new() -> Chunk {
        Chunk { buffer: pool::take(BUFFER), ..Chunk::default() }
    }

    /// Appends a frame for which there is room.
    #[inline]
    fn push(&mut self, wire: &Wire<'_>) {
        let end = self.len as usize + wire.len();
        wire.copy_to(&mut self.buffer[self.len as usize..end]);
        self.len = end as u32;
        self.frames += 1;
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
