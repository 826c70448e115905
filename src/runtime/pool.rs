//! Pools of large buffers. Each thread works with one buffer at a time, so a few are enough.

use std::sync::Mutex;

use crate::runtime::lock::lock;
use crate::sys::fork::PerProcess;
use crate::sys::memory::Memory;
use crate::sys::mmsg::{MESSAGES, SLOT};

/// The size of a buffer for writing or reading frames of a stream. It is larger than any frame.
pub const BUFFER: usize = 128 << 10;

/// The size of a buffer for all messages that one read returns.
pub const ROOM: usize = MESSAGES * SLOT;

/// How many buffers of [`BUFFER`] bytes are kept for later: as much as is queued for a port of a
/// hub by default.
const KEPT_BUFFERS: usize = 8;

/// How many buffers of [`ROOM`] bytes are kept for later. They are large, and keep the memory that
/// was touched.
const KEPT_ROOMS: usize = 2;

/// Buffers that were given back, of either size.
#[derive(Default)]
struct Pools {
    buffers: Mutex<Vec<Memory>>,
    rooms: Mutex<Vec<Memory>>,
}

static POOLS: PerProcess<Pools> = PerProcess::new();

/// The pool of buffers of this size, and how many it keeps.
fn pool(bytes: usize) -> Option<(&'static Mutex<Vec<Memory>>, usize)> {
    match bytes {
        BUFFER => Some((&POOLS.get().buffers, KEPT_BUFFERS)),
        ROOM => Some((&POOLS.get().rooms, KEPT_ROOMS)),
        _ => None,
    }
}

/// A buffer of this size, from a pool if there is one for the size. It may hold old bytes.
pub fn take(bytes: usize) -> Memory {
    let kept = pool(bytes).and_then(|(pool, _)| lock(pool).pop());
    kept.unwrap_or_else(|| Memory::of(bytes))
}

/// Gives a buffer back to its pool, or frees it if there is none or it is full.
pub fn give_back(memory: Memory) {
    if let Some((pool, most)) = pool(memory.len()) {
        let mut kept = lock(pool);
        if kept.len() < most {
            kept.push(memory);
        }
    }
}
