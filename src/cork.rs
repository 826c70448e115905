//! Corking: sends made in a handler, while the library holds further frames for it, are held back
//! and written together.
//!
//! What a thread holds back for a connection lies in a lane, which that thread appends to without a
//! lock. It is written by whoever holds the connection's sending part: the thread itself when its
//! handler has no more frames, or anybody who flushes, sends or closes before that.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::conn::Conn;
use crate::frame::{self, PREFIX};
use crate::handle::{Ref, Token};
use crate::memory::Memory;
use crate::process::{Pool, Process, process};
use crate::send::{HOLD, Wire};
use crate::wake;

/// How long something may be held while one handler call follows another: in cycles of the
/// processor's clock, a quarter to half a millisecond.
const HELD_MAX: u64 = 1 << 20;

/// After how many calls of a handler the clock, which costs as much as a frame does, is left to the
/// library's own thread.
const CLOCKED: u32 = 32;

/// How many unused lanes are kept for later.
const KEPT: usize = 16;

/// Frames in wire format that one thread appends and others read.
pub struct Lane {
    /// A gathering buffer, or nothing; only its owner at times when nobody shares the lane uses it.
    buffer: Memory,
    /// Where it begins. Up to `filled` nobody writes to it; behind that only the writer does.
    base: *mut u8,
    /// How much is there: bytes in the low half, frames in the high one. Stored with Release by the
    /// writer alone, so that who loads it with Acquire sees the bytes.
    filled: AtomicU64,
    /// Tells the writer to lock, and look at the connection again. Relaxed: what it then looks at
    /// is under the lock.
    is_shut: AtomicBool,
}

// SAFETY: `base` points into `buffer`, which does not move; its comment says who may touch what.
unsafe impl Send for Lane {}
// SAFETY: as above.
unsafe impl Sync for Lane {}

impl Lane {
    pub fn shut(&self) {
        self.is_shut.store(true, Ordering::Relaxed);
    }

    /// All that was appended: bytes, and how many frames.
    pub fn contents(&self) -> (&[u8], usize) {
        let filled = self.filled.load(Ordering::Acquire);
        // SAFETY: nobody writes below `filled` until the writer starts over, which it does only
        // with the connection's sending part locked, as everybody who reads has it.
        let bytes = unsafe { std::slice::from_raw_parts(self.base, len(filled)) };
        (bytes, (filled >> 32) as usize)
    }
}

fn len(filled: u64) -> usize {
    filled as u32 as usize
}

/// The one who may append to a lane.
pub struct Writer {
    lane: Arc<Lane>,
    /// Which frames need nothing done but a copy.
    min: usize,
    max: usize,
}

impl Writer {
    fn new() -> Writer {
        Writer::of(Arc::new(Lane {
            buffer: Memory::default(),
            base: NonNull::dangling().as_ptr(),
            filled: AtomicU64::new(0),
            is_shut: AtomicBool::new(true),
        }))
    }

    /// The writer of a lane that has none any more.
    pub fn of(lane: Arc<Lane>) -> Writer {
        Writer { lane, min: 0, max: 0 }
    }

    pub fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    pub fn has_room(&self, wire_len: usize) -> bool {
        len(self.lane.filled.load(Ordering::Relaxed)) + wire_len <= HOLD
    }

    /// From now on frames of `min` to `max` bytes may be joined as they are. The connection's
    /// sending part is locked.
    pub fn open(&mut self, min: usize, max: usize) {
        (self.min, self.max) = (min, max);
        self.lane.is_shut.store(false, Ordering::Relaxed);
    }

    /// Begins at the front again. The connection's sending part is locked, and its holder has
    /// written everything.
    pub fn start_over(&mut self) {
        self.lane.filled.store(0, Ordering::Release);
    }

    /// Appends a frame for which there is room.
    pub fn append(&mut self, wire: &Wire<'_>) {
        self.fill(wire.len(), |room| wire.copy_to(room));
    }

    /// Appends a frame, if nothing but a copy is needed.
    #[inline]
    fn join(&mut self, bytes: &[u8]) -> bool {
        let wire_len = PREFIX + bytes.len();
        let joins = (self.min..=self.max).contains(&bytes.len())
            && self.has_room(wire_len)
            && !self.lane.is_shut.load(Ordering::Relaxed);
        if joins {
            self.fill(wire_len, |room| {
                frame::copy_to(room, frame::prefix(bytes.len()), bytes);
            });
        }
        joins
    }

    #[inline]
    fn fill(&mut self, wire_len: usize, copy: impl FnOnce(&mut [u8])) {
        let filled = self.lane.filled.load(Ordering::Relaxed);
        debug_assert!(len(filled) + wire_len <= HOLD);
        // SAFETY: there is one writer, `filled` is what it stored last, and nobody else reads or
        // writes behind that. There is room: `has_room` was asked.
        let room =
            unsafe { std::slice::from_raw_parts_mut(self.lane.base.add(len(filled)), wire_len) };
        copy(room);
        self.lane.filled.store(filled + (1 << 32) + wire_len as u64, Ordering::Release);
    }

    /// Gives the lane a buffer and takes what it had; not while anybody else has the lane.
    fn exchange(&mut self, buffer: Memory) -> Option<Memory> {
        let lane = Arc::get_mut(&mut self.lane)?;
        *lane.filled.get_mut() = 0;
        *lane.is_shut.get_mut() = true;
        let before = std::mem::replace(&mut lane.buffer, buffer);
        lane.base = lane.buffer.as_mut_ptr();
        Some(before)
    }
}

/// Lanes that are not used, shared by all threads.
#[derive(Default)]
pub struct Lanes(Pool<Writer, KEPT>);

impl Lanes {
    fn take(&self) -> Writer {
        let mut writer = self.0.take().unwrap_or_else(Writer::new);
        // Nobody else has it, so that this cannot fail.
        writer.exchange(process().gather.take());
        writer
    }

    /// Takes a lane back, unless somebody still has it.
    pub fn give_back(&self, mut writer: Writer) {
        if let Some(buffer) = writer.exchange(Memory::default()) {
            process().gather.give_back(buffer);
            self.0.give_back(writer);
        }
    }
}

/// What a thread holds back.
struct Held {
    lanes: Vec<(Ref<Conn>, Writer)>,
    process: Option<&'static Process>,
}

/// Whether a thread's sends may be held back.
pub struct Cork {
    is_open: Cell<bool>,
    /// In which process: a child forked in a handler has nothing to do with its parent's.
    process: Cell<u32>,
    /// When the first of what is held was; 0 where nothing is.
    since: Cell<u64>,
    /// How many calls of the handler have returned since a lane was last added.
    returned: Cell<u32>,
}

thread_local! {
    static CORK: Cork = const {
        Cork {
            is_open: Cell::new(false),
            process: Cell::new(0),
            since: Cell::new(0),
            returned: Cell::new(0),
        }
    };
    static HELD: RefCell<Held> =
        const { RefCell::new(Held { lanes: Vec::new(), process: None }) };
}

/// Does something with this thread's cork.
#[inline]
pub fn with<R>(f: impl FnOnce(&Cork) -> R) -> R {
    CORK.with(f)
}

impl Cork {
    /// A handler is about to be called, more than once perhaps.
    pub fn begin(&self, process: &Process) {
        self.process.set(process.number());
    }

    /// Opens or shuts it: before each call of a handler, by whether another call is to follow.
    #[inline]
    pub fn open(&self, more: bool) {
        self.is_open.set(more);
    }

    /// Shuts it for good: its thread is about to end.
    pub fn close(&self) {
        self.is_open.set(false);
        self.since.set(0);
    }

    /// A handler has returned, and another call follows: writes what has been held for long.
    #[inline]
    pub fn check(&self) {
        if self.since.get() != 0 && self.returned.get() <= CLOCKED {
            self.check_clock();
        }
    }

    fn check_clock(&self) {
        if self.process.get() != process().number() {
            return;
        }
        self.returned.set(self.returned.get() + 1);
        if cycles().wrapping_sub(self.since.get()) > HELD_MAX {
            release();
        } else if self.returned.get() > CLOCKED && !entrust() {
            self.returned.set(0);
        }
    }
}

impl Held {
    /// This thread's lane to a connection, if it has one.
    #[inline]
    fn find(&mut self, token: Token) -> Option<&mut Writer> {
        let at = self.lanes.iter().position(|(conn, _)| conn.token == token)?;
        Some(&mut self.lanes[at].1)
    }

    fn add(&mut self, conn: Ref<Conn>) {
        if self.lanes.is_empty() {
            self.process = Some(process());
            with(|cork| cork.since.set(cycles()));
            wake::before_waiting(Some(release));
        }
        with(|cork| cork.returned.set(0));
        self.lanes.push((conn, process().lanes.take()));
    }

    fn is_of_this_process(&self) -> bool {
        self.process.is_some_and(Process::is_current)
    }

    fn write(&mut self) {
        let is_ours = self.is_of_this_process();
        for (conn, writer) in self.lanes.drain(..) {
            // What is left in it is the service thread's, and the lane with it.
            if is_ours && conn.uncork(writer.lane()) {
                process().lanes.give_back(writer);
            }
        }
    }
}

impl Drop for Held {
    /// The thread ends inside its handler.
    fn drop(&mut self) {
        with(Cork::close);
        self.write();
    }
}

/// Holds a frame back beside others that this thread holds for the connection. Returns whether it
/// was; if not, it is to be sent.
#[inline]
pub fn join(token: Token, frame: &[u8]) -> bool {
    let join = |held: &RefCell<Held>| {
        let held = &mut *held.borrow_mut();
        held.is_of_this_process() && held.find(token).is_some_and(|writer| writer.join(frame))
    };
    with(|cork| cork.since.get() != 0) && HELD.try_with(join).unwrap_or(false)
}

/// Calls `f` with this thread's lane to a connection, if it may hold something back for it.
pub fn with_lane<R>(conn: Ref<Conn>, f: impl FnOnce(&mut Writer) -> R) -> Option<R> {
    let corks = |cork: &Cork| {
        (cork.is_open.get() || cork.since.get() != 0) && cork.process.get() == process().number()
    };
    if !with(corks) {
        return None;
    }
    let lane = |held: &RefCell<Held>| {
        let held = &mut *held.borrow_mut();
        if !held.lanes.is_empty() && !held.is_of_this_process() {
            // Forked inside the handler: what is held is the parent's.
            held.write();
        }
        if held.find(conn.token).is_none() && with(|cork| cork.is_open.get()) {
            held.add(conn);
        }
        held.find(conn.token).map(f)
    };
    // The list is gone at the thread's very end.
    HELD.try_with(lane).ok().flatten()
}

/// This thread goes on in a forked child: what it held is the parent's, which writes it.
pub fn forget() {
    with(Cork::close);
    wake::before_waiting(None);
    let _ = HELD.try_with(|held| held.borrow_mut().lanes.clear());
}

/// Writes everything that this thread holds.
pub fn release() {
    if with(|cork| cork.since.replace(0)) == 0 {
        return;
    }
    wake::before_waiting(None);
    // What is written here waits for nothing, so that nobody comes back to the list meanwhile.
    let _ = HELD.try_with(|held| held.borrow_mut().write());
}

/// Has the service thread write what this thread holds if it does not do so soon itself. Returns
/// whether there is that thread.
fn entrust() -> bool {
    let entrust = |held: &RefCell<Held>| held.borrow().lanes.iter().all(|(conn, _)| conn.entrust());
    HELD.try_with(entrust).unwrap_or(false)
}

/// A clock that costs little to read; never 0.
#[cfg(target_arch = "x86_64")]
#[inline]
fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() | 1 }
}

#[cfg(not(target_arch = "x86_64"))]
fn cycles() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(4_000_000_000).wrapping_add(now.tv_nsec as u64 * 4) | 1
}
