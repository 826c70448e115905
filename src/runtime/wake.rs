//! Waiting that anything can end: a descriptor, a change told by another thread, a time, a signal.
//!
//! A condition variable would swallow signals, so every wait polls. The event descriptor that carries
//! changes is made when somebody first waits, and closed with its owner.

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::runtime::lock::lock;
use crate::sys::clock::Deadline;
use crate::sys::descriptor::Event;

/// How long to poll at a time where no event descriptor could be had (EMFILE), or poll is refused.
const BLIND: Duration = Duration::from_millis(10);

/// The longest that a close waits for threads to leave what it has taken from them. They need
/// microseconds, unless the host has stopped one, or has jumped out of a wait and left it there.
const LEAVING: Duration = Duration::from_secs(10);

thread_local! {
    static BEFORE_WAITING: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// What this thread does before it waits, from now on.
pub fn before_waiting(f: Option<fn()>) {
    BEFORE_WAITING.set(f);
}

/// Does it. Every wait here begins with it.
pub fn prepare_to_wait() {
    if let Some(prepare) = BEFORE_WAITING.get() {
        prepare();
    }
}

/// What to poll: a few without an allocation.
pub type PollFds<'a> = SmallVec<[PollFd<'a>; 16]>;

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// A descriptor is ready or something changed: look again.
    Something,
    TimedOut,
}

/// What the threads that wait for one object are woken by.
#[derive(Debug, Default)]
pub struct Wake {
    /// Counts the changes told. SeqCst with `waiting`: either who raises sees the waiter, or who
    /// waits sees the change.
    epoch: AtomicU32,
    waiting: AtomicU32,
    event: OnceLock<Event>,
    /// Whether the event is signalled; the last waiter to leave takes it back.
    raised: Mutex<bool>,
}

impl Wake {
    /// Read it before looking at the state that decides whether to wait.
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Tells every waiter to look again.
    pub fn raise(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut raised = lock(&self.raised);
        if let Some(event) = self.event.get()
            && !*raised
        {
            *raised = event.raise();
        }
    }

    /// Waits until `fd` is ready, until something changes after `epoch`, or until the deadline.
    pub fn wait_fd(
        &self,
        epoch: u32,
        fd: BorrowedFd<'_>,
        events: PollFlags,
        deadline: Deadline,
    ) -> Result<Woken> {
        self.wait_fds(epoch, poll_fd(fd, events).into_iter().collect(), deadline)
    }

    /// The same for any number of descriptors.
    pub fn wait_fds<'a>(
        &'a self,
        epoch: u32,
        mut fds: PollFds<'a>,
        deadline: Deadline,
    ) -> Result<Woken> {
        prepare_to_wait();
        self.enter();
        let woken = match self.event.get() {
            _ if self.epoch() != epoch => Ok(Woken::Something),
            Some(event) => {
                fds.push(PollFd::new(event, PollFlags::IN));
                poll_until(&mut fds, deadline)
            }
            None => poll_blindly(&mut fds, deadline),
        };
        self.leave();
        woken
    }

    /// Waits for a change alone, whatever signals come.
    pub fn wait_change(&self, epoch: u32) {
        while self.epoch() == epoch {
            // Failing is being interrupted: look again.
            let _ = self.wait_fds(epoch, PollFds::new(), Deadline::Never);
        }
    }

    fn enter(&self) {
        let _raised = lock(&self.raised);
        if self.event.get().is_none()
            && let Ok(event) = Event::new()
        {
            // Under the lock, so nobody else has set it.
            let _ = self.event.set(event);
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    fn leave(&self) {
        let mut raised = lock(&self.raised);
        if self.waiting.fetch_sub(1, Ordering::SeqCst) == 1
            && *raised
            && let Some(event) = self.event.get()
        {
            *raised = !event.lower();
        }
    }
}

/// What to poll a descriptor for: nothing at all where no event matters, for a peer's leaving would
/// be told all the same, again and again.
pub fn poll_fd(fd: BorrowedFd<'_>, events: PollFlags) -> Option<PollFd<'_>> {
    (!events.is_empty()).then(|| PollFd::from_borrowed_fd(fd, events))
}

/// The last field of what threads share: dropped behind all others, it tells that they are gone.
#[derive(Debug, Default)]
pub struct Last(OnceLock<Arc<Wake>>);

impl Last {
    pub fn departure(&self) -> Departure {
        Departure(self.0.get_or_init(Arc::default).clone())
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(gone) = self.0.get() {
            gone.raise();
        }
    }
}

/// The going of what threads share, for who has told them to leave it, and does not share it.
#[derive(Debug)]
pub struct Departure(Arc<Wake>);

impl Departure {
    pub fn is_over(&self) -> bool {
        self.0.epoch() > 0
    }

    /// Waits until it is gone, whatever signals come.
    pub fn wait(&self) {
        let deadline = Deadline::after(LEAVING);
        while !self.is_over() && !deadline.passed() {
            // Failing is being interrupted, or short of memory: look again.
            let _ = self.0.wait_fds(0, PollFds::new(), deadline);
        }
    }
}

fn poll_until(fds: &mut [PollFd<'_>], deadline: Deadline) -> Result<Woken> {
    match poll(fds, deadline.timespec().as_ref()) {
        Ok(0) => Ok(Woken::TimedOut),
        Ok(_) => Ok(Woken::Something),
        Err(Errno::INTR) => Err(Error::Interrupted),
        // Short of memory, or more descriptors than RLIMIT_NOFILE, which may have been lowered.
        Err(_) => poll_blindly(&mut [], deadline),
    }
}

/// The same where not everything can be polled for: soon all is looked at again.
fn poll_blindly(fds: &mut [PollFd<'_>], deadline: Deadline) -> Result<Woken> {
    let soon = deadline.sooner(Deadline::after(BLIND));
    match poll(fds, soon.timespec().as_ref()) {
        Ok(0) if deadline.passed() => Ok(Woken::TimedOut),
        Ok(_) => Ok(Woken::Something),
        Err(Errno::INTR) => Err(Error::Interrupted),
        // They are too many as well: nothing is left to wait for but the time.
        Err(_) if !fds.is_empty() => poll_blindly(&mut [], deadline),
        Err(errno) => Err(errno.into()),
    }
}
