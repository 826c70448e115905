//! The threads that forward frames without the caller: a few, which all links and hubs share. Each waits
//! for all its connections and listeners at once, and for nothing else. A lock that other threads may hold
//! during a system call it only tries.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::conn;
use crate::forward::joining;
use crate::forward::turn::{self, Work};
use crate::listener;
use crate::runtime::event_loop::{Loop, Turns};
use crate::sys::fork::PerProcess;
use crate::sys::thread;

/// How many loops a process has at most.
const MOST: usize = 4;

static LOOPS: PerProcess<Loops> = PerProcess::new();

/// As many loops as the process has processors, up to [`MOST`].
struct Loops {
    all: Box<[Loop]>,
    /// How often one was chosen. Relaxed: the number alone matters.
    chosen: AtomicUsize,
}

impl Default for Loops {
    fn default() -> Loops {
        let count = thread::processors().unwrap_or(MOST).clamp(1, MOST);
        let new = |_| Loop::new(c"qnet-forward", turns);
        Loops { all: (0..count).map(new).collect(), chosen: AtomicUsize::new(0) }
    }
}

/// The loop for a new link or hub: each in turn.
pub fn choose_loop() -> &'static Loop {
    let Loops { all, chosen } = LOOPS.get();
    &all[chosen.fetch_add(1, Ordering::Relaxed) % all.len()]
}

/// The turns of a loop's thread, of listeners, of connections, and of hubs that rest.
fn turns() -> Turns {
    thread::wait_exactly();
    let mut work = Work::default();
    Box::new(move |runner, token, events, now| {
        if let Ok(listener) = listener::table().get(token) {
            let _ = catch_unwind(AssertUnwindSafe(|| listener::serve_turn(listener, runner)));
        } else if let Ok(conn) = conn::table().get(token) {
            work.now = now;
            let turn = AssertUnwindSafe(|| turn::forward_turn(conn, runner, events, &mut work));
            if catch_unwind(turn).is_err() {
                work = Work::default();
                turn::forwarding_panicked(conn, runner);
            }
        } else {
            let _ = catch_unwind(|| joining::resume(token));
        }
    })
}
