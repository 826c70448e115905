//! Descriptors that the library opens for itself.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::retry_on_intr;

use crate::error::Result;
use crate::runtime::handle::NONE;

/// Keeps what was opened away from 0 to 2: a host that has closed those, as daemons do, would print
/// its messages into a network, or read a wake-up away.
pub fn above_standard(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(fd);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, libc::STDERR_FILENO + 1)?)
}

/// What is readable while it is raised.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    pub fn new() -> Result<Event> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Event(above_standard(fd)?))
    }

    /// Returns whether it was raised: it is not only where it is raised beyond measure.
    pub fn raise(&self) -> bool {
        retry_on_intr(|| rustix::io::write(&self.0, &1u64.to_ne_bytes())).is_ok()
    }

    /// Returns whether it was raised until now.
    pub fn lower(&self) -> bool {
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a thread waits on that serves many: a set of descriptors, each under a token.
pub struct Poller {
    pub epoll: OwnedFd,
    /// In the set, under [`NONE`]: there is something else to see.
    pub event: Event,
}

impl Poller {
    pub fn new() -> Result<Poller> {
        let epoll = above_standard(epoll::create(CreateFlags::CLOEXEC)?)?;
        let event = Event::new()?;
        epoll::add(&epoll, &event, EventData::new_u64(NONE), EventFlags::IN)?;
        Ok(Poller { epoll, event })
    }

    pub fn wake(&self) {
        self.event.raise();
    }
}
