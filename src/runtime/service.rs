//! The service thread: it finishes work that no caller waits for. It starts with the first such
//! work, and ends soon after the last.
//!
//! It uses poll(2) and no event loop, because it must work where the system refuses the
//! descriptors that an event loop needs.

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

/// How long a background thread stays when there is nothing to do, since starting another one costs
/// more.
pub const IDLE: Duration = Duration::from_millis(20);

static SERVICE: PerProcess<Mutex<Watched>> = PerProcess::new();

/// A token, and its turns. Each returns what to wait for until the next one, or `None` if nothing
/// is left to do.
type Work = (Token, fn(Token) -> Option<Wait>);

/// What to wait for until the next turn: one of `events` at `source`, or the time.
pub struct Wait {
    pub source: Arc<dyn Source>,
    pub events: PollFlags,
    pub until: Deadline,
}

/// Something whose descriptors stay open while they are polled.
pub trait Source: Send + Sync {
    /// The descriptor on which to wait for `events`.
    fn fd_for(&self, events: PollFlags) -> BorrowedFd<'_>;
}

/// What the service thread takes care of. Under its lock the thread is started, for which an event
/// loop does not wait; nothing else that takes long is done under it, and no turn.
#[derive(Default)]
struct Watched {
    works: Vec<Work>,
    /// Wakes the thread, while there is one.
    wake: Option<Arc<Wake>>,
}

impl Watched {
    fn add(&mut self, work: Work) {
        if self.works.iter().all(|(token, _)| *token != work.0) {
            self.works.push(work);
        }
    }
}

/// Gives turns to a token until nothing is left to do. Returns whether there is a thread for that.
/// If not, the work is kept, and begins when a later call can start the thread.
pub fn watch(token: Token, turn: fn(Token) -> Option<Wait>) -> bool {
    watch_in(lock(SERVICE.get()), (token, turn))
}

/// Does the same as [`watch`], or returns `None` while another thread holds the lock, perhaps to
/// start the service thread. For event loops, which must not wait for that.
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

/// Wakes the thread, if there is one, so that it lets go of what it was waiting on, which is to be
/// closed.
pub fn look() {
    if let Some(wake) = &lock(SERVICE.get()).wake {
        wake.raise();
    }
}

/// Runs the thread: it gives a turn to every token, and then waits for any.
fn run(service: &Mutex<Watched>, wake: &Wake) {
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
        // An error means a signal or a lack of memory, neither of which lasts.
        let _ = wake.wait_fds(epoch, fds.collect(), until);
    }
}

/// Gives every token a turn, outside the lock. If a turn panics, that token alone is forgotten.
fn take_turns(service: &Mutex<Watched>, works: &mut Vec<Work>, waits: &mut Vec<Wait>) {
    // The list is empty during the turns: a call of `watch` meanwhile adds the token again.
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
