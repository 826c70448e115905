//! Frames that wait for a rate or a trace, and are sent one after another.

use std::collections::VecDeque;

use crate::emulation::flight::{Moment, shrink};
use crate::emulation::quantity::Limit;
use crate::emulation::spec::Rate;
use crate::emulation::store::Place;
use crate::emulation::trace::Course;

const NS_PER_S: u64 = 1_000_000_000;

/// How much may wait, unless a text says otherwise.
const LIMIT: Limit = Limit::Frames(1000);

/// What frames wait for.
pub enum Pace {
    Rate(Rate),
    Trace(Course),
}

/// A frame that waits.
pub struct Waiting {
    /// When it came, and the number that it took.
    pub came: Moment,
    pub place: Place,
    /// How many bytes it has, without its prefix.
    pub len: u32,
}

/// A time that need not be a whole number of nanoseconds: the rest is a fraction of the rate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Exact {
    pub ns: u64,
    part: u64,
}

impl Exact {
    pub fn at(ns: u64) -> Exact {
        Exact { ns, part: 0 }
    }

    /// The next whole nanosecond.
    pub fn whole(self) -> u64 {
        self.ns.saturating_add(u64::from(self.part > 0))
    }
}

#[derive(Default)]
pub struct Pacer {
    pace: Option<Pace>,
    limit: Option<Limit>,
    queue: VecDeque<Waiting>,
    /// How many bytes wait, and how many bits the rate takes for them.
    bytes: u64,
    bits: u64,
    /// When the last frame is sent whose sending has begun.
    free: Exact,
}

impl Pacer {
    /// Whether frames wait for anything at all.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.pace.is_some()
    }

    /// How many frames wait.
    #[inline]
    pub fn frames(&self) -> u64 {
        self.queue.len() as u64
    }

    /// Goes on with another pace. The frame whose sending has begun ends as it would have, and the next
    /// begins at a whole nanosecond, unless the rate is the same.
    pub fn set(&mut self, now: u64, pace: Option<Pace>, limit: Option<Limit>) {
        match (&self.pace, &pace) {
            (_, None) => self.free = Exact::default(),
            (Some(Pace::Rate(old)), Some(Pace::Rate(new)))
                if old.bits_per_second == new.bits_per_second => {}
            // What waited for a line of the trace has not been sent before the rate came.
            (Some(Pace::Trace(_)), Some(Pace::Rate(_))) => {
                self.free = Exact::at(self.free.whole().max(now));
            }
            _ => self.free = Exact::at(self.free.whole()),
        }
        (self.pace, self.limit) = (pace, limit);
        self.bits = self.queue.iter().map(|waiting| self.bits_of(waiting.len)).sum();
    }

    /// Begins a trace anew.
    pub fn restart(&mut self, now: u64) {
        if let Some(Pace::Trace(course)) = &mut self.pace {
            course.restart(now);
        }
    }

    /// Whether a frame may wait that comes now.
    pub fn fits(&self, now: u64, len: usize) -> bool {
        if self.queue.is_empty() && self.free <= Exact::at(now) {
            return true;
        }
        match self.limit.unwrap_or(LIMIT) {
            Limit::Frames(most) => self.frames() < most,
            Limit::Bytes(most) => self.bytes + len as u64 <= most,
            Limit::Time(most) => self.begins_within(now, most),
        }
    }

    /// Whether the sending of a frame that comes now begins within that time.
    fn begins_within(&self, now: u64, most: u64) -> bool {
        match &self.pace {
            None => true,
            Some(Pace::Rate(rate)) => {
                let rate = u128::from(rate.bits_per_second);
                let busy = u128::from(self.free.ns.saturating_sub(now)) * rate;
                let ahead = u128::from(self.bits) * u128::from(NS_PER_S);
                busy + u128::from(self.free.part) + ahead <= u128::from(most) * rate
            }
            Some(Pace::Trace(course)) => {
                let came = self.queue.front().map_or(now, |waiting| waiting.came.time);
                let start = course.start_behind(self.bytes, came, self.free.ns);
                start.saturating_sub(now) <= most
            }
        }
    }

    pub fn push(&mut self, waiting: Waiting) {
        self.bytes += u64::from(waiting.len);
        self.bits += self.bits_of(waiting.len);
        self.queue.push_back(waiting);
    }

    fn bits_of(&self, len: u32) -> u64 {
        match &self.pace {
            Some(Pace::Rate(rate)) => rate.bits(len as usize),
            _ => 0,
        }
    }

    /// Begins the sending of the first frame that waits, if its time has come. Returns it with the times
    /// when its sending begins and ends.
    pub fn begin(&mut self, now: u64) -> Option<(Waiting, Exact, u64)> {
        let first = self.queue.front()?;
        let start = self.start_of(first);
        if start > Exact::at(now) {
            return None;
        }
        let (came, len) = (first.came.time, first.len);
        let end = self.end_of(start, len);
        if let Some(Pace::Trace(course)) = &mut self.pace {
            course.send(len.into(), came, self.free.ns);
        }
        self.free = end;
        Some((self.pop()?, start, end.whole()))
    }

    /// The first frame that waits, and when its last bit will be sent.
    pub fn next(&self) -> Option<(&Waiting, u64)> {
        let first = self.queue.front()?;
        Some((first, self.end_of(self.start_of(first), first.len).whole()))
    }

    fn start_of(&self, waiting: &Waiting) -> Exact {
        let came = waiting.came.time;
        match &self.pace {
            Some(Pace::Trace(course)) => Exact::at(course.start_of(came, self.free.ns)),
            _ => self.free.max(Exact::at(came)),
        }
    }

    /// When the first frame that waits is sent, if its sending begins then.
    fn end_of(&self, start: Exact, len: u32) -> Exact {
        match &self.pace {
            None => start,
            Some(Pace::Rate(rate)) => {
                let part = start.part + rate.bits(len as usize) * NS_PER_S;
                let ns = start.ns.saturating_add(part / rate.bits_per_second);
                Exact { ns, part: part % rate.bits_per_second }
            }
            Some(Pace::Trace(course)) => {
                let came = self.queue.front().map_or(start.ns, |first| first.came.time);
                Exact::at(course.end_of(len.into(), came, self.free.ns))
            }
        }
    }

    /// Takes out the first frame that waits.
    pub fn pop(&mut self) -> Option<Waiting> {
        let first = self.queue.pop_front()?;
        self.bytes -= u64::from(first.len);
        self.bits -= self.bits_of(first.len);
        shrink(&mut self.queue);
        Some(first)
    }

    /// Lets go of all that waits or is being sent.
    pub fn clear(&mut self) {
        (self.queue, self.bytes, self.bits) = (VecDeque::new(), 0, 0);
        self.free = Exact::default();
    }
}
