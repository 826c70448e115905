//! Memory for frames.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// From this size on, memory is mapped rather than allocated: it costs nothing until it is touched,
/// and is returned to the system as soon as it is dropped.
const MAPPED: usize = 64 << 10;

/// A block of memory, zeroed when it is made.
pub enum Memory {
    Heap(Box<[u8]>),
    Mapped(MmapMut),
}

impl Memory {
    pub fn of(bytes: usize) -> Memory {
        if bytes >= MAPPED
            && let Ok(map) = MmapMut::map_anon(bytes)
        {
            return Memory::Mapped(map);
        }
        Memory::Heap(vec![0; bytes].into())
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::Heap(Box::default())
    }
}

impl Deref for Memory {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Memory::Heap(bytes) => bytes,
            Memory::Mapped(bytes) => bytes,
        }
    }
}

impl DerefMut for Memory {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Memory::Heap(bytes) => bytes,
            Memory::Mapped(bytes) => bytes,
        }
    }
}

/// Copies `parts` one after another to the front of `room`, which must be large enough.
#[inline]
pub fn join<'a>(room: &'a mut [MaybeUninit<u8>], parts: [&[u8]; 3]) -> &'a [u8] {
    let mut len = 0;
    for part in parts {
        room[len..len + part.len()].write_copy_of_slice(part);
        len += part.len();
    }
    // SAFETY: these bytes have just been written.
    unsafe { room[..len].assume_init_ref() }
}

/// Initialized bytes as a buffer to read into. Whoever gets it must write only initialized bytes.
pub fn as_room(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: the layout is the same, and reading into a buffer writes only initialized bytes.
    unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) }
}
