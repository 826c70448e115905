//! Another text comes in force.

use std::sync::Arc;

use crate::emulation::direction::Direction;
use crate::emulation::loss::Loser;
use crate::emulation::pacer::{Exact, Pace};
use crate::emulation::random::Streams;
use crate::emulation::spec::Spec;
use crate::emulation::trace::{Course, Trace};

impl Direction {
    /// Puts a text in force, with the lines of its trace if it names one. A text without words removes what
    /// was there.
    ///
    /// What waits gets the new rate and the new delay; what is under way keeps its time. Where the new text
    /// has neither rate nor trace, what waits is sent now.
    pub fn set(&mut self, now: u64, mut spec: Spec, trace: Option<Arc<Trace>>) {
        self.advance(now);
        self.set_loss(&spec);
        if let Some(seed) = spec.seed {
            self.seed = seed;
            self.streams = Streams::new(seed, self.side);
            self.since_early = 0;
        } else if !spec.is_none() {
            spec.seed = Some(self.seed);
        }
        let bytes = spec.trace.as_ref().and_then(|trace| trace.bytes);
        let course = trace.map(|trace| Pace::Trace(Course::begin(trace, bytes, now)));
        let pace = spec.rate.clone().map(Pace::Rate).or(course);
        self.pacer.set(now, pace, spec.limit);
        self.spec = spec;
        self.only_loses = self.spec.only_loses();
        while !self.pacer.is_on() {
            let Some(waiting) = self.pacer.pop() else {
                break;
            };
            self.fly(&waiting, Exact::at(now), now);
        }
        self.advance(now);
    }

    /// What a loss depends on begins anew with a seed, or where frames are lost by another rule.
    fn set_loss(&mut self, spec: &Spec) {
        let new = spec.loss.as_ref().map(Loser::new);
        let goes_on = match (&self.loser, &new) {
            (Some(old), Some(new)) => spec.seed.is_none() && old.is_like(new),
            _ => false,
        };
        if !goes_on {
            self.loser = new;
        }
    }

    /// The connection has been plugged in: a trace begins anew.
    pub fn plug_in(&mut self, now: u64) {
        self.pacer.restart(now);
    }
}
