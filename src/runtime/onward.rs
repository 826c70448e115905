//! Frames that a handler sends on as it was given them, which are written from where they lie.
//!
//! They lie in wire format, one behind another, in the buffer whose frames the handler is given. As long as
//! each is the one behind the last, sending it takes no lock and no copy: only the end of the run moves. A
//! connection to which a run goes has a [`Piece`] of it in its sending part, and whoever locks that takes
//! what is there. So everybody else finds frames that were taken in one place, the queue.
//!
//! A run goes to one connection, and each delivery has one run at a time.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, compiler_fence};

use crate::frame::{self, PREFIX, Walk};
use crate::runtime::handle::Token;
use crate::sys::thread;

/// The run of one delivery. The delivering thread alone changes it. Relaxed, but for `end`: what that
/// thread itself has stored it sees, and to any other it only matters that the number of the thread is not
/// its own.
#[derive(Default)]
pub struct Onward {
    /// The thread whose run it is, as `sys::thread` numbers it; 0 where there is none.
    thread: AtomicUsize,
    /// Where the run goes.
    to: AtomicU64,
    /// How many frames it has had.
    frames: AtomicUsize,
    /// Where the run ends. Release, and Acquire for others: who sees the end sees the frames before it.
    end: AtomicPtr<u8>,
    /// The address at which it ends at the latest.
    limit: AtomicUsize,
    /// The length of the longest frame that may go there: no longer than any.
    longest: AtomicUsize,
}

impl Onward {
    /// Adds the frame behind the last one to a run of this thread. Returns whether it is that, and goes there.
    #[inline(always)]
    pub fn extend(&self, to: Token, frame: *const u8, len: usize) -> bool {
        let is_own = self.thread.load(Ordering::Relaxed) == thread::current();
        if !is_own || self.to.load(Ordering::Relaxed) != to {
            return false;
        }
        let prefix = self.end.load(Ordering::Relaxed);
        let first = prefix.wrapping_add(PREFIX);
        let is_length = (frame::MIN..=self.longest.load(Ordering::Relaxed)).contains(&len);
        if !ptr::eq(first, frame)
            || !is_length
            || frame.addr().wrapping_add(len) > self.limit.load(Ordering::Relaxed)
        {
            return false;
        }
        // SAFETY: the prefix and the frame behind it end before the limit, and so they are bytes of the buffer
        // that this thread delivers, which nobody writes to meanwhile.
        let prefix = unsafe { prefix.cast::<[u8; PREFIX]>().read() };
        if u32::from_be_bytes(prefix) as usize != len {
            return false;
        }
        self.frames.store(self.frames.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.end.store(first.wrapping_add(len), Ordering::Release);
        true
    }
}

/// The bytes that this thread delivers, and the run of those that it sends on.
#[derive(Clone, Copy)]
pub struct Delivery {
    bytes: *const [u8],
    run: &'static Onward,
}

impl Delivery {
    /// # Safety
    /// The bytes must live, and not change, until there is neither a copy of this nor a piece of the run.
    pub unsafe fn of(bytes: &[u8], run: &'static Onward) -> Delivery {
        Delivery { bytes, run }
    }

    /// No more is sent on, and there is no piece.
    pub fn end(self) {
        self.run.thread.store(0, Ordering::Relaxed);
    }

    /// Begins a run of at most `most` bytes with a frame, if that lies behind its own prefix in what is
    /// delivered. No frame of it is longer than `longest`. There must be no other piece.
    pub fn send_on(self, to: Token, frame: &[u8], most: usize, longest: usize) -> Option<Piece> {
        let (first, run) = (self.bytes.cast::<u8>().cast_mut(), self.run);
        let at = frame.as_ptr().addr().checked_sub(first.addr())?.checked_sub(PREFIX)?;
        let room = self.bytes.len().checked_sub(at)?;
        let start = first.wrapping_add(at);
        run.thread.store(thread::current(), Ordering::Relaxed);
        run.to.store(to, Ordering::Relaxed);
        run.frames.store(0, Ordering::Relaxed);
        run.end.store(start, Ordering::Relaxed);
        run.limit.store(start.addr() + room.min(most), Ordering::Relaxed);
        run.longest.store(longest.min(frame::MAX), Ordering::Relaxed);
        let is_begun = run.extend(to, frame.as_ptr(), frame.len());
        is_begun.then_some(Piece { run, start: start.addr(), taken: 0 })
    }
}

/// The part of a run that nobody has taken yet. It is given up before its delivery is over.
pub struct Piece {
    run: &'static Onward,
    start: usize,
    /// How many frames of the run were taken before.
    taken: usize,
}

impl Piece {
    /// The bytes of its frames, whole and in wire format.
    pub fn bytes(&self) -> &[u8] {
        let end = self.run.end.load(Ordering::Acquire);
        let len = end.addr() - self.start;
        // SAFETY: they are bytes of the delivery, which live and do not change, as was promised to its `of`.
        unsafe { std::slice::from_raw_parts(end.wrapping_sub(len), len) }
    }

    /// How many frames `bytes` has. Only the run's thread knows without counting: to others the number may
    /// be that of a frame whose end is not there yet.
    pub fn count(&self, bytes: &[u8]) -> usize {
        match self.own_run() {
            Some(run) => run.frames.load(Ordering::Relaxed) - self.taken,
            None => Walk::over(bytes).count(),
        }
    }

    /// Moves past that much of it, which was taken.
    pub fn advance(&mut self, len: usize, frames: usize) {
        self.start += len;
        self.taken += frames;
    }

    /// The run, if this thread may add to it.
    pub fn own_run(&self) -> Option<&'static Onward> {
        (self.run.thread.load(Ordering::Relaxed) == thread::current()).then_some(self.run)
    }
}

/// Which run may be added to without a lock, if any may. It is given and revoked by who holds the lock.
#[derive(Default)]
pub struct Permit(AtomicPtr<Onward>);

impl Permit {
    /// The run. Acquire, and Release in `give`: a run is made when a handler first runs, and whoever finds it here has
    /// to find it made. Beyond that a thread adds only to its own run, of which it knows all.
    #[inline(always)]
    pub fn run(&self) -> Option<&'static Onward> {
        // SAFETY: null, or what `give` was given, which lives for ever.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    pub fn give(&self, run: &'static Onward) {
        self.0.store(ptr::from_ref(run).cast_mut(), Ordering::Release);
    }

    pub fn revoke(&self) {
        self.0.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// Whether the run that was added to still might be. If not, whoever has revoked the permit may have overlooked
    /// what was added.
    #[inline(always)]
    pub fn is_of(&self, run: &'static Onward) -> bool {
        // So that the compiler has the permit looked at again.
        compiler_fence(Ordering::SeqCst);
        self.run().is_some_and(|own| ptr::eq(own, run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: Token = 9;

    /// Frames of these lengths in wire format, and where each begins.
    fn wire(lengths: &[usize]) -> (&'static [u8], Vec<&'static [u8]>) {
        let bytes: Vec<u8> = lengths
            .iter()
            .flat_map(|&len| [&frame::prefix(len)[..], &vec![1; len]].concat())
            .collect();
        let bytes: &[u8] = bytes.leak();
        (bytes, Walk::over(bytes).collect())
    }

    fn delivery(bytes: &'static [u8]) -> Delivery {
        // SAFETY: they live for ever, and nobody writes to them.
        unsafe { Delivery::of(bytes, Box::leak(Box::default())) }
    }

    fn extend(run: &Onward, frame: &[u8]) -> bool {
        run.extend(TO, frame.as_ptr(), frame.len())
    }

    #[test]
    fn a_run_is_of_frames_behind_each_other() {
        let (bytes, frames) = wire(&[64, 14, 20, 64, 13, 64]);
        let delivery = delivery(bytes);
        let mut piece = delivery.send_on(TO, frames[1], bytes.len(), 64).unwrap();
        let run = piece.own_run().unwrap();
        assert!(!extend(run, frames[0]) && !extend(run, frames[1]) && !extend(run, frames[3]));
        assert!(!extend(run, &frames[2][1..]) && !extend(run, &frames[2][..19]));
        assert!(!run.extend(TO + 8, frames[2].as_ptr(), 20));
        assert!(extend(run, frames[2]));
        let ends = [68, 68 + 18 + 24];
        assert_eq!(piece.bytes(), &bytes[ends[0]..ends[1]]);
        assert_eq!(piece.count(piece.bytes()), 2);
        piece.advance(18 + 24, 2);
        assert!(piece.bytes().is_empty() && piece.count(&[]) == 0);
        assert!(extend(run, frames[3]) && !extend(run, frames[4]), "the next is a runt");
        assert_eq!((piece.bytes(), piece.count(piece.bytes())), (&bytes[ends[1]..][..68], 1));
        delivery.end();
        assert!(piece.own_run().is_none() && !extend(run, frames[5]));
    }

    #[test]
    fn a_run_ends_at_its_limit_and_with_what_is_delivered() {
        let (bytes, frames) = wire(&[64, 64, 64]);
        for (most, has) in [(67, 0), (68, 1), (203, 2), (204, 3), (1000, 3)] {
            let piece = delivery(bytes).send_on(TO, frames[0], most, frame::MAX);
            let run = piece.as_ref().and_then(Piece::own_run);
            let further = run
                .map_or(0, |run| frames[1..].iter().take_while(|frame| extend(run, frame)).count());
            assert_eq!(piece.map_or(0, |piece| piece.bytes().len()), has * 68);
            assert_eq!(further + usize::from(run.is_some()), has);
        }
        let shorter = delivery(bytes).send_on(TO, frames[0], 1000, 63);
        assert!(shorter.is_none());
        let cut = delivery(&bytes[..203]);
        let piece = cut.send_on(TO, frames[1], 1000, usize::MAX).unwrap();
        assert!(!extend(piece.own_run().unwrap(), frames[2]));
        for far in [usize::MAX, usize::MAX - 64, 1 << 32 | 64] {
            assert!(!piece.own_run().unwrap().extend(TO, frames[2].as_ptr(), far));
        }
    }

    #[test]
    fn a_run_begins_with_a_frame_of_the_delivery_and_is_its_thread_s() {
        let (bytes, frames) = wire(&[64, 64]);
        let (_, others) = wire(&[64]);
        assert!(delivery(bytes).send_on(TO, others[0], 1000, 64).is_none());
        assert!(delivery(&bytes[68..]).send_on(TO, frames[0], 1000, 64).is_none());
        assert!(
            delivery(&bytes[4..]).send_on(TO, frames[0], 1000, 64).is_none(),
            "without its prefix"
        );
        let piece = delivery(bytes).send_on(TO, frames[0], 1000, 64).unwrap();
        let run = piece.own_run().unwrap();
        let is_others = || piece.own_run().is_some() || extend(run, frames[1]);
        let is_others = std::thread::scope(|scope| scope.spawn(is_others).join().unwrap());
        assert!(!is_others && extend(run, frames[1]));
    }
}
