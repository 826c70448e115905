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

thread_local! {
    static IS_OPEN: Cell<bool> = const { Cell::new(false) };
    static SINCE: Cell<u64> = const { Cell::new(0) };
    static HELD: RefCell<Held> = const { RefCell::new(Held { conns: Vec::new(), process: None }) };
}

impl Drop for Held {
    /// The thread ends inside its handler.
    fn drop(&mut self) {
        if self.process.is_some_and(Process::is_current) {
            self.conns.drain(..).for_each(Ref::<Conn>::uncork);
        }
    }
}

/// Whether a send by this thread may be held back.
#[inline]
pub fn is_open() -> bool {
    IS_OPEN.get()
}

/// Whether it holds anything.
#[inline]
pub fn is_holding() -> bool {
    SINCE.get() != 0
}

/// Opens or shuts the cork: before each call of a handler, by whether another call is to follow.
#[inline]
pub fn open(more: bool) {
    IS_OPEN.set(more);
}

/// This thread holds something for a connection.
pub fn holds(conn: Ref<Conn>) {
    // Gone at the thread's very end, when nothing is held any more.
    let _ = HELD.try_with(|held| {
        let held = &mut *held.borrow_mut();
        if held.conns.last().is_some_and(|last| last.token == conn.token) {
            return;
        }
        if held.conns.is_empty() {
            held.process = Some(process::process());
            SINCE.set(cycles());
            wake::before_waiting(Some(release));
        }
        if held.conns.iter().all(|other| other.token != conn.token) {
            held.conns.push(conn);
        }
    });
}

/// A handler has returned, and another call follows: writes what has been held for long.
#[inline]
pub fn check() {
    if SINCE.get() != 0 && cycles().wrapping_sub(SINCE.get()) > HELD_MAX {
        release();
    }
}

/// Writes everything that this thread holds.
pub fn release() {
    if SINCE.replace(0) == 0 {
        return;
    }
    wake::before_waiting(None);
    let conns = HELD.try_with(|held| std::mem::take(&mut held.borrow_mut().conns));
    for conn in conns.iter().flatten() {
        conn.uncork();
    }
    // The list keeps its memory.
    let _ = HELD.try_with(|held| {
        let mut conns = conns.unwrap_or_default();
        conns.clear();
        held.borrow_mut().conns = conns;
    });
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
