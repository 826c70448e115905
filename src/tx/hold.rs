//! Holding frames back for a time, for others to join them.

use std::time::{Duration, Instant};

/// Holding sends back for a time.
#[derive(Default)]
pub struct Hold {
    /// How long others may join (`QNET_OPT_TX_USECS`).
    pub time: Duration,
    /// When the last send came that began to be held, or was alone: one that comes long after it is
    /// alone, and goes at once.
    pub last: Option<Instant>,
    /// When what is held is to be written by the service thread, if nobody does it before.
    pub due: Option<Instant>,
    /// The shortest time that a frame of what is held may be, and so the longest that `due` is away.
    pub within: Duration,
    /// When the service thread looks next, if it does; and whether anything was held since it did.
    pub look: Option<Instant>,
    pub was_used: bool,
}

impl Hold {
    /// Whether a frame that may be held for `time` may join what is held, and changes nothing.
    #[inline]
    pub fn is_joined(&self, time: Duration) -> bool {
        self.due.is_some() && self.within <= time
    }

    /// A frame is held that may be for `time`.
    pub fn begin(&mut self, time: Duration) {
        if self.is_joined(time) {
            return;
        }
        let due = Instant::now() + time;
        self.within = self.due.map_or(time, |_| time.min(self.within));
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        self.was_used = true;
    }

    /// The service thread has looked: when it does so next. A steady sender will soon have something
    /// held, and to wake the thread costs it more than the thread's looking.
    pub fn next_look(&mut self, now: Instant) -> Option<Instant> {
        let was_used = std::mem::take(&mut self.was_used);
        self.look = self.due.or(was_used.then(|| now + self.within));
        self.look
    }
}

/// What became of a frame that might be held back.
pub enum Held {
    Taken,
    /// It is to be sent at once.
    Not,
    /// The socket does not even take what came before it.
    Full,
}
