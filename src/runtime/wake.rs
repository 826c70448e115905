//! Waits that several things can end: a descriptor, another thread that has changed something, a
//! deadline, or a signal.
//!
//! Waiting on a condition variable would ignore signals, so every wait polls descriptors. The event
//! descriptor that tells of changes is created when a thread first waits, and closed with its
//! owner.

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::runtime::lock::lock;
use crate::sys::clock::Deadline;
use crate::sys::descriptor::Event;

/// How long to wait at a time if nothing tells of changes: the system refused an event descriptor
/// (EMFILE), or refuses to poll.
const BLIND: Duration = Duration::from_millis(10);

/// How long a close waits at most until other threads have let go of what it closes. That takes
/// microseconds, unless the host has stopped one of them, or has jumped out of a wait (`longjmp`).
const LEAVING: Duration = Duration::from_secs(10);

/// Whether the system has ever refused to poll. Relaxed: it is a hint.
static IS_BLIND: AtomicBool = AtomicBool::new(false);

/// Whether a wait may last longer than what is waited for.
pub fn is_blind() -> bool {
    IS_BLIND.load(Ordering::Relaxed)
}

thread_local! {
    /// What this thread calls before it waits.
    static BEFORE_WAITING: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// Sets what this thread calls before it waits.
pub fn before_waiting(f: Option<fn()>) {
    BEFORE_WAITING.set(f);
}

/// Calls what this thread is to call before it waits. Every wait in this file begins with this.
pub fn prepare_to_wait() {
    if let Some(prepare) = BEFORE_WAITING.get() {
        prepare();
    }
}

/// The descriptors to poll. A few need no allocation.
pub type PollFds<'a> = SmallVec<[PollFd<'a>; 16]>;

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// A descriptor is ready, or something has changed.
    Something,
    TimedOut,
}

/// Wakes the threads that wait for changes of one object.
#[derive(Debug, Default)]
pub struct Wake {
    /// How many changes there have been. SeqCst, like `waiting`: either the thread that raises sees
    /// the waiter, or the waiter sees the change.
    epoch: AtomicU32,
    /// How many threads wait.
    waiting: AtomicU32,
    event: OnceLock<Event>,
    /// Whether the event is raised. The last waiter to leave lowers it.
    raised: Mutex<bool>,
}

impl Wake {
    /// The number of changes so far. It must be read before the state that decides whether to wait.
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Wakes every waiter, since something has changed.
    pub fn raise(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut raised = lock(&self.raised);
        if let Some(event) = self.event.get().filter(|_| !*raised) {
            *raised = event.raise();
        }
    }

    /// Waits until `fd` is ready, something has changed since `epoch` was read, or the deadline has
    /// passed.
    pub fn wait_fd(
        &self,
        epoch: u32,
        fd: BorrowedFd<'_>,
        events: PollFlags,
        deadline: Deadline,
    ) -> Result<Woken> {
        let Some(fd) = poll_fd(fd, events) else {
            return self.wait_fds(epoch, PollFds::new(), deadline);
        };
        self.wait_with(epoch, |event| match event {
            Some(event) => poll_until(&mut [fd, event], deadline),
            None => poll_blindly(&mut [fd], deadline),
        })
    }

    /// Waits until one of `fds` is ready, something has changed since `epoch` was read, or the
    /// deadline has passed.
    pub fn wait_fds<'a>(
        &'a self,
        epoch: u32,
        mut fds: PollFds<'a>,
        deadline: Deadline,
    ) -> Result<Woken> {
        self.wait_with(epoch, |event| match event {
            Some(event) => {
                fds.push(event);
                poll_until(&mut fds, deadline)
            }
            None => poll_blindly(&mut fds, deadline),
        })
    }

    /// Polls as a waiter, together with what tells of changes, unless something has changed already.
    #[inline]
    fn wait_with<'a>(
        &'a self,
        epoch: u32,
        poll: impl FnOnce(Option<PollFd<'a>>) -> Result<Woken>,
    ) -> Result<Woken> {
        prepare_to_wait();
        self.enter();
        let woken = match self.epoch() == epoch {
            true => poll(self.event.get().map(|event| PollFd::new(event, PollFlags::IN))),
            false => Ok(Woken::Something),
        };
        self.leave();
        woken
    }

    /// Waits until something has changed since `epoch` was read. Signals do not end this wait.
    pub fn wait_change(&self, epoch: u32) {
        while self.epoch() == epoch {
            // An error means that a signal interrupted the wait, or that memory is short.
            let _ = self.wait_fds(epoch, PollFds::new(), Deadline::Never);
        }
    }

    fn enter(&self) {
        let _raised = lock(&self.raised);
        if self.event.get().is_none() {
            if let Ok(event) = Event::new() {
                // This cannot fail: the event is only ever set under the lock.
                let _ = self.event.set(event);
            }
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    fn leave(&self) {
        let mut raised = lock(&self.raised);
        let is_last = self.waiting.fetch_sub(1, Ordering::SeqCst) == 1;
        if let Some(event) = self.event.get().filter(|_| is_last && *raised) {
            // If somebody else has lowered it, as a child that was forked inside this wait may, it is down too.
            event.lower();
            *raised = false;
        }
    }
}

/// What to poll of a descriptor. If no event matters, the descriptor is not polled at all, because
/// a hang-up is reported without being asked for, and would end every wait at once.
pub fn poll_fd(fd: BorrowedFd<'_>, events: PollFlags) -> Option<PollFd<'_>> {
    (!events.is_empty()).then(|| PollFd::from_borrowed_fd(fd, events))
}

/// Tells when an object that threads share has been dropped. It is the object's last field, and
/// therefore dropped after all others.
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

/// Waits for an object with a [`Last`] to be dropped, without keeping the object alive.
#[derive(Debug)]
pub struct Departure(Arc<Wake>);

impl Departure {
    pub fn is_over(&self) -> bool {
        self.0.epoch() > 0
    }

    /// Waits until the object is gone, or [`LEAVING`] has passed. Signals do not end this wait.
    pub fn wait(&self) {
        let deadline = Deadline::after(LEAVING);
        while !self.is_over() && !deadline.passed() {
            // An error means that a signal interrupted the wait, or that memory is short.
            let _ = self.0.wait_fds(0, PollFds::new(), deadline);
        }
    }
}

fn poll_until(fds: &mut [PollFd<'_>], deadline: Deadline) -> Result<Woken> {
    match poll(fds, deadline.timespec().as_ref()) {
        Ok(0) => Ok(Woken::TimedOut),
        Ok(_) => Ok(Woken::Something),
        Err(Errno::INTR) => Err(Error::Interrupted),
        // Memory is short, or there are more descriptors than RLIMIT_NOFILE, which may have been
        // lowered.
        Err(_) => {
            IS_BLIND.store(true, Ordering::Relaxed);
            poll_blindly(&mut [], deadline)
        }
    }
}

/// Polls where nothing tells of changes: returns soon, for the caller to look again.
fn poll_blindly(fds: &mut [PollFd<'_>], deadline: Deadline) -> Result<Woken> {
    let soon = deadline.sooner(Deadline::after(BLIND));
    match poll(fds, soon.timespec().as_ref()) {
        Ok(0) if deadline.passed() => Ok(Woken::TimedOut),
        Ok(_) => Ok(Woken::Something),
        Err(Errno::INTR) => Err(Error::Interrupted),
        // They cannot be polled at all, so only time is left to wait for.
        Err(_) if !fds.is_empty() => poll_blindly(&mut [], deadline),
        Err(errno) => Err(errno.into()),
    }
}
