//! A set of descriptors on which one thread waits, each registered with a token.

use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::error::Result;
use crate::runtime::handle::NONE;
use crate::sys::descriptor::{Event, above_standard};

/// An epoll set, and an event that wakes the thread that waits on it.
pub struct Poller {
    pub epoll: OwnedFd,
    /// In the set under [`NONE`]. Raised to wake the thread.
    pub event: Event,
}

impl Poller {
    pub fn new() -> Result<Poller> {
        let epoll = above_standard(epoll::create(CreateFlags::CLOEXEC)?)?;
        let event = Event::new()?;
        epoll::add(&epoll, &event, EventData::new_u64(NONE), EventFlags::IN)?;
        Ok(Poller { epoll, event })
    }
}
