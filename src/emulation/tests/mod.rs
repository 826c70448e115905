//! Tests of a whole direction, and what they share.

mod changes;
mod counting;
mod ecn;
mod memory;
mod model;
mod packets;
mod parsing;
mod programs;
mod speed;
mod statistics;
mod traces;
mod vectors;

use std::sync::Arc;

use crate::emulation::direction::enter::Verdict;
use crate::emulation::direction::{Counts, Direction};
use crate::emulation::flight::Moment;
use crate::emulation::random::Side;
use crate::emulation::spec::Spec;
use crate::emulation::trace::Trace;
use crate::frame::Walk;

pub const MS: u64 = 1_000_000;

/// The end of everything.
pub const FOR_EVER: u64 = 1 << 62;

/// All that happens until `time`, that time included.
pub fn until(time: u64) -> Moment {
    Moment { time, number: u64::MAX }
}

pub fn spec(text: &str) -> Spec {
    Spec::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The frame with that number, which can be read from it, as the model makes it.
pub fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x88, 0xb5];
    frame.extend(number.to_be_bytes());
    frame.resize(len, 0);
    frame
}

/// A direction, and what has left it.
pub struct Lab {
    pub direction: Direction,
    pub number: u64,
    pub room: u64,
    /// When each frame left, and its bytes.
    pub left: Vec<(u64, Vec<u8>)>,
}

impl Lab {
    pub fn new(text: &str) -> Lab {
        Lab::of(Side::Out, text)
    }

    pub fn of(side: Side, text: &str) -> Lab {
        let mut direction = Direction::new(side, 0);
        direction.set(0, spec(text), None);
        Lab { direction, number: 0, room: u64::MAX, left: Vec::new() }
    }

    pub fn tracing(text: &str, lines: &str) -> Lab {
        let mut lab = Lab::new("");
        lab.trace(0, text, lines);
        lab
    }

    pub fn trace(&mut self, now: u64, text: &str, lines: &str) {
        self.run(now);
        let trace = Trace::parse(lines.as_bytes()).unwrap();
        self.direction.set(now, spec(text), Some(Arc::new(trace)));
    }

    pub fn set(&mut self, now: u64, text: &str) {
        self.run(now);
        self.direction.set(now, spec(text), None);
    }

    /// Has a frame come in behind all that was due.
    pub fn enter(&mut self, now: u64, frame: &[u8]) {
        self.run(now);
        self.enter_early(now, frame);
    }

    /// Has a frame come in without looking at what is due.
    pub fn enter_early(&mut self, now: u64, frame: &[u8]) {
        let verdict = self.direction.enter(now, frame, self.room, &mut self.number);
        if verdict == Verdict::Passes {
            self.left.push((now, frame.to_vec()));
        }
    }

    pub fn run(&mut self, now: u64) {
        let left = &mut self.left;
        self.direction.leave(until(now), false, |leaving| {
            left.extend(Walk::over(leaving.wire).map(|frame| (leaving.due.time, frame.to_vec())));
            true
        });
    }

    /// The number of each frame that has left, and when it did.
    pub fn times(&self) -> Vec<(u32, u64)> {
        let number = |frame: &[u8]| u32::from_be_bytes(*frame[14..].first_chunk().unwrap());
        self.left.iter().map(|(time, frame)| (number(frame), *time)).collect()
    }

    pub fn numbers(&self) -> Vec<u32> {
        self.times().iter().map(|(number, _)| *number).collect()
    }

    pub fn counts(&mut self) -> Counts {
        self.direction.counts(0)
    }
}
