//! What a connection that is dialled again needs for that, as data. Going down and coming up is in `down`,
//! what the thread that dials does in `redial`, and the state handler in `carrier`.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::net::address::{Address, Target};
use crate::net::socket::Socket;
use crate::runtime::callback::IntHandler;
use crate::runtime::event_loop::LoopUser;
use crate::runtime::poller::Poller;

/// What a connection that was dialled needs to be dialled again.
pub struct Redial {
    pub target: Arc<Target>,
    /// Present from when the connection was first to be dialled again until the handle is gone.
    pub reserve: Option<Reserve>,
    pub given: Given,
    pub carrier: Carrier,
    /// Present while the connection is down.
    pub down: Option<Down>,
    pub next: Next,
    /// Present while the thread that dials has something to do for it.
    pub user: Option<LoopUser>,
    /// How often it has come up.
    pub reconnects: u64,
}

/// What going down takes. It is made beforehand, since there may be no descriptor left then.
pub struct Reserve {
    /// Its socket while it is down.
    pub absent: Arc<Socket>,
    /// What the thread that dials waits on.
    pub _poller: Arc<Poller>,
}

impl Reserve {
    pub fn new(peer: Address, poller: Arc<Poller>) -> Result<Reserve> {
        Ok(Reserve { absent: Arc::new(Socket::absent(peer)?), _poller: poller })
    }
}

pub struct Down {
    pub reason: Error,
    /// When the connection went down, or was last dialled in vain.
    pub since: Instant,
}

/// Which descriptor the caller knows.
pub enum Given {
    None,
    Socket,
    /// An epoll descriptor, in which the socket is.
    Follow(OwnedFd),
}

/// What is done next for the connection.
pub enum Next {
    TellDown,
    Dial,
    TellUp,
    /// Nothing, unless the connection has gone down again.
    Look,
}

impl Redial {
    pub fn of(target: Target) -> Redial {
        Redial {
            target: Arc::new(target),
            reserve: None,
            given: Given::None,
            carrier: Carrier::default(),
            down: None,
            next: Next::Look,
            user: None,
            reconnects: 0,
        }
    }

    /// Gives up what the handle stood for. Returns the socket for while the connection is down.
    pub fn close(&mut self) -> Option<Arc<Socket>> {
        self.given = Given::None;
        self.reserve.take().map(|reserve| reserve.absent)
    }
}

/// The state handler, and how far the call of it is.
#[derive(Default)]
pub struct Carrier {
    pub handler: Option<IntHandler>,
    /// Whether the handler was set after the last call had begun, and how often one has begun.
    pub is_handler_new: bool,
    pub calls: u64,
    pub teller: Teller,
}

/// How far the thread is that makes a call.
#[derive(Default, PartialEq, Eq)]
pub enum Teller {
    #[default]
    None,
    Starting,
    Calling,
}

impl Carrier {
    /// Whether the handler is running.
    pub fn is_telling(&self) -> bool {
        self.teller == Teller::Calling
    }

    /// Whether it is running or about to. The thread that dials gets a turn when it is not any more.
    pub fn is_busy(&self) -> bool {
        self.teller != Teller::None
    }
}
