//! The times of what is held back. Those that are compared with every frame are in nanoseconds.

use std::time::{Duration, Instant};

/// What is held back, and until when.
pub struct Hold {
    /// How long a send waits for others to join it (`QNET_OPT_TX_USECS`).
    pub time: u64,
    /// When the last send came that joined no other. One that comes long after it goes out at once.
    pub last: Option<Instant>,
    /// When the service thread is to write what is held back, unless somebody has done so before.
    /// `None` while nothing is held back.
    pub due: Option<Instant>,
    /// The shortest time for which one of the frames may be held back, and so the most that `due` is
    /// away. `u64::MAX` while nothing is held back.
    within: u64,
    /// The thread that last held back something because its sends are corked, as `sys::thread` numbers
    /// it; 0 for none. As long as something is held back, this connection is on that thread's list.
    pub corker: usize,
    /// When the service thread looks next, if it does; and `within` of what was held back since it did.
    pub look: Option<Instant>,
    used: Option<u64>,
}

impl Default for Hold {
    fn default() -> Hold {
        let (time, within, corker) = (0, u64::MAX, 0);
        Hold { time, last: None, due: None, within, corker, look: None, used: None }
    }
}

impl Hold {
    /// Whether a frame that may be held back for `time` joins those that are, and is due no sooner.
    #[inline]
    pub fn is_joined(&self, time: u64) -> bool {
        self.within <= time
    }

    /// Begins to hold back a frame that may be for `time`, and that the thread `corker` corks, if any does.
    pub fn begin(&mut self, time: u64, corker: usize) {
        if corker != 0 {
            self.corker = corker;
        }
        if self.is_joined(time) {
            return;
        }
        let due = Instant::now() + Duration::from_nanos(time);
        self.within = time;
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        self.used = Some(time);
    }

    /// Has the service thread look once more than it would, after that time.
    pub fn look_again(&mut self, time: u64) {
        self.used = Some(time);
    }

    /// Ends holding back.
    pub fn end(&mut self) {
        (self.due, self.within, self.corker) = (None, u64::MAX, 0);
    }

    /// The service thread has looked. Returns when it does next: also where nothing is held back, if
    /// something was since it looked before. A steady sender will soon hold back more, and waking the
    /// thread would cost it more than the thread's looking.
    pub fn next_look(&mut self, now: Instant) -> Option<Instant> {
        let used = self.used.take();
        self.look = self.due.or(used.map(|within| now + Duration::from_nanos(within)));
        self.look
    }
}
