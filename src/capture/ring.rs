//! The buffer of a capture: frames are copied into it by the threads that receive and send them, as the blocks
//! that the file gets, and the writing thread takes them out.
//!
//! Nobody waits. Who puts frames in reserves room for them by an exchange, copies them there, and stores the
//! first number of each block last: then the block is whole. One thread takes blocks out, in the order of their
//! reservation, up to the first that is not whole, and leaves zeros behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::capture::pcapng::{self, HEAD, Mark};
use crate::error::Result;
use crate::sys::memory::SharedBytes;

/// How many bits of the first number of a block are the format's own: those above say how many of the notes
/// that wait go with the frame. Such a block is not written as it is.
const TYPE_BITS: u32 = 8;

pub struct Ring {
    bytes: SharedBytes,
    /// How many bytes were ever reserved, and how many of those are free again. Multiples of four.
    head: AtomicU64,
    tail: Apart,
}

/// What the writing thread changes, apart from what those read who put frames in: a processor fetches the whole
/// line of 64 bytes when another one has changed a part of it.
#[repr(align(64))]
struct Apart(AtomicU64);

/// Room that its holder alone writes to, until a block is whole.
#[must_use]
pub struct Room<'a> {
    ring: &'a Ring,
    place: usize,
    left: usize,
}

/// Takes blocks out. There is one for a ring, and nothing else changes what it has not yet given back.
pub struct Taker {
    ring: Arc<Ring>,
    tail: u64,
    /// How many bytes behind that have been seen to be of whole blocks.
    whole: usize,
}

/// A block that is whole.
pub struct Block {
    /// How many bytes it has.
    pub len: usize,
    /// How many notes go with its frame.
    pub notes: u32,
    pub interface: u32,
    /// The time of the frame, and its length, of which less may have been kept.
    pub time: u64,
    pub frame_len: u32,
}

impl Ring {
    pub fn of(bytes: usize) -> Result<(Arc<Ring>, Taker)> {
        let bytes = SharedBytes::of(bytes / 4 * 4)?;
        let (head, tail) = (AtomicU64::new(0), Apart(AtomicU64::new(0)));
        let ring = Arc::new(Ring { bytes, head, tail });
        Ok((ring.clone(), Taker { ring, tail: 0, whole: 0 }))
    }

    /// Whether more than half of it is in use.
    #[inline]
    pub fn is_half_full(&self) -> bool {
        let used =
            self.head.load(Ordering::Relaxed).wrapping_sub(self.tail.0.load(Ordering::Relaxed));
        used > self.bytes.len() as u64 / 2
    }

    /// Reserves room, if there is so much.
    #[inline]
    pub fn reserve(&self, room: usize) -> Option<Room<'_>> {
        let (len, size) = (room as u64, self.bytes.len() as u64);
        let mut head = self.head.load(Ordering::Relaxed);
        // Acquire: who sees that bytes are free sees them as zeros, too.
        while head + len <= self.tail.0.load(Ordering::Acquire) + size {
            let order = Ordering::Relaxed;
            match self.head.compare_exchange_weak(head, head + len, order, order) {
                Ok(_) => return Some(Room { ring: self, place: self.place(head), left: room }),
                Err(other) => head = other,
            }
        }
        None
    }

    /// Where something begins. The buffer's size may be any, and a division takes long: one does for a room.
    #[inline]
    fn place(&self, at: u64) -> usize {
        (at % self.bytes.len() as u64) as usize
    }

    /// A place that may be behind the end of the buffer, by less than its size, in there.
    #[inline]
    fn wrapped(&self, place: usize) -> usize {
        if place < self.bytes.len() { place } else { place - self.bytes.len() }
    }
}

impl Room<'_> {
    /// Puts a frame where the one before ends. Of the frame `kept` bytes are kept, with zeros where it has fewer.
    #[inline]
    pub fn put(&mut self, frame: &[u8], kept: usize, mark: &Mark) {
        let len = pcapng::frame_len(kept, mark.lost.is_some());
        self.left = self.left.checked_sub(len).expect("so much was reserved");
        let first = self.ring.bytes.number(self.place);
        let bytes = &frame[..frame.len().min(kept)];
        self.skip(4);
        self.write(pcapng::head(len, kept, mark).as_flattened());
        self.write(bytes);
        self.skip(kept.next_multiple_of(4) - bytes.len());
        match mark.lost {
            None => self.write(pcapng::tail(len, mark).as_flattened()),
            Some(lost) => self.write(pcapng::tail_lost(len, mark, lost).as_flattened()),
        }
        // Release: who sees this sees all of the block.
        first.store(pcapng::FRAME | mark.notes << TYPE_BITS, Ordering::Release);
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (front, behind) = bytes.split_at(bytes.len().min(self.ring.bytes.len() - self.place));
        // SAFETY: these bytes were reserved for this room alone, as `put` has checked, and nobody reads them before
        // the first number of their block is stored.
        unsafe { self.ring.bytes.write(self.place, front) };
        if !behind.is_empty() {
            // SAFETY: the same.
            unsafe { self.ring.bytes.write(0, behind) };
        }
        self.skip(bytes.len());
    }

    #[inline]
    fn skip(&mut self, bytes: usize) {
        self.place = self.ring.wrapped(self.place + bytes);
    }
}

impl Taker {
    /// The first block, if there is one.
    pub fn first(&mut self) -> Option<Block> {
        self.block(0)
    }

    /// How many bytes the first blocks have that are whole, one behind another, and as they are to be written,
    /// as long as `takes` says so: it is given the bytes before one, and the block.
    pub fn run(&mut self, mut takes: impl FnMut(usize, &Block) -> bool) -> usize {
        let mut len = 0;
        while let Some(block) = self.block(len).filter(|block| block.notes == 0) {
            if !takes(len, &block) {
                break;
            }
            len += block.len;
        }
        len
    }

    /// The block that begins so many bytes behind the first. Where the buffer is full of whole ones, that may be
    /// the first again.
    #[inline]
    fn block(&mut self, behind: usize) -> Option<Block> {
        if behind >= self.ring.bytes.len() {
            return None;
        }
        let place = self.ring.place(self.tail + behind as u64);
        // Acquire: the rest of the block is there, too.
        let first = self.ring.bytes.number(place).load(Ordering::Acquire);
        if first == 0 {
            return None;
        }
        let mut head = [0; HEAD];
        for (n, number) in head.iter_mut().enumerate() {
            let place = self.ring.wrapped(place + 4 + 4 * n);
            *number = self.ring.bytes.number(place).load(Ordering::Relaxed);
        }
        let [len, interface, high, low, _, frame_len] = head;
        self.whole = self.whole.max(behind + len as usize);
        Some(Block {
            len: len as usize,
            notes: first >> TYPE_BITS,
            interface,
            time: u64::from(high) << 32 | u64::from(low),
            frame_len,
        })
    }

    /// The bytes from `start` to `end` behind the front, or those of them that lie in one piece. They are of whole
    /// blocks.
    pub fn bytes(&self, start: usize, end: usize) -> &[u8] {
        assert!(start <= end && end <= self.whole, "of whole blocks");
        let place = self.ring.place(self.tail + start as u64);
        let len = (end - start).min(self.ring.bytes.len() - place);
        // SAFETY: blocks that are whole are written to by nobody but `release`, which is not called while these
        // bytes are borrowed.
        unsafe { self.ring.bytes.read(place, len) }
    }

    /// Gives the first bytes back, which are those of whole blocks.
    pub fn release(&mut self, len: usize) {
        self.whole = self.whole.checked_sub(len).expect("of whole blocks");
        let place = self.ring.place(self.tail);
        let front = len.min(self.ring.bytes.len() - place);
        for (place, len) in [(place, front), (0, len - front)] {
            // SAFETY: nobody else reads or writes these bytes before they are given back.
            unsafe { self.ring.bytes.zero(place, len) };
        }
        self.tail += len as u64;
        self.ring.tail.0.store(self.tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 4096;

    fn room_for(kept: usize, mark: &Mark) -> usize {
        pcapng::frame_len(kept, mark.lost.is_some())
    }

    fn put(ring: &Ring, frame: &[u8], kept: usize, mark: &Mark) -> bool {
        let room = ring.reserve(room_for(kept, mark));
        room.map(|mut room| room.put(frame, kept, mark)).is_some()
    }

    fn mark(number: u64) -> Mark {
        let lost = (number % 3 == 0).then_some(number);
        let interface = number as u32 % 7;
        Mark { len: 0, interface, is_out: number % 2 == 0, notes: 0, time: number << 30, lost }
    }

    /// The first block's bytes, in one piece.
    fn first_bytes(taker: &mut Taker) -> Vec<u8> {
        let len = taker.first().map_or(0, |block| block.len);
        let front = taker.bytes(0, len);
        [front, taker.bytes(front.len(), len)].concat()
    }

    #[test]
    fn every_length_comes_out_as_it_went_in() {
        let (ring, mut taker) = Ring::of(BYTES).unwrap();
        for len in (0..1000).chain(0..1000) {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
            for kept in [len, len / 2, len + 9] {
                let mark = Mark { len: len as u32, ..mark(len as u64) };
                assert!(taker.first().is_none() && put(&ring, &bytes, kept, &mark));
                let block = taker.first().unwrap();
                assert_eq!((block.len, block.frame_len), (room_for(kept, &mark), len as u32));
                assert_eq!((block.interface, block.time), (mark.interface, mark.time));
                assert_eq!(taker.run(|_, _| true), block.len);
                let taken = first_bytes(&mut taker);
                assert_eq!(taken[..4], pcapng::FRAME.to_ne_bytes());
                assert_eq!(taken[4..28], *pcapng::head(block.len, kept, &mark).as_flattened());
                let filled = kept.next_multiple_of(4);
                let zeros = vec![0; filled - len.min(kept)];
                assert_eq!(taken[28..28 + filled], [&bytes[..len.min(kept)], &zeros].concat());
                let tail = match mark.lost {
                    None => pcapng::tail(block.len, &mark).as_flattened().to_vec(),
                    Some(n) => pcapng::tail_lost(block.len, &mark, n).as_flattened().to_vec(),
                };
                assert_eq!(taken[28 + filled..], tail);
                taker.release(block.len);
            }
        }
    }

    #[test]
    fn what_finds_no_room_is_refused_and_disturbs_nothing() {
        let (ring, mut taker) = Ring::of(BYTES).unwrap();
        for round in 0..100 {
            let mark = Mark { lost: None, ..mark(round) };
            let put = (0..1000).take_while(|n| put(&ring, &[*n as u8; 100], 100, &mark)).count();
            assert_eq!(put, BYTES / 144);
            assert!(ring.is_half_full());
            let len = taker.run(|_, _| true);
            assert_eq!(len, put * 144, "in round {round}");
            for n in 0..put {
                assert_eq!(first_bytes(&mut taker)[28..128], [n as u8; 100]);
                taker.release(144);
            }
            assert!(taker.first().is_none());
        }
    }

    #[test]
    fn a_run_ends_where_it_is_told_to_and_before_what_has_notes() {
        let (ring, mut taker) = Ring::of(BYTES).unwrap();
        // From the second round on the buffer is full of whole blocks.
        for _ in 0..3 {
            for n in 0..BYTES / 64 {
                let mark = Mark { notes: u32::from(n == 40) * 9, lost: None, ..mark(n as u64) };
                assert!(put(&ring, &[n as u8; 20], 20, &mark));
            }
            assert_eq!(taker.run(|before, _| before < 1000), 1024);
            taker.release(1024);
            assert_eq!(taker.run(|_, _| true), 40 * 64 - 1024);
            taker.release(40 * 64 - 1024);
            assert_eq!(taker.first().unwrap().notes, 9);
            taker.release(64);
            assert_eq!(taker.run(|_, _| true), BYTES - 41 * 64);
            taker.release(BYTES - 41 * 64);
        }
    }

    #[test]
    fn threads_put_in_while_another_takes_out() {
        const EACH: u64 = 20_000;
        let (ring, mut taker) = Ring::of(BYTES).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let ring = &ring;
                scope.spawn(move || {
                    for n in 0..EACH {
                        let len = (n % 90) as usize;
                        let mark = Mark { interface: thread, ..mark(n) };
                        while !put(ring, &[n as u8; 90][..len], len, &mark) {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut next = [0; 3];
            while next != [EACH; 3] {
                let Some(block) = taker.first() else {
                    std::thread::yield_now();
                    continue;
                };
                let n = &mut next[block.interface as usize];
                let len = (*n % 90) as usize;
                assert_eq!((block.time, block.len), (*n << 30, room_for(len, &mark(*n))));
                assert_eq!(first_bytes(&mut taker)[28..28 + len], vec![*n as u8; len]);
                taker.release(block.len);
                *n += 1;
            }
        });
    }
}
