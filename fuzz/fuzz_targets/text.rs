//! The texts that impair: what is understood prints as a text that is understood alike, and every frame
//! that comes in under it is counted by what became of it.
//!
//! An input is a text, up to the first NUL, and operations: see [`Bench::operate`].

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use qnet::emulation::direction::Direction;
use qnet::emulation::direction::enter::Verdict;
use qnet::emulation::flight::Moment;
use qnet::emulation::random::Side;
use qnet::emulation::spec::Spec;
use qnet::emulation::trace::Trace;
use qnet_fuzz::{FRAME_MAX, FRAME_MIN, Input, decode, push_frame};

/// What stands in for the file of every trace.
const TRACE: &[u8] = b"1\n1\n3\n8\n";

/// How many bytes one input holds up at most.
const HELD: u64 = 8 << 20;

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (text, rest) = data.split_at(end);
    let Ok(spec) = Spec::parse(text) else {
        return;
    };
    let printed = spec.print();
    let again = Spec::parse(&printed).expect("it was printed");
    assert!(again == spec && again.print() == printed);
    let mut bench = Bench::new(spec);
    let mut input = Input(rest.strip_prefix(&[0]).unwrap_or_default());
    while bench.operate(&mut input).is_some() {
        bench.check();
    }
    bench.end();
});

/// A direction, and what has passed it.
struct Bench {
    direction: Direction,
    spec: Spec,
    now: u64,
    number: u64,
    /// The number that tells frames apart.
    tag: usize,
    frames: u64,
    bytes: u64,
}

impl Bench {
    fn new(spec: Spec) -> Bench {
        let direction = Direction::new(Side::Out, 1);
        let mut bench = Bench { direction, spec, now: 0, number: 0, tag: 0, frames: 0, bytes: 0 };
        bench.set(bench.spec.clone());
        bench
    }

    fn set(&mut self, spec: Spec) {
        let trace = spec.trace.as_ref().map(|_| Arc::new(Trace::parse(TRACE).expect("a trace")));
        self.direction.set(self.now, spec, trace);
    }

    /// Does the next operation of the input.
    fn operate(&mut self, input: &mut Input) -> Option<()> {
        let (operation, n) = input.operation()?;
        match operation {
            0..=2 => {
                let len = (input.number() % (1 << (n % 17))).clamp(FRAME_MIN, FRAME_MAX);
                self.enter(len, 1 + n / 17 * 9);
            }
            // Time goes on, by up to 70 s.
            3 => self.now += (input.number() as u64) << (n % 21),
            4 => self.leave(until(self.now), n % 2 == 1),
            // What is due first.
            5 => self.leave_first(),
            6 => self.set(if n % 2 == 1 { Spec::default() } else { self.spec.clone() }),
            _ if n == 0 => self.direction.discard(),
            _ => {
                self.leave(until(self.now), false);
                self.direction.plug_in(self.now);
            }
        }
        Some(())
    }

    /// Has frames of one length come in, together where they may.
    fn enter(&mut self, len: usize, count: usize) {
        let (mut wire, room, now) = (Vec::new(), HELD, self.now);
        for _ in 0..count {
            self.tag += 1;
            push_frame(&mut wire, &[], len, self.tag);
        }
        let (direction, number) = (&mut self.direction, &mut self.number);
        let mut passed = 0;
        if direction.treats_alike() {
            let verdict = direction.enter_run(now, &wire, count, room, number);
            passed = if verdict == Verdict::Passes { count } else { 0 };
        } else {
            for frame in decode(&wire).frames {
                let verdict = direction.enter(now, frame, room, number);
                passed += usize::from(verdict == Verdict::Passes);
            }
        }
        self.frames += passed as u64;
        self.bytes += (passed * len) as u64;
    }

    fn leave(&mut self, end: Moment, together: bool) {
        let (frames, bytes) = (&mut self.frames, &mut self.bytes);
        let mut last = None;
        self.direction.leave(end, together, |leaving| {
            let decoded = decode(leaving.wire);
            assert!(decoded.rest.is_empty() && decoded.frames.len() == leaving.frames);
            assert!(leaving.due < end && last.is_none_or(|last| last < leaving.due));
            last = Some(leaving.due);
            *frames += leaving.frames as u64;
            *bytes += decoded.frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
            true
        });
    }

    /// Nothing leaves before the next thing happens, of which the time has been told.
    fn leave_first(&mut self) {
        if let Some(next) = self.direction.next() {
            let before = self.frames;
            self.leave(next, true);
            assert_eq!(self.frames, before);
            self.now = self.now.max(next.time);
            self.leave(Moment { number: next.number + 1, ..next }, false);
        }
    }

    fn check(&mut self) {
        let counts = self.direction.counts(self.now);
        let gone = counts.lost + counts.dropped + counts.discarded;
        let held = counts.waiting + counts.flying;
        assert_eq!(counts.frames + counts.duplicated, gone + counts.passed + held);
        assert_eq!((counts.passed, counts.passed_bytes), (self.frames, self.bytes));
        assert_eq!(counts.held_bytes, self.direction.held_bytes());
        assert_eq!(counts.held_bytes == 0, held == 0);
        assert!(counts.held_bytes <= HELD && counts.bypassed + counts.reordered <= counts.passed);
        assert!(counts.lost + counts.bypassed <= counts.frames);
        assert_eq!(self.direction.next().is_none(), held == 0);
    }

    /// In the end nothing is held.
    fn end(&mut self) {
        self.now = u64::MAX;
        self.leave(until(u64::MAX), true);
        self.check();
        let counts = self.direction.counts(self.now);
        assert_eq!((counts.waiting, counts.flying), (0, 0));
    }
}

fn until(time: u64) -> Moment {
    Moment { time, number: u64::MAX }
}
