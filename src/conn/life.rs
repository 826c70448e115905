//! A connection's life: the states that it goes through, and who moves it from one to the next.
//!
//! | handle | stands for | left by |
//! |---|---|---|
//! | None | a free slot | `begin`: who opens a connection |
//! | Live | what calls reach | `begin_closing`: who closes, or gives back what is the library's |
//! | Closing | the same; a second close is refused | `give_up`: who releases it |
//! | Gone | what is left of it: a thread of the library's | the last thread to leave, which frees the slot |
//!
//! | stage | the connection | left by |
//! |---|---|---|
//! | Open | sends and receives, or is down and dialled again | `end`: who meets the end, or makes it |
//! | Waiting | has ended; nobody has begun to call its close handler | `take_over`, `defer` or `done` |
//! | Due | has ended; its own thread is to call the close handler, or whoever asks if there is none | `take_over` or `done` |
//! | OnOwn, OnCallers | has ended; that thread is calling the close handler | `done`, by that thread, even if it dies |
//! | Done | has ended, and its close handler has returned, or there was none | nobody |

use crate::error::Error;

#[derive(Default)]
pub struct Life {
    handle: Handle,
    stage: Stage,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Handle {
    #[default]
    None,
    Live,
    Closing,
    Gone,
}

#[derive(Default)]
enum Stage {
    #[default]
    Open,
    Ended {
        /// Boxed, since most connections have not ended.
        reason: Box<Error>,
        handler: Call,
    },
}

/// How far the call of the close handler is, whether one is set or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Waiting,
    Due,
    OnOwn,
    OnCallers,
    Done,
}

/// The handle.
impl Life {
    /// Begins the life of a connection in a free slot.
    pub fn begin(&mut self) {
        *self = Life { handle: Handle::Live, stage: Stage::Open };
    }

    /// Begins to close the connection. Returns whether nobody else has.
    pub fn begin_closing(&mut self) -> bool {
        let is_first = self.handle == Handle::Live;
        if is_first {
            self.handle = Handle::Closing;
        }
        is_first
    }

    /// Ends the handle.
    pub fn give_up(&mut self) {
        self.handle = Handle::Gone;
    }

    /// Whether calls reach the connection.
    pub fn has_handle(&self) -> bool {
        matches!(self.handle, Handle::Live | Handle::Closing)
    }

    pub fn is_closing(&self) -> bool {
        self.handle == Handle::Closing
    }

    /// Whether the handle is gone and the slot is not yet free.
    pub fn is_gone(&self) -> bool {
        self.handle == Handle::Gone
    }
}

/// The end, and the call of the close handler.
impl Life {
    /// Marks the connection as ended. If it already had, only the reason changes.
    pub fn end(&mut self, with: Error) {
        match &mut self.stage {
            Stage::Open => {
                self.stage = Stage::Ended { reason: Box::new(with), handler: Call::Waiting };
            }
            Stage::Ended { reason, .. } => **reason = with,
        }
    }

    /// How the connection ended, once that has been reported or this side has ended it.
    pub fn end_reason(&self) -> Option<&Error> {
        match &self.stage {
            Stage::Open => None,
            Stage::Ended { reason, .. } => Some(reason),
        }
    }

    pub fn has_ended(&self) -> bool {
        self.call().is_some()
    }

    /// How far the close handler is; `None` while the connection has not ended.
    pub fn call(&self) -> Option<Call> {
        match &self.stage {
            Stage::Open => None,
            Stage::Ended { handler, .. } => Some(*handler),
        }
    }

    /// Whether nobody has begun to call the close handler of an ended connection.
    pub fn awaits_call(&self) -> bool {
        matches!(self.call(), Some(Call::Waiting | Call::Due))
    }

    /// Leaves the close handler to the connection's own thread, which may have yet to be started.
    pub fn defer(&mut self) {
        self.set_call(Call::Due);
    }

    /// Gives the call of the close handler to the thread that asks, which is the connection's own or a
    /// caller's.
    pub fn take_over(&mut self, on: Call) {
        self.set_call(on);
    }

    /// Notes that the close handler has returned, or has ended its thread, or that there is none.
    pub fn done(&mut self) {
        self.set_call(Call::Done);
    }

    fn set_call(&mut self, call: Call) {
        if let Stage::Ended { handler, .. } = &mut self.stage {
            *handler = call;
        }
    }
}
