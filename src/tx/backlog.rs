//! The queue of frames that were taken and are not written: how it grows, and how it is written.

use std::io::IoSlice;

use crate::error::Result;
use crate::runtime::pool::BUFFER;
use crate::tx::Tx;
use crate::tx::chunk::Chunk;
use crate::tx::frames::Wire;

impl Tx {
    /// Appends a frame to the queue.
    #[inline]
    pub fn push(&mut self, wire: &Wire<'_>) {
        match self.queue.back_mut() {
            Some(chunk) if chunk.len + wire.len() <= BUFFER => chunk.push(wire),
            _ => {
                let mut chunk = Chunk::new();
                chunk.push(wire);
                self.queue.push_back(chunk);
            }
        }
    }

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
        self.queue.iter().map(|chunk| chunk.len - chunk.progress.written).sum()
    }

    /// How many times the whole queue was written.
    pub fn emptied(&self) -> u64 {
        self.emptied
    }

    /// Writes the queue. Returns whether all of it is written, or the error that has ended sending.
    pub fn make_way(&mut self) -> Result<bool> {
        let is_all = self.write_backlog();
        match &self.end {
            Some(end) => Err(end.clone()),
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
        self.hold.due = None;
        while let Some(mut chunk) = self.queue.pop_front() {
            let is_all = self.write_chunk(&mut chunk);
            if !matches!(is_all, Ok(true)) {
                self.queue.push_front(chunk);
                return is_all;
            }
            chunk.give_back();
        }
        self.emptied += 1;
        Ok(true)
    }

    /// Writes the rest of a chunk. Returns whether the socket has taken all of it.
    fn write_chunk(&mut self, chunk: &mut Chunk) -> Result<bool> {
        let Chunk { buffer, len, frames, progress } = chunk;
        let bytes = &buffer[..*len];
        let unwritten = &bytes[progress.written..];
        let written = self.write(&[IoSlice::new(unwritten)]);
        let n = match self.wrote(written, unwritten.len()) {
            // It is tried again, as where the socket is full.
            Err(_) if self.is_short => 0,
            written => written?,
        };
        let (whole, before) = (progress.whole, progress.frames);
        progress.advance(bytes, *frames, n);
        self.count(progress.frames - before, progress.whole - whole);
        Ok(n == unwritten.len())
    }

    /// Gives up what is not written, and counts it as dropped.
    pub fn drop_backlog(&mut self) {
        for chunk in std::mem::take(&mut self.queue) {
            self.counts.dropped += (chunk.frames - chunk.progress.frames) as u64;
            chunk.give_back();
        }
        self.hold.due = None;
    }
}
