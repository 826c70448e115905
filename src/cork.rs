//! Corking: sends made in a handler, while the library holds further frames for it, are held back
//! and written together.
//!
//! A thread's cork is open while a handler with more frames to come runs on it. What is held lies in
//! each connection's backlog; this is the thread's list of those connections.

use std::cell::{Cell, RefCell};

use crate::conn::Conn;
use crate::handle::Ref;
use crate::process::{self, Process};
use crate::wake;

/// How long something may be held while one handler call follows another: in cycles of the
/// processor's clock, a quarter to half a millisecond.
const HELD_MAX: u64 = 1 << 20;

/// Connections that this thread holds frames back for.
struct Held {
    conns: Vec<Ref<Conn>>,
    process: Option<&'static Process>,
}

/// A thread's cork.
pub struct Cork {
    is_open: Cell<bool>,
    /// Of which process: a child forked in a handler has nothing to do with its parent's.
    process: Cell<u32>,
    /// When the first of what is held was; 0 where nothing is.
    since: Cell<u64>,
}

thread_local! {
    static CORK: Cork = const { Cork { is_open: Cell::new(false), process: Cell::new(0), since: Cell::new(0) } };
    static HELD: RefCell<Held> = const { RefCell::new(Held { conns: Vec::new(), process: None }) };
}

impl Drop for Held {
    /// The thread ends inside its handler.
    fn drop(&mut self) {
        with(Cork::close);
        self.write();
    }
}

impl Held {
    fn write(&mut self) {
        if self.process.is_some_and(Process::is_current) {
            self.conns.iter().copied().for_each(Ref::<Conn>::uncork);
        }
        self.conns.clear();
    }
}

/// Does something with this thread's cork.
#[inline]
pub fn with<R>(f: impl FnOnce(&Cork) -> R) -> R {
    CORK.with(f)
}

impl Cork {
    /// Opens or shuts it: before each call of a handler, by whether another call is to follow.
    #[inline]
    pub fn open(&self, more: bool, process: &Process) {
        self.is_open.set(more);
        self.process.set(process.number());
    }

    /// Shuts it for good: its thread is about to end.
    pub fn close(&self) {
        self.is_open.set(false);
        self.since.set(0);
    }

    /// Whether a send by this thread may be held back, beside what is held already or not.
    #[inline]
    pub fn holds(&self, beside: bool) -> bool {
        (self.is_open.get() || beside && self.since.get() != 0)
            && self.process.get() == process::process().number()
    }

    /// A handler has returned, and another call follows: writes what has been held for long.
    #[inline]
    pub fn check(&self) {
        if self.since.get() != 0 && cycles().wrapping_sub(self.since.get()) > HELD_MAX {
            release();
        }
    }
}

/// This thread holds something for a connection.
pub fn holds(conn: Ref<Conn>) {
    let noted = HELD.try_with(|held| {
        let held = &mut *held.borrow_mut();
        if held.conns.last().is_some_and(|last| last.token == conn.token) {
            return;
        }
        if held.conns.is_empty() {
            held.process = Some(process::process());
            with(|cork| cork.since.set(cycles()));
            wake::before_waiting(Some(release));
        }
        if held.conns.iter().all(|other| other.token != conn.token) {
            held.conns.push(conn);
        }
    });
    if noted.is_err() {
        // The thread is past the end of its list, and nobody would write it.
        conn.uncork();
    }
}

/// Writes everything that this thread holds.
pub fn release() {
    if with(|cork| cork.since.replace(0)) == 0 {
        return;
    }
    wake::before_waiting(None);
    // Gone at the thread's very end, when nothing is held any more. What is written here waits for
    // nothing, so that nobody comes back to the list meanwhile.
    let _ = HELD.try_with(|held| held.borrow_mut().write());
}

/// A clock that costs next to nothing to read; never 0.
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
