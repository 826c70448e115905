//! Frames that a caller gives to send, and how one goes onto the wire.

use crate::frame::{self, PREFIX, Walk};

/// A frame as it goes onto the wire: behind a prefix, perhaps padded.
#[derive(Clone, Copy)]
pub struct Wire<'a> {
    pub frame: &'a [u8],
    pub padded_len: usize,
}

impl<'a> Wire<'a> {
    /// Of a frame that may be sent.
    pub fn of(frame: &'a [u8], padded: usize) -> Wire<'a> {
        Wire { frame, padded_len: frame.len().max(padded) }
    }

    /// With its prefix.
    #[inline]
    pub fn len(&self) -> usize {
        PREFIX + self.padded_len
    }

    /// Copies it to `room`, which has its length.
    #[inline]
    pub fn copy_to(&self, room: &mut [u8]) {
        let (front, padding) = room.split_at_mut(PREFIX + self.frame.len());
        frame::copy_to(front, frame::prefix(self.padded_len), self.frame);
        if !padding.is_empty() {
            padding.fill(0);
        }
    }
}

/// Why some bytes cannot be a frame to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    Null,
    /// Packed, and the end of the buffer comes first.
    Cut,
    /// Of a length that no frame has here.
    Length(usize),
}

/// Frames to send, in order; a copy of it goes over them again.
pub trait Frames<'a>: Iterator<Item = Result<&'a [u8], Bad>> + Clone {
    /// All that is left, if it lies in wire format.
    fn packed(&self) -> Option<&'a [u8]> {
        None
    }
}

/// Frames here and there in memory.
#[derive(Clone)]
pub struct Scattered<I>(pub I);

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
    /// What is wrong with the frame at the front: its length comes first.
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
