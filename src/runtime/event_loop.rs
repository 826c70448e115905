//! Threads that serve many at once: each waits for the descriptors of its users, for their times, and
//! for others who want it to look, all at once, and gives a turn to whom that concerns. What is done in
//! a turn is for who makes the loop to say; it must not block.

use std::ffi::CStr;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::error::{Error, Result};
use crate::runtime::handle::{NONE, Token};
use crate::runtime::lock::lock;
use crate::runtime::poller::Poller;
use crate::runtime::service::IDLE;
use crate::runtime::timers::Timers;
use crate::sys::clock::Deadline;
use crate::sys::thread;

/// How many get their turn after one wait.
const EVENTS: usize = 64;

/// How long a listener rests that the system refused a connection, mostly for want of descriptors,
/// and a connection that it refused a thread for its close handler or its state handler.
pub const REST: Duration = Duration::from_millis(50);

/// What a loop waits for of a descriptor, or has found there.
pub type Interest = EventFlags;
pub const NOTHING: Interest = Interest::empty();
pub const READABLE: Interest = Interest::IN;
pub const WRITABLE: Interest = Interest::OUT;
/// It is in the set, to be told of no more than that the peer has left, and that once.
pub const ADDED: Interest = Interest::ONESHOT;

/// A thread's turns: one for that token, of whose descriptor it was found so much, at that time of the
/// round. It catches its own panics.
pub type Turns = Box<dyn FnMut(&'static Loop, Token, Interest, Instant)>;

/// One loop. Its thread is there while somebody uses it, and a little longer.
pub struct Loop {
    /// The thread's.
    name: &'static CStr,
    /// Called once on each thread, which works with what it gives.
    begin: fn() -> Turns,
    shared: Mutex<Shared>,
}

/// The lock is held for nothing long, and during no system call but the making of the thread and of
/// what it waits on.
#[derive(Default)]
struct Shared {
    /// How many [`LoopUser`]s there are.
    users: usize,
    is_running: bool,
    /// What the thread waits on: kept by it, and by those who have reserved it.
    poller: Weak<Poller>,
    /// Whom to look at though their descriptors are silent.
    looks: Vec<Token>,
    /// Who is to have a turn at some time.
    timers: Timers,
}

/// One who uses a loop: its thread is there until this is dropped.
pub struct LoopUser(&'static Loop);

impl Deref for LoopUser {
    type Target = &'static Loop;

    fn deref(&self) -> &&'static Loop {
        &self.0
    }
}

impl Drop for LoopUser {
    fn drop(&mut self) {
        let mut shared = lock(&self.0.shared);
        shared.users -= 1;
        if shared.users == 0 {
            wake(shared);
        }
    }
}

impl Loop {
    pub fn new(name: &'static CStr, begin: fn() -> Turns) -> Loop {
        Loop { name, begin, shared: Mutex::default() }
    }

    /// What the thread waits on. Who keeps it needs no descriptor to join.
    pub fn reserve(&self) -> Result<Arc<Poller>> {
        lock(&self.shared).poller()
    }

    /// Adds a user, for whom there is a thread until it leaves.
    pub fn join(&'static self) -> Result<LoopUser> {
        let mut shared = lock(&self.shared);
        if !shared.is_running {
            let poller = shared.poller()?;
            thread::spawn(self.name, move || self.run(&poller))?;
            shared.is_running = true;
        }
        shared.users += 1;
        Ok(LoopUser(self))
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
        let Some(poller) = lock(&self.shared).poller.upgrade() else {
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

    /// Gives a turn soon, if there is a thread: without users there is nothing to look at.
    pub fn look(&self, token: Token) {
        let mut shared = lock(&self.shared);
        if shared.is_running {
            shared.looks.push(token);
            wake(shared);
        }
    }

    /// Gives a turn in a while, to try again what the system refused. A sooner time that is set stays.
    pub fn rest(&self, token: Token) {
        let mut shared = lock(&self.shared);
        let before = shared.timers.next();
        shared.timers.set_soonest(token, Instant::now() + REST);
        if shared.timers.next() != before {
            // It may be waiting for longer.
            wake(shared);
        }
    }

    /// Gives a turn at that time, and at none that was set before. For the loop's own thread, which
    /// looks at its times before it waits.
    pub fn set_time(&self, token: Token, time: Deadline) {
        let time = match time {
            Deadline::Never => None,
            Deadline::Now => Some(Instant::now()),
            Deadline::At(time) => Some(time),
        };
        lock(&self.shared).timers.set(token, time);
    }

    /// The thread.
    fn run(&'static self, poller: &Poller) {
        let mut turn = (self.begin)();
        let mut events = Vec::with_capacity(EVENTS);
        let mut idle_since = None;
        while let Some(until) = self.next_wait(&mut idle_since) {
            events.clear();
            let time = until.timespec();
            // A signal, or a lack of memory, only makes it look again.
            let _ = epoll::wait(&poller.epoll, spare_capacity(&mut events), time.as_ref());
            let now = Instant::now();
            for event in &events {
                match event.data.u64() {
                    NONE => _ = poller.event.lower(),
                    token => turn(self, token, event.flags, now),
                }
            }
            // After the event was lowered, so that nothing is missed.
            for token in self.due_looks(now) {
                turn(self, token, READABLE | WRITABLE, now);
            }
        }
    }

    /// Until when to wait, or `None` when the thread is to end: it was idle for long enough.
    fn next_wait(&self, idle_since: &mut Option<Instant>) -> Option<Deadline> {
        let mut shared = lock(&self.shared);
        let next = shared.timers.next();
        if shared.users > 0 || !shared.looks.is_empty() || next != Deadline::Never {
            *idle_since = None;
            return Some(next);
        }
        let until = Deadline::At(*idle_since.get_or_insert_with(Instant::now) + IDLE);
        shared.is_running = !until.passed();
        shared.is_running.then_some(until)
    }

    /// Whom to look at, those whose time has come included.
    fn due_looks(&self, now: Instant) -> Vec<Token> {
        let mut shared = lock(&self.shared);
        let mut looks = std::mem::take(&mut shared.looks);
        looks.extend(std::iter::from_fn(|| shared.timers.pop_due(now)));
        looks
    }
}

impl Shared {
    fn poller(&mut self) -> Result<Arc<Poller>> {
        if let Some(poller) = self.poller.upgrade() {
            return Ok(poller);
        }
        let poller = Arc::new(Poller::new()?);
        self.poller = Arc::downgrade(&poller);
        Ok(poller)
    }
}

/// Wakes the thread, once the lock is free again.
fn wake(shared: MutexGuard<'_, Shared>) {
    let poller = shared.poller.upgrade();
    drop(shared);
    if let Some(poller) = poller {
        poller.wake();
    }
}
