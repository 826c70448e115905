//! The buffer of a capture: frames are copied into it by the threads that receive and send them, as the blocks
//! that the file gets, and the writing thread takes them out.
//!
//! Nobody waits. Who puts frames in reserves room for them by an exchange, copies them there, and stores the
//! first number of the first block last: then those that were copied together are whole. One thread takes blocks
//! out, in the order of their reservation, up to the first that is not whole, and leaves zeros behind. Room that was
//! not used is told by a number, too, and is skipped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::capture::pcapng::{self, Block, Mark, START};
use crate::capture::rows::Row;
use crate::error::Result;
use crate::sys::memory::SharedBytes;

/// How long a block may be: longer than that of any frame.
const LONGEST: usize = 128 << 10;

/// The first number of bytes that nobody has used, beside how many they are. No type of a block has this bit.
const UNUSED: u32 = 1 << 31;

/// A block that begins near the end of the buffer runs on behind it, so that each is in one piece. What it would
/// have at the beginning is left free.
pub struct Ring {
    bytes: SharedBytes,
    /// How many bytes there are without those behind the end.
    size: usize,
    /// How many bytes were ever reserved, and how many of those are free again. Multiples of four.
    head: AtomicU64,
    tail: Apart,
}

/// What the writing thread changes, apart from what those read who put frames in: a processor fetches the whole
/// line of 64 bytes when another one has changed a part of it.
#[repr(align(64))]
struct Apart(AtomicU64);

/// Room that its holder alone writes to, until a block is whole. What is left of it when it is dropped is skipped: who
/// counted the frames may have found others when they were put in, if a program changes them meanwhile.
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
    /// How many bytes behind that were seen last to be of whole blocks, and are in one piece.
    seen: usize,
}

impl Ring {
    pub fn of(bytes: usize) -> Result<(Arc<Ring>, Taker)> {
        let size = bytes / 4 * 4;
        let bytes = SharedBytes::of(size + LONGEST)?;
        let (head, tail) = (AtomicU64::new(0), Apart(AtomicU64::new(0)));
        let ring = Arc::new(Ring { bytes, size, head, tail });
        Ok((ring.clone(), Taker { ring, tail: 0, seen: 0 }))
    }

    /// How many bytes it has room for.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether more than half of it is in use.
    #[inline]
    pub fn is_half_full(&self) -> bool {
        let used =
            self.head.load(Ordering::Relaxed).wrapping_sub(self.tail.0.load(Ordering::Relaxed));
        used > self.size as u64 / 2
    }

    /// Reserves room, if there is so much.
    #[inline]
    pub fn reserve(&self, room: usize) -> Option<Room<'_>> {
        let (len, size) = (room as u64, self.size as u64);
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
        (at % self.size as u64) as usize
    }

    /// Where the block behind that one begins.
    #[inline]
    fn behind(&self, place: usize, len: usize) -> usize {
        let end = place + len;
        if end < self.size { end } else { end - self.size }
    }
}

impl Room<'_> {
    /// Puts frames where those before end, and returns for how many there was room. Of each `kept` bytes are kept, with
    /// zeros where it has fewer. What goes with a frame in particular goes with the first.
    #[inline]
    pub fn put(&mut self, row: Row<'_>, kept: usize, mark: &Mark) -> usize {
        let (mut put, mut mark, mut rest) = (0, *mark, row);
        while rest.count > 0 {
            let len = pcapng::frame_len(kept, mark.lost.is_some());
            let is_plain = mark.notes == 0 && mark.lost.is_none();
            let count = if is_plain && self.holds(rest.count, len) { rest.count } else { 1 };
            if len > LONGEST || !self.holds(count, len) {
                break;
            }
            let (some, behind) = rest.split(count);
            self.put_together(some, kept, len, &mark);
            (mark.notes, mark.lost, rest) = (0, None, behind);
            put += count;
        }
        put
    }

    /// Whether there is room for blocks of that length, each of which begins before the end of the buffer.
    #[inline]
    fn holds(&self, count: usize, len: usize) -> bool {
        count * len <= self.left && self.place + (count - 1) * len < self.ring.size
    }

    #[inline]
    fn put_together(&mut self, row: Row<'_>, kept: usize, len: usize, mark: &Mark) {
        let whole = row.count * len;
        // SAFETY: these bytes were reserved for this room alone, and nobody reads them before the first number of
        // the first block is stored.
        let blocks = unsafe { self.ring.bytes.room(self.place + 4, whole - 4) };
        pcapng::fill(blocks, row.frames(), kept, mark);
        // Release: who sees this sees all of the blocks.
        self.ring.bytes.number(self.place).store(pcapng::kind(mark), Ordering::Release);
        self.left -= whole;
        self.place = self.ring.behind(self.place, whole);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        while self.left > 0 {
            let len = self.left.min(LONGEST);
            // Release: as in `put`.
            let number = self.ring.bytes.number(self.place);
            number.store(UNUSED | len as u32, Ordering::Release);
            self.left -= len;
            self.place = self.ring.behind(self.place, len);
        }
    }
}

impl Taker {
    /// Sees the first block, if there is one.
    pub fn first(&mut self) -> Option<Block> {
        loop {
            let place = self.ring.place(self.tail);
            // Acquire: what belongs to it is there, too.
            let number = self.ring.bytes.number(place).load(Ordering::Acquire);
            if number & UNUSED == 0 {
                let block = self.block(place);
                self.seen = block.as_ref().map_or(0, |block| block.len);
                return block;
            }
            self.seen = (number & !UNUSED) as usize;
            self.release();
        }
    }

    /// Sees the first blocks that lie one behind another in memory, and are to be written as they are, as long as
    /// `takes` says so: it is given the bytes before one, and the block. Returns how many bytes they have.
    pub fn run(&mut self, mut takes: impl FnMut(usize, &Block) -> bool) -> usize {
        let (start, mut len) = (self.ring.place(self.tail), 0);
        while start + len < self.ring.size {
            let Some(block) = self.block(start + len).filter(|block| block.notes == 0) else {
                break;
            };
            if !takes(len, &block) {
                break;
            }
            len += block.len;
        }
        self.seen = len;
        len
    }

    /// The block that begins there, if it is whole.
    #[inline]
    fn block(&self, place: usize) -> Option<Block> {
        // Acquire: the rest of the block is there, too.
        let number = self.ring.bytes.number(place).load(Ordering::Acquire);
        let is_whole = number != 0 && number & UNUSED == 0;
        // SAFETY: a block that is whole is written to by nobody but `release`.
        let start = is_whole.then(|| unsafe { self.ring.bytes.read(place, START) })?;
        start.first_chunk().map(Block::read)
    }

    /// The bytes of the blocks that were seen last.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: as above, and `release` is not called while these are borrowed.
        unsafe { self.ring.bytes.read(self.ring.place(self.tail), self.seen) }
    }

    /// Gives those bytes back.
    pub fn release(&mut self) {
        let len = std::mem::take(&mut self.seen);
        // SAFETY: nobody else reads or writes these bytes before they are given back.
        unsafe { self.ring.bytes.room(self.ring.place(self.tail), len) }.fill(0);
        self.tail += len as u64;
        // Release: who reserves these bytes finds zeros there.
        self.ring.tail.0.store(self.tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::rows::Rows;
    use crate::frame;

    /// The second is no multiple of four, of which the buffer has less.
    const SIZES: [usize; 2] = [4096, 4099];

    fn room_for(kept: usize, mark: &Mark) -> usize {
        pcapng::frame_len(kept, mark.lost.is_some())
    }

    fn put(ring: &Ring, frame: &[u8], kept: usize, mark: &Mark) -> bool {
        let room = ring.reserve(room_for(kept, mark));
        room.is_some_and(|mut room| room.put(Row::of(frame), kept, mark) == 1)
    }

    fn mark(number: u64) -> Mark {
        let lost = (number % 3 == 0).then_some(number);
        let interface = number as u32 % 7;
        Mark { len: 0, interface, is_out: number % 2 == 0, notes: 0, time: number << 30, lost }
    }

    #[test]
    fn every_length_comes_out_as_it_went_in() {
        let (ring, mut taker) = Ring::of(SIZES[1]).unwrap();
        for len in (0..1000).chain(0..1000) {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
            for kept in [len, len / 2, len + 9] {
                let mark = Mark { len: len as u32, ..mark(len as u64) };
                assert!(taker.first().is_none() && put(&ring, &bytes, kept, &mark));
                let block = taker.first().unwrap();
                assert_eq!((block.len, block.frame_len), (room_for(kept, &mark), len as u32));
                assert_eq!((block.interface, block.time), (mark.interface, mark.time));
                assert_eq!(taker.run(|_, _| true), block.len);
                let whole = self::block(&bytes, kept, &mark);
                assert_eq!(taker.bytes(), whole);
                let zeros = vec![0; kept.saturating_sub(len)];
                assert_eq!(whole[START..][..kept], [&bytes[..len.min(kept)], &zeros].concat());
                taker.release();
            }
        }
    }

    /// The block of one frame.
    fn block(frame: &[u8], kept: usize, mark: &Mark) -> Vec<u8> {
        let mut block = vec![0; room_for(kept, mark)];
        block[..4].copy_from_slice(&pcapng::kind(mark).to_ne_bytes());
        pcapng::fill(&mut block[4..], [frame].into_iter(), kept, mark);
        block
    }

    #[test]
    fn frames_that_are_put_together_come_out_as_if_each_were_alone() {
        let (ring, mut taker) = Ring::of(9999).unwrap();
        for len in (14..60).chain([100, 140]) {
            let wire: Vec<u8> = (0..9u8)
                .flat_map(|n| [&frame::prefix(len)[..], &vec![n + 1; len]].concat())
                .collect();
            for (count, kept) in (0..=9).flat_map(|n| [(n, len), (n, len - 5), (n, len + 5)]) {
                let first = Mark { notes: count as u32 % 2, ..mark(len as u64 + count as u64) };
                let others = Mark { notes: 0, lost: None, ..first };
                let row = Rows::over(&wire, count).next();
                let len = room_for(kept, &first) + count * room_for(kept, &others);
                let mut room = ring.reserve(len).unwrap();
                assert_eq!(row.map_or(0, |row| room.put(row, kept, &first)), count);
                drop(room);
                for n in 0..count {
                    let mark = if n == 0 { &first } else { &others };
                    assert_eq!(taker.first().unwrap().notes, mark.notes);
                    assert_eq!(
                        taker.bytes(),
                        block(&[n as u8 + 1; 140][..row.unwrap().len], kept, mark)
                    );
                    taker.release();
                }
                assert!(taker.first().is_none());
            }
        }
    }

    #[test]
    fn what_finds_no_room_is_refused_and_disturbs_nothing() {
        for size in SIZES {
            let (ring, mut taker) = Ring::of(size).unwrap();
            for round in 0..100 {
                let mark = Mark { lost: None, ..mark(round) };
                let put =
                    (0..1000).take_while(|n| put(&ring, &[*n as u8; 100], 100, &mark)).count();
                assert_eq!(put, size / 144, "in round {round}");
                assert!(ring.is_half_full());
                for n in 0..put {
                    assert!(taker.first().is_some());
                    assert_eq!(taker.bytes()[START..][..100], [n as u8; 100]);
                    taker.release();
                }
                assert!(taker.first().is_none());
            }
        }
    }

    #[test]
    fn a_run_ends_where_it_is_told_to_and_before_what_has_notes() {
        let (ring, mut taker) = Ring::of(SIZES[0]).unwrap();
        // From the second round on the buffer is full of whole blocks.
        for _ in 0..3 {
            for n in 0..SIZES[0] / 64 {
                let mark = Mark { notes: u32::from(n == 40) * 9, lost: None, ..mark(n as u64) };
                assert!(put(&ring, &[n as u8; 20], 20, &mark));
            }
            for len in [1024, 40 * 64 - 1024] {
                assert_eq!(taker.run(|before, _| before < 1000 || len > 1024), len);
                taker.release();
            }
            assert_eq!((taker.run(|_, _| true), taker.first().unwrap().notes), (0, 9));
            taker.release();
            assert_eq!(taker.run(|_, _| true), SIZES[0] - 41 * 64);
            taker.release();
        }
    }

    #[test]
    fn room_that_is_left_is_skipped() {
        let (ring, mut taker) = Ring::of(1 << 20).unwrap();
        let mark = Mark { notes: 0, lost: None, ..mark(1) };
        let len = room_for(60, &mark);
        for left in [4, 8, 400, LONGEST, 3 * LONGEST + 4, 700_000, 1 << 19] {
            for frames in 0..3 {
                let mut room = ring.reserve(frames * len + left).unwrap();
                assert!((0..frames).all(|n| room.put(Row::of(&[n as u8; 60]), 60, &mark) == 1));
                assert_eq!(room.put(Row::of(&[0; LONGEST]), LONGEST.min(left), &mark), 0);
                drop(room);
                assert!(put(&ring, &[99; 60], 60, &mark));
                for n in (0..frames as u8).chain([99]) {
                    assert!(taker.first().is_some() && taker.bytes()[START] == n);
                    taker.release();
                }
                assert!(taker.first().is_none());
            }
        }
    }

    #[test]
    fn threads_put_in_while_another_takes_out() {
        const EACH: u64 = 20_000;
        let (ring, mut taker) = Ring::of(SIZES[1]).unwrap();
        let len_of = |n: u64| (n % 90) as usize;
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let ring = &ring;
                scope.spawn(move || {
                    for n in (0..EACH).step_by(2) {
                        let both = [n, n + 1].map(|n| (n, Mark { interface: thread, ..mark(n) }));
                        let room = both.map(|(n, mark)| room_for(len_of(n), &mark));
                        let mut room = loop {
                            match ring.reserve(room[0] + room[1]) {
                                Some(room) => break room,
                                None => std::thread::yield_now(),
                            }
                        };
                        for (n, mark) in both {
                            let bytes = [n as u8; 90];
                            let row = Row::of(&bytes[..len_of(n)]);
                            assert_eq!(room.put(row, len_of(n), &mark), 1);
                        }
                    }
                });
            }
            let mut next = [0; 3];
            while next != [EACH; 3] {
                taker.run(|before, block| {
                    let n = &mut next[block.interface as usize];
                    assert_eq!(
                        (block.time, block.len),
                        (*n << 30, room_for(len_of(*n), &mark(*n)))
                    );
                    let takes = before < 1000;
                    *n += u64::from(takes);
                    takes
                });
                std::thread::yield_now();
                taker.release();
            }
        });
    }
}
