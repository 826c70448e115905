//! A loop without a thread: the program gives the turns, and moves the clock by which they are due.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::runtime::event_loop::{ByHand, Due, Loop, Seats, Source};
use crate::runtime::handle::{NONE, Token};
use crate::runtime::lock::lock;
use crate::sys::clock;

impl Seats {
    pub(super) fn look(&mut self, token: Token) {
        if self.is_looked_at.insert(token) {
            self.looks.push_back(token);
        }
    }
}

/// What goes by the loop's clock.
impl Loop {
    /// A loop whose turns the program gives.
    pub fn by_hand() -> Loop {
        let by_hand =
            ByHand { time: AtomicU64::new(0), begun: Instant::now(), seats: Mutex::default() };
        Loop { source: Source::Program(by_hand), shared: Mutex::default() }
    }

    #[inline]
    pub fn is_by_hand(&self) -> bool {
        matches!(self.source, Source::Program(_))
    }

    /// Whether the two go by one clock.
    pub fn shares_clock(&self, other: &Loop) -> bool {
        std::ptr::eq(self, other) || !self.is_by_hand() && !other.is_by_hand()
    }

    /// What time it is for what is under way, in nanoseconds.
    pub fn time(&self) -> u64 {
        match &self.source {
            Source::Thread { .. } => clock::nanoseconds(),
            Source::Program(by_hand) => by_hand.time.load(Ordering::Relaxed),
        }
    }

    /// The same as an instant.
    pub fn now(&self) -> Instant {
        match &self.source {
            Source::Thread { .. } => Instant::now(),
            Source::Program(by_hand) => by_hand.begun + Duration::from_nanos(self.time()),
        }
    }

    pub(super) fn seat(&self, token: Token) {
        match &self.source {
            Source::Program(by_hand) if token != NONE => {
                lock(&by_hand.seats).members.push(token);
            }
            _ => {}
        }
    }

    pub(super) fn unseat(&self, token: Token) {
        if let Source::Program(by_hand) = &self.source {
            let members = &mut lock(&by_hand.seats).members;
            // One that has come again since has its place behind this one.
            if let Some(at) = members.iter().position(|member| *member == token) {
                members.remove(at);
            }
        }
    }
}

/// For who gives the turns of a loop without a thread.
impl Loop {
    /// Has the clock show another time.
    pub fn move_to(&self, time: u64) {
        if let Source::Program(by_hand) = &self.source {
            by_hand.time.store(time, Ordering::Relaxed);
        }
    }

    /// Forgets what was left for tokens, of which none has a seat.
    pub fn start_over(&self) {
        self.move_to(0);
        while self.pop_rested().or_else(|| self.pop_look()).is_some() {}
    }

    pub fn is_used(&self) -> bool {
        lock(&self.shared).users > 0
    }

    /// Has all members looked at, in the order in which they came, and then those that rest.
    pub fn look_at_all(&self) {
        let Source::Program(by_hand) = &self.source else {
            return;
        };
        let mut seats = lock(&by_hand.seats);
        // What was to be looked at comes in its place.
        seats.looks.clear();
        let left = std::mem::take(&mut seats.is_looked_at);
        seats.members.clone().into_iter().chain(left).for_each(|token| seats.look(token));
        drop(seats);
        std::iter::from_fn(|| self.pop_rested()).for_each(|token| self.look(token));
    }

    /// The next token that is to have a turn now.
    pub fn pop_look(&self) -> Option<Token> {
        let Source::Program(by_hand) = &self.source else {
            return None;
        };
        let mut seats = lock(&by_hand.seats);
        let token = seats.looks.pop_front()?;
        seats.is_looked_at.remove(&token);
        Some(token)
    }

    /// A token that rests.
    fn pop_rested(&self) -> Option<Token> {
        let timers = &mut lock(&self.shared).timers;
        timers.next().and_then(|time| timers.pop_due(time))
    }

    /// When something is due next.
    pub fn next_alarm(&self) -> Option<Due> {
        lock(&self.shared).alarms.next()
    }

    /// The token that is due first, if it is by that time, and when.
    pub fn pop_alarm(&self, until: u64) -> Option<(Due, Token)> {
        let alarms = &mut lock(&self.shared).alarms;
        let due = alarms.next().filter(|(time, _)| *time <= until)?;
        alarms.pop_due(due).map(|token| (due, token))
    }
}
