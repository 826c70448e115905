//! Memory for frames.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicU32;

use memmap2::{MmapMut, MmapRaw};
use rustix::io::Errno;

use crate::error::Result;

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
        if bytes >= MAPPED {
            if let Ok(map) = MmapMut::map_anon(bytes) {
                return Memory::Mapped(map);
            }
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

/// Bytes that threads share, zeroed when they are made. They cost nothing until they are touched.
pub struct SharedBytes(MmapRaw);

impl SharedBytes {
    pub fn of(count: usize) -> Result<SharedBytes> {
        let map = MmapMut::map_anon(count).map(MmapRaw::from);
        Ok(SharedBytes(map.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))?))
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Where `len` bytes begin, which are there.
    #[inline]
    fn at(&self, place: usize, len: usize) -> *mut u8 {
        assert!(place <= self.len() && len <= self.len() - place, "within the bytes");
        // SAFETY: it is within the mapping, or at its end.
        unsafe { self.0.as_mut_ptr().add(place) }
    }

    /// The number at a place that is a multiple of four.
    #[inline]
    pub fn number(&self, place: usize) -> &AtomicU32 {
        assert!(place % 4 == 0, "a number's place");
        // SAFETY: it lies within the mapping, which is page-aligned. The callers of the functions below see to it
        // that nobody changes it otherwise meanwhile.
        unsafe { AtomicU32::from_ptr(self.at(place, 4).cast()) }
    }

    /// # Safety
    /// Nobody writes to these bytes while they are borrowed.
    #[inline]
    pub unsafe fn read(&self, place: usize, len: usize) -> &[u8] {
        // SAFETY: they lie within the mapping, and the caller promises the rest.
        unsafe { std::slice::from_raw_parts(self.at(place, len), len) }
    }

    /// # Safety
    /// Nobody else reads or writes these bytes while they are borrowed.
    #[inline]
    #[allow(clippy::mut_from_ref)] // Threads share the whole, and each has some of it for itself.
    pub unsafe fn room(&self, place: usize, len: usize) -> &mut [u8] {
        // SAFETY: as in `read`.
        unsafe { std::slice::from_raw_parts_mut(self.at(place, len), len) }
    }
}

/// Copies bytes to the front of `room`, if they are as few as a short frame has: then calling memcpy
/// would cost more than the copying itself. Returns whether they are, and `room` has room for them.
#[inline(always)]
pub fn copy_short(room: &mut [MaybeUninit<u8>], bytes: &[u8]) -> bool {
    let Some(room) = room.get_mut(..bytes.len()) else {
        return false;
    };
    match bytes.len() {
        33..=64 => copy_ends::<32>(room, bytes),
        65..=128 => copy_ends::<64>(room, bytes),
        16..=32 => copy_ends::<16>(room, bytes),
        8..=15 => copy_ends::<8>(room, bytes),
        _ => None,
    }
    .is_some()
}

/// Copies `N` to 2 `N` bytes: the first `N`, then the last `N`, which may overlap.
#[inline(always)]
fn copy_ends<const N: usize>(room: &mut [MaybeUninit<u8>], bytes: &[u8]) -> Option<()> {
    write(room.first_chunk_mut::<N>()?, bytes.first_chunk::<N>()?);
    write(room.last_chunk_mut::<N>()?, bytes.last_chunk::<N>()?);
    Some(())
}

/// Copies bytes to `room`, which has exactly their length and may be uninitialized.
#[inline(always)]
pub fn write(room: &mut [MaybeUninit<u8>], bytes: &[u8]) {
    // SAFETY: the layout is the same, and what is initialized may be read as what may not be.
    room.copy_from_slice(unsafe { &*(std::ptr::from_ref(bytes) as *const [MaybeUninit<u8>]) });
}

/// Copies bytes to `room`, which has exactly their length.
#[inline]
pub fn copy(room: &mut [u8], bytes: &[u8]) {
    if !copy_short(as_room(room), bytes) {
        room.copy_from_slice(bytes);
    }
}

/// Copies `parts` one after another to the front of `room`, if they have room. Returns them there.
#[inline]
pub fn join<'a, const N: usize>(
    room: &'a mut [MaybeUninit<u8>],
    parts: [&[u8]; N],
) -> Option<&'a [u8]> {
    let mut len = 0;
    for part in parts {
        let place = room.get_mut(len..)?.get_mut(..part.len())?;
        if !copy_short(place, part) {
            write(place, part);
        }
        len += part.len();
    }
    // SAFETY: these bytes have just been written.
    Some(unsafe { written(room.get(..len)?) })
}

/// What has been written to a buffer.
///
/// # Safety
/// All of it is initialized.
#[inline(always)]
pub unsafe fn written(room: &[MaybeUninit<u8>]) -> &[u8] {
    // SAFETY: the layout is the same, and the caller promises the rest.
    unsafe { &*(std::ptr::from_ref(room) as *const [u8]) }
}

/// Initialized bytes as a buffer to read into. Whoever gets it must write only initialized bytes.
#[inline]
pub fn as_room(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: the layout is the same, and reading into a buffer writes only initialized bytes.
    unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_every_short_length() {
        let bytes: Vec<u8> = (0..=140).collect();
        for len in 0..bytes.len() {
            let mut room = vec![0; len];
            copy(&mut room, &bytes[..len]);
            assert_eq!(room, bytes[..len]);
            let mut larger = vec![0; len + 1];
            assert_eq!(copy_short(as_room(&mut larger), &bytes[..len]), (8..=128).contains(&len));
            assert!(!copy_short(as_room(&mut room[..len / 2]), &bytes[..len.max(1)]));
        }
    }
}
