//! What a hub's port handler is to be told, in order, and how far that is. Who tells it is in `served`.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use crate::conn::Conn;
use crate::runtime::callback::PortHandler;
use crate::runtime::event_loop::Loop;
use crate::runtime::handle::{Ref, Token};
use crate::runtime::wake::Wake;
use crate::sys::fork::PerProcess;

/// What a loop does for a hub that rests. It stands above the loops' turns, and is set by `served`.
static RESUME: PerProcess<OnceLock<fn(Token)>> = PerProcess::new();

pub fn set_resume(resume: fn(Token)) {
    RESUME.get().get_or_init(|| resume);
}

/// The turn of a hub, which has been refused a thread.
pub fn resume(hub: Token) {
    if let Some(resume) = RESUME.get().get() {
        resume(hub);
    }
}

/// Something that the handler is to be told.
#[derive(Clone, Copy)]
pub enum Notice {
    /// A peer has come, and is to be attached then.
    Came(Ref<Conn>),
    /// One has left of which the handler of that number was told.
    Left(Ref<Conn>, u64),
}

impl Notice {
    pub fn conn(self) -> Ref<Conn> {
        match self {
            Notice::Came(conn) | Notice::Left(conn, _) => conn,
        }
    }

    pub fn has_come(self) -> bool {
        matches!(self, Notice::Came(_))
    }
}

/// Of one hub, from when it is made until it is closed and all has been told.
#[derive(Default)]
pub struct Joining {
    pub hub: Token,
    /// What gives the hub its turns.
    pub runner: Option<&'static Loop>,
    pub handler: Option<PortHandler>,
    /// How many handlers were set, which is the number of the last.
    pub number: u64,
    notices: VecDeque<Notice>,
    /// What the handler is being told.
    pub call: Option<Notice>,
    /// Whether the handler has not returned from that.
    pub is_in_handler: bool,
    /// Whether the peer has left since it has.
    pub has_left: bool,
    /// How many peers there are of which a handler was told that they have come, and which have not left.
    pub present: usize,
    /// How many calls have begun, and the number of the handler of the last.
    pub calls: u64,
    pub called: u64,
    /// Whether there is a thread that calls the handler.
    pub has_thread: bool,
    pub is_closed: bool,
    /// Raised when a call, or the thread, is over.
    pub wake: Arc<Wake>,
}

impl Joining {
    pub fn of(hub: Token, runner: &'static Loop) -> Joining {
        Joining { hub, runner: Some(runner), ..Joining::default() }
    }

    pub fn is_by_hand(&self) -> bool {
        self.runner.is_some_and(Loop::is_by_hand)
    }

    pub fn set_handler(&mut self, handler: Option<PortHandler>) {
        self.handler = handler;
        self.number += 1;
    }

    /// Notes that a peer has come. Returns whether that is to be told.
    pub fn come(&mut self, conn: Ref<Conn>) -> bool {
        let is_told = self.handler.is_some() && !self.is_closed;
        if is_told {
            self.notices.push_back(Notice::Came(conn));
        }
        is_told
    }

    /// Notes that a connection has left of which a handler was told. Returns whether that one is to be told
    /// of this.
    ///
    /// One of which the handler is just being told that it has come is dealt with when that has returned, and
    /// is `None` until then: the handler may have plugged it in and out again.
    pub fn leave(&mut self, conn: Ref<Conn>, handler: u64) -> Option<bool> {
        if self.call.is_some_and(|call| call.conn().token == conn.token) {
            if self.is_in_handler {
                return None;
            }
            self.has_left = true;
        }
        self.present -= 1;
        let is_told = self.handler.is_some() && self.number == handler;
        if is_told {
            self.notices.push_back(Notice::Left(conn, handler));
        }
        Some(is_told)
    }

    pub fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    /// The next notice, and whom to tell, if anybody. Where there is somebody, the call has begun.
    pub fn next(&mut self) -> Option<(Notice, Option<PortHandler>)> {
        let notice = self.notices.pop_front()?;
        let is_for_it = match notice {
            Notice::Came(_) => true,
            Notice::Left(_, handler) => handler == self.number,
        };
        let handler = self.handler.filter(|_| is_for_it);
        if handler.is_some() {
            (self.call, self.is_in_handler, self.has_left) = (Some(notice), true, false);
            self.present += usize::from(notice.has_come());
            self.calls += 1;
            self.called = self.number;
        }
        Some((notice, handler))
    }

    /// Takes no more peers. Returns those of which the handler has not been told.
    pub fn close(&mut self) -> Vec<Ref<Conn>> {
        self.is_closed = true;
        let came = self.notices.iter().filter(|notice| notice.has_come());
        let untold = came.map(|notice| notice.conn()).collect();
        self.notices.retain(|notice| !notice.has_come());
        untold
    }

    /// Whether nothing is told, nor ever will be unless a peer comes.
    pub fn is_idle(&self) -> bool {
        self.call.is_none() && self.present == 0 && self.notices.is_empty() && !self.has_thread
    }
}
