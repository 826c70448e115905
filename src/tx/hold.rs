//! The times of what is held back.

use std::time::{Duration, Instant};

/// What is held back, and until when.
#[derive(Default)]
pub struct Hold {
    /// How long a send waits for others to join it (`QNET_OPT_TX_USECS`).
    pub time: Duration,
    /// When the last send came that joined no other. One that comes long after it goes out at once.
    pub last: Option<Instant>,
    /// When the service thread is to write what is held back, unless somebody has done so before.
    /// `None` while nothing is held back.
    pub due: Option<Instant>,
    /// The shortest time for which one of the frames may be held back, and so the most that `due` is
    /// away.
    within: Duration,
    /// When the service thread looks next, if it does; and whether anything was held back since it did.
    pub look: Option<Instant>,
    was_used: bool,
}

impl Hold {
    /// Whether a frame that may be held back for `time` joins those that are, and is due no sooner.
    #[inline]
    pub fn is_joined(&self, time: Duration) -> bool {
        self.due.is_some() && self.within <= time
    }

    /// Begins to hold back a frame that may be for `time`.
    pub fn begin(&mut self, time: Duration) {
        if self.is_joined(time) {
            return;
        }
        let due = Instant::now() + time;
        self.within = self.due.map_or(time, |_| time.min(self.within));
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        self.was_used = true;
    }

    /// The service thread has looked. Returns when it does next: also where nothing is held back, if
    /// something was since it looked before. A steady sender will soon hold back more, and waking the
    /// thread would cost it more than the thread's looking.
    pub fn next_look(&mut self, now: Instant) -> Option<Instant> {
        let was_used = std::mem::take(&mut self.was_used);
        self.look = self.due.or(was_used.then(|| now + self.within));
        self.look
    }
}
