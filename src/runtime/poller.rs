//! A set of descriptors that one thread waits on, each under a token.

use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::error::Result;
use crate::runtime::handle::NONE;
use crate::sys::descriptor::{Event, above_standard};

/// What a thread waits on that serves many.
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
