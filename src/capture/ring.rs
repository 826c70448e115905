//! The buffer of a capture: frames are copied into it by the threads that receive and send them, and the
//! writing thread takes them out.
//!
//! Nobody waits. Who puts a frame in reserves room for it by an exchange, copies it there, and then marks
//! the record as whole. One thread takes the records out, in the order of their reservation, up to the
//! first that is not whole, and leaves zeros behind.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::sys::memory::Words;

const WORD: usize = size_of::<u64>();

/// How many words a record has before its frame.
const HEADER: usize = 4;

/// The first word of a record that is whole.
const WHOLE: u64 = 1 << 63;

pub struct Ring {
    words: Words,
    /// How many words were ever reserved, and how many of those are free again.
    head: AtomicU64,
    tail: Apart,
}

/// What the writing thread changes with each frame, apart from what those read who put frames in: a processor
/// fetches the whole line of 64 bytes when another one has changed a part of it.
#[repr(align(64))]
struct Apart(AtomicU64);

/// What goes with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The length of the frame, of which less may have been kept.
    pub len: u32,
    pub interface: u32,
    pub is_out: bool,
    /// How many of the notes that wait go with it: fewer than 2^31.
    pub notes: u32,
    pub time: u64,
    /// How many frames of the interface before it were not recorded.
    pub lost: u64,
}

impl Ring {
    pub fn of(bytes: usize) -> Result<Ring> {
        let words = Words::of(bytes / WORD)?;
        Ok(Ring { words, head: AtomicU64::new(0), tail: Apart(AtomicU64::new(0)) })
    }

    fn size(&self) -> u64 {
        self.words.len() as u64
    }

    /// Whether more than half of it is in use.
    #[inline]
    pub fn is_half_full(&self) -> bool {
        let used =
            self.head.load(Ordering::Relaxed).wrapping_sub(self.tail.0.load(Ordering::Relaxed));
        used > self.size() / 2
    }

    /// How much room frames need of which so many bytes each are kept.
    pub fn room_for(kept: impl Iterator<Item = usize>) -> u64 {
        kept.map(words_of).sum()
    }

    /// Reserves room, if there is so much. Returns where it begins.
    #[inline]
    pub fn reserve(&self, room: u64) -> Option<u64> {
        let mut head = self.head.load(Ordering::Relaxed);
        // Acquire: who sees that words are free sees them as zeros, too.
        while head + room <= self.tail.0.load(Ordering::Acquire) + self.size() {
            let order = Ordering::Relaxed;
            match self.head.compare_exchange_weak(head, head + room, order, order) {
                Ok(_) => return Some(head),
                Err(other) => head = other,
            }
        }
        None
    }

    /// Copies a frame to room that was reserved. Of the frame `kept` bytes are kept, with zeros where it has
    /// fewer. Returns where the next one goes.
    #[inline]
    pub fn put(&self, at: u64, frame: &[u8], kept: usize, mark: Mark) -> u64 {
        let place = self.place(at);
        self.copy(place + HEADER, &frame[..frame.len().min(kept)]);
        let of_interface = u64::from(mark.interface) << 32 | u64::from(mark.notes) << 1;
        self.word(place + 1).store(of_interface | u64::from(mark.is_out), Ordering::Relaxed);
        self.word(place + 2).store(mark.time, Ordering::Relaxed);
        self.word(place + 3).store(mark.lost, Ordering::Relaxed);
        let first = WHOLE | (kept as u64) << 32 | u64::from(mark.len);
        // Release: who sees this sees all of the record.
        self.word(place).store(first, Ordering::Release);
        at + words_of(kept)
    }

    /// Where a record begins. The buffer's size may be any, and a division takes long: one does for a record.
    #[inline]
    fn place(&self, at: u64) -> usize {
        (at % self.size()) as usize
    }

    /// A place that may be behind the end of the buffer, by less than its size, in there.
    #[inline]
    fn wrapped(&self, place: usize) -> usize {
        if place < self.words.len() { place } else { place - self.words.len() }
    }

    #[inline]
    fn word(&self, place: usize) -> &AtomicU64 {
        &self.words[self.wrapped(place)]
    }

    #[inline]
    fn copy(&self, place: usize, bytes: &[u8]) {
        let start = self.wrapped(place);
        let (whole, rest) = bytes.split_at(bytes.len() / WORD * WORD);
        let (front, behind) = whole.split_at(whole.len().min((self.words.len() - start) * WORD));
        for (bytes, words) in [(front, &self.words[start..]), (behind, &self.words[..])] {
            for (chunk, word) in bytes.chunks_exact(WORD).zip(words) {
                let chunk = chunk.try_into().expect("as long as a word");
                word.store(u64::from_ne_bytes(chunk), Ordering::Relaxed);
            }
        }
        if !rest.is_empty() {
            let mut last = [0; WORD];
            last[..rest.len()].copy_from_slice(rest);
            self.word(start + whole.len() / WORD)
                .store(u64::from_ne_bytes(last), Ordering::Relaxed);
        }
    }

    /// Whether there is a record to take out.
    pub fn has_next(&self) -> bool {
        self.word(self.place(self.tail.0.load(Ordering::Relaxed))).load(Ordering::Acquire) != 0
    }

    /// Takes out the next record, whose bytes replace those of `frame`. For one thread.
    pub fn take(&self, frame: &mut Vec<u8>) -> Option<Mark> {
        let tail = self.tail.0.load(Ordering::Relaxed);
        let place = self.place(tail);
        let first = self.word(place).load(Ordering::Acquire);
        if first == 0 {
            return None;
        }
        let kept = ((first & !WHOLE) >> 32) as usize;
        let words = words_of(kept);
        let [_, of_interface, time, lost] = [0, 1, 2, 3].map(|n| take_out(self.word(place + n)));
        let (start, len) = (self.wrapped(place + HEADER), words as usize - HEADER);
        frame.resize(len * WORD, 0);
        let (front, behind) = frame.split_at_mut(len.min(self.words.len() - start) * WORD);
        for (bytes, words) in [(front, &self.words[start..]), (behind, &self.words[..])] {
            for (chunk, word) in bytes.chunks_exact_mut(WORD).zip(words) {
                chunk.copy_from_slice(&take_out(word).to_ne_bytes());
            }
        }
        frame.truncate(kept);
        self.tail.0.store(tail + words, Ordering::Release);
        Some(Mark {
            len: first as u32,
            interface: (of_interface >> 32) as u32,
            is_out: of_interface & 1 != 0,
            notes: of_interface as u32 >> 1,
            time,
            lost,
        })
    }
}

/// How many words a record has.
#[inline]
fn words_of(kept: usize) -> u64 {
    (HEADER + kept.div_ceil(WORD)) as u64
}

#[inline]
fn take_out(word: &AtomicU64) -> u64 {
    let value = word.load(Ordering::Relaxed);
    word.store(0, Ordering::Relaxed);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 4096;

    fn put(ring: &Ring, frame: &[u8], kept: usize, mark: Mark) -> bool {
        let at = ring.reserve(Ring::room_for([kept].into_iter()));
        at.is_some_and(|at| ring.put(at, frame, kept, mark) > at)
    }

    fn mark(number: u64) -> Mark {
        let (interface, notes) = (number as u32 % 7, number as u32 % 3);
        Mark { len: 0, interface, is_out: number % 2 == 0, notes, time: number, lost: number }
    }

    #[test]
    fn every_length_comes_out_as_it_went_in() {
        let (ring, mut frame) = (Ring::of(BYTES).unwrap(), Vec::new());
        for len in (0..1000).chain(0..1000) {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
            for kept in [len, len / 2, len + 9] {
                let mark = Mark { len: len as u32, ..mark(len as u64) };
                assert!(!ring.has_next() && put(&ring, &bytes, kept, mark) && ring.has_next());
                assert_eq!(ring.take(&mut frame), Some(mark));
                let zeros = vec![0; kept.saturating_sub(len)];
                assert_eq!(frame, [&bytes[..len.min(kept)], &zeros[..]].concat());
            }
        }
    }

    #[test]
    fn what_finds_no_room_is_refused_and_disturbs_nothing() {
        let (ring, mut frame) = (Ring::of(BYTES).unwrap(), Vec::new());
        for round in 0..100 {
            let put = (0..1000).take_while(|n| put(&ring, &[*n as u8; 100], 100, mark(*n))).count();
            assert_eq!(put, BYTES / (32 + 104));
            assert!(ring.is_half_full());
            for n in 0..put as u64 {
                assert_eq!(ring.take(&mut frame), Some(mark(n)), "in round {round}");
                assert_eq!(frame, [n as u8; 100]);
            }
            assert!(ring.take(&mut frame).is_none());
        }
    }

    #[test]
    fn threads_put_in_while_another_takes_out() {
        const EACH: u64 = 20_000;
        let (ring, mut frame) = (Ring::of(BYTES).unwrap(), Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let ring = &ring;
                scope.spawn(move || {
                    for n in 0..EACH {
                        let len = (n % 90) as usize;
                        let mark = Mark { interface: thread, ..mark(n) };
                        while !put(ring, &[n as u8; 90][..len], len, mark) {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut next = [0; 3];
            while next != [EACH; 3] {
                let Some(taken) = ring.take(&mut frame) else {
                    std::thread::yield_now();
                    continue;
                };
                let n = &mut next[taken.interface as usize];
                assert_eq!(taken, Mark { interface: taken.interface, ..mark(*n) });
                assert_eq!(frame, vec![*n as u8; (*n % 90) as usize]);
                *n += 1;
            }
        });
    }
}
