//! The library's own thread: it finishes what no caller waits for. It starts with the first such
//! work and ends soon after the last.
//!
//! It polls, and is no loop with a set of descriptors: it has to work where no descriptor is to be had.

use std::os::fd::BorrowedFd;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::event::PollFlags;

use crate::runtime::handle::Token;
use crate::runtime::lock::{lock, try_lock};
use crate::runtime::wake::{Wake, poll_fd};
use crate::sys::clock::Deadline;
use crate::sys::fork::PerProcess;
use crate::sys::thread;

/// How long the thread stays when there is nothing to do: to start another costs more.
pub const IDLE: Duration = Duration::from_millis(20);

static SERVICE: PerProcess<Mutex<Watched>> = PerProcess::new();

/// Whose turn comes, and what it is. Returns what is to be waited for until the next, or `None` where
/// nothing is left to do.
type Work = (Token, fn(Token) -> Option<Wait>);

/// What a turn has left to wait for.
pub struct Wait {
    pub source: Arc<dyn Source>,
    pub events: PollFlags,
    pub until: Deadline,
}

/// Something that tells of events, and stays open while it is waited for.
pub trait Source: Send + Sync {
    /// The descriptor on which to wait for `events`.
    fn fd_for(&self, events: PollFlags) -> BorrowedFd<'_>;
}

/// The lock is held for nothing long but the starting of the thread, for which a loop does not wait; and
/// for no turn, which takes other locks.
#[derive(Default)]
struct Watched {
    works: Vec<Work>,
    /// What the thread waits on, while there is one.
    wake: Option<Arc<Wake>>,
}

impl Watched {
    fn add(&mut self, work: Work) {
        if self.works.iter().all(|(token, _)| *token != work.0) {
            self.works.push(work);
        }
    }
}

/// Gives turns to a token until one says that nothing is left. Returns whether there is a thread to do
/// so; if not, the work waits for the next call for any token.
pub fn watch(token: Token, turn: fn(Token) -> Option<Wait>) -> bool {
    watch_in(lock(SERVICE.get()), (token, turn))
}

/// The same for a loop, which does not wait while somebody starts the thread: `None` then.
pub fn try_watch(token: Token, turn: fn(Token) -> Option<Wait>) -> Option<bool> {
    try_lock(SERVICE.get()).map(|watched| watch_in(watched, (token, turn)))
}

fn watch_in(mut watched: MutexGuard<'static, Watched>, work: Work) -> bool {
    watched.add(work);
    if let Some(wake) = watched.wake.clone() {
        drop(watched);
        wake.raise();
        return true;
    }
    let wake = Arc::new(Wake::default());
    let threads = wake.clone();
    if thread::spawn(c"qnet-service", move || run(SERVICE.get(), &threads)).is_ok() {
        watched.wake = Some(wake);
    }
    watched.wake.is_some()
}

/// Has the thread look again, if there is one: it may wait on what is to be closed.
pub fn look() {
    if let Some(wake) = &lock(SERVICE.get()).wake {
        wake.raise();
    }
}

/// The thread: one turn for everybody, then a wait for any.
fn run(service: &Mutex<Watched>, wake: &Wake) {
    // What it uses again each time.
    let (mut works, mut waits) = (Vec::new(), Vec::new());
    let mut is_idle = false;
    loop {
        let epoch = wake.epoch();
        take_turns(service, &mut works, &mut waits);
        let mut watched = lock(service);
        let was_idle = std::mem::replace(&mut is_idle, watched.works.is_empty());
        if is_idle && was_idle {
            watched.wake = None;
            return;
        }
        drop(watched);
        let idle = if is_idle { Deadline::after(IDLE) } else { Deadline::Never };
        let until = waits.iter().fold(idle, |until, wait| until.sooner(wait.until));
        let fds = waits.iter();
        let fds = fds.filter_map(|wait| poll_fd(wait.source.fd_for(wait.events), wait.events));
        // It fails for nothing that lasts.
        let _ = wake.wait_fds(epoch, fds.collect(), until);
    }
}

/// Gives everybody a turn, outside the lock. Whose turn panics is forgotten, and nobody else.
fn take_turns(service: &Mutex<Watched>, works: &mut Vec<Work>, waits: &mut Vec<Wait>) {
    // Taken out for the turns: who watches one meanwhile puts it in again.
    std::mem::swap(&mut lock(service).works, works);
    waits.clear();
    for (token, turn) in works.drain(..) {
        if let Ok(Some(wait)) = catch_unwind(|| turn(token)) {
            waits.push(wait);
            lock(service).add((token, turn));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Condvar;

    use super::*;
    use crate::sys::descriptor::Event;

    impl Source for Event {
        fn fd_for(&self, _: PollFlags) -> BorrowedFd<'_> {
            self.as_fd()
        }
    }

    #[derive(Clone, Copy, PartialEq, PartialOrd)]
    enum Progress {
        Begun,
        Panicked,
        Done,
    }

    static PROGRESS: Mutex<Progress> = Mutex::new(Progress::Begun);
    static CHANGED: Condvar = Condvar::new();

    fn go_on(progress: Progress) {
        *lock(&PROGRESS) = progress;
        CHANGED.notify_all();
    }

    fn panics(_: Token) -> Option<Wait> {
        go_on(Progress::Panicked);
        panic!("a panic in a turn");
    }

    fn waits_for_that(_: Token) -> Option<Wait> {
        if *lock(&PROGRESS) == Progress::Panicked {
            go_on(Progress::Done);
            return None;
        }
        let source = Arc::new(Event::new().unwrap());
        Some(Wait { source, events: PollFlags::IN, until: Deadline::Never })
    }

    #[test]
    fn a_panic_in_one_turn_forgets_nobody_else() {
        let wait_for = |progress| {
            let is_before = |now: &mut Progress| *now < progress;
            let limit = Duration::from_secs(60);
            let waited = CHANGED.wait_timeout_while(lock(&PROGRESS), limit, is_before);
            assert!(!waited.unwrap().1.timed_out());
        };
        assert!(watch(1, waits_for_that));
        assert!(watch(3, panics));
        wait_for(Progress::Panicked);
        look();
        wait_for(Progress::Done);
    }
}
