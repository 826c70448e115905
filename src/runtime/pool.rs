//! Large buffers, shared: as many as there are threads that work with one at a time.

use std::sync::Mutex;

use crate::runtime::lock::lock;
use crate::sys::fork::PerProcess;
use crate::sys::memory::Memory;
use crate::sys::mmsg::{MESSAGES, SLOT};

/// The size of a buffer for frames of a stream, to gather or to read: any frame has room.
pub const BUFFER: usize = 128 << 10;

/// The size of a buffer for as many messages as one read gives.
pub const ROOM: usize = MESSAGES * SLOT;

/// How many buffers of the first kind are kept for later: as much as waits for a port of a hub at most.
const KEPT: usize = 8;

/// Buffers of one size, of which at most `KEPT` are kept for later.
struct Pool<const SIZE: usize, const KEPT: usize>(Mutex<Vec<Memory>>);

impl<const SIZE: usize, const KEPT: usize> Default for Pool<SIZE, KEPT> {
    fn default() -> Self {
        Pool(Mutex::new(Vec::new()))
    }
}

impl<const SIZE: usize, const KEPT: usize> Pool<SIZE, KEPT> {
    fn take(&self) -> Memory {
        let kept = lock(&self.0).pop();
        kept.unwrap_or_else(|| Memory::of(SIZE))
    }

    fn give_back(&self, memory: Memory) {
        let mut kept = lock(&self.0);
        if kept.len() < KEPT {
            kept.push(memory);
        }
    }
}

static BUFFERS: PerProcess<Pool<BUFFER, KEPT>> = PerProcess::new();

/// Those that messages are read into. One is given back by each thread that reads, as a rule, and what
/// was touched of it stays in use.
static ROOMS: PerProcess<Pool<ROOM, 2>> = PerProcess::new();

/// Memory of so many bytes, of a pool where there is one of that size.
pub fn take(bytes: usize) -> Memory {
    match bytes {
        BUFFER => BUFFERS.get().take(),
        ROOM => ROOMS.get().take(),
        _ => Memory::of(bytes),
    }
}

/// Gives memory back to the pool that it is of, if there is one.
pub fn give_back(memory: Memory) {
    match memory.len() {
        BUFFER => BUFFERS.get().give_back(memory),
        ROOM => ROOMS.get().give_back(memory),
        _ => {}
    }
}
