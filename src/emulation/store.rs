//! Where the bytes of frames lie that are held: in large pieces of memory, in wire format, in the order
//! in which they came.

use std::collections::VecDeque;

use crate::frame::{self, PREFIX, Walk};
use crate::sys::memory::{self, Memory};

/// The size of a chunk in bytes. It is larger than any frame.
const CHUNK: usize = 128 << 10;

/// How many bits of a place are the position in a chunk. There are more positions than bytes, so that
/// the end of one chunk is not the beginning of the next.
const BITS: u32 = 18;

/// Where bytes lie: the number of their chunk, and their position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// The place `bytes` further on in the same chunk.
    #[inline]
    pub fn behind(self, bytes: u32) -> Place {
        Place(self.0 + u64::from(bytes))
    }
}

#[derive(Default)]
struct Chunk {
    memory: Memory,
    /// How many bytes have been written, and how many of them are still held.
    len: usize,
    held: usize,
}

#[derive(Default)]
pub struct Store {
    chunks: VecDeque<Chunk>,
    /// The number of the first chunk.
    first: u64,
    /// Memory of chunks that were emptied, which is used again before more is taken.
    spare: Vec<Memory>,
    /// How many bytes are held, prefixes included.
    held: u64,
}

impl Store {
    /// How many bytes are held, prefixes included.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Takes a frame in.
    #[inline]
    pub fn push(&mut self, frame: &[u8]) -> Place {
        let len = PREFIX + frame.len();
        let place = self.room(len);
        let chunk = self.last();
        let (prefix, room) = chunk.memory[chunk.len..chunk.len + len].split_at_mut(PREFIX);
        prefix.copy_from_slice(&frame::prefix(frame.len()));
        memory::copy(room, frame);
        self.grow(len);
        place
    }

    /// Takes in as many of the frames that `wire` begins with as lie in one chunk, at least one. Returns
    /// where they lie, and how many frames and bytes they have.
    pub fn push_run(&mut self, wire: &[u8], frames: usize) -> (Place, usize, usize) {
        let first = Walk::over(wire).next().map_or(wire.len(), |frame| PREFIX + frame.len());
        let place = self.room(first);
        let room = CHUNK - self.last().len;
        let (mut count, mut len) = (frames, wire.len());
        if len > room {
            (count, len) = (0, 0);
            for frame in Walk::over(wire) {
                if len + PREFIX + frame.len() > room {
                    break;
                }
                count += 1;
                len += PREFIX + frame.len();
            }
        }
        let chunk = self.last();
        chunk.memory[chunk.len..chunk.len + len].copy_from_slice(&wire[..len]);
        self.grow(len);
        (place, count, len)
    }

    /// Makes room for a frame. Returns where it will lie.
    #[inline]
    fn room(&mut self, len: usize) -> Place {
        if self.chunks.back().is_none_or(|chunk| CHUNK - chunk.len < len) {
            let memory = self.spare.pop().unwrap_or_else(|| Memory::of(CHUNK));
            self.chunks.push_back(Chunk { memory, len: 0, held: 0 });
        }
        let number = self.first + self.chunks.len() as u64 - 1;
        Place(number << BITS | self.last().len as u64)
    }

    #[inline]
    fn last(&mut self) -> &mut Chunk {
        self.chunks.back_mut().expect("room has been made")
    }

    #[inline]
    fn grow(&mut self, len: usize) {
        let chunk = self.last();
        chunk.len += len;
        chunk.held += len;
        self.held += len as u64;
    }

    pub fn bytes(&self, place: Place, len: u32) -> &[u8] {
        let (index, start) = self.find(place);
        &self.chunks[index].memory[start..start + len as usize]
    }

    /// A frame that is to be altered, without its prefix.
    pub fn frame_mut(&mut self, place: Place, len: u32) -> &mut [u8] {
        let (index, start) = self.find(place);
        &mut self.chunks[index].memory[start + PREFIX..start + len as usize]
    }

    fn find(&self, Place(place): Place) -> (usize, usize) {
        let start = place & ((1 << BITS) - 1);
        (((place >> BITS) - self.first) as usize, start as usize)
    }

    /// Lets go of bytes. A chunk of which nothing is held is given back, and the last one begun anew.
    pub fn release(&mut self, place: Place, len: u32) {
        let (index, _) = self.find(place);
        self.held -= u64::from(len);
        let is_last = index + 1 == self.chunks.len();
        let chunk = &mut self.chunks[index];
        chunk.held -= len as usize;
        if chunk.held > 0 {
            return;
        }
        if is_last {
            chunk.len = 0;
            return;
        }
        let memory = std::mem::take(&mut chunk.memory);
        while self.chunks.len() > 1 && self.chunks.front().is_some_and(|chunk| chunk.held == 0) {
            self.chunks.pop_front();
            self.first += 1;
        }
        // About as much as is in use is kept for later, so that a steady flow takes no memory from the
        // system.
        self.spare.push(memory);
        self.spare.truncate(1 + self.held as usize / CHUNK);
    }

    /// Lets go of everything.
    pub fn clear(&mut self) {
        *self = Store::default();
    }
}
