//! Event loops: threads that each serve many objects, known to them only by their tokens. A loop
//! waits for the descriptors and the timers of all its tokens at once, and gives a turn to every
//! token for which there is something to do. Whoever makes the loop says what a turn does; a turn
//! must not block.

mod by_hand;

use std::collections::{BTreeSet, VecDeque};
use std::ffi::CStr;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

use crate::error::{Error, Result};
use crate::runtime::handle::{NONE, Token};
use crate::runtime::lock::lock;
use crate::runtime::poller::Poller;
use crate::runtime::service::IDLE;
use crate::runtime::timers::Timers;
use crate::sys::clock::{self, Alarm, Deadline};
use crate::sys::thread;

/// The token of the descriptor that tells of times. No handle has it.
const ALARM: Token = 2;

/// How many events one wait returns at most.
const EVENTS: usize = 64;

/// How long turns go on before the loop looks for tokens that were not ready when the round began. Where
/// many are flooded, one that is not would wait for all of their turns.
const LONG: Duration = Duration::from_micros(100);

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// How long to wait before trying again what the system has refused, mostly for want of
/// descriptors, memory or threads.
pub const REST: Duration = Duration::from_millis(50);

/// The events for which a loop watches a descriptor, or that it has found there.
pub type Interest = EventFlags;
pub const NOTHING: Interest = Interest::empty();
pub const READABLE: Interest = Interest::IN;
pub const WRITABLE: Interest = Interest::OUT;
/// The descriptor is in the set, and reports nothing but a hang-up or an error, and that once.
pub const ADDED: Interest = Interest::ONESHOT;

/// What a loop's thread does in a turn, given the token, the events that were found at its
/// descriptor, and the time at which this round of turns began. It must catch its own panics.
pub type Turns = Box<dyn FnMut(&'static Loop, Token, Interest, Instant)>;

/// An event loop. It has a thread while it has users, and for a little longer.
pub struct Loop {
    source: Source,
    shared: Mutex<Shared>,
}

/// Who gives the turns.
enum Source {
    /// A thread of that name. What it does in its turns is made when it begins.
    Thread { name: &'static CStr, begin: fn() -> Turns },
    /// The program: see `by_hand`.
    Program(ByHand),
}

/// A loop without a thread.
struct ByHand {
    /// What the clock shows, in nanoseconds. Relaxed: who moves it alone relies on it.
    time: AtomicU64,
    /// What stands for its 0 where an instant is asked for.
    begun: Instant,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    /// The tokens of the loop's users, in the order in which they came.
    members: Vec<Token>,
    /// Those that are to have a turn now, in that order, each once.
    looks: VecDeque<Token>,
    is_looked_at: BTreeSet<Token>,
}

/// A nanosecond at which a token is due, and the number by which those take turns that are due at one.
pub type Due = (u64, u64);

/// What the thread and the users of a loop share. The only system calls that are made under its
/// lock are those that create the thread and the poller.
#[derive(Default)]
struct Shared {
    /// How many [`LoopUser`]s there are.
    users: usize,
    /// Whether there is a thread.
    is_running: bool,
    /// What the thread waits on. It is owned by the thread, and by those who have reserved it.
    poller: Weak<Poller>,
    /// The tokens that are to have a turn now, whatever their descriptors report.
    looks: Vec<Token>,
    /// The tokens that are to have a turn at some time.
    timers: Timers<Instant>,
    /// Those that are to have one at a nanosecond, apart from that.
    alarms: Timers<Due>,
}

/// A user of a loop: there is a thread until this is dropped.
pub struct LoopUser {
    runner: &'static Loop,
    token: Token,
}

impl Deref for LoopUser {
    type Target = &'static Loop;

    fn deref(&self) -> &&'static Loop {
        &self.runner
    }
}

impl Drop for LoopUser {
    fn drop(&mut self) {
        self.runner.unseat(self.token);
        let mut shared = lock(&self.runner.shared);
        shared.users -= 1;
        if shared.users == 0 {
            wake(shared);
        }
    }
}

impl Loop {
    pub fn new(name: &'static CStr, begin: fn() -> Turns) -> Loop {
        Loop { source: Source::Thread { name, begin }, shared: Mutex::default() }
    }

    /// Returns what the thread waits on. As long as that is kept, joining needs no descriptors.
    pub fn reserve(&self) -> Result<Arc<Poller>> {
        lock(&self.shared).poller()
    }

    /// Adds a user, and starts the thread if there is none. `token` is to have turns for it.
    pub fn join(&'static self, token: Token) -> Result<LoopUser> {
        let mut shared = lock(&self.shared);
        match self.source {
            Source::Thread { name, begin } if !shared.is_running => {
                let poller = shared.poller()?;
                thread::spawn(name, move || self.run(begin, &poller))?;
                shared.is_running = true;
            }
            Source::Thread { .. } => {}
            Source::Program(_) => self.seat(token),
        }
        shared.users += 1;
        Ok(LoopUser { runner: self, token })
    }

    /// Changes for which events the thread watches a descriptor of `token`, from `before` to
    /// `after`.
    pub fn watch(
        &self,
        fd: BorrowedFd<'_>,
        token: Token,
        before: Interest,
        after: Interest,
    ) -> Result<()> {
        if self.is_by_hand() {
            // Who gives the turns looks at all of them.
            return Ok(());
        }
        // The lock is released here: the thread takes it, and must not wait for a system call.
        let Some(poller) = lock(&self.shared).poller.upgrade() else {
            return Err(Error::Internal("a user of a loop without a thread".into()));
        };
        let epoll = &poller.epoll;
        let data = EventData::new_u64(token);
        // A descriptor that is in the set for no events would still report a hang-up.
        match (before == NOTHING, after == NOTHING) {
            (true, true) => {}
            (true, false) => epoll::add(epoll, fd, data, after)?,
            (false, true) => epoll::delete(epoll, fd)?,
            (false, false) => epoll::modify(epoll, fd, data, after)?,
        }
        Ok(())
    }

    /// Gives the token a turn soon. Without a thread there are no users, and nobody needs a turn.
    pub fn look(&self, token: Token) {
        if let Source::Program(by_hand) = &self.source {
            return lock(&by_hand.seats).look(token);
        }
        let mut shared = lock(&self.shared);
        if shared.is_running {
            shared.looks.push(token);
            wake(shared);
        }
    }

    /// Gives the token a turn after [`REST`] at the latest, to try again what the system has
    /// refused.
    pub fn rest(&self, token: Token) {
        let mut shared = lock(&self.shared);
        let before = shared.timers.next();
        shared.timers.set_soonest(token, Instant::now() + REST);
        if shared.timers.next() != before {
            // The thread may be waiting for longer than that.
            wake(shared);
        }
    }

    /// Gives the token a turn at this time, which replaces the one set before. For turns of this
    /// loop only: its thread looks at the timers before it waits, and is not woken.
    pub fn set_time(&self, token: Token, time: Deadline) {
        let time = match time {
            Deadline::Never => None,
            Deadline::Now => Some(Instant::now()),
            Deadline::At(time) => Some(time),
        };
        lock(&self.shared).timers.set(token, time);
    }

    /// Gives the token a turn at a time of the loop's clock, and on the system's clock as soon after it as the
    /// thread gets a processor; `None` takes that back. It replaces the one before, and no other time of the token. For
    /// turns of this loop; others may take a time back.
    pub fn set_alarm(&self, token: Token, time: Option<Due>) {
        lock(&self.shared).alarms.set(token, time);
    }

    /// Runs the thread.
    fn run(&'static self, begin: fn() -> Turns, poller: &Poller) {
        let mut turn = begin();
        let (mut events, mut looks) = (Vec::with_capacity(EVENTS), Vec::new());
        let mut late = Vec::with_capacity(4 * EVENTS);
        let (mut idle_since, mut waker) = (None, Waker::default());
        while let Some((until, alarm)) = self.next_wait(&mut idle_since) {
            events.clear();
            let until = alarm.map_or(until, |time| waker.set(time, poller).sooner(until));
            let time = until.timespec();
            // An error means that a signal stopped the process meanwhile, or that memory is short.
            let _ = epoll::wait(&poller.epoll, spare_capacity(&mut events), time.as_ref());
            let now = Instant::now();
            let mut looked = now;
            for (i, event) in events.iter().enumerate() {
                if i > 0 && looked.elapsed() > LONG {
                    looked = Instant::now();
                    late.clear();
                    let _ = epoll::wait(&poller.epoll, spare_capacity(&mut late), Some(&AT_ONCE));
                    for late in late.iter().filter(|late| !events.iter().any(|e| is_same(e, late)))
                    {
                        self.take_turn(poller, &mut waker, late, looked, &mut turn);
                    }
                }
                self.take_turn(poller, &mut waker, event, now, &mut turn);
            }
            // Only after the event has been lowered, so that no look is missed.
            self.swap_due(now, &mut looks);
            for token in looks.drain(..) {
                turn(self, token, READABLE | WRITABLE, now);
            }
        }
    }

    /// Gives the token of an event its turn.
    fn take_turn(
        &'static self,
        poller: &Poller,
        waker: &mut Waker,
        event: &Event,
        now: Instant,
        turn: &mut Turns,
    ) {
        match event.data.u64() {
            NONE => poller.event.lower(),
            ALARM => waker.time = 0,
            token => turn(self, token, event.flags, now),
        }
    }

    /// Until when the thread waits, and until which nanosecond, or `None` if it has been idle for long
    /// enough and must end.
    fn next_wait(&self, idle_since: &mut Option<Instant>) -> Option<(Deadline, Option<u64>)> {
        let mut shared = lock(&self.shared);
        let next = shared.timers.next().map_or(Deadline::Never, Deadline::At);
        if shared.users > 0 || !shared.looks.is_empty() || next != Deadline::Never {
            *idle_since = None;
            return Some((next, shared.alarms.next().map(|(time, _)| time)));
        }
        let until = Deadline::At(*idle_since.get_or_insert_with(Instant::now) + IDLE);
        if !until.passed() {
            return Some((until, None));
        }
        shared.is_running = false;
        // What it grew to is not kept: how many looks pile up differs from time to time.
        shared.looks = Vec::new();
        None
    }

    /// Exchanges an empty list for the tokens that are to have a turn now, including those whose
    /// timers are due.
    fn swap_due(&self, now: Instant, looks: &mut Vec<Token>) {
        let mut shared = lock(&self.shared);
        std::mem::swap(&mut shared.looks, looks);
        looks.extend(std::iter::from_fn(|| shared.timers.pop_due(now)));
        if shared.alarms.next().is_some() {
            let now = (clock::nanoseconds(), u64::MAX);
            looks.extend(std::iter::from_fn(|| shared.alarms.pop_due(now)));
        }
    }
}

/// What wakes the thread at a nanosecond. It is made when it is first needed.
#[derive(Default)]
struct Waker {
    alarm: Option<Alarm>,
    /// The time that is set, until it has passed; 0 for none.
    time: u64,
}

impl Waker {
    /// Has the thread woken at that time. Where the system refuses, its wait must end at the time that is
    /// returned, which may be a millisecond late.
    fn set(&mut self, time: u64, poller: &Poller) -> Deadline {
        if self.alarm.is_none() {
            self.alarm = Alarm::new().ok().filter(|alarm| {
                // It tells once of each time, and is never read.
                let (token, once) = (EventData::new_u64(ALARM), EventFlags::IN | EventFlags::ET);
                epoll::add(&poller.epoll, alarm, token, once).is_ok()
            });
        }
        let is_set = |alarm: &Alarm| self.time == time || alarm.set(time);
        if self.alarm.as_ref().is_some_and(is_set) {
            self.time = time;
            return Deadline::Never;
        }
        Deadline::after(Duration::from_nanos(time.saturating_sub(clock::nanoseconds())))
    }
}

impl Shared {
    /// What the thread waits on, or is to wait on.
    fn poller(&mut self) -> Result<Arc<Poller>> {
        if let Some(poller) = self.poller.upgrade() {
            return Ok(poller);
        }
        let poller = Arc::new(Poller::new()?);
        self.poller = Arc::downgrade(&poller);
        Ok(poller)
    }
}

/// Whether two events are of the same token.
fn is_same(one: &Event, other: &Event) -> bool {
    one.data.u64() == other.data.u64()
}

/// Wakes the thread after releasing the lock.
fn wake(shared: MutexGuard<'_, Shared>) {
    let poller = shared.poller.upgrade();
    drop(shared);
    if let Some(poller) = poller {
        poller.event.raise();
    }
}
