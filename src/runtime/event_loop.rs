//! Loops that move frames without the caller: a few threads, which all links and hubs share. Each
//! waits for its connections and listeners at once, and for nothing else: it neither sleeps nor yields,
//! and of locks that others hold during a system call it only tries whether they are free.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::error::{Error, Result};
use crate::forward::turn;
use crate::listener;
use crate::runtime::handle::{NONE, Token};
use crate::runtime::lock::lock;
use crate::runtime::poller::Poller;
use crate::runtime::service::IDLE;
use crate::rx::buffer::LOOP_ROOM;
use crate::switch::sorter::Sorter;
use crate::sys::clock::Deadline;
use crate::sys::fork::PerProcess;
use crate::sys::thread;

/// The most loops that a process has.
const MOST: usize = 4;

/// How many connections and listeners get their turn after one wait.
const EVENTS: usize = 64;

/// How long a listener rests that the system refused a connection, mostly for want of descriptors,
/// and a connection that it refused a thread for its close handler or its state handler.
pub const REST: Duration = Duration::from_millis(50);

/// What the loop waits for of a descriptor.
pub type Interest = EventFlags;
pub const NOTHING: Interest = Interest::empty();
pub const READABLE: Interest = Interest::IN;
pub const WRITABLE: Interest = Interest::OUT;
/// It is in the set, to be told of no more than that the peer has left, and that once.
pub const ADDED: Interest = Interest::ONESHOT;

static LOOPS: PerProcess<Loops> = PerProcess::new();

/// This process's.
pub fn loops() -> &'static Loops {
    LOOPS.get()
}

/// The loops of a process: as many as it has processors, up to [`MOST`].
#[derive(Default)]
pub struct Loops {
    all: OnceLock<Box<[Loop]>>,
    next: AtomicUsize,
}

impl Loops {
    /// The loop for a new link or hub: each in turn.
    pub fn choose(&self) -> &Loop {
        let all = self.all.get_or_init(|| {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            (0..processors.min(MOST)).map(|_| Loop::default()).collect()
        });
        &all[self.next.fetch_add(1, Ordering::Relaxed) % all.len()]
    }
}

/// One loop. Its thread is there while somebody uses it, and a little longer.
#[derive(Default)]
pub struct Loop {
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    /// How many connections and listeners there are in it.
    users: usize,
    /// There while the thread is.
    poller: Option<Arc<Poller>>,
    /// Whom to look at though their sockets are silent.
    looks: Vec<Token>,
    /// Who rests, since the system refused something, and until when.
    resting: Vec<(Instant, Token)>,
}

impl Loop {
    /// One more user, for whom there is a thread until it leaves.
    pub fn join(&'static self) -> Result<()> {
        let mut shared = lock(&self.shared);
        if shared.poller.is_none() {
            let poller = Arc::new(Poller::new()?);
            let threads = poller.clone();
            thread::spawn(c"qnet-forward", move || self.run(&threads))?;
            shared.poller = Some(poller);
        }
        shared.users += 1;
        Ok(())
    }

    pub fn leave(&self) {
        let mut shared = lock(&self.shared);
        shared.users -= 1;
        if shared.users == 0 {
            wake(shared);
        }
    }

    /// Waits for something else of a user's descriptor, from now on.
    pub fn watch(
        &self,
        fd: BorrowedFd<'_>,
        token: Token,
        before: Interest,
        after: Interest,
    ) -> Result<()> {
        // No system call is made under the lock, which the loop takes.
        let Some(poller) = lock(&self.shared).poller.clone() else {
            return Err(Error::Internal("a user of a loop without a thread".into()));
        };
        let epoll = &poller.epoll;
        let data = EventData::new_u64(token);
        // Not in the set, it is not told of a peer's leaving either.
        match (before == NOTHING, after == NOTHING) {
            (true, true) => {}
            (true, false) => epoll::add(epoll, fd, data, after)?,
            (false, true) => epoll::delete(epoll, fd)?,
            (false, false) => epoll::modify(epoll, fd, data, after)?,
        }
        Ok(())
    }

    /// Gives a connection a turn soon.
    pub fn look(&self, conn: Token) {
        let mut shared = lock(&self.shared);
        shared.looks.push(conn);
        wake(shared);
    }

    /// Gives a turn in a while, to try again what the system refused.
    pub fn rest(&self, token: Token) {
        let mut shared = lock(&self.shared);
        let is_first = shared.resting.is_empty();
        if shared.resting.iter().all(|(_, resting)| *resting != token) {
            shared.resting.push((Instant::now() + REST, token));
        }
        if is_first {
            // It may be waiting for longer. Otherwise it wakes up for one that came before.
            wake(shared);
        }
    }

    /// The thread.
    fn run(&'static self, poller: &Poller) {
        let mut work = Work::default();
        let mut events = Vec::with_capacity(EVENTS);
        let mut idle_since = None;
        while let Some(until) = self.next_wait(&mut idle_since) {
            events.clear();
            let time = until.timespec();
            // A signal, or a lack of memory, only makes it look again.
            let _ = epoll::wait(&poller.epoll, spare_capacity(&mut events), time.as_ref());
            work.now = Instant::now();
            for event in &events {
                match event.data.u64() {
                    NONE => _ = poller.event.lower(),
                    token => self.turn(token, event.flags, &mut work),
                }
            }
            // After the event was drained, so that nothing is missed.
            for conn in self.due_looks(work.now) {
                self.turn(conn, READABLE | WRITABLE, &mut work);
            }
        }
    }

    /// Until when to wait, or `None` when the thread is to end: it was idle for long enough.
    fn next_wait(&self, idle_since: &mut Option<Instant>) -> Option<Deadline> {
        let mut shared = lock(&self.shared);
        if shared.users > 0 || !shared.resting.is_empty() {
            *idle_since = None;
            let until = shared.resting.iter().map(|(until, _)| *until).min();
            return Some(until.map_or(Deadline::Never, Deadline::At));
        }
        let until = Deadline::At(*idle_since.get_or_insert_with(Instant::now) + IDLE);
        if !until.passed() {
            return Some(until);
        }
        *shared = Shared::default();
        None
    }

    /// Whom to look at, those who have rested included.
    fn due_looks(&self, now: Instant) -> Vec<Token> {
        let mut shared = lock(&self.shared);
        let mut looks = std::mem::take(&mut shared.looks);
        let rested = shared.resting.extract_if(.., |(until, _)| *until <= now);
        looks.extend(rested.map(|(_, token)| token));
        looks
    }

    fn turn(&self, token: Token, events: EventFlags, work: &mut Work) {
        if let Ok(listener) = listener::table().get(token) {
            let _ = catch_unwind(AssertUnwindSafe(|| listener::serve_turn(listener, self)));
        } else if let Ok(conn) = crate::conn::table().get(token) {
            let turn = AssertUnwindSafe(|| turn::forward_turn(conn, self, events, work));
            if catch_unwind(turn).is_err() {
                *work = Work::default();
                turn::forwarding_panicked(conn, self);
            }
        }
    }
}

/// Wakes the thread, once the lock is free again.
fn wake(shared: MutexGuard<'_, Shared>) {
    let poller = shared.poller.clone();
    drop(shared);
    if let Some(poller) = poller {
        poller.event.raise();
    }
}

/// What a loop works with, turn after turn.
pub struct Work {
    /// What is read, behind the front of a frame that came before.
    pub buffer: Box<[MaybeUninit<u8>]>,
    pub sorter: Sorter,
    /// The time of this round of turns.
    pub now: Instant,
}

impl Default for Work {
    fn default() -> Work {
        Work {
            buffer: Box::new_uninit_slice(LOOP_ROOM),
            sorter: Sorter::default(),
            now: Instant::now(),
        }
    }
}
