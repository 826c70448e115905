//! Where what was received lies until it is used: in memory that is a connection's own only while
//! there is little of it.

use std::ops::{Deref, DerefMut};

use crate::frame::{self, PREFIX};
use crate::net::socket::Socket;
use crate::runtime::pool;
use crate::runtime::pool::{BUFFER, ROOM};
use crate::sys::memory::Memory;
use crate::sys::mmsg::SLOT;

/// A buffer for a trickle of frames, and one for a stream of them.
pub const SMALL: usize = 4 << 10;
pub const LARGE: usize = BUFFER;

/// The most that stays in use for a connection from which nothing comes.
pub const RESTING: usize = 16 << 10;

/// The same in bytes for what a socket gives: with messages it is reserved, and mostly not touched.
pub struct Sizes {
    pub small: usize,
    pub large: usize,
    /// The least that is worth a read.
    pub least: usize,
}

const STREAM_SIZES: Sizes = Sizes { small: SMALL, large: LARGE, least: SMALL };
const MESSAGE_SIZES: Sizes = Sizes { small: 2 * SLOT, large: ROOM, least: SLOT };

/// The room that a loop has for reads of any socket.
pub const LOOP_ROOM: usize = ROOM;

/// How much of it is for reads of this one, the front of a frame included.
pub fn loop_room(socket: &Socket) -> usize {
    if socket.has_messages() { LOOP_ROOM } else { PREFIX + frame::MAX + LARGE }
}

impl Sizes {
    pub fn of(socket: &Socket) -> &'static Sizes {
        if socket.has_messages() { &MESSAGE_SIZES } else { &STREAM_SIZES }
    }
}

/// A buffer's memory. Large ones are no connection's own: they go from one to the next.
#[derive(Default)]
pub struct Room(Memory);

impl Drop for Room {
    fn drop(&mut self) {
        pool::give_back(std::mem::take(&mut self.0));
    }
}

impl Deref for Room {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Room {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[derive(Default)]
pub struct Buffer {
    pub memory: Room,
    /// Where what is not yet used begins, and where what was received ends.
    pub start: usize,
    pub end: usize,
    /// Whether the last read filled it.
    pub filled: bool,
    /// Whether the last read that gave something gave more than a trickle, with the one before it.
    pub is_stream: bool,
    /// Whether any of its reads did.
    pub is_touched: bool,
}

impl Buffer {
    pub fn unread(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    pub fn with_capacity(capacity: usize, bytes: &[u8]) -> Buffer {
        let mut memory = Room(pool::take(capacity));
        memory[..bytes.len()].copy_from_slice(bytes);
        Buffer { memory, end: bytes.len(), ..Buffer::default() }
    }

    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// What capacity the next read should have, `missing` bytes of a frame at least.
    pub fn wanted(&self, missing: usize, sizes: &Sizes) -> usize {
        let is_trickle = !self.filled && !self.is_stream;
        let small = is_trickle && self.unread().len() + missing <= sizes.small;
        if small { sizes.small } else { sizes.large }
    }

    /// Holds the front of a frame in place of what was here. Of what is behind a length that no frame
    /// has, which may be any number of bytes, nothing is needed.
    pub fn replace(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(PREFIX + frame::MAX)];
        if bytes.len() > self.capacity() {
            let capacity = if bytes.len() <= SMALL { SMALL } else { LARGE };
            *self = Buffer::with_capacity(capacity, bytes);
        } else {
            self.memory[..bytes.len()].copy_from_slice(bytes);
            (self.start, self.end) = (0, bytes.len());
        }
    }

    /// Moves what is unread to the front.
    pub fn compact(&mut self) {
        self.memory.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }
}
