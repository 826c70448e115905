//! The buffer in which received bytes lie until they are used. Its memory is small while there is
//! little to read; large buffers come from a pool, and go back to it.

use std::ops::{Deref, DerefMut};

use crate::frame::{self, PREFIX};
use crate::net::socket::Socket;
use crate::runtime::pool::{self, BUFFER, ROOM};
use crate::sys::memory::Memory;
use crate::sys::mmsg::SLOT;

/// How many bytes a buffer has while frames trickle in, and how many while they stream in.
pub const SMALL: usize = 4 << 10;
pub const LARGE: usize = BUFFER;

/// The most bytes that stay in use for a connection from which nothing comes.
pub const RESTING: usize = 16 << 10;

/// Both sizes for one kind of socket. For messages the memory is reserved, and mostly not touched.
pub struct Sizes {
    pub small: usize,
    pub large: usize,
    /// The least room, in bytes, with which it is worth reading.
    pub least: usize,
}

const STREAM_SIZES: Sizes = Sizes { small: SMALL, large: LARGE, least: SMALL };
const MESSAGE_SIZES: Sizes = Sizes { small: 2 * SLOT, large: ROOM, least: SLOT };

/// The size in bytes of a loop's own buffer, which is large enough for a read from any socket.
pub const LOOP_ROOM: usize = ROOM;

/// How much of it is used to read from this socket, behind the front of a frame.
pub fn loop_room(socket: &Socket) -> usize {
    if socket.has_messages() { LOOP_ROOM } else { PREFIX + frame::MAX + LARGE }
}

impl Sizes {
    pub fn of(socket: &Socket) -> &'static Sizes {
        if socket.has_messages() { &MESSAGE_SIZES } else { &STREAM_SIZES }
    }
}

/// A buffer's memory, which goes back to its pool when it is dropped.
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
    /// What is received and not yet used lies between these two.
    pub start: usize,
    pub end: usize,
    /// Whether the last read filled it.
    pub is_filled: bool,
    /// Whether the last read that gave something gave more than a trickle, or followed one that filled
    /// the buffer.
    pub is_stream: bool,
    /// Whether that was so of any read into this buffer: then much of its memory was touched.
    pub is_touched: bool,
}

impl Buffer {
    pub fn with_capacity(capacity: usize, bytes: &[u8]) -> Buffer {
        let mut memory = Room(pool::take(capacity));
        memory[..bytes.len()].copy_from_slice(bytes);
        Buffer { memory, end: bytes.len(), ..Buffer::default() }
    }

    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    pub fn unread(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// The capacity that the next read should find, with room for at least `missing` bytes.
    pub fn wanted(&self, missing: usize, sizes: &Sizes) -> usize {
        let is_trickle = !self.is_filled && !self.is_stream;
        let is_small = is_trickle && self.unread().len() + missing <= sizes.small;
        if is_small { sizes.small } else { sizes.large }
    }

    /// Moves what is unread to the front.
    pub fn compact(&mut self) {
        self.memory.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }

    /// Puts the front of a frame in place of what is unread. If a length that no frame has is at the
    /// front, any number of bytes may follow, and few of them are kept.
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
}
