//! What records frames: an interface of a capture, and all that a connection or a hub has of those.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::capture::pcapng::{self, Mark};
use crate::capture::ring::Room;
use crate::capture::rows::{Row, Rows, TOGETHER};
use crate::capture::shared::{Entry, Shared};
use crate::runtime::event_loop::Loop;
use crate::runtime::lock::lock;
use crate::sys::clock;

/// How many frames, and how many bytes.
#[derive(Default, Clone, Copy)]
struct Sum {
    frames: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, count: usize, len: usize) {
        self.add_all(Sum { frames: count as u64, bytes: (count * len) as u64 });
    }

    fn add_all(&mut self, other: Sum) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

/// A connection, or a hub, in a capture.
#[derive(Clone)]
pub struct Interface {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
}

/// When frames came or went.
#[derive(Clone, Copy)]
pub struct Occasion {
    time: u64,
    /// Whether the thread waits for room, because the program moves the clock.
    waits: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    In,
    Out,
}

impl Occasion {
    /// Now, for a program that receives.
    pub fn now() -> Occasion {
        Occasion { time: clock::time_of_day(), waits: false }
    }

    /// Now, for a program that sends, perhaps past a loop.
    pub fn of_sending(runner: Option<&Loop>) -> Occasion {
        let by_hand = runner.filter(|runner| runner.is_by_hand());
        by_hand.map_or_else(Occasion::now, |runner| Occasion { time: runner.time(), waits: false })
    }

    /// Now, for who forwards.
    pub fn of_forwarding(runner: Option<&Loop>) -> Occasion {
        let waits = runner.is_some_and(Loop::is_by_hand);
        Occasion { waits, ..Occasion::of_sending(runner) }
    }
}

impl Interface {
    /// Puts an interface behind those that a capture has.
    pub fn add(shared: &Arc<Shared>, name: Vec<u8>, description: Vec<u8>) -> Interface {
        let mut all = lock(&shared.interfaces);
        let number = all.len() as u32;
        let entry = Arc::new(Entry { number, name, description, ..Entry::default() });
        all.push(entry.clone());
        Interface { shared: shared.clone(), entry }
    }

    /// Records frames, each with zeros up to a length of `padded`.
    fn record<'a>(
        &self,
        occasion: Occasion,
        way: Way,
        mut rows: impl Iterator<Item = Row<'a>> + Clone,
        padded: usize,
    ) {
        let shared = &*self.shared;
        if shared.is_off() {
            return;
        }
        let (mut all, mut kept) = (Sum::default(), Sum::default());
        let mut ahead = rows.clone();
        loop {
            let tells_lost = self.has_lost();
            let (mut sum, mut count) = (Sum::default(), 0);
            let mut room = if tells_lost { pcapng::LOST } else { 0 };
            while sum.frames < TOGETHER as u64 {
                let Some(row) = ahead.next() else {
                    break;
                };
                let len = row.len.max(padded);
                room += row.count * pcapng::frame_len(len.min(shared.snaplen), false);
                sum.add(row.count, len);
                count += 1;
            }
            if count == 0 {
                break;
            }
            all.add_all(sum);
            let some = rows.by_ref().take(count);
            kept.add_all(match self.reserve(false, room) {
                Some(room) => self.put(room, occasion, way, some, padded, tells_lost),
                None => self.record_singly(occasion, way, some, padded),
            });
        }
        self.count(all, kept);
        shared.wake_if_half_full();
    }

    /// Records frames, as many as there is room for, and notes that the others are lost. Returns what is recorded.
    fn record_singly<'a>(
        &self,
        occasion: Occasion,
        way: Way,
        rows: impl Iterator<Item = Row<'a>>,
        padded: usize,
    ) -> Sum {
        let mut kept = Sum::default();
        let mut frames = rows.flat_map(Row::frames);
        while let Some(frame) = frames.next() {
            let len = frame.len().max(padded);
            let tells_lost = self.has_lost();
            let room = pcapng::frame_len(len.min(self.shared.snaplen), tells_lost);
            let Some(room) = self.reserve(occasion.waits, room) else {
                // The buffer is full.
                self.entry.lost.fetch_add(1 + frames.count() as u64, Ordering::Relaxed);
                break;
            };
            let one = std::iter::once(Row::of(frame));
            kept.add_all(self.put(room, occasion, way, one, padded, tells_lost));
        }
        kept
    }

    /// Reserves room, perhaps waiting for it: for one frame, since it may never be there for many.
    fn reserve(&self, waits: bool, room: usize) -> Option<Room<'_>> {
        while self.shared.is_on() {
            let at = self.shared.ring.reserve(room);
            if at.is_some() || !waits || !self.shared.wait_for_room() {
                return at;
            }
        }
        None
    }

    /// Puts frames where there is room for them, and for telling with the first how many were lost before it. Returns
    /// what is recorded: less, if a program changes its frames, and they do not fit any more.
    fn put<'a>(
        &self,
        mut room: Room<'_>,
        occasion: Occasion,
        way: Way,
        rows: impl Iterator<Item = Row<'a>>,
        padded: usize,
        tells_lost: bool,
    ) -> Sum {
        let shared = &*self.shared;
        let mut mark = Mark {
            len: 0,
            interface: self.entry.number,
            is_out: way == Way::Out,
            notes: shared.claim_notes(),
            time: occasion.time,
            // Another thread may have told it since.
            lost: tells_lost.then(|| self.entry.lost.swap(0, Ordering::Relaxed)),
        };
        let mut kept = Sum::default();
        for row in rows {
            let len = row.len.max(padded);
            mark.len = len as u32;
            let put = room.put(row, len.min(shared.snaplen), &mark);
            if put > 0 {
                kept.add(put, len);
                (mark.notes, mark.lost) = (0, None);
            }
        }
        if kept.frames == 0 {
            // What was to go with the first of them goes with another.
            shared.give_notes_back(mark.notes);
            self.entry.lost.fetch_add(mark.lost.unwrap_or(0), Ordering::Relaxed);
        }
        kept
    }

    fn has_lost(&self) -> bool {
        self.entry.lost.load(Ordering::Relaxed) > 0
    }

    fn count(&self, all: Sum, kept: Sum) {
        let (relaxed, dropped) = (Ordering::Relaxed, all.frames - kept.frames);
        self.shared.taken.add(kept.frames, kept.bytes);
        self.entry.received.fetch_add(all.frames, relaxed);
        if dropped > 0 {
            self.entry.dropped.fetch_add(dropped, relaxed);
            self.shared.dropped.fetch_add(dropped, relaxed);
        }
    }
}

/// The interfaces of a connection's one way, or of a hub.
#[derive(Default)]
pub struct Probes(Box<[Interface]>);

impl Probes {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, interface: &Interface) {
        self.0 = self.0.iter().chain([interface]).cloned().collect();
    }

    pub fn remove(&mut self, interface: &Interface) {
        let is_other = |other: &&Interface| !Arc::ptr_eq(&other.entry, &interface.entry);
        self.0 = self.0.iter().filter(is_other).cloned().collect();
    }

    /// Records frames, each with zeros up to a length of `padded`.
    pub fn record<'a>(
        &self,
        occasion: Occasion,
        way: Way,
        frames: impl Iterator<Item = &'a [u8]> + Clone,
        padded: usize,
    ) {
        self.record_rows(occasion, way, frames.map(Row::of), padded);
    }

    /// Records up to `most` of the whole frames that `bytes` begin with, in wire format.
    pub fn record_wire(&self, occasion: Occasion, way: Way, bytes: &[u8], most: usize) {
        self.record_rows(occasion, way, Rows::over(bytes, most), 0);
    }

    /// Records the whole frames that `bytes` begin with, in wire format, as having come in.
    pub fn record_in(&self, occasion: Occasion, bytes: &[u8]) {
        self.record_wire(occasion, Way::In, bytes, usize::MAX);
    }

    fn record_rows<'a>(
        &self,
        occasion: Occasion,
        way: Way,
        rows: impl Iterator<Item = Row<'a>> + Clone,
        padded: usize,
    ) {
        self.0.iter().for_each(|interface| interface.record(occasion, way, rows.clone(), padded));
    }
}

/// Those of what comes in at a connection, where those who receive find them without its lock.
#[derive(Default)]
pub struct ProbesIn {
    is_any: AtomicBool,
    probes: Mutex<Probes>,
}

impl ProbesIn {
    #[inline]
    pub fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Acquire)
    }

    pub fn change(&self, change: impl FnOnce(&mut Probes)) {
        let mut probes = lock(&self.probes);
        change(&mut probes);
        self.is_any.store(!probes.is_empty(), Ordering::Release);
    }

    /// Records one frame that a program is given.
    #[inline]
    pub fn record_one(&self, frame: &[u8]) {
        if self.is_any() {
            let one = std::iter::once(frame);
            lock(&self.probes).record(Occasion::now(), Way::In, one, 0);
        }
    }

    /// Records the whole frames that `bytes` begin with, which a program is given.
    #[inline]
    pub fn record_run(&self, bytes: &[u8]) {
        if self.is_any() {
            lock(&self.probes).record_in(Occasion::now(), bytes);
        }
    }

    /// The same for frames that are forwarded.
    #[inline]
    pub fn record_forwarded(&self, runner: &Loop, bytes: &[u8]) {
        if self.is_any() {
            lock(&self.probes).record_in(Occasion::of_forwarding(Some(runner)), bytes);
        }
    }
}
