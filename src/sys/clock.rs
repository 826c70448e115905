//! Deadlines: until when a call waits. And the time to the nanosecond, by which frames are delayed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime,
    timerfd_create, timerfd_settime,
};

use crate::error::{Error, Result};
use crate::sys::descriptor::above_standard;

const NS_PER_S: u64 = 1_000_000_000;

/// What time it is by CLOCK_MONOTONIC, in nanoseconds.
pub fn nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * NS_PER_S + now.tv_nsec as u64
}

/// What time of day it is, in nanoseconds since 1970.
pub fn time_of_day() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec as u64 * NS_PER_S + now.tv_nsec as u64
}

/// A descriptor that is readable from a time of that clock on. What waits by a time-out wakes up later than
/// it asked for, by a thousandth of the time even for the shortest slack (the kernel's
/// `select_estimate_accuracy`); this has no slack at all.
pub struct Alarm(OwnedFd);

impl Alarm {
    pub fn new() -> Result<Alarm> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Alarm(above_standard(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    /// Sets the time, in place of the one before. Returns whether it is set.
    pub fn set(&self, time: u64) -> bool {
        // 0 would stop it.
        let time = time.max(1);
        let value = Timespec { tv_sec: (time / NS_PER_S) as _, tv_nsec: (time % NS_PER_S) as _ };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &once).is_ok()
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Until when a call may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    Never,
    /// The call does not wait: it fails with AGAIN.
    Now,
    At(Instant),
}

impl Deadline {
    /// `ms` milliseconds from now. A negative number waits without limit, and 0 does not wait.
    pub fn after_ms(ms: i64) -> Deadline {
        match ms {
            0 => Deadline::Now,
            ms if ms < 0 => Deadline::Never,
            ms => Deadline::after(Duration::from_millis(ms as u64)),
        }
    }

    pub fn after(time: Duration) -> Deadline {
        Instant::now().checked_add(time).map_or(Deadline::Never, Deadline::At)
    }

    /// The deadline of a call with this `timeout_ms`. Less than -1 is invalid.
    pub fn from_timeout(ms: i32) -> Result<Deadline> {
        if ms < -1 {
            return Err(Error::invalid(format!("a timeout of {ms} ms (-1 waits, 0 does not)")));
        }
        Ok(Deadline::after_ms(ms.into()))
    }

    pub fn sooner(self, other: Deadline) -> Deadline {
        match (self, other) {
            (Deadline::Never, d) | (d, Deadline::Never) => d,
            (Deadline::Now, _) | (_, Deadline::Now) => Deadline::Now,
            (Deadline::At(a), Deadline::At(b)) => Deadline::At(a.min(b)),
        }
    }

    /// The time left, or `None` if there is no limit.
    pub fn left(self) -> Option<Duration> {
        match self {
            Deadline::Never => None,
            Deadline::Now => Some(Duration::ZERO),
            Deadline::At(time) => Some(time.saturating_duration_since(Instant::now())),
        }
    }

    /// The time left in the form that system calls take, which wait without limit for `None`.
    pub fn timespec(self) -> Option<Timespec> {
        self.left().map(|left| Timespec {
            tv_sec: left.as_secs() as _,
            tv_nsec: left.subsec_nanos().into(),
        })
    }

    pub fn passed(self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    /// The error of a call whose deadline has passed.
    pub fn error(self) -> Error {
        match self {
            Deadline::Now => Error::Again,
            _ => Error::Timeout,
        }
    }
}
