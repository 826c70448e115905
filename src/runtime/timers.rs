//! Timers: when each token is due.

use std::collections::{BTreeMap, BTreeSet};

use crate::runtime::handle::Token;

/// A queue with at most one time for each token.
pub struct Timers<T> {
    times: BTreeMap<Token, T>,
    queue: BTreeSet<(T, Token)>,
}

impl<T> Default for Timers<T> {
    fn default() -> Timers<T> {
        Timers { times: BTreeMap::new(), queue: BTreeSet::new() }
    }
}

impl<T: Ord + Copy> Timers<T> {
    /// Sets when a token is due, replacing its previous time. `None` removes it.
    pub fn set(&mut self, token: Token, time: Option<T>) {
        let before = match time {
            Some(time) => self.times.insert(token, time),
            None => self.times.remove(&token),
        };
        if let Some(before) = before {
            self.queue.remove(&(before, token));
        }
        self.queue.extend(time.map(|time| (time, token)));
    }

    /// Sets when a token is due, unless it is due sooner already.
    pub fn set_soonest(&mut self, token: Token, time: T) {
        if self.times.get(&token).is_none_or(|before| time < *before) {
            self.set(token, Some(time));
        }
    }

    /// When the first token is due.
    pub fn next(&self) -> Option<T> {
        self.queue.first().map(|(time, _)| *time)
    }

    /// Removes and returns the first token, if it is due.
    pub fn pop_due(&mut self, now: T) -> Option<Token> {
        let (_, token) = *self.queue.first().filter(|(time, _)| *time <= now)?;
        self.set(token, None);
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn each_token_is_due_once_at_its_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        timers.set(1, Some(at(3)));
        timers.set(2, Some(at(1)));
        timers.set(3, Some(at(2)));
        timers.set(3, None);
        timers.set_soonest(1, at(2));
        timers.set_soonest(2, at(4));
        assert_eq!(timers.next(), Some(at(1)));
        let mut due = |now| std::iter::from_fn(|| timers.pop_due(now)).collect::<Vec<_>>();
        assert_eq!(due(at(0)), []);
        assert_eq!(due(at(2)), [2, 1]);
        assert_eq!(due(at(9)), []);
        assert_eq!(timers.next(), None);
    }
}
