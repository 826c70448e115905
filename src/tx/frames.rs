//! Frames that a caller gives to send, which of them fit, and how one goes onto the wire.

use crate::frame::{self, PREFIX, Walk};
use crate::sys::memory;

/// Which frames a connection sends, and how.
#[derive(Default, Clone, Copy)]
pub struct Fit {
    /// The length of the longest. A small number, so that the compiler knows that no sum of lengths overflows.
    pub max: u32,
    /// The length up to which shorter frames are padded: 0 for not at all.
    pub padded: usize,
}

impl Fit {
    #[inline]
    pub fn takes(self, len: usize) -> bool {
        (frame::MIN..=self.max as usize).contains(&len)
    }

    /// A frame as it goes onto the wire, if it fits.
    #[inline]
    pub fn wire(self, frame: &[u8]) -> Option<Wire<'_>> {
        let padded_len = frame.len().max(self.padded);
        self.takes(frame.len()).then_some(Wire { frame, padded_len })
    }
}

/// A frame as it goes onto the wire: behind a prefix, perhaps padded.
#[derive(Clone, Copy)]
pub struct Wire<'a> {
    pub frame: &'a [u8],
    pub padded_len: usize,
}

impl Wire<'_> {
    /// Its length with the prefix.
    #[inline]
    pub fn len(&self) -> usize {
        PREFIX + self.padded_len
    }

    /// Copies it to `room`, which has exactly its length.
    #[inline]
    pub fn copy_to(&self, room: &mut [u8]) {
        let (front, room) = room.split_first_chunk_mut().expect("room for a prefix");
        let (middle, padding) = room.split_at_mut(self.frame.len());
        *front = frame::prefix(self.padded_len);
        memory::copy(middle, self.frame);
        if !padding.is_empty() {
            padding.fill(0);
        }
    }
}

/// Why some bytes cannot be a frame to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    Null,
    /// The packed buffer ends inside the frame.
    Cut,
    /// No frame that is sent here has that length.
    Length(usize),
}

/// Frames to send, in order. A clone goes over the same frames again.
pub trait Frames<'a>: Iterator<Item = Result<&'a [u8], Bad>> + Clone {
    /// The bytes of all frames left, if they lie in wire format.
    fn packed(&self) -> Option<&'a [u8]> {
        None
    }
}

/// Frames that lie anywhere in memory.
#[derive(Clone)]
pub struct Scattered<I>(pub I);

/// One frame.
pub fn once<'a>(frame: Result<&'a [u8], Bad>) -> impl Frames<'a> {
    Scattered([frame].into_iter())
}

impl<'a, I: Iterator<Item = Result<&'a [u8], Bad>>> Iterator for Scattered<I> {
    type Item = I::Item;

    #[inline]
    fn next(&mut self) -> Option<I::Item> {
        self.0.next()
    }
}

impl<'a, I: Iterator<Item = Result<&'a [u8], Bad>> + Clone> Frames<'a> for Scattered<I> {}

/// Frames in wire format, one after another.
#[derive(Clone)]
pub struct Packed<'a>(pub Walk<'a>);

impl<'a> Iterator for Packed<'a> {
    type Item = Result<&'a [u8], Bad>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.0.next() {
            Some(frame) => Some(Ok(frame)),
            None if self.0.rest().is_empty() => None,
            None => Some(Err(self.bad())),
        }
    }
}

impl<'a> Packed<'a> {
    /// What is wrong with the frame at the front. A bad length is reported rather than a cut.
    #[cold]
    fn bad(&self) -> Bad {
        let prefix = self.0.rest().first_chunk::<PREFIX>();
        match prefix.map(|prefix| u32::from_be_bytes(*prefix) as usize) {
            Some(len) if !(frame::MIN..=frame::MAX).contains(&len) => Bad::Length(len),
            _ => Bad::Cut,
        }
    }
}

impl<'a> Frames<'a> for Packed<'a> {
    fn packed(&self) -> Option<&'a [u8]> {
        Some(self.0.rest())
    }
}
